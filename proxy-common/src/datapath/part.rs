//! The parts of the datapath that a kernel verifies by themselves, and what they answer with: a number, since nothing
//! else can come back from a function that is verified alone.

use super::{
    Family, Packet, Record,
    admit::{meet, review},
    claim, enter, ingress,
    judge::{self, end, judge},
    parse::Parse,
    reject::{self, Reject},
    stranger,
};
use crate::reason::Reason;

/// A part that works on the packet, by its number: a constant at every call.
pub struct Part;

impl Part {
    /// A packet without an entry that can be believed. A new flow is begun, and nearly always entered.
    pub const MEET: u8 = 0;
    /// The address that masquerades.
    pub const ADDRESS: u8 = 1;
    /// Answers for a frontend without endpoints.
    pub const REJECT: u8 = 2;
    /// A reply whose request came in by another device.
    pub const DETOUR: u8 = 3;
    /// Past the stack, if nobody there looks and the routing table allows it.
    pub const SHORTCUT: u8 = 4;
    /// TCP that is about to leave for a frontend, though nobody has translated it.
    pub const STRAY: u8 = 5;
}

/// A part that works on the tables alone.
pub struct Work;

impl Work {
    /// Takes the reply key that the claim names, under a port that is free.
    pub const CLAIM: u8 = 0;
    /// Prepares the claim of a masquerade's reply key.
    pub const MASK: u8 = 1;
    /// Enters what is left: the mask, and the client's packets.
    pub const ENTER: u8 = 2;
    /// Takes back what was entered for a flow that did not come about.
    pub const UNDO: u8 = 3;
    /// Makes room in the tables.
    pub const ROOM: u8 = 4;
    /// A datagram of the node itself from a port that is a frontend's too.
    pub const OWN: u8 = 5;
    /// A lasting seat for a flow that has proved itself.
    pub const PROVE: u8 = 6;
    /// Judges the row's other flow: see [`judge::judge_other`].
    pub const JUDGE: u8 = 7;
    /// Ends the row's other flow.
    pub const END: u8 = 8;
    /// Looks at the packet's entry.
    pub const REVIEW: u8 = 9;
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
    /// The entry is right, and its flow has proved itself.
    pub const PROVE: u32 = 7;
    /// The entry is right if its frontend is still whose it was.
    pub const ASK: u32 = 8;
    /// The table has no room for another entry.
    pub const FULL: u32 = 9;
    /// There seems to be no frontend, which has to be looked for once more.
    pub const AGAIN: u32 = 10;
    /// The whole flow is in the table.
    pub const ENTERED: u32 = 11;
    /// The flow's reply key has to be claimed.
    pub const CLAIM: u32 = 12;
    /// The flow's reply key is claimed; its mask, if it has one, and the client's packets are to be entered.
    pub const CLAIMED: u32 = 13;
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

/// Runs a part on the packet.
#[inline(always)]
pub fn run<const PART: u8, F: Parse + Reject, P: Packet, T: Record>(packet: &mut P, tables: &T) -> u32 {
    let Some(row) = tables.row::<F>() else { return Code::PASS };
    match PART {
        Part::MEET => {
            let code = meet::<F, P, T>(packet, tables, row);
            if code == Code::NEW { enter::begin::<F, T>(tables, row) } else { code }
        }
        Part::ADDRESS => enter::find_node_address::<F, P, T>(packet, tables, row),
        Part::REJECT => reject::refuse::<F, P, T>(packet, tables, row, Reason::NoEndpoint),
        Part::SHORTCUT => ingress::shortcut::<F, P, T>(packet, tables, row),
        Part::STRAY => stranger::stray::<F, P, T>(packet, tables, row),
        _ => stranger::detour::<F, P>(packet, row),
    }
}

/// Runs a part on the tables.
#[inline(always)]
pub fn work<const WORK: u8, F: Family, T: Record>(tables: &T) -> u32 {
    let Some(row) = tables.row::<F>() else { return Code::PASS };
    match WORK {
        Work::CLAIM => claim::claim::<F, T>(tables, row),
        Work::MASK => enter::prepare_mask::<F, T>(tables, row),
        Work::ENTER => enter::enter::<F, T>(tables, row),
        Work::UNDO => enter::undo::<F, T>(tables, row),
        Work::ROOM => judge::make_room::<F, T>(tables),
        Work::OWN => stranger::own::<F, T>(tables),
        Work::PROVE => judge::prove::<F, T>(tables),
        Work::JUDGE => judge::<F, T>(tables, &mut row.other),
        Work::REVIEW => review::<F, T>(tables, row),
        _ => end::<F, T>(tables, &mut row.other),
    }
}
