//! What a packet goes through, written once for every host: a kernel program or a test.
//!
//! Every hook asks the flow table one question: is this tuple known on this side of the stack? An entry holds the
//! whole tuple that takes its place. Only a packet that no entry knows, at ingress, goes further: to the frontends.
//!
//! ```text
//! ingress: parse -> flow? -> rewrite            (established)
//!                   flow? -> frontend? -> select -> establish -> rewrite   (new; admit.rs)
//! egress:  parse -> flow? -> rewrite
//! ```
//!
//! The client's tuple is translated to the backend at the first ingress hook and translated back at the last egress
//! hook. A masqueraded flow has a second pair of entries, so that the stack and its netfilter hooks see the real client
//! and the real backend in every case:
//!
//! ```text
//!              ingress                        stack                      egress
//! forward      client:p  -> frontend    =>    client:p' -> backend  =>   node:q -> backend   (if masqueraded)
//! reply        backend -> node:q        =>    backend -> client:p'  =>   frontend -> client:p
//! ```
//!
//! The fast path applies both entries of a direction at once and redirects.

mod admit;
mod egress;
mod family;
mod icmp_redirect;
mod ingress;
mod parse;
mod reject;
mod rewrite;
mod select;
mod track;

pub use egress::egress;
pub use family::{Family, Tuple, V4, V6};
pub use ingress::ingress;
pub use select::flow_hash;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{
    reason::{Hook, Reason},
    wire::{Address, Backend, Config, Device, Frontend, FrontendKey},
};

/// What lies at the start of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Ethernet,
    /// No link layer header: tunnels and WireGuard devices.
    Ip,
}

/// The bytes of a packet, by offset from its start. No method hands out a reference: what edits a packet may move it.
/// `None` means that the packet ends before, or that the host could not do it.
pub trait Packet {
    fn load<T: FromBytes>(&self, offset: usize) -> Option<T>;
    fn store<T: IntoBytes + Immutable>(&mut self, offset: usize, value: &T) -> Option<()>;
    /// Corrects the transport checksum at `offset` for what changed under it: `addresses` in the pseudo header and
    /// `ports` in the segment itself, as [`crate::checksum::difference`]. A UDP checksum of zero stays zero.
    fn fix_checksum(&mut self, offset: usize, change: ChecksumChange) -> Option<()>;
    /// Cuts or extends the packet at its end.
    fn resize(&mut self, len: usize) -> Option<()>;
    /// Asks the routing table where the packet would go. A packet with VLAN tags can not be redirected: they belong to
    /// the link that it came by. The host keeps the answer for
    /// [`crate::verdict::Verdict::Forward`].
    fn route(&mut self, query: &RouteQuery) -> Route;
    /// Bytes of transport payload in each segment of a GSO packet, 0 for an ordinary one.
    fn segment(&self) -> usize;
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
    /// Length of the IP packet, or of one segment of a GSO packet, in bytes.
    pub length: u16,
}

/// The answer of the routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Index of the egress device, 0 where there is no route.
    pub device: u32,
    /// The packet may be redirected: forwarding is on and it fits the MTU.
    pub usable: bool,
    pub next_hop: Address,
}

impl Route {
    pub const NONE: Self = Self { device: 0, usable: false, next_hop: Address::ANY };
}

/// What an insertion into the flow table came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    Yes,
    /// The key was there and `only_new` was asked for.
    Exists,
    Full,
}

/// The maps, the clock and the dice.
pub trait Tables {
    /// Copies the flow entry, as it was before this packet, to `flow` and marks it as used at tick `now` and as having
    /// `seen` (bits of [`crate::tcp::Seen`]). `false`: there is none, and `flow` is untouched.
    fn find<F: Family>(&self, key: &F::Key, now: u32, seen: u8, flow: &mut F::Flow) -> bool;
    /// The flow entry, not marked.
    fn peek<F: Family>(&self, key: &F::Key) -> Option<F::Flow>;
    fn insert<F: Family>(&self, key: &F::Key, flow: &F::Flow, only_new: bool) -> Inserted;
    fn remove<F: Family>(&self, key: &F::Key);

    fn frontend(&self, key: &FrontendKey) -> Option<Frontend>;
    fn slot(&self, index: u32) -> Option<u32>;
    fn maglev(&self, index: u32) -> Option<u32>;
    fn backend(&self, id: u32) -> Option<Backend>;
    /// Whether NodePorts are open on a local address.
    fn is_node_port_address(&self, address: &Address) -> bool;
    fn device(&self, index: u32) -> Option<Device>;
    fn config(&self) -> Option<&Config>;
    fn count(&self, hook: Hook, reason: Reason);
    /// Takes one of the rejects that may be sent in tick `now`.
    fn take_reject(&self, now: u32, per_tick: u32) -> bool;
    fn random(&self) -> u32;
    /// The current tick; see [`Config`].
    fn now(&self) -> u32;
}
