//! Who replies belong to: whoever holds the key that they are found by owns the tuple.

use super::{
    Family, Inserted, Record,
    judge::{Judged, is_fresh, trace},
    part::{Code, Work},
    row::{Claimed, Entered},
};
use crate::{reason::Reason, wire::Role};

/// Ports that are tried, the present one first. The chance that all meet a living flow is the share of used ports to the
/// power of this number: 10⁻³ where nine of ten are in use.
const DRAWS: u32 = 64;
/// After so many in vain, flows that are finished or have proved nothing give way sooner.
const CALM_DRAWS: u32 = 16;

/// Takes the reply key of `row.claim` under a port that is free; a flow that is over gives way.
#[inline(always)]
pub fn claim<F: Family, T: Record>(tables: &T) -> u32 {
    let Some(row) = tables.row::<F>() else { return Code::PASS };
    row.claim.end = Claimed::NOT_YET;
    tables.repeat(DRAWS, draw::<F, T>);
    let Some(row) = tables.row::<F>() else { return Code::PASS };
    match row.claim.end {
        Claimed::YES => {}
        Claimed::FULL => return Code::drop(Reason::FlowTableFull),
        _ => return Code::drop(Reason::PortsExhausted),
    }
    if F::state(&row.claim.reply).role == Role::REPLY {
        row.reply_key = row.claim.key;
        row.entered |= Entered::REPLY;
        F::set_reverse_tuple(&mut row.flow, &row.claim.key);
    } else {
        row.mask_reply_key = row.claim.key;
        row.entered |= Entered::MASK_REPLY;
    }
    Code::DONE
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
        Inserted::Full if claim.end == Claimed::FULL => return true,
        Inserted::Full => {
            // Once more, when there is room.
            claim.end = Claimed::FULL;
            claim.keep = 1;
            let _ = tables.work::<{ Work::ROOM }, F>();
            return false;
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
        let judged = if turn < CALM_DRAWS {
            tables.work::<{ Work::JUDGE }, F>()
        } else {
            tables.work::<{ Work::JUDGE_PRESSED }, F>()
        };
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

/// Tries the present port once more.
#[inline(always)]
fn keep<F: Family, T: Record>(tables: &T) {
    if let Some(row) = tables.row::<F>() {
        row.claim.keep = 1;
    }
}
