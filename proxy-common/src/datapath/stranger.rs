//! Flows that are not ours and use tuples that could be: none of them is hurt by us, and none can hurt a flow of ours.

use super::{
    Family, Inserted, Packet, Record, RouteQuery, Row,
    admit::find,
    class::is_pod_address,
    family::State,
    ingress::on_the_wire,
    judge::displace,
    parse::{Headers, TCP},
    part::Code,
    reject::{Reject, refuse},
};
use crate::{
    reason::Reason,
    tcp::{self, TcpFlags},
    wire::{Filter, Role, Side},
};

/// A packet straight to what is a backend too: its flow is entered like one through a frontend, with its tuple as it is,
/// so that no other takes it.
///
/// Not where it comes from a pod of another node, which would enter every connection that this node's backends get: see
/// [`super::enter`].
#[inline(always)]
pub fn direct<F: Family, T: Record>(tables: &T, row: &mut Row<F>) -> u32 {
    let key = &row.headers.key;
    let protocol = F::protocol(key);
    if !tables.may_be_target(Filter::target(&F::destination(key), F::destination_port(key), protocol)) {
        return Code::PASS;
    }
    const ANSWER: u8 = TcpFlags::SYN | TcpFlags::ACK;
    let flags = row.headers.tcp_flags;
    if protocol == TCP && (flags & TcpFlags::RST != 0 || flags & ANSWER == ANSWER) {
        return Code::PASS;
    }
    if !row.is_at_pod_link() && is_pod_address(tables, &F::source(&row.headers.key)) {
        return Code::PASS;
    }
    let state = State {
        subject: 0,
        generation: 0,
        stamp: tables.config().map_or(0, |config| config.epoch),
        last_seen: tables.now(),
        role: Role::DIRECT,
        flags: 0,
        seen: row.headers.seen(),
    };
    F::set_tuple(&mut row.flow, &row.headers.key);
    F::set_state(&mut row.flow, state);
    Code::NEW
}

/// Whether a packet that leaves may be one that [`own`] is for.
#[inline(always)]
pub fn may_be_own<F: Family, T: Record>(tables: &T, headers: &Headers<F>) -> bool {
    tables.may_be_frontend(Filter::frontend(&F::source(&headers.key)))
}

/// A datagram of the node itself, or of a pod that the network plugin masquerades, from a port that is a frontend's too:
/// its answers are not for that frontend.
#[inline(always)]
pub fn own<F: Family, T: Record>(tables: &T) -> u32 {
    let Some(row) = tables.row::<F>() else { return Code::PASS };
    let key = &row.headers.key;
    let (port, protocol) = (F::source_port(key), F::protocol(key));
    if find(tables, F::NODE_PORT, F::source(key), port, protocol).is_none() {
        return Code::PASS;
    }
    F::turn_key(&mut row.client_key, &row.headers.key, Side::INGRESS);
    if tables.peek::<F>(&row.client_key, &mut row.flow) {
        // Of a client of the frontend, whose replies these may well be: they were translated before.
        if F::state(&row.flow).role == Role::OWN {
            tables.note::<F>(&row.client_key, row.headers.seen());
        }
        return Code::PASS;
    }
    let Some(seat) = tables.opening_seat::<F>() else { return Code::PASS };
    let name = seat.name;
    row.other.client_key = *seat.key;
    *seat.key = row.client_key;
    if !seat.is_free {
        displace::<F, T>(tables, name);
    }
    let Some(row) = tables.row::<F>() else { return Code::PASS };
    let state = State {
        subject: 0,
        generation: 0,
        stamp: name,
        last_seen: tables.now(),
        role: Role::OWN,
        flags: 0,
        seen: row.headers.seen(),
    };
    F::set_tuple(&mut row.flow, &row.client_key);
    F::set_state(&mut row.flow, state);
    match tables.insert::<F>(&row.client_key, &row.flow) {
        Inserted::Yes | Inserted::Exists | Inserted::Full => Code::PASS,
    }
}

/// Whether a packet that leaves may be one that [`stray`] is for.
#[inline(always)]
pub fn may_be_stray<F: Family, P: Packet, T: Record>(packet: &P, tables: &T, headers: &Headers<F>) -> bool {
    headers.protocol() == TCP
        && !tcp::opens(headers.tcp_flags)
        && packet.is_forwarded()
        && tables.may_be_frontend(Filter::frontend(&F::destination(&headers.key)))
}

/// TCP in the middle of a flow, for a frontend that lies behind the node's own default route: nobody has translated it,
/// neither we nor connection tracking, which may know flows from before us. The router would send it here again and
/// again. A reset tells the client at once that it has to connect anew.
#[inline(always)]
pub fn stray<F: Reject, P: Packet, T: Record>(packet: &mut P, tables: &T, row: &mut Row<F>) -> u32 {
    let key = &row.headers.key;
    if find(tables, F::NODE_PORT, F::destination(key), F::destination_port(key), F::protocol(key)).is_none() {
        return Code::PASS;
    }
    // A flow of ours whose endpoint has the address of another frontend.
    F::turn_key(&mut row.reply_key, &row.headers.key, Side::EGRESS);
    if tables.has::<F>(&row.reply_key) {
        return Code::PASS;
    }
    if row.headers.tcp_flags & TcpFlags::RST != 0 {
        return Code::drop(Reason::UnknownFlow);
    }
    refuse::<F, P, T>(packet, tables, row, Reason::UnknownFlow)
}

/// A reply that leaves by another device than its request came in by: as a router in between may know only one way, it
/// goes back by that device, if there is a route.
#[inline(always)]
pub fn detour<F: Family, P: Packet>(packet: &mut P, row: &mut Row<F>) -> u32 {
    let reply = F::state(&row.flow);
    let tuple = F::tuple(&row.flow, row.headers.protocol());
    row.route = packet.route(&RouteQuery {
        source: F::wide(tuple.source),
        destination: F::wide(tuple.destination),
        source_port: tuple.source_port,
        destination_port: tuple.destination_port,
        protocol: tuple.protocol,
        length: on_the_wire(packet, &row.headers),
        by: reply.subject,
    });
    if row.route.usable != 0 && row.route.device == reply.subject { Code::REPLY } else { Code::PASS }
}
