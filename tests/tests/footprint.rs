//! What the agent costs a node when little or much happens on it: memory, processor time and system calls. Needs root and
//! the agent.

use std::collections::BTreeMap;
use std::io::{Write as _, stdout};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};
use proxy_common::wire::LAYOUT;
use proxy_tests::cluster::{Cluster, Cni, Endpoint, Family, Place, Service, Stage, eventually};

/// One node and another, and so many services.
fn stage(services: u16) -> Result<Stage> {
    let builder = Cluster::builder().nodes(2).cni(Cni::Routed).pod(1, "a").pod(1, "b").pod(2, "c");
    Stage::start(builder, |cluster| {
        let endpoints = ["b", "c"].map(|pod| Endpoint::of(cluster.pod(pod)));
        (1..=services).try_for_each(|number| {
            let service = Service::new(&format!("web{number}"), number).node_port(30_000 + 10 * number);
            cluster.manifests().apply(&service, &endpoints)
        })
    })
}

/// Says a number whether or not a test fails.
fn say(line: &str) {
    let _ = writeln!(stdout(), "\n{line}");
}

/// What the agent has to itself; the maps that it has mapped are there once, whoever maps them, and so is the program.
#[test]
fn six_services_take_little_memory() -> Result<()> {
    const MOST: u64 = 16 << 10;
    let mut stage = stage(6)?;
    let pid = stage.agent(1).process().pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = |field: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix("kB"));
        value.and_then(|value| value.trim().parse::<u64>().ok()).with_context(|| format!("no {field}"))
    };
    let (all, own) = (kib("VmRSS:")?, kib("RssAnon:")?);
    say(&format!("with six services {all} KiB are resident, of which {own} are the agent's own"));
    ensure!(own <= MOST, "{own} KiB of {MOST}");
    Ok(())
}

/// Processor time of each thread so far, by its name, and of those that have ended.
fn used(pid: u32) -> Result<BTreeMap<String, Duration>> {
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock")? as u64;
    let mut used = BTreeMap::new();
    let mut living = Duration::ZERO;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path();
        // A thread may have ended meanwhile.
        let Ok((name, time)) = time_of(&path, per_second) else { continue };
        living += time;
        *used.entry(name).or_default() += time;
    }
    let (_, all) = time_of(Path::new(&format!("/proc/{pid}")), per_second)?;
    used.insert("(all)".into(), all.max(living));
    Ok(used)
}

/// Name and processor time in a directory of procfs (proc(5), `stat`).
fn time_of(directory: &Path, per_second: u64) -> Result<(String, Duration)> {
    let stat = std::fs::read_to_string(directory.join("stat"))?;
    let (before, after) = stat.rsplit_once(") ").context("no name")?;
    let name = before.split_once('(').context("no name")?.1.to_owned();
    let field = |at: usize| after.split(' ').nth(at).and_then(|text| text.parse::<u64>().ok()).context("no time");
    // utime and stime are the 14th and 15th field, of which the state is the 3rd.
    let ticks = field(11)? + field(12)?;
    Ok((name, Duration::from_millis(ticks * 1000 / per_second)))
}

