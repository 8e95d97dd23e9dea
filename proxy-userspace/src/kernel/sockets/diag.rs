use std::io;

use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_UDP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_packet_sock_diag::{SockDiagDestroy, SockDiagMessage};
use proxy_common::wire::{Address, End};

use crate::kernel::netlink::Netlink;

/// `NETLINK_SOCK_DIAG` of linux/netlink.h.
const NETLINK_SOCK_DIAG: isize = 4;

/// A connected UDP socket.
pub struct Connected {
    pub cookie: u64,
    /// Whom it is connected to.
    pub end: End,
    name: InetRequest,
}

/// The sockets of the calling thread's network namespace.
pub struct Sockets(Netlink);

impl Sockets {
    pub fn open() -> io::Result<Self> {
        Netlink::open(NETLINK_SOCK_DIAG).map(Self)
    }

    /// All connected UDP sockets.
    ///
    /// # Errors
    /// The kernel's: `ENOENT` where it does not list UDP sockets (CONFIG_INET_UDP_DIAG).
    pub fn connected(&mut self) -> io::Result<Vec<Connected>> {
        let mut found = Vec::new();
        for (family, any) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
            let listed = self.0.list(&SockDiagMessage::InetRequest(request(family, any)), connected);
            found.extend(listed.map_err(|cause| match cause.kind() {
                io::ErrorKind::NotFound => io::Error::new(cause.kind(), "this kernel has no module udp_diag"),
                _ => cause,
            })?);
        }
        Ok(found)
    }

    /// Ends a socket: whoever reads from it or writes to it gets `ECONNABORTED` (`udp_abort`).
    ///
    /// # Errors
    /// The kernel's: `EOPNOTSUPP` without CONFIG_INET_DIAG_DESTROY, `ENOENT` where the socket is gone.
    pub fn destroy(&mut self, socket: &Connected) -> io::Result<()> {
        self.0.tell(SockDiagDestroy::new(SockDiagMessage::InetRequest(socket.name.clone())))
    }
}

fn request(family: u8, socket_id: SocketId) -> InetRequest {
    InetRequest {
        family,
        protocol: IPPROTO_UDP,
        extensions: ExtensionFlags::empty(),
        // Connected, for UDP.
        states: StateFlags::ESTABLISHED,
        socket_id,
    }
}

fn connected(message: SockDiagMessage) -> Option<Connected> {
    let SockDiagMessage::InetResponse(response) = message else { return None };
    let id = response.header.socket_id;
    // Two words, the lower one first (`sock_diag_save_cookie`).
    let [low, high] = [0, 4].map(|at| id.cookie[at..].first_chunk().map_or(0, |word| u32::from_ne_bytes(*word)));
    let end = End::new(Address::from(id.destination_address.to_canonical()), id.destination_port.to_be());
    let cookie = u64::from(high) << 32 | u64::from(low);
    Some(Connected { cookie, end, name: request(response.header.family, id) })
}
