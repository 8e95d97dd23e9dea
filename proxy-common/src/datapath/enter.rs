//! The entries of a new flow, replies first.

use super::{
    Family, Inserted, Packet, Record, RouteQuery, Row, Tuple,
    claim::claimed,
    class::is_pod_address,
    family::State,
    judge::displace,
    parse::Parse,
    part::{Code, Part, Work},
    reject::Reject,
    row::Entered,
};
use crate::{
    reason::Reason,
    wire::{Address, FlowFlags, Role, Side},
};

/// Enters what [`begin`] has left, by its answer: all of the flow, or nothing. Parts side by side, since all frames of a chain of
/// calls share a kernel stack of 512 bytes. It holds no reference to the row, which the parts change.
#[inline(always)]
pub fn establish<F: Parse + Reject, P: Packet, T: Record>(packet: &mut P, tables: &T, begun: u32) -> u32 {
    let mut code = match begun {
        Code::ENTERED => return Code::DONE,
        Code::CLAIM => with_room::<{ Work::CLAIM }, F, T>(tables),
        Code::CLAIMED => Code::DONE,
        code => code,
    };
    if code == Code::DONE && is_masqueraded::<F, T>(tables) {
        code = tables.apart::<{ Part::ADDRESS }, F, P>(packet);
        if code == Code::DONE {
            code = tables.work::<{ Work::MASK }, F>();
        }
        if code == Code::DONE {
            code = with_room::<{ Work::CLAIM }, F, T>(tables);
        }
    }
    if code == Code::DONE {
        code = with_room::<{ Work::ENTER }, F, T>(tables);
    }
    if code != Code::DONE {
        let _ = tables.work::<{ Work::UNDO }, F>();
    }
    code
}

/// Does a work that enters something, once more where room has to be made first: from here, since both together would lie
/// too deep on the stack.
#[inline(always)]
fn with_room<const WORK: u8, F: Family, T: Record>(tables: &T) -> u32 {
    let mut code = tables.work::<WORK, F>();
    if code == Code::FULL {
        let _ = tables.work::<{ Work::ROOM }, F>();
        code = tables.work::<WORK, F>();
    }
    if code == Code::FULL { Code::drop(Reason::FlowTableFull) } else { code }
}

#[inline(always)]
fn is_masqueraded<F: Family, T: Record>(tables: &T) -> bool {
    tables.row::<F>().is_some_and(|row| F::state(&row.flow).flags & FlowFlags::MASQUERADE != 0)
}

/// Takes a seat for the flow that was begun in the row, whose last holder ends if it has not proved itself, and enters the
/// flow at once where its reply key is free and nothing masquerades it: nearly always.
#[inline(always)]
pub fn begin<F: Family, T: Record>(tables: &T, row: &mut Row<F>) -> u32 {
    if row.known != 0 {
        // What is left of the flow that had this tuple until now.
        row.other.client_key = row.headers.key;
        let _ = tables.work::<{ Work::END }, F>();
    }
    let (Some(row), Some(seat)) = (tables.row::<F>(), tables.opening_seat::<F>()) else {
        return Code::drop(Reason::FlowTableFull);
    };
    (row.seat, row.turn) = (seat.name, seat.turn);
    let row = if seat.is_free {
        *seat.key = row.headers.key;
        row
    } else {
        row.other.client_key = *seat.key;
        *seat.key = row.headers.key;
        let displaced = displace::<F, T>(tables, seat.name);
        let Some(row) = tables.row::<F>() else { return Code::drop(Reason::FlowTableFull) };
        if displaced {
            tables.count(row.hook(), Reason::Displaced);
        }
        row
    };
    prepare::<F, T>(tables, row);
    if row.claim.keep == 0 || tables.insert::<F>(&row.claim.key, &row.claim.reply) != Inserted::Yes {
        return Code::CLAIM;
    }
    claimed(row);
    if F::state(&row.flow).flags & FlowFlags::MASQUERADE != 0 {
        return Code::CLAIMED;
    }
    match enter_client::<F, T>(tables, row) {
        Code::DONE => Code::ENTERED,
        // `establish` makes room.
        Code::FULL => Code::CLAIMED,
        code => code,
    }
}

/// Says what the replies of the flow are to be found by.
#[inline(always)]
fn prepare<F: Family, T: Record>(tables: &T, row: &mut Row<F>) {
    row.client_key = row.headers.key;
    let state = F::state(&row.flow);
    let hairpin = state.flags & FlowFlags::HAIRPIN;
    if hairpin != 0 {
        // Its own address as source would never leave the pod; the address it dialled is one that it sends to its
        // gateway.
        F::shadow(&mut row.flow, &row.headers.key);
    }
    let side = if hairpin != 0 { Side::INGRESS } else { Side::EGRESS };
    F::make_reverse_key(&mut row.claim.key, &row.flow, row.headers.protocol(), side);
    if row.kept != 0 {
        // The same port for the same two ends: see `claim::rests`.
        F::set_destination_port(&mut row.claim.key, row.kept as u16);
    }
    F::set_reverse_tuple(&mut row.claim.reply, &row.headers.key);
    let reply = State {
        subject: row.device,
        generation: row.turn,
        stamp: row.seat,
        last_seen: state.last_seen,
        role: Role::REPLY,
        flags: hairpin,
        seen: 0,
    };
    F::set_state(&mut row.claim.reply, reply);
    row.claim.keep = 1;
    (row.claim.low, row.claim.ports) = (1024, 65536 - 1024);
    if !row.is_at_pod_link() && is_pod_address(tables, &F::source(&row.headers.key)) {
        // Connections of a pod of another node straight to the backend are not entered here, so that this flow keeps
        // out of the range of ports that such ones have.
        row.claim.keep = 0;
        (row.claim.low, row.claim.ports) = masquerade_ports(tables);
    }
}

