//! Whose an entry is, whether that flow has ended, and its end: all of its entries go together.

use super::{
    Family, Record, Row,
    family::State,
    over::{Half, Life, since},
    row::Other,
};
use crate::wire::{FlowFlags, Role, Side};

/// What [`judge`] finds. Numbers, since a BPF program can return no more.
pub struct Judged;

impl Judged {
    /// There is no such flow, or it is another one by now.
    pub const GONE: u32 = 0;
    /// It has ended, or what is left of it is no flow: [`end`] removes that.
    pub const OVER: u32 = 1;
    pub const ALIVE: u32 = 2;
}

/// What the replies of a flow are found by. `client` is the entry of the client's packets.
#[inline(always)]
pub fn reply_key<F: Family>(client: &F::Flow, protocol: u8) -> F::Key {
    let hairpin = F::state(client).flags & FlowFlags::HAIRPIN != 0;
    F::key(&F::tuple(client, protocol).reversed(), if hairpin { Side::INGRESS } else { Side::EGRESS })
}

/// What the client's packets are found by. `reply` is the entry of the replies.
#[inline(always)]
pub fn client_key<F: Family>(reply: &F::Flow, protocol: u8) -> F::Key {
    F::key(&F::tuple(reply, protocol).reversed(), Side::INGRESS)
}

#[inline(always)]
pub fn is_clients(role: u8) -> bool {
    role == Role::CLIENT || role == Role::DIRECT
}

/// What both directions know of a flow.
#[inline(always)]
pub fn life(protocol: u8, client: &State, reply: &State) -> Life {
    Life {
        protocol,
        proven: client.flags & FlowFlags::PROVEN != 0,
        client: Half { seen: client.seen, last_seen: client.last_seen },
        reply: Half { seen: reply.seen, last_seen: reply.last_seen },
    }
}

/// Judges the flow whose client's packets are found by `other.client_key`; `other` gets its entries.
#[inline(always)]
pub fn judge<F: Family, T: Record>(tables: &T, other: &mut Other<F>, pressed: bool) -> u32 {
    let client_tuple = F::parts(&other.client_key);
    let protocol = client_tuple.protocol;
    let Some(config) = tables.config() else { return Judged::ALIVE };
    let Some(client) = tables.peek::<F>(&other.client_key) else { return Judged::GONE };
    other.client = client;
    let state = F::state(&other.client);
    let now = tables.now();
    if state.role == Role::OWN {
        let over = since(state.last_seen, now) > if pressed { config.timeouts.pressed } else { config.timeouts.udp };
        return if over { Judged::OVER } else { Judged::ALIVE };
    }
    if !is_clients(state.role) {
        return Judged::GONE;
    }
    other.reply_key = reply_key::<F>(&other.client, protocol);
    let Some(reply) = tables.peek::<F>(&other.reply_key) else { return Judged::OVER };
    other.reply = reply;
    if F::tuple(&other.reply, protocol).reversed() != client_tuple {
        return Judged::OVER;
    }
    let life = life(protocol, &state, &F::state(&other.reply));
    if life.is_over(now, pressed, &config.timeouts) { Judged::OVER } else { Judged::ALIVE }
}

/// The seat of a flow that [`judge`] has found.
#[inline(always)]
pub fn seat_of<F: Family>(other: &Other<F>) -> u32 {
    let client = F::state(&other.client);
    if client.role == Role::OWN { client.stamp } else { F::state(&other.reply).stamp }
}

/// Removes the entries of the flow whose client's packets are found by `other.client_key`.
#[inline(always)]
pub fn end<F: Family, T: Record>(tables: &T, other: &mut Other<F>) {
    let client_tuple = F::parts(&other.client_key);
    let protocol = client_tuple.protocol;
    let Some(client) = tables.peek::<F>(&other.client_key) else { return };
    other.client = client;
    let state = F::state(&other.client);
    if is_clients(state.role) {
        if state.flags & FlowFlags::MASQUERADE != 0 {
            end_mask::<F, T>(tables, other, protocol);
        }
        other.reply_key = reply_key::<F>(&other.client, protocol);
        let reply = tables.peek::<F>(&other.reply_key);
        // The tuple may be another flow's by now.
        if reply.is_some_and(|reply| F::tuple(&reply, protocol).reversed() == client_tuple) {
            tables.remove::<F>(&other.reply_key);
        }
    } else if state.role != Role::OWN {
        return;
    }
    tables.remove::<F>(&other.client_key);
}

