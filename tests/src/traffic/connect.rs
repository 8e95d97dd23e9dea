use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

/// What came of dialling.
pub struct Dialled {
    pub result: io::Result<TcpStream>,
    /// How often the kernel sent the SYN again. It does so after one second, and then after twice as long each time
    /// (RFC 6298): whether a packet was lost is known from this, and not from the time that it took.
    pub repeats: u32,
}

/// Dials from a port of one's own; 0 = any.
pub fn dial(to: SocketAddr, source_port: u16, timeout: Duration) -> Dialled {
    let socket = match prepare(to, source_port, timeout) {
        Ok(socket) => socket,
        Err(error) => return Dialled { result: Err(error), repeats: 0 },
    };
    let result = connect(socket.as_raw_fd(), &SockaddrStorage::from(to)).map_err(|error| match error {
        nix::Error::EINPROGRESS => io::ErrorKind::TimedOut.into(),
        other => io::Error::from(other),
    });
    match repeats(&socket) {
        Ok(repeats) => Dialled { result: result.map(|()| socket.into()), repeats },
        Err(error) => Dialled { result: Err(error), repeats: 0 },
    }
}

/// The standard library neither binds a socket before it connects nor shows one that could not.
fn prepare(to: SocketAddr, source_port: u16, timeout: Duration) -> io::Result<OwnedFd> {
    let (family, any) = if to.is_ipv4() {
        (AddressFamily::Inet, SocketAddr::from(([0; 4], source_port)))
    } else {
        (AddressFamily::Inet6, SocketAddr::from(([0; 16], source_port)))
    };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // Limits connect(2) as well.
    let limit = TimeVal::new(timeout.as_secs() as i64, timeout.subsec_micros().into());
    setsockopt(&socket, sockopt::SendTimeout, &limit)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &limit)?;
    if source_port != 0 {
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(any))?;
    }
    Ok(socket)
}

/// Segments that were sent again; of a connection that has sent nothing but its SYN, how often that was.
pub fn repeats(socket: &impl AsRawFd) -> io::Result<u32> {
    // SAFETY: all bits zero is a value of this structure of numbers.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel writes no more than the length given of a value that lives long
    // enough.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut length)
    };
    if result == 0 { Ok(info.tcpi_total_retrans) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn nothing_is_repeated_on_the_loopback() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let dialled = dial(to, 0, Duration::from_secs(60));
        assert_eq!((dialled.result.unwrap().peer_addr().unwrap(), dialled.repeats), (to, 0));
        drop(listener);
        let dialled = dial(to, 0, Duration::from_secs(60));
        assert_eq!((dialled.result.unwrap_err().kind(), dialled.repeats), (io::ErrorKind::ConnectionRefused, 0));
    }
}
