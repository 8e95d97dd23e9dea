use proxy_common::reason::Outcome;
use serde::Serialize;

use super::Row;
use crate::kernel::KernelError;
use crate::kernel::read::{Count, Reader};

/// How often a hook had a reason not to simply pass a packet on.
#[derive(Serialize)]
pub(super) struct CounterRow {
    hook: &'static str,
    reason: &'static str,
    /// `translated`, `left-alone`, `rejected`, `dropped` or `forgotten`.
    outcome: &'static str,
    packets: u64,
}

impl Row for CounterRow {
    const HEADER: &'static [&'static str] = &["HOOK", "REASON", "OUTCOME", "PACKETS"];

    fn cells(&self) -> Vec<String> {
        let Self { hook, reason, outcome, packets } = self;
        vec![(*hook).to_owned(), (*reason).to_owned(), (*outcome).to_owned(), packets.to_string()]
    }
}

/// Which reasons are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    All,
    /// Those for which a packet did not get where it was sent.
    Drops,
}

/// What has been counted at least once.
pub(super) fn rows(reader: &Reader, which: Which) -> Result<Vec<CounterRow>, KernelError> {
    let is_shown = |count: &Count| {
        let is_drop = matches!(count.reason.outcome(), Outcome::Dropped | Outcome::Rejected);
        count.packets != 0 && (is_drop || which == Which::All)
    };
    let counters = reader.counters()?.into_iter().filter(is_shown);
    Ok(counters
        .map(|Count { hook, reason, packets }| CounterRow {
            hook: hook.word(),
            reason: reason.word(),
            outcome: reason.outcome().word(),
            packets,
        })
        .collect())
}
