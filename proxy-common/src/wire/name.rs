use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Longest namespace, service or port name in bytes: a DNS label (RFC 1123).
pub const NAME_LEN: usize = 63;

/// Value of `NAMES` (HASH without preallocation, key = service id as u32, 0 is never used): the name behind an id,
/// so that what is in the kernel can be shown and adopted without the agent that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ServiceName {
    pub namespace: [u8; NAME_LEN + 1],
    pub name: [u8; NAME_LEN + 1],
    /// Empty for the unnamed port of a service.
    pub port: [u8; NAME_LEN + 1],
    pub protocol: u8,
    /// 0 = random, 1 = maglev.
    pub algorithm: u8,
    pub pad: [u8; 2],
}

impl ServiceName {
    /// The text up to the first zero byte; what is not UTF-8 is shown as empty.
    pub fn text(field: &[u8; NAME_LEN + 1]) -> &str {
        let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
        core::str::from_utf8(&field[..end]).unwrap_or_default()
    }

    /// `None` where the text is too long for the field.
    pub fn field(text: &str) -> Option<[u8; NAME_LEN + 1]> {
        let mut field = [0; NAME_LEN + 1];
        field.get_mut(..text.len()).filter(|_| text.len() <= NAME_LEN)?.copy_from_slice(text.as_bytes());
        Some(field)
    }
}
