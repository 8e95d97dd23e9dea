//! A process of the node dials a frontend: its socket gets a backend's address in place of it, and names the frontend
//! when it is asked who is at the other end. No packet is touched: the kernel sends to the backend from the start, from
//! the address that the route to it has.

use core::marker::PhantomData;

use super::{
    Lookup, SocketQuery,
    admit::{find, node_port},
    decide::{Decision, Origin, Pick, decide},
    over::since,
    parse::{TCP, UDP},
};
use crate::{
    reason::Reason,
    wire::{Address, Class, ConfigFlags, End, Filter, Frontend, Peer, Peers, Scope},
};

/// What a program sees when a process calls `connect`, `sendto`, `recvfrom` or `getpeername`.
pub trait Socket {
    /// The other end: as the process has named it, or as it is going to be told.
    fn end(&self) -> End;
    /// Puts another one in its place.
    fn set_end(&mut self, end: &End);
    fn protocol(&self) -> u8;
    /// Whether it is connected, as a socket is before `connect` connects it to another end.
    fn is_connected(&self) -> bool;
    /// See [`super::Packet::has_own_socket`].
    fn has_own_socket(&self, query: &SocketQuery) -> bool;
}

/// What the datapath of sockets asks besides: it has no business with the flow table.
pub trait Remember<S: Socket>: Lookup {
    /// Whether the socket is in the network namespace that this agent serves.
    fn serves(&self, socket: &S) -> bool;
    /// What the socket has dialled. `None`: nothing yet, or there is no memory to `make` a place for it.
    #[expect(clippy::mut_from_ref, reason = "as kernel memory is: the socket is locked while the program runs")]
    fn peers(&self, socket: &S, make: bool) -> Option<&mut Peers>;
    fn count(&self, reason: Reason);
    fn random(&self) -> u32;
}

/// What becomes of the call.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialled {
    /// It goes on, perhaps to another end.
    On,
    /// No endpoint: as if its machine had refused.
    Refused,
    /// Endpoints, but none that the policy allows here.
    Unreachable,
    /// The kernel has no memory to remember what the socket dialled.
    NoRoom,
}

/// For `connect`, or for a datagram that names a destination (`sends`).
#[inline(always)]
pub fn dial<S: Socket, T: Remember<S>>(socket: &mut S, tables: &T, sends: bool) -> Dialled {
    if !tables.serves(socket) {
        return Dialled::On;
    }
    let named = this_host(socket.end());
    let protocol = socket.protocol();
    let Some(frontend) = frontend_at(tables, &named, protocol) else {
        // Dialled straight: what comes back is not from a frontend any more. The kernel itself names whom a socket of IPv6 is
        // connected to where that is an IPv4 address (udpv6_sendmsg).
        if protocol == UDP
            && !(sends && socket.is_connected())
            && let Some(peers) = tables.peers(socket, false)
            && let Some(peer) = peers.of_backend(&named)
        {
            peer.id = 0;
        }
        return Dialled::On;
    };
    if frontend.policy.is_node_address() && has_own_socket(socket, &named, protocol) {
        tables.count(Reason::OwnSocket);
        return Dialled::On;
    }
    // Datagrams of one socket to one frontend are a flow, as connections are.
    if protocol == UDP
        && let Some(peers) = tables.peers(socket, false)
        && let Some(peer) = peers.of_frontend(&named)
        && is_current(tables, &frontend, peer)
    {
        peer.last_seen = tables.now();
        let backend = peer.backend;
        socket.set_end(&backend);
        return Dialled::On;
    }
    choose(socket, tables, &frontend, &named)
}

/// For `getpeername` and for datagrams that arrive: names the frontend in place of its backend.
#[inline(always)]
pub fn recall<S: Socket, T: Remember<S>>(socket: &mut S, tables: &T) {
    if let Some(peers) = tables.peers(socket, false)
        && let Some(peer) = peers.of_backend(&socket.end())
    {
        let frontend = peer.frontend;
        socket.set_end(&frontend);
    }
}

