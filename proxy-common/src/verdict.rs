//! What the datapath says about a packet. The host of the datapath turns it into an action by an exhaustive match.

use crate::reason::Reason;

/// One number to the BPF back end: a payload that only some variants have would be copied where it is not there, which
/// the verifier refuses.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not ours: untouched, to the next program.
    Pass,
    /// Rewritten, to the next program and the stack.
    Translate,
    /// Rewritten, past the stack, out of the link it came from.
    Back,
    /// Rewritten, past the stack, by the route that [`crate::datapath::Packet::route`] answered last.
    Forward,
    /// Turned into an answer, out of the link it came from.
    Reply,
    /// On its way out turned into an answer to whoever sent it through this stack: in by the device it was to leave by.
    Inward,
    Drop(Reason),
}
