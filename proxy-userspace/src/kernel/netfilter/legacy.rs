use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use zerocopy::IntoBytes as _;

use super::legacy_table::{Info, LegacyTable};
use super::{FastPath, Onlooker};
use crate::model::Family;

/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`, which ip6tables shares.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;

/// How often a table that is replaced while it is read is read again.
const ATTEMPTS: usize = 8;

/// Who looks by the older iptables. Only tables that exist are asked for: the kernel makes those that are asked for.
///
/// # Errors
/// The kernel's.
pub fn look() -> io::Result<FastPath> {
    let mut path = FastPath::OPEN;
    for family in Family::ALL {
        for name in names(family)?.lines() {
            if let Some(onlooker) = onlooker(family, name)? {
                path.add(&[family], &onlooker);
                break;
            }
        }
    }
    Ok(path)
}

/// The tables of this network namespace, a line each.
fn names(family: Family) -> io::Result<String> {
    let path = Path::new("/proc/thread-self/net").join(match family {
        Family::V4 => "ip_tables_names",
        Family::V6 => "ip6_tables_names",
    });
    match fs::read_to_string(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        result => result,
    }
}

/// Who looks in one table. `None` as well where the table has gone.
fn onlooker(family: Family, name: &str) -> io::Result<Option<Onlooker>> {
    let mut result = Err(io::ErrorKind::InvalidData.into());
    for _ in 0..ATTEMPTS {
        result = read(family, name);
        match &result {
            // Between the two questions the table got another size.
            Err(cause) if cause.raw_os_error() == Some(libc::EAGAIN) => {}
            Err(cause) if cause.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            _ => break,
        }
    }
    result
}

fn read(family: Family, name: &str) -> io::Result<Option<Onlooker>> {
    let Some(mut info) = Info::request(name) else { return Err(io::ErrorKind::InvalidData.into()) };
    let (address_family, level) = match family {
        Family::V4 => (AddressFamily::Inet, libc::IPPROTO_IP),
        Family::V6 => (AddressFamily::Inet6, libc::IPPROTO_IPV6),
    };
    // Any socket of the family will do.
    let socket = socket(address_family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    option(&socket, level, GET_INFO, info.as_mut_bytes())?;
    let table = LegacyTable { family, name, info: &info };
    if let Some(onlooker) = table.chain_with_rules() {
        return Ok(Some(onlooker));
    }
    // struct ipt_get_entries: name, size, and the entries at the next multiple of 8.
    const HEADER: usize = 40;
    let mut answer = vec![0; HEADER + info.size as usize];
    answer[..Info::NAME].copy_from_slice(&info.name);
    answer[Info::NAME..Info::NAME + 4].copy_from_slice(&info.size.to_ne_bytes());
    option(&socket, level, GET_ENTRIES, &mut answer)?;
    Ok(table.chain_with_policy(&answer[HEADER..]))
}

/// getsockopt(2) with a buffer that holds the question and gets the answer.
fn option(socket: &impl AsFd, level: libc::c_int, name: libc::c_int, buffer: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(buffer.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads and writes at most `length` bytes, and the buffer is as long.
    let result = unsafe { libc::getsockopt(descriptor, level, name, buffer.as_mut_ptr().cast(), &raw mut length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
