//! Who replies belong to: whoever holds the key that they are found by owns the tuple.

use super::{
    Family, Inserted, Record, Row,
    judge::{Judged, end, is_fresh, judge, make_room, trace},
    part::Code,
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
pub fn claim<F: Family, T: Record>(tables: &T, row: &mut Row<F>) -> u32 {
    draw_all::<F, T>(tables, row);
    if row.claim.end == Claimed::FULL {
        make_room::<F, T>(tables, row);
        row.claim.keep = 1;
        draw_all::<F, T>(tables, row);
    }
    match row.claim.end {
        Claimed::YES => {}
        Claimed::FULL => return Code::drop(Reason::FlowTableFull),
        _ => return Code::drop(Reason::PortsExhausted),
    }
    if F::state(&row.claim.reply).role == Role::REPLY {
        row.reply_key = row.claim.key;
        row.entered |= Entered::REPLY;
        row.flow = F::flow(&F::parts(&row.claim.key).reversed(), F::state(&row.flow));
    } else {
        row.mask_reply_key = row.claim.key;
        row.entered |= Entered::MASK_REPLY;
    }
    Code::DONE
}

#[inline(always)]
fn draw_all<F: Family, T: Record>(tables: &T, row: &mut Row<F>) {
    row.claim.end = Claimed::NOT_YET;
    let mut row = row;
    tables.repeat(DRAWS, &mut row, |tables, turn, row| draw::<F, T>(tables, turn, row));
}

#[inline(always)]
fn draw<F: Family, T: Record>(tables: &T, turn: u32, row: &mut Row<F>) -> bool {
    let Row { claim, other, .. } = row;
    if claim.keep == 0 {
        let mut tuple = F::parts(&claim.key);
        let choice = (u64::from(tables.random()) * u64::from(claim.ports)) >> 32;
        tuple.destination_port = ((claim.low + choice as u32) as u16).to_be();
        claim.key = F::key(&tuple, F::side(&claim.key));
    }
    claim.keep = 0;
    match tables.insert::<F>(&claim.key, &claim.reply) {
        Inserted::Yes => {
            claim.end = Claimed::YES;
            return true;
        }
        Inserted::Full => {
            claim.end = Claimed::FULL;
            return true;
        }
        Inserted::Exists => {}
    }
    other.key = claim.key;
    let Some(held) = tables.peek::<F>(&other.key) else { return false };
    other.flow = held;
    let traced = trace::<F, T>(tables, other);
    if traced {
        let judged = judge::<F, T>(tables, other, turn >= CALM_DRAWS);
        if judged == Judged::ALIVE {
            return false;
        }
        if judged == Judged::OVER {
            end::<F, T>(tables, other);
            claim.keep = 1;
            return false;
        }
    }
    // An entry that leads to no client: left behind, unless it is being made right now.
    let role = F::state(&other.flow).role;
    if (role == Role::REPLY || role == Role::MASK_REPLY) && !is_fresh::<F, T>(tables, &other.flow) {
        tables.remove::<F>(&claim.key);
        claim.keep = 1;
    }
    false
}
