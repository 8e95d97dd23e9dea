//! The parts of the datapath that a kernel verifies by themselves, and what they answer with: a number, since nothing
//! else can come back from a function that is verified alone.

use super::{
    Packet, Record,
    admit::{meet, proved},
    claim, enter,
    parse::Parse,
    reject::{self, Reject},
    stranger,
};
use crate::reason::Reason;

/// A part by its number, a constant at every call.
pub struct Part;

impl Part {
    /// A packet without an entry, or with one that has to be looked at.
    pub const MEET: u8 = 0;
    /// Makes room and a seat for a flow, and prepares the claim of its reply key.
    pub const PREPARE: u8 = 1;
    /// Takes the reply key that the claim names, under a port that is free.
    pub const CLAIM: u8 = 2;
    /// The address that masquerades.
    pub const ADDRESS: u8 = 3;
    /// Prepares the claim of a masquerade's reply key.
    pub const MASK: u8 = 4;
    /// Enters what is left: the mask, and the client's packets.
    pub const ENTER: u8 = 5;
    /// Takes back what was entered for a flow that did not come about.
    pub const UNDO: u8 = 6;
    /// Answers for a frontend without endpoints.
    pub const REJECT: u8 = 7;
    /// Ends what is left of the packet's old flow.
    pub const END: u8 = 8;
    /// A datagram of the node itself from a port that is a frontend's too.
    pub const OWN: u8 = 9;
    /// The second answer of a UDP flow.
    pub const PROVE: u8 = 10;
    /// A reply whose request came in by another device.
    pub const DETOUR: u8 = 11;
}

/// What a part answers with. Reasons to drop carry their number.
pub struct Code;

impl Code {
    pub const DONE: u32 = 0;
    /// Not ours.
    pub const PASS: u32 = 1;
    pub const REPLY: u32 = 2;
    /// For a frontend, in the middle of a flow that is not known here.
    pub const MID_FLOW: u32 = 3;
    /// For a frontend without any endpoint.
    pub const REFUSED: u32 = 4;
    /// The first of a flow: its entry is begun in the row.
    pub const NEW: u32 = 5;
    /// The same, and what is left of an earlier one under this tuple has to end first.
    pub const ANEW: u32 = 6;
    /// No place in the table.
    pub const FULL: u32 = 7;
    const DROP: u32 = 0x100;

    /// Not a sum: Linux 6.1 loses the bounds of a number that is made by one and taken apart by a difference.
    #[inline(always)]
    pub const fn drop(reason: Reason) -> u32 {
        Self::DROP | reason as u32
    }

    /// The reason of a number that [`Code::drop`] made.
    #[inline(always)]
    pub fn reason(code: u32) -> Reason {
        Reason::ALL.get((code & 0xff) as usize).copied().unwrap_or(Reason::StaleTables)
    }
}

/// Runs a part.
#[inline(always)]
pub fn run<const PART: u8, F: Parse + Reject, P: Packet, T: Record>(packet: &mut P, tables: &T) -> u32 {
    let Some(row) = tables.row::<F>() else { return Code::PASS };
    match PART {
        Part::MEET => meet::<F, P, T>(packet, tables, row),
        Part::PREPARE => enter::prepare::<F, T>(tables, row),
        Part::CLAIM => claim::claim::<F, T>(tables, row),
        Part::ADDRESS => enter::find_node_address::<F, P, T>(packet, tables, row),
        Part::MASK => enter::prepare_mask::<F, T>(tables, row),
        Part::ENTER => enter::enter::<F, T>(tables, row),
        Part::UNDO => enter::undo::<F, T>(tables, row),
        Part::REJECT => reject::refuse::<F, P, T>(packet, tables, row),
        Part::END => enter::end_old::<F, T>(tables, row),
        Part::OWN => stranger::own::<F, T>(tables, row),
        Part::PROVE => proved::<F, T>(tables, row),
        _ => stranger::detour::<F, P, T>(packet, tables, row),
    }
}
