//! Measures the agent's own work, from objects in memory to maps in memory, and prints it as JSON. Build it with
//! `--release`.

use std::time::{Duration, Instant};

use proxy_userspace::reconcile::{
    Capacity, MemoryTables,
    measure::{Workload, measure},
};
use serde_json::json;

fn main() -> anyhow::Result<()> {
    let workload = Workload { services: 10_000, endpoints: 10, changing_endpoints: 100, changes: 1_000 };
    let capacity = Capacity { services: 32_768, frontends: 65_536, slots: 262_144, maglev: 524_288, backends: 131_072 };
    let start = Instant::now();
    let mut measured = measure(&mut MemoryTables::new(capacity), &workload, || start.elapsed())?;
    anyhow::ensure!(measured.refused == 0, "the workload does not fit into the maps");
    measured.changes.sort_unstable();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let percentile =
        |share: usize| measured.changes.get(measured.changes.len() * share / 100).map(|time| micros(*time));
    let report = json!({
        "services": workload.services,
        "endpoints_per_service": workload.endpoints,
        "full_sync_ms": measured.full_sync.as_secs_f64() * 1e3,
        "full_sync_writes": measured.full_sync_writes,
        "adopt_ms": measured.adopt.as_secs_f64() * 1e3,
        "adopt_writes": measured.adopt_writes,
        "changing_endpoints": workload.changing_endpoints,
        "change_median_us": percentile(50),
        "change_p99_us": percentile(99),
        "change_writes": measured.change_writes,
    });
    println!("{report:#}");
    Ok(())
}