#[inline(always)]
fn choose<S: Socket, T: Remember<S>>(socket: &mut S, tables: &T, frontend: &Frontend, named: &End) -> Dialled {
    let origin = Origin { class: Class::Host, by_pod_link: false, pod_address: false, v6: !named.address.is_v4() };
    let (id, backend) = match decide(tables, frontend, &origin, &Chance::<S, T>(tables, PhantomData)) {
        // The route to the backend has an address of the node, whatever the policy says.
        Decision::To { id, backend, .. } => (id, backend),
        Decision::Reject => {
            tables.count(Reason::NoEndpoint);
            return Dialled::Refused;
        }
        Decision::NoLocalEndpoint => {
            tables.count(Reason::NoLocalEndpoint);
            return Dialled::Unreachable;
        }
        Decision::Stale => {
            tables.count(Reason::StaleTables);
            return Dialled::Unreachable;
        }
    };
    let Some(peers) = tables.peers(socket, true) else {
        tables.count(Reason::FlowTableFull);
        return Dialled::NoRoom;
    };
    let end = End::new(backend.address, backend.port);
    peers.remember(&Peer {
        frontend: *named,
        backend: end,
        id,
        generation: backend.generation,
        last_seen: tables.now(),
    });
    tables.count(Reason::NewFlow);
    socket.set_end(&end);
    Dialled::On
}

/// Who dials no address in particular means this host (`ip_route_output_key`, `tcp_v6_connect`).
#[inline(always)]
fn this_host(mut end: End) -> End {
    if end.address == Address::ANY {
        end.address = LOOPBACK6;
    } else if end.address == Address::from_v4(0) {
        end.address = Address::from_v4(0x7f00_0001_u32.to_be());
    }
    end
}

const LOOPBACK6: Address = Address([0, 0, 0, 1_u32.to_be()]);

#[inline(always)]
fn is_loopback(address: &Address) -> bool {
    if address.is_v4() {
        address.0[3] & 0xff00_0000_u32.to_be() == 0x7f00_0000_u32.to_be()
    } else {
        *address == LOOPBACK6
    }
}

#[inline(always)]
fn frontend_at<T: Lookup>(tables: &T, named: &End, protocol: u8) -> Option<Frontend> {
    if protocol != TCP && protocol != UDP {
        return None;
    }
    let v4 = named.address.is_v4();
    let (scope, flag) =
        if v4 { (Scope::NODE_PORT4, ConfigFlags::LOOPBACK4) } else { (Scope::NODE_PORT6, ConfigFlags::LOOPBACK6) };
    if is_loopback(&named.address) {
        let open = tables.config().is_some_and(|config| config.flags & flag != 0);
        return if open { node_port(tables, scope, named.port, protocol) } else { None };
    }
    if !tables.may_be_frontend(Filter::frontend(&named.address)) {
        return None;
    }
    // Twice: see `admit::meet`.
    find(tables, scope, named.address, named.port, protocol)
        .or_else(|| find(tables, scope, named.address, named.port, protocol))
}

/// Whether a frontend still leads to the backend that it led to.
#[inline(always)]
fn is_current<T: Lookup>(tables: &T, frontend: &Frontend, peer: &Peer) -> bool {
    let Some(config) = tables.config() else { return false };
    since(peer.last_seen, tables.now()) <= config.timeouts.udp
        && tables.backend(peer.id).is_some_and(|backend| backend.still_serves(frontend.service, peer.generation))
}

#[inline(always)]
fn has_own_socket<S: Socket>(socket: &S, named: &End, protocol: u8) -> bool {
    let source = if named.address.is_v4() { Address::from_v4(0) } else { Address::ANY };
    socket.has_own_socket(&SocketQuery {
        source,
        destination: named.address,
        source_port: 0,
        destination_port: named.port,
        tcp: protocol == TCP,
    })
}

/// What a socket will send from is not known yet, so that nothing can be the same on every node.
struct Chance<'a, S, T>(&'a T, PhantomData<S>);

impl<S: Socket, T: Remember<S>> Pick for Chance<'_, S, T> {
    #[inline(always)]
    fn random(&self) -> u32 {
        self.0.random()
    }

    #[inline(always)]
    fn hash(&self) -> u32 {
        self.0.random()
    }
}
