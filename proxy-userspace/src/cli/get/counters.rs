use serde::Serialize;

use super::Row;
use crate::kernel::KernelError;
use crate::kernel::read::{Count, Reader};

/// How often a hook had a reason not to simply pass a packet on.
#[derive(Serialize)]
pub(super) struct DropRow {
    hook: &'static str,
    reason: &'static str,
    /// `dropped`, `rejected`, `left-alone`, or `translated` for a new flow.
    outcome: &'static str,
    packets: u64,
}

impl Row for DropRow {
    const HEADER: &'static [&'static str] = &["HOOK", "REASON", "OUTCOME", "PACKETS"];

    fn cells(&self) -> Vec<String> {
        let Self { hook, reason, outcome, packets } = self;
        vec![(*hook).to_owned(), (*reason).to_owned(), (*outcome).to_owned(), packets.to_string()]
    }
}

/// What has been counted at least once.
pub(super) fn rows(reader: &Reader) -> Result<Vec<DropRow>, KernelError> {
    let counters = reader.counters()?;
    let counted = counters.into_iter().filter(|count| count.packets != 0);
    Ok(counted
        .map(|Count { hook, reason, packets }| DropRow {
            hook: hook.word(),
            reason: reason.word(),
            outcome: reason.outcome().word(),
            packets,
        })
        .collect())
}
