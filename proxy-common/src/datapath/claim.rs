//! Who replies belong to: whoever holds the key that they are found by owns the tuple.

use super::{
    Family, Inserted, Record, Row,
    judge::{Judged, is_fresh, judge_other, trace},
    part::{Code, Work},
    row::{Claimed, Entered},
};
use crate::{
    reason::Reason,
    tcp::Seen,
    wire::{Address, Role},
};

/// Ports that are tried, the present one first. The chance that all meet a living flow is the share of used ports to the
/// power of this number: 4 · 10⁻⁵ where nine of ten are in use.
const DRAWS: u32 = 96;
/// After so many in vain, flows that are finished or have proved nothing give way sooner.
const CALM_DRAWS: u32 = 8;
/// After so many, a flow that has closed gives way to any other; before, only to one of its own kind: see [`rests`].
const CAREFUL_DRAWS: u32 = 48;

/// Takes the reply key of `row.claim` under a port that is free; a flow that is over gives way. Where the table is full, the
/// port that was drawn last is the first of the next call.
#[inline(always)]
pub fn claim<F: Family, T: Record>(tables: &T, row: &mut Row<F>) -> u32 {
    row.claim.end = Claimed::NOT_YET;
    tables.repeat(DRAWS, draw::<F, T>);
    let Some(row) = tables.row::<F>() else { return Code::PASS };
    match row.claim.end {
        Claimed::YES => {}
        Claimed::FULL => return Code::FULL,
        _ => return Code::drop(Reason::PortsExhausted),
    }
    if F::state(&row.claim.reply).role == Role::REPLY {
        claimed(row);
    } else {
        row.mask_reply_key = row.claim.key;
        row.entered |= Entered::MASK_REPLY;
    }
    Code::DONE
}

/// The reply key of the claim is the flow's.
#[inline(always)]
pub fn claimed<F: Family>(row: &mut Row<F>) {
    row.reply_key = row.claim.key;
    row.entered |= Entered::REPLY;
    F::set_reverse_tuple(&mut row.flow, &row.claim.key);
}

#[inline(always)]
fn draw<F: Family, T: Record>(tables: &T, turn: u32) -> bool {
    let Some(row) = tables.row::<F>() else { return true };
    let (claim, other) = (&mut row.claim, &mut row.other);
    if claim.keep == 0 {
        let choice = (u64::from(tables.random()) * u64::from(claim.ports)) >> 32;
        F::set_destination_port(&mut claim.key, ((claim.low + choice as u32) as u16).to_be());
    }
    claim.keep = 0;
    match tables.insert::<F>(&claim.key, &claim.reply) {
        Inserted::Yes => {
            claim.end = Claimed::YES;
            return true;
        }
        Inserted::Full => {
            claim.end = Claimed::FULL;
            claim.keep = 1;
            return true;
        }
        Inserted::Exists => {}
    }
    claim.end = Claimed::NOT_YET;
    other.key = claim.key;
    if !tables.peek::<F>(&other.key, &mut other.flow) {
        return false;
    }
    let held = F::state(&other.flow);
    if trace::<F, T>(tables, other) {
        let mut judged = judge_other::<F, T>(tables, false);
        if judged == Judged::ALIVE && turn >= CALM_DRAWS && (turn >= CAREFUL_DRAWS || !rests::<F, T>(tables)) {
            judged = judge_other::<F, T>(tables, true);
        }
        if judged == Judged::ALIVE {
            return false;
        }
        if judged == Judged::OVER {
            let _ = tables.work::<{ Work::END }, F>();
            keep::<F, T>(tables);
            return false;
        }
    }
    // An entry that leads to no client: left behind, unless it is being made right now.
    if (held.role == Role::REPLY || held.role == Role::MASK_REPLY) && !is_fresh(tables, &held) {
        if let Some(row) = tables.row::<F>() {
            tables.remove::<F>(&row.claim.key);
        }
        keep::<F, T>(tables);
    }
    false
}

/// Whether the flow that holds the port has closed and the new one is of another kind: another client, or dialled by another
/// address. Its backend remembers it for a minute (TIME_WAIT) and takes a new SYN from the same port only if that has a later
/// timestamp (RFC 6191); clients count timestamps for each pair of addresses anew (`secure_tcp_ts_off`, net/core/secure_seq.c).
/// The SYN would have to be sent again after a second.
#[inline(always)]
fn rests<F: Family, T: Record>(tables: &T) -> bool {
    let Some(row) = tables.row::<F>() else { return false };
    let (old, new) = (&row.other.client_key, &row.headers.key);
    let closed = F::state(&row.other.client).seen & F::state(&row.other.reply).seen & Seen::FIN != 0;
    // Without a branch for each word, which the verifier would follow one by one.
    let differ = |a: Address, b: Address| a.0.iter().zip(b.0).fold(0, |sum, (a, b)| sum | (a ^ b));
    closed && (differ(F::source(old), F::source(new)) | differ(F::destination(old), F::destination(new))) != 0
}

/// Tries the present port once more.
#[inline(always)]
fn keep<F: Family, T: Record>(tables: &T) {
    if let Some(row) = tables.row::<F>() {
        row.claim.keep = 1;
    }
}
