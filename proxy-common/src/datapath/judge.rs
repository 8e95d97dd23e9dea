//! Whose an entry is, whether that flow has ended, and its end: all of its entries go together.

use zerocopy::FromZeros as _;

use super::{
    Family, Record,
    family::State,
    over::{Half, Life, since},
    parse::TCP,
    part::{Code, Work},
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

/// Makes the key that the replies of a flow are found by. `client` is the entry of the client's packets.
#[inline(always)]
pub fn make_reply_key<F: Family>(key: &mut F::Key, client: &F::Flow, protocol: u8) {
    let hairpin = F::state(client).flags & FlowFlags::HAIRPIN != 0;
    F::make_reverse_key(key, client, protocol, if hairpin { Side::INGRESS } else { Side::EGRESS });
}

/// What the replies of a flow are found by. `client` is the entry of the client's packets.
pub fn reply_key<F: Family>(client: &F::Flow, protocol: u8) -> F::Key {
    let mut key = F::Key::new_zeroed();
    make_reply_key::<F>(&mut key, client, protocol);
    key
}

/// What the client's packets are found by. `reply` is the entry of the replies.
pub fn client_key<F: Family>(reply: &F::Flow, protocol: u8) -> F::Key {
    F::key(&F::tuple(reply, protocol).reversed(), Side::INGRESS)
}

/// Whether a role is that of a client's packets.
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
pub fn judge<F: Family, T: Record>(tables: &T, other: &mut Other<F>) -> u32 {
    let protocol = F::protocol(&other.client_key);
    let pressed = other.pressed != 0;
    let Some(config) = tables.config() else { return Judged::ALIVE };
    if !tables.peek::<F>(&other.client_key, &mut other.client) {
        return Judged::GONE;
    }
    let state = F::state(&other.client);
    let now = tables.now();
    if state.role == Role::OWN {
        let over = since(state.last_seen, now) > if pressed { config.timeouts.pressed } else { config.timeouts.udp };
        return if over { Judged::OVER } else { Judged::ALIVE };
    }
    if !is_clients(state.role) {
        return Judged::GONE;
    }
    make_reply_key::<F>(&mut other.reply_key, &other.client, protocol);
    if !tables.peek::<F>(&other.reply_key, &mut other.reply) || !F::is_reverse(&other.reply, &other.client_key) {
        return Judged::OVER;
    }
    let life = life(protocol, &state, &F::state(&other.reply));
    if life.is_over(now, pressed, &config.timeouts) { Judged::OVER } else { Judged::ALIVE }
}

/// The same as a part, of `row.other`. `pressed`: a port or a place is wanted and none is free.
#[inline(always)]
pub fn judge_other<F: Family, T: Record>(tables: &T, pressed: bool) -> u32 {
    let Some(row) = tables.row::<F>() else { return Judged::ALIVE };
    row.other.pressed = u32::from(pressed);
    tables.work::<{ Work::JUDGE }, F>()
}

/// The seat of a flow that [`judge`] has found.
#[inline(always)]
pub fn seat_of<F: Family>(other: &Other<F>) -> u32 {
    let client = F::state(&other.client);
    if client.role == Role::OWN { client.stamp } else { F::state(&other.reply).stamp }
}

/// Removes the entries of the flow whose client's packets are found by `other.client_key`.
#[inline(always)]
pub fn end<F: Family, T: Record>(tables: &T, other: &mut Other<F>) -> u32 {
    if !tables.peek::<F>(&other.client_key, &mut other.client) {
        return Code::DONE;
    }
    let protocol = F::protocol(&other.client_key);
    let state = F::state(&other.client);
    if is_clients(state.role) {
        if state.flags & FlowFlags::MASQUERADE != 0 {
            end_mask::<F, T>(tables, other, protocol);
        }
        make_reply_key::<F>(&mut other.reply_key, &other.client, protocol);
        // The tuple may be another flow's by now.
        if tables.peek::<F>(&other.reply_key, &mut other.reply) && F::is_reverse(&other.reply, &other.client_key) {
            tables.remove::<F>(&other.reply_key);
        }
    } else if state.role != Role::OWN {
        return Code::DONE;
    }
    tables.remove::<F>(&other.client_key);
    Code::DONE
}

#[inline(always)]
fn end_mask<F: Family, T: Record>(tables: &T, other: &mut Other<F>, protocol: u8) {
    F::make_key(&mut other.key, &other.client, protocol, Side::EGRESS);
    if !tables.peek::<F>(&other.key, &mut other.flow) || F::state(&other.flow).role != Role::MASK {
        return;
    }
    tables.remove::<F>(&other.key);
    F::make_reverse_key(&mut other.key, &other.flow, protocol, Side::INGRESS);
    if tables.peek::<F>(&other.key, &mut other.flow) && F::state(&other.flow).role == Role::MASK_REPLY {
        tables.remove::<F>(&other.key);
    }
}

/// Leads from `other.flow`, an entry that was found by `other.key`, to the client's packets of its flow:
/// `other.client_key`. `false`: it is not one that replies are found by, or leads nowhere.
#[inline(always)]
pub fn trace<F: Family, T: Record>(tables: &T, other: &mut Other<F>) -> bool {
    let protocol = F::protocol(&other.key);
    let role = F::state(&other.flow).role;
    if role == Role::MASK_REPLY {
        F::make_key(&mut other.reply_key, &other.flow, protocol, Side::EGRESS);
        if !tables.peek::<F>(&other.reply_key, &mut other.flow) || F::state(&other.flow).role != Role::REPLY {
            return false;
        }
    } else if role != Role::REPLY {
        return false;
    }
    F::make_reverse_key(&mut other.client_key, &other.flow, protocol, Side::INGRESS);
    true
}

/// Whether an entry was made so lately that the rest of its flow may be on its way into the table.
#[inline(always)]
pub fn is_fresh<T: Record>(tables: &T, state: &State) -> bool {
    since(state.last_seen, tables.now()) <= 1
}

/// Gives the flow of `row.client_key` and `row.reply_key` a lasting seat, where nothing that a stranger opens displaces
/// it. Where a few places in a row are taken by flows that live, it stays as it is and the next packet tries again.
#[inline(always)]
pub fn prove<F: Family, T: Record>(tables: &T) -> u32 {
    tables.repeat(PLACES, |tables, turn| {
        let Some(row) = tables.row::<F>() else { return true };
        let datagrams = F::protocol(&row.client_key) != TCP;
        let Some(seat) = tables.proven_seat::<F>(datagrams) else { return true };
        row.other.client_key = *seat.key;
        let (name, place) = (seat.name, seat.index);
        // What has closed rests for as long as there are places: its port is best left alone.
        if !clear::<F, T>(tables, name, datagrams || turn >= CALM_PLACES) {
            return false;
        }
        let Some(row) = tables.row::<F>() else { return true };
        if tables.has::<F>(&row.client_key) {
            tables.seat::<F>(place, &row.client_key);
            let (before, turn) = tables.settle::<F>(&row.reply_key, name);
            tables.add_flags::<F>(&row.client_key, FlowFlags::PROVEN);
            tables.leave::<F>(before, turn);
        }
        true
    });
    Code::DONE
}

/// Places of the ring that are looked at in one go.
const PLACES: u32 = 16;
/// After so many in vain, the oldest flow that has closed gives way sooner.
const CALM_PLACES: u32 = 14;

/// Makes a seat among the proven free, whose last holder is `row.other.client_key`; `false`: he lives.
#[inline(always)]
fn clear<F: Family, T: Record>(tables: &T, seat: u32, pressed: bool) -> bool {
    let judged = judge_other::<F, T>(tables, pressed);
    let Some(row) = tables.row::<F>() else { return false };
    if judged == Judged::GONE || seat_of(&row.other) != seat {
        return true;
    }
    if judged == Judged::OVER {
        let _ = tables.work::<{ Work::END }, F>();
    }
    judged == Judged::OVER
}

/// Makes room in the table: the oldest of those flows that have not proved themselves end, and of the others those that
/// are over.
#[inline(always)]
pub fn make_room<F: Family, T: Record>(tables: &T) -> u32 {
    tables.repeat(ROOM, |tables, turn| {
        if let (Some(row), Some(seat)) = (tables.row::<F>(), tables.opening_seat::<F>())
            && !seat.is_free
        {
            row.other.client_key = *seat.key;
            let name = seat.name;
            let _ = displace::<F, T>(tables, name);
        }
        if let (Some(row), Some(seat)) = (tables.row::<F>(), tables.proven_seat::<F>(turn & 1 != 0)) {
            row.other.client_key = *seat.key;
            let name = seat.name;
            let _ = clear::<F, T>(tables, name, true);
        }
        false
    });
    Code::DONE
}

/// Seats of each ring that are looked at for room.
const ROOM: u32 = 8;

/// Ends the flow of `row.other.client_key` if it still has this seat among those that have not proved themselves;
/// `true`: it was alive.
#[inline(always)]
pub fn displace<F: Family, T: Record>(tables: &T, seat: u32) -> bool {
    let judged = judge_other::<F, T>(tables, false);
    let Some(row) = tables.row::<F>() else { return false };
    if judged == Judged::GONE || seat_of(&row.other) != seat {
        return false;
    }
    let _ = tables.work::<{ Work::END }, F>();
    judged == Judged::ALIVE
}
