use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, MultiHeaders, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, sendmmsg,
    setsockopt, socket, sockopt,
};

/// Sends packets whose IP header is the caller's, so that their source may be anybody's. The routes are those of the
/// network namespace that it was made in.
pub struct Raw {
    socket: OwnedFd,
    headers: MultiHeaders<()>,
}

impl Raw {
    /// Most packets of one call.
    pub const BATCH: usize = 64;

    /// # Errors
    /// Not root, or no route.
    pub fn towards(to: SocketAddr) -> io::Result<Self> {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        // `IPPROTO_RAW`: the header is in what is sent (raw(7), and inet6_create in net/ipv6/af_inet6.c).
        let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
        setsockopt(&socket, sockopt::SndBuf, &(1 << 20))?;
        // To a raw socket of IPv6, a port would be a protocol.
        connect(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(to.ip(), 0)))?;
        Ok(Self { socket, headers: MultiHeaders::preallocate(Self::BATCH, None) })
    }

    /// Sends packets, from the IP header on, at most [`Self::BATCH`]; gives back how many the kernel took.
    ///
    /// # Errors
    /// It took none.
    pub fn send(&mut self, packets: &[&[u8]]) -> io::Result<usize> {
        let slices: Vec<[IoSlice<'_>; 1]> = packets.iter().map(|packet| [IoSlice::new(packet)]).collect();
        let none: Vec<Option<()>> = vec![None; slices.len()];
        let sent = sendmmsg(self.socket.as_raw_fd(), &mut self.headers, &slices, none, [], MsgFlags::empty())?;
        Ok(sent.count())
    }
}