#[inline(always)]
fn end_mask<F: Family, T: Record>(tables: &T, other: &mut Other<F>, protocol: u8) {
    other.key = F::key(&F::tuple(&other.client, protocol), Side::EGRESS);
    let Some(mask) = tables.peek::<F>(&other.key) else { return };
    if F::state(&mask).role != Role::MASK {
        return;
    }
    other.flow = mask;
    tables.remove::<F>(&other.key);
    other.key = F::key(&F::tuple(&other.flow, protocol).reversed(), Side::INGRESS);
    if tables.peek::<F>(&other.key).is_some_and(|held| F::state(&held).role == Role::MASK_REPLY) {
        tables.remove::<F>(&other.key);
    }
}

/// Leads from `other.flow`, an entry that was found by `other.key`, to the client's packets of its flow:
/// `other.client_key`. `false`: it is not one that replies are found by, or leads nowhere.
#[inline(always)]
pub fn trace<F: Family, T: Record>(tables: &T, other: &mut Other<F>) -> bool {
    let protocol = F::parts(&other.key).protocol;
    match F::state(&other.flow).role {
        Role::REPLY => other.client_key = client_key::<F>(&other.flow, protocol),
        Role::MASK_REPLY => {
            other.reply_key = F::key(&F::tuple(&other.flow, protocol), Side::EGRESS);
            let Some(reply) = tables.peek::<F>(&other.reply_key) else { return false };
            other.reply = reply;
            if F::state(&other.reply).role != Role::REPLY {
                return false;
            }
            other.client_key = client_key::<F>(&other.reply, protocol);
        }
        _ => return false,
    }
    true
}

/// Whether an entry was made so lately that the rest of its flow may be on its way into the table.
#[inline(always)]
pub fn is_fresh<F: Family, T: Record>(tables: &T, flow: &F::Flow) -> bool {
    since(F::state(flow).last_seen, tables.now()) <= 1
}

/// Gives the packet's flow a lasting seat, where nothing that a stranger opens displaces it. Where a few places in a row
/// are taken by flows that live, it stays as it is and the next packet tries again.
#[inline(always)]
pub fn prove<F: Family, T: Record>(tables: &T, row: &mut Row<F>) {
    let mut row = row;
    tables.repeat(PLACES, &mut row, |tables, _, row| {
        let row = &mut **row;
        let Some(seat) = tables.proven_seat::<F>() else { return true };
        row.other.client_key = *seat.key;
        let judged = judge::<F, T>(tables, &mut row.other, false);
        if judged != Judged::GONE && seat_of(&row.other) == seat.name {
            if judged == Judged::ALIVE {
                return false;
            }
            end::<F, T>(tables, &mut row.other);
        }
        *seat.key = row.client_key;
        tables.stamp::<F>(&row.reply_key, seat.name);
        tables.add_flags::<F>(&row.reply_key, FlowFlags::PROVEN);
        tables.add_flags::<F>(&row.client_key, FlowFlags::PROVEN);
        true
    });
}

/// Places of the ring that are looked at in one go.
const PLACES: u32 = 4;

/// Makes room in the table: the oldest of those flows that have not proved themselves end, and of the others those that
/// are over.
#[inline(always)]
pub fn make_room<F: Family, T: Record>(tables: &T, row: &mut Row<F>) {
    let mut row = row;
    tables.repeat(ROOM, &mut row, |tables, _, row| {
        let other = &mut row.other;
        if let Some(seat) = tables.opening_seat::<F>() {
            other.client_key = *seat.key;
            displace::<F, T>(tables, other, seat.name);
        }
        if let Some(seat) = tables.proven_seat::<F>() {
            other.client_key = *seat.key;
            if judge::<F, T>(tables, other, true) == Judged::OVER && seat_of(other) == seat.name {
                end::<F, T>(tables, other);
            }
        }
        false
    });
}

/// Seats of each ring that are looked at for room.
const ROOM: u32 = 8;

/// Ends the flow of `other.client_key` if it still has this seat among those that have not proved themselves; `true`: it
/// was alive.
#[inline(always)]
pub fn displace<F: Family, T: Record>(tables: &T, other: &mut Other<F>, seat: u32) -> bool {
    let judged = judge::<F, T>(tables, other, false);
    if judged == Judged::GONE || seat_of(other) != seat {
        return false;
    }
    end::<F, T>(tables, other);
    judged == Judged::ALIVE
}