/// A node with 300 pods, of which 100 go in a minute and others come: following them takes less than a hundredth of a
/// processor.
#[test]
fn pods_come_and_go() -> Result<()> {
    const LINKS: usize = 300;
    const CHANGES: usize = 100;
    /// Of a minute, for the thread that follows devices, while 100 come and 100 go.
    const MOST: Duration = Duration::from_millis(600);
    let mut stage = stage(1)?;
    let pid = stage.agent(1).process().pid();
    let node = stage.cluster.node(1).namespace().clone();
    // One namespace stands for the pods' own.
    let far = stage.cluster.pod("b").namespace().name().to_owned();
    let come = |number: usize| {
        format!("link add d{number} type veth peer name e{number} netns {far}\nlink set d{number} up\n")
    };
    node.ip(&(0..LINKS).map(come).collect::<String>())?;
    let all = (0..LINKS).map(|number| format!("d{number}"));
    eventually(Duration::from_secs(20), || has_programs(&stage, all.clone()))?;
    let before = used(pid)?;
    for number in 0..CHANGES {
        node.ip(&format!("link del d{number}\n{}", come(LINKS + number)))?;
    }
    let all = (CHANGES..LINKS + CHANGES).map(|number| format!("d{number}"));
    eventually(Duration::from_secs(20), || has_programs(&stage, all.clone()))?;
    let after = used(pid)?;
    let spent =
        |name: &str| after.get(name).copied().unwrap_or_default() - before.get(name).copied().unwrap_or_default();
    let threads: Vec<String> = after.keys().map(|name| format!("{name} {:?}", spent(name))).collect();
    say(&format!("{CHANGES} of {LINKS} pods went and others came: {}", threads.join(", ")));
    ensure!(spent("sheave") <= MOST, "{:?} for following devices", spent("sheave"));
    Ok(())
}

/// Whether these devices of the first node have programs in both directions: each link to one is pinned under the name of
/// the device.
fn has_programs(stage: &Stage, mut devices: impl Iterator<Item = String>) -> Result<()> {
    let layout = stage.cluster.node(1).pin_dir().join(format!("v{LAYOUT}"));
    let mut pinned: BTreeMap<String, u32> = BTreeMap::new();
    for directory in std::fs::read_dir(&layout)? {
        let path = directory?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("links-")) {
            for link in std::fs::read_dir(&path)? {
                let name = link?.file_name().to_string_lossy().into_owned();
                *pinned.entry(name.split('-').next().unwrap_or_default().to_owned()).or_default() += 1;
            }
        }
    }
    let missing = devices.find(|device| pinned.get(device) != Some(&2));
    ensure!(missing.is_none(), "{missing:?} has no programs: {pinned:?}");
    Ok(())
}

/// The number of a thread.
fn thread(pid: u32, name: &str) -> Result<u32> {
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path();
        if std::fs::read_to_string(path.join("comm"))?.trim_end() == name {
            return Ok(path.file_name().context("no number")?.to_string_lossy().parse()?);
        }
    }
    anyhow::bail!("no thread {name}")
}

/// While only endpoints change, the maps are memory: not one system call of BPF.
#[test]
fn endpoints_change_without_system_calls() -> Result<()> {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("SKIPPED: no strace to count system calls with");
        return Ok(());
    }
    let mut stage = stage(1)?;
    let pid = stage.agent(1).process().pid();
    let cluster = &stage.cluster;
    let web = Service::new("web1", 1).node_port(30_010);
    let log = cluster.directory().join("strace.out");
    let mut strace = Command::new("strace")
        .args(["-f", "-e", "trace=bpf", "-o"])
        .arg(&log)
        .args(["-p", &pid.to_string()])
        .spawn()
        .context("start strace")?;
    eventually(Duration::from_secs(5), || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        ensure!(!status.contains("TracerPid:\t0\n"), "nobody traces yet");
        Ok(())
    })?;
    for round in 0..10 {
        let (name, expected) = if round % 2 == 0 { ("b", "b") } else { ("c", "c") };
        cluster.manifests().apply_endpoints(&web, &[Endpoint::of(cluster.pod(name))])?;
        eventually(Duration::from_secs(5), || {
            stage.expect(cluster.pod("a"), web.http(Family::V4), expected, |_| true)
        })?;
    }
    kill(Pid::from_raw(strace.id() as i32), Signal::SIGINT)?;
    strace.wait()?;
    let calls = std::fs::read_to_string(&log)?;
    // Others look at flows, and end those that are over.
    let maps = thread(pid, "maps")?.to_string();
    let is_by_maps = |line: &&str| line.split_whitespace().next() == Some(&maps) && line.contains("bpf(");
    let of_maps: Vec<&str> = calls.lines().filter(is_by_maps).collect();
    say(&format!("system calls for ten changes of endpoints: {}", of_maps.len()));
    ensure!(of_maps.is_empty(), "{of_maps:#?}");
    Ok(())
}
