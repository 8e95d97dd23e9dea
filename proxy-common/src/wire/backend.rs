use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Address;

/// One row of `BACKENDS` (ARRAY, memory-mapped; index = backend id, 0 is never used): an endpoint of a service port.
///
/// A row is written whole before any slot names its id. While it is named only `flags` and `generation` change,
/// each in one aligned 4-byte store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Backend {
    pub address: Address,
    /// Network order.
    pub port: u16,
    pub protocol: u8,
    pub pad: u8,
    /// Bits of [`BackendFlags`].
    pub flags: u32,
    /// Raised when the id gets another endpoint or the endpoint stops serving; flows remember the one they saw.
    pub generation: u32,
    /// The service port that owns the row: lets a reader notice a slot that was reused under it.
    pub service: u32,
}

const _: () = assert!(size_of::<Backend>() == 32);

impl Backend {
    /// Whether it is still what a flow of a service port was given in `generation`, and serves.
    #[inline(always)]
    pub const fn still_serves(&self, service: u32, generation: u32) -> bool {
        self.service == service && self.generation == generation && self.flags & BackendFlags::SERVING != 0
    }
}

/// Bits of [`Backend::flags`].
pub struct BackendFlags;

impl BackendFlags {
    /// Runs on this node.
    pub const LOCAL: u32 = 1;
    /// May keep its UDP flows: ready, or terminating and still serving. Cleared when the endpoint is gone.
    pub const SERVING: u32 = 2;
}
