use crate::reason::{Hook, Reason};

/// Rows of `COUNTERS` (PERCPU_ARRAY of u64): one per hook and reason.
pub const COUNTERS: u32 = (Hook::ALL.len() * Reason::ALL.len()) as u32;

/// The row in which `hook` counts `reason`.
#[inline(always)]
pub const fn counter_index(hook: Hook, reason: Reason) -> u32 {
    hook as u32 * Reason::ALL.len() as u32 + reason as u32
}
