//! What the datapath asks of the packet, whoever holds it.

use core::{ffi::c_void, ptr};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::wire::Address;

/// What lies at the start of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Ethernet,
    /// No link layer header: tunnels and WireGuard devices.
    Ip,
}

/// The bytes of a packet, by offset from its start. No method hands out a reference: what edits a packet may move it.
/// `None` means that the packet ends before, or that the host could not do it.
///
/// The first 192 bytes, or all that there are, are where `load` and `store` find them.
pub trait Packet {
    /// A frame that no socket buffer was made for yet.
    const XDP: bool = false;

    /// What a kernel program gets as its argument, for hosts that run parts of the datapath apart.
    #[inline(always)]
    fn context(&self) -> *mut c_void {
        ptr::null_mut()
    }
    fn load<T: FromBytes>(&self, offset: usize) -> Option<T>;
    fn store<T: IntoBytes + Immutable>(&mut self, offset: usize, value: &T) -> Option<()>;
    /// Brings bytes beyond to where `load` and `store` find them: those before `end`, if there are so many.
    #[inline(always)]
    fn reach(&self, _end: usize) {}
    /// Corrects the transport checksum at `offset` for what changed under it: `addresses` in the pseudo header and
    /// `ports` in the segment itself, as [`crate::checksum::difference`]. A UDP checksum of zero stays zero.
    fn fix_checksum(&mut self, offset: usize, change: ChecksumChange) -> Option<()>;
    /// Cuts or extends the packet at its end.
    fn resize(&mut self, len: usize) -> Option<()>;
    /// Asks the routing table where the packet would go.
    fn route(&self, query: &RouteQuery) -> Route;
    /// Keeps a route for [`crate::verdict::Verdict::Forward`].
    fn send_by(&mut self, route: &Route);
    /// Bytes of transport payload in each segment of a GSO packet, 0 for an ordinary one.
    fn segment(&self) -> usize;
    /// Index of the device that the packet is met at.
    fn device(&self) -> u32;
    /// Whether the frame was sent to this device's own hardware address; no stack takes others.
    fn is_to_us(&self) -> bool;
    /// Whether the packet came in by another device than it is met at: the node itself does not send it.
    fn is_forwarded(&self) -> bool;
    /// Whether the packet belongs to a VLAN on top of the device. It is met again at that VLAN's own device, if there is
    /// one.
    fn is_of_vlan(&self) -> bool;
    /// Whether a socket of the node's network namespace is bound to exactly the destination.
    fn has_own_socket(&self, query: &SocketQuery) -> bool;
    /// The same offset. A host with a verifier makes it forget which of a few values this is, so that it walks once
    /// through what follows and not once for each layout of headers.
    #[inline(always)]
    fn conceal(&self, offset: usize) -> usize {
        offset
    }
}

/// See [`Packet::fix_checksum`].
#[derive(Clone, Copy, Debug)]
pub struct ChecksumChange {
    pub addresses: u32,
    pub ports: u32,
    pub udp: bool,
    pub v6: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct RouteQuery {
    pub source: Address,
    pub destination: Address,
    /// Network order.
    pub source_port: u16,
    /// Network order.
    pub destination_port: u16,
    pub protocol: u8,
    /// Length of the IP packet, or of one segment of a GSO packet, in bytes; 0 leaves the MTU out of it.
    pub length: u16,
    /// The route out of this device, for what the node sends; 0: the route of what came in by the packet's device.
    pub by: u32,
}

/// The answer of the routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Route {
    pub next_hop: Address,
    /// Index of the egress device, 0 where there is no route.
    pub device: u32,
    /// Not 0: the packet may be redirected. Forwarding is on and it fits the MTU.
    pub usable: u32,
    /// Hardware addresses on the link, destination first, as they lie in a frame; for hosts that fill them in themselves.
    pub hardware: [u16; 6],
}

impl Route {
    pub const NONE: Self = Self { next_hop: Address::ANY, device: 0, usable: 0, hardware: [0; 6] };
}

/// See [`Packet::has_own_socket`].
#[derive(Clone, Copy, Debug)]
pub struct SocketQuery {
    pub source: Address,
    pub destination: Address,
    /// Network order.
    pub source_port: u16,
    /// Network order.
    pub destination_port: u16,
    pub tcp: bool,
}
