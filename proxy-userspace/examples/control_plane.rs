//! Measures the agent's own work, from objects in memory to maps, and prints it as JSON: once with maps of the kernel,
//! which is what a user waits for, and once with maps in memory, which is what the agent itself takes of it. And how long
//! a sweep of a full flow table takes. Needs root. Build it with `--release`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use aya::maps::{HashMap, Map, MapData};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use proxy_common::datapath::{Family, State, Tuple, V4};
use proxy_common::tcp::Seen;
use proxy_common::wire::{Config, FlowFlags, LAYOUT, Role, Side, Timeouts};
use proxy_userspace::kernel::tick::Tick;
use proxy_userspace::kernel::{Capacities, Options, Runtime};
use proxy_userspace::reconcile::{
    MemoryTables, Tables,
    measure::{Workload, measure},
};
use serde_json::{Value, json};
use zerocopy::IntoBytes;

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
    let sweep = sweep(&mut runtime, pins.path())?;
    drop(runtime);
    nix::mount::umount(pins.path()).context("unmounting the pins")?;
    let report = json!({
        "services": workload.services,
        "endpoints_per_service": workload.endpoints,
        "changing_endpoints": workload.changing_endpoints,
        "kernel": in_kernel,
        "memory": in_memory,
        "sweep": sweep,
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

/// Fills the flow table of IPv4 with established connections, sweeps it, and once more when all of them have ended.
fn sweep(runtime: &mut Runtime, pins: &Path) -> anyhow::Result<Value> {
    const SWEEPS: usize = 9;
    let pin = pins.join(format!("v{LAYOUT}/maps/FLOWS4"));
    let mut flows: HashMap<MapData, [u8; 16], [u8; 32]> = Map::HashMap(MapData::from_pin(pin)?).try_into()?;
    let now = Tick::detect()?.now()?;
    let count = Capacities::default().flows4 / 2;
    for client in 0..count {
        let dialled = Tuple { source: client, destination: 900, source_port: 9, destination_port: 80, protocol: 6 };
        let sent = Tuple { destination: 901, ..dialled };
        let state = State {
            subject: 0,
            generation: 0,
            stamp: 0,
            last_seen: now,
            role: Role::CLIENT,
            flags: FlowFlags::PROVEN,
            seen: Seen::SYN | Seen::ACK,
        };
        let reply = V4::flow(&dialled.reversed(), State { role: Role::REPLY, ..state });
        for (key, flow) in [
            (V4::key(&sent.reversed(), Side::EGRESS), reply),
            (V4::key(&dialled, Side::INGRESS), V4::flow(&sent, state)),
        ] {
            let (key, flow): ([u8; 16], [u8; 32]) = (key.as_bytes().try_into()?, flow.as_bytes().try_into()?);
            flows.insert(key, flow, 0)?;
        }
    }
    let timeouts = Timeouts { tcp_established: 1 << 20, ..Timeouts::default() };
    runtime.tables.set_config(&Config { timeouts, ..Config::default() });
    let mut times = Vec::new();
    let mut entries = 0;
    for _ in 0..SWEEPS {
        let swept = runtime.sweeper.sweep()?;
        anyhow::ensure!((swept.over, swept.strays) == (0, 0), "{} flows of {} have ended", swept.over, swept.entries);
        times.push(swept.took);
        entries = swept.entries;
    }
    times.sort_unstable();
    // All of them are as if reset long ago.
    let timeouts = Timeouts { pressed: 1, ..Timeouts::default() };
    runtime.tables.set_config(&Config { timeouts, ..Config::default() });
    std::thread::sleep(2 * Tick::detect()?.length());
    let last = runtime.sweeper.sweep()?;
    anyhow::ensure!(last.over == count as usize, "only {} flows of {count} have ended", last.over);
    Ok(json!({
        "entries": entries,
        "median_ms": times.get(SWEEPS / 2).map(|time| time.as_secs_f64() * 1e3),
        "removing_all_ms": last.took.as_secs_f64() * 1e3,
    }))
}