/// First and number of the ports that the kernel gives to no socket, host order.
#[inline(always)]
fn masquerade_ports<T: Record>(tables: &T) -> (u32, u32) {
    let Some(config) = tables.config() else { return (1024, 1) };
    let (low, high) = (u32::from(config.masquerade_port_min), u32::from(config.masquerade_port_max));
    (low, (high + 1).saturating_sub(low).max(1))
}

/// The address that takes the client's place: the one that the kernel would masquerade with on the device by which the
/// flow will leave, so that replies come back there.
#[inline(always)]
pub fn find_node_address<F: Family, P: Packet, T: Record>(packet: &mut P, tables: &T, row: &mut Row<F>) -> u32 {
    let tuple = between_the_hooks(row);
    let route = packet.route(&RouteQuery {
        source: F::wide(tuple.source),
        destination: F::wide(tuple.destination),
        source_port: tuple.source_port,
        destination_port: tuple.destination_port,
        protocol: tuple.protocol,
        length: 0,
        by: 0,
    });
    row.node = tables.device(route.device).map_or(Address::ANY, |device| device.towards(&route.next_hop, F::V6));
    if row.node == Address::ANY {
        let Some(config) = tables.config() else { return Code::drop(Reason::NoNodeAddress) };
        row.node = if F::V6 { config.node6 } else { config.node4 };
    }
    if row.node == Address::ANY { Code::drop(Reason::NoNodeAddress) } else { Code::DONE }
}

/// The tuple of the client's packets between ingress and egress.
#[inline(always)]
fn between_the_hooks<F: Family>(row: &Row<F>) -> Tuple<F::Address> {
    F::tuple(&row.flow, row.headers.protocol())
}

/// Says what the replies to the masquerade are to be found by: under a port of the node, never the client's own, since
/// connections of the node itself use the kernel's range of local ports.
#[inline(always)]
pub fn prepare_mask<F: Family, T: Record>(tables: &T, row: &mut Row<F>) -> u32 {
    let state = F::state(&row.flow);
    let reply = State {
        subject: 0,
        generation: 0,
        stamp: 0,
        last_seen: state.last_seen,
        role: Role::MASK_REPLY,
        flags: state.flags & FlowFlags::FAST,
        seen: 0,
    };
    F::make_reverse_key(&mut row.claim.key, &row.flow, row.headers.protocol(), Side::INGRESS);
    // Between ingress and egress the replies are to be those to the client.
    F::set_tuple(&mut row.claim.reply, &row.claim.key);
    F::set_state(&mut row.claim.reply, reply);
    F::set_destination(&mut row.claim.key, &row.node);
    row.claim.keep = 0;
    (row.claim.low, row.claim.ports) = masquerade_ports(tables);
    Code::DONE
}

/// Enters the mask, if there is one, and the client's packets. Can be called again where the table is full.
#[inline(always)]
pub fn enter<F: Family, T: Record>(tables: &T, row: &mut Row<F>) -> u32 {
    let state = F::state(&row.flow);
    if row.entered & Entered::MASK_REPLY != 0 {
        F::make_key(&mut row.mask_key, &row.flow, row.headers.protocol(), Side::EGRESS);
        // Whoever owns the tuple owns its mask: one that is there was left behind.
        if tables.peek::<F>(&row.mask_key, &mut row.claim.reply) && F::state(&row.claim.reply).role == Role::MASK {
            tables.remove::<F>(&row.mask_key);
        }
        F::set_reverse_tuple(&mut row.claim.reply, &row.mask_reply_key);
        let mask = State { role: Role::MASK, flags: 0, subject: 0, generation: 0, stamp: 0, ..state };
        F::set_state(&mut row.claim.reply, mask);
        match tables.insert::<F>(&row.mask_key, &row.claim.reply) {
            Inserted::Yes => row.entered |= Entered::MASK,
            Inserted::Exists => return Code::drop(Reason::PortsExhausted),
            Inserted::Full => return Code::FULL,
        }
    }
    enter_client::<F, T>(tables, row)
}

/// Enters the client's packets.
#[inline(always)]
fn enter_client<F: Family, T: Record>(tables: &T, row: &Row<F>) -> u32 {
    match tables.insert::<F>(&row.client_key, &row.flow) {
        Inserted::Yes => Code::DONE,
        // Another CPU was first with a packet of the same flow.
        Inserted::Exists => Code::ANEW,
        Inserted::Full => Code::FULL,
    }
}

/// Takes back what was entered for a flow that did not come about.
#[inline(always)]
pub fn undo<F: Family, T: Record>(tables: &T, row: &mut Row<F>) -> u32 {
    if row.entered & Entered::MASK != 0 {
        tables.remove::<F>(&row.mask_key);
    }
    if row.entered & Entered::MASK_REPLY != 0 {
        tables.remove::<F>(&row.mask_reply_key);
    }
    if row.entered & Entered::REPLY != 0 {
        tables.remove::<F>(&row.reply_key);
    }
    Code::DONE
}
