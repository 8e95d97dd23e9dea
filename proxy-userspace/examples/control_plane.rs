//! Measures the agent's own work, from objects in memory to maps, and prints it as JSON: once with maps of the kernel,
//! which is what a user waits for, and once with maps in memory, which is what the agent itself takes of it. Needs
//! root. Build it with `--release`.

use std::time::{Duration, Instant};

use anyhow::Context;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use proxy_userspace::kernel::{Capacities, Options, Runtime};
use proxy_userspace::reconcile::{
    MemoryTables, Tables,
    measure::{Workload, measure},
};
use serde_json::{Value, json};

fn main() -> anyhow::Result<()> {
    let workload = Workload { services: 10_000, endpoints: 10, changing_endpoints: 100, changes: 1_000 };
    // What is mounted and pinned here goes away with the process.
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
        .context("making namespaces of its own; run it as root")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    let pins = tempfile::tempdir()?;
    let options = Options {
        pin_dir: pins.path().to_owned(),
        capacities: Capacities::for_services(workload.services),
        ..Options::default()
    };
    let mut runtime = Runtime::open(&options)?;
    let in_memory = run(&mut MemoryTables::new(runtime.tables.capacity()), &workload)?;
    let in_kernel = run(&mut runtime.tables, &workload)?;
    drop(runtime);
    nix::mount::umount(pins.path()).context("unmounting the pins")?;
    let report = json!({
        "services": workload.services,
        "endpoints_per_service": workload.endpoints,
        "changing_endpoints": workload.changing_endpoints,
        "kernel": in_kernel,
        "memory": in_memory,
    });
    println!("{report:#}");
    Ok(())
}

fn run(tables: &mut impl Tables, workload: &Workload) -> anyhow::Result<Value> {
    let start = Instant::now();
    let mut measured = measure(tables, workload, || start.elapsed())?;
    anyhow::ensure!(measured.refused == 0, "the workload does not fit into the maps");
    measured.changes.sort_unstable();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let percentile =
        |share: usize| measured.changes.get(measured.changes.len() * share / 100).map(|time| micros(*time));
    Ok(json!({
        "full_sync_ms": measured.full_sync.as_secs_f64() * 1e3,
        "full_sync_writes": measured.full_sync_writes,
        "adopt_ms": measured.adopt.as_secs_f64() * 1e3,
        "adopt_writes": measured.adopt_writes,
        "change_median_us": percentile(50),
        "change_p99_us": percentile(99),
        "change_writes": measured.change_writes,
    }))
}
