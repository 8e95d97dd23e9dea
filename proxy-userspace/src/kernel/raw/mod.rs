//! The bpf(2) commands that aya 0.14 has no call for. Nothing here retries or decides.

pub(super) mod link;
pub(super) mod map;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use zerocopy::{Immutable, IntoBytes};

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// Runs one command of bpf(2).
///
/// # Safety
/// `attributes` is a prefix of `union bpf_attr`; every address in it points to memory that stays valid during the call
/// and is as large as the command reads or writes there.
unsafe fn bpf<A: IntoBytes + Immutable>(command: u32, attributes: &mut A) -> io::Result<i32> {
    let address = std::ptr::from_mut(attributes);
    // SAFETY: the attributes are initialised bytes of the length passed; the rest is this function's own contract.
    let result = unsafe { libc::syscall(libc::SYS_bpf, libc::c_long::from(command), address, size_of::<A>()) };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

/// [`bpf`] for commands that return a new file descriptor.
///
/// # Safety
/// As [`bpf`], and the command returns a descriptor.
unsafe fn bpf_fd<A: IntoBytes + Immutable>(command: u32, attributes: &mut A) -> io::Result<OwnedFd> {
    // SAFETY: passed on to the caller.
    let fd = unsafe { bpf(command, attributes) }?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The cookie of the calling thread's network namespace: never given twice until the machine reboots (Linux 5.14).
pub(super) fn namespace_cookie() -> io::Result<u64> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    let (mut cookie, mut length) = (0_u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: the option writes one u64, and `length` says that there is room for it.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}
