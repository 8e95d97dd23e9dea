use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable as _, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, Nla as _,
    NlaBuffer, NlasIterator,
};
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_UDP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use netlink_packet_sock_diag::{SockDiagDestroy, SockDiagMessage};
use proxy_common::wire::{Address, End, Peers};
use zerocopy::FromBytes as _;

use crate::kernel::netlink::Netlink;

/// `NETLINK_SOCK_DIAG` of linux/netlink.h.
const NETLINK_SOCK_DIAG: isize = 4;

/// linux/inet_diag.h and linux/sock_diag.h (Linux 5.7).
const INET_DIAG_REQ_SK_BPF_STORAGES: u16 = 2;
const INET_DIAG_SK_BPF_STORAGES: u16 = 20;
const SK_DIAG_BPF_STORAGE_REQ_MAP_FD: u16 = 1;
const SK_DIAG_BPF_STORAGE: u16 = 1;
const SK_DIAG_BPF_STORAGE_MAP_VALUE: u16 = 3;

/// A connected UDP socket that has dialled a frontend.
pub struct Connected {
    pub peers: Peers,
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

    /// All connected UDP sockets that have a value in `peers`, which is the map of that name.
    ///
    /// # Errors
    /// The kernel's: `EPERM` without CAP_BPF, `ENOENT` where it does not list UDP sockets (CONFIG_INET_UDP_DIAG).
    pub fn connected(&mut self, peers: BorrowedFd<'_>) -> io::Result<Vec<Connected>> {
        let map = DefaultNla::new(SK_DIAG_BPF_STORAGE_REQ_MAP_FD, peers.as_raw_fd().to_ne_bytes().to_vec());
        let maps = std::slice::from_ref(&map);
        let mut bytes = vec![0; maps.buffer_len()];
        maps.emit(&mut bytes);
        let attribute = DefaultNla::new(INET_DIAG_REQ_SK_BPF_STORAGES, bytes);
        let mut found = Vec::new();
        for (family, id) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
            let request = SockDiagMessage::InetRequest(request(family, id));
            found.extend(self.0.list(&Message { request, attribute: Some(attribute.clone()) }, connected)?);
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

fn connected(message: Message) -> Option<Connected> {
    let SockDiagMessage::InetResponse(response) = message.request else { return None };
    let peers = peers(&response)?;
    let id = response.header.socket_id;
    let end = End::new(Address::from(id.destination_address.to_canonical()), id.destination_port.to_be());
    Some(Connected { peers, end, name: request(response.header.family, id) })
}

/// The value that the socket has in the map that was asked for.
fn peers(response: &InetResponse) -> Option<Peers> {
    let storages = response.nlas.iter().find_map(|attribute| match attribute {
        Nla::Other(other) if other.kind() & NLA_TYPE_MASK == INET_DIAG_SK_BPF_STORAGES => Some(other),
        _ => None,
    })?;
    let mut bytes = vec![0; storages.value_len()];
    storages.emit_value(&mut bytes);
    let storage = attribute(&bytes, SK_DIAG_BPF_STORAGE)?;
    let value = attribute(storage.value(), SK_DIAG_BPF_STORAGE_MAP_VALUE)?;
    Peers::read_from_bytes(value.value()).ok()
}

const NLA_TYPE_MASK: u16 = netlink_packet_core::NLA_TYPE_MASK;

fn attribute(bytes: &[u8], kind: u16) -> Option<NlaBuffer<&[u8]>> {
    NlasIterator::new(bytes).filter_map(Result::ok).find(|attribute| attribute.kind() == kind)
}

/// A message with an attribute that the library does not know of.
#[derive(Clone)]
struct Message {
    request: SockDiagMessage,
    attribute: Option<DefaultNla>,
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.request.message_type()
    }

    fn buffer_len(&self) -> usize {
        NetlinkSerializable::buffer_len(&self.request) + self.attribute.as_slice().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (request, attribute) = buffer.split_at_mut(NetlinkSerializable::buffer_len(&self.request));
        self.request.serialize(request);
        self.attribute.as_slice().emit(attribute);
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        SockDiagMessage::deserialize(header, payload).map(|request| Self { request, attribute: None })
    }
}
