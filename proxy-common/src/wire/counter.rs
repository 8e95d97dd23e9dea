use super::Address;
use crate::reason::{Hook, Reason};

/// Rows of `COUNTERS` (PERCPU_ARRAY of u64): one per hook and reason.
pub const COUNTERS: u32 = (Hook::ALL.len() * Reason::ALL.len()) as u32;

/// The row in which `hook` counts `reason`.
#[inline(always)]
pub const fn counter_index(hook: Hook, reason: Reason) -> u32 {
    hook as u32 * Reason::ALL.len() as u32 + reason as u32
}

/// Rows of `REJECTS` (PERCPU_ARRAY of u64): clients share the rejects of a row, so that one who dials what is not there
/// in a loop takes them from few others.
pub const REJECT_ROWS: u32 = 16;

/// The row from which a client's rejects are taken: neighbours have different ones.
#[inline(always)]
pub const fn reject_row(client: &Address) -> u32 {
    let [a, b, c, d] = client.0;
    let words = a ^ b ^ c ^ d;
    (words ^ words >> 8 ^ words >> 16 ^ words >> 24) & (REJECT_ROWS - 1)
}
