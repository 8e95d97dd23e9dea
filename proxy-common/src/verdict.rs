//! What the datapath says about a packet. The host of the datapath turns it into an action by an exhaustive match.

use crate::{reason::Reason, wire::Address};

#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not ours: untouched, to the next program.
    Pass,
    /// Rewritten, to the next program and the stack.
    Translate,
    /// Rewritten, past the stack.
    Redirect(Redirect),
    /// Turned into an answer, out of the link it came from.
    Reply,
    Drop(Reason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirect {
    /// Out of the link it came from.
    Back,
    /// Out of another device to a next hop of the same family.
    Forward { device: u32, next_hop: Address },
}
