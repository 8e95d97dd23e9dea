//! `sheave cleanup` leaves the machine as it was. Needs root, the agent, bpftool and tc.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType};
use nix::sys::signal::Signal;
use proxy_tests::cluster::{
    AgentOptions, Cluster, Cni, Endpoint, Family, Node, Place, Service, Stage, binary::sheave, eventually,
};
use serde_json::Value;

/// All that a node has of what an agent could change, as its tools show it.
#[derive(Debug, PartialEq)]
struct Picture {
    devices: String,
    qdiscs: String,
    filters: BTreeMap<String, String>,
    xdp: String,
    /// Ids of the programs at the TCX hooks of each device; `tc` of iproute2 6.1 knows nothing of those.
    tcx: BTreeMap<String, Vec<u32>>,
    sysctls: BTreeMap<String, String>,
    addresses: String,
    routes: String,
    rules: String,
}

impl Picture {
    fn of(node: &Node) -> Result<Self> {
        let links: Value = serde_json::from_str(&node.run("ip", &["-j", "link", "show"])?)?;
        let names = links.as_array().into_iter().flatten().filter_map(|link| link["ifname"].as_str());
        let (mut filters, mut tcx) = (BTreeMap::new(), BTreeMap::new());
        let directions = [("ingress", TcAttachType::Ingress), ("egress", TcAttachType::Egress)];
        for name in names {
            for (word, direction) in directions {
                // Fails where there is no clsact, which is an answer too.
                let shown = node.run("tc", &["filter", "show", "dev", name, word]).unwrap_or_default();
                filters.insert(format!("{name} {word}"), shown);
                let (_, programs) = node.namespace().enter(|| SchedClassifier::query_tcx(name, direction))??;
                tcx.insert(format!("{name} {word}"), programs.iter().map(ProgramInfo::id).collect());
            }
        }
        Ok(Self {
            devices: without_timers(&node.run("ip", &["-d", "link", "show"])?),
            qdiscs: node.run("tc", &["qdisc", "show"])?,
            filters,
            xdp: node.run("bpftool", &["net", "show"])?,
            tcx,
            sysctls: node.sysctls()?,
            addresses: node.run("ip", &["-o", "addr", "show"])?,
            routes: node.run("ip", &["route", "show", "table", "all"])?,
            rules: node.run("nft", &["list", "ruleset"])?,
        })
    }
}

/// Bridges show timers, which run; iproute2 pads them to a width, so the blanks between words change with them.
fn without_timers(text: &str) -> String {
    let line = |line: &str| {
        let mut after_timer = false;
        let words = line.split_whitespace().filter(|word| {
            let shown = !after_timer;
            after_timer = word.ends_with("_timer");
            shown
        });
        words.collect::<Vec<_>>().join(" ")
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Ids in the kernel of what is pinned below a directory.
#[derive(Debug, Default)]
struct Pinned {
    maps: BTreeSet<u64>,
    links: BTreeSet<u64>,
    programs: BTreeSet<u64>,
}

impl Pinned {
    fn below(directory: &Path) -> Result<Self> {
        let mut pinned = Self::default();
        pinned.collect(directory)?;
        Ok(pinned)
    }

    fn collect(&mut self, directory: &Path) -> Result<()> {
        for entry in std::fs::read_dir(directory).with_context(|| directory.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                self.collect(&path)?;
            } else if let Ok(map) = show("map", "pinned", &path.to_string_lossy()) {
                self.maps.extend(map["id"].as_u64());
            } else if let Ok(link) = show("link", "pinned", &path.to_string_lossy()) {
                self.links.extend(link["id"].as_u64());
                self.programs.extend(link["prog_id"].as_u64());
            }
        }
        Ok(())
    }

    /// Those that still exist.
    fn remaining(&self) -> Vec<String> {
        let kinds = [("map", &self.maps), ("link", &self.links), ("prog", &self.programs)];
        let all = kinds.into_iter().flat_map(|(kind, ids)| ids.iter().map(move |id| (kind, id)));
        all.filter(|(kind, id)| show(kind, "id", &id.to_string()).is_ok())
            .map(|(kind, id)| format!("{kind} {id}"))
            .collect()
    }
}

fn show(kind: &str, by: &str, which: &str) -> Result<Value> {
    let output = Command::new("bpftool").args(["-j", kind, "show", by, which]).output().context("bpftool")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let value: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(value.get("id").is_some(), "{value}");
    Ok(value)
}

fn leaves_nothing(cni: Cni, options: &AgentOptions) -> Result<()> {
    let cluster = Cluster::builder().nodes(1).cni(cni).pod(1, "a").pod(1, "b").build()?;
    let service = Service::new("web", 1).node_port(30080);
    let servers = cluster.start_servers()?;
    cluster.manifests().apply(&service, &[Endpoint::of(cluster.pod("b"))])?;
    // Neighbours and the like are there before, so that only what the agent does makes a difference.
    let node = cluster.node(1);
    let before = Picture::of(node)?;

    let agents = cluster.start_agents(options)?;
    let mut stage = Stage { agents, servers, cluster };
    for family in Family::BOTH {
        stage.expect(stage.cluster.pod("a"), service.http(family), "b", |_| true)?;
    }
    let node = stage.cluster.node(1);
    let during = Picture::of(node)?;
    ensure!(
        (&during.tcx, &during.filters) != (&before.tcx, &before.filters),
        "nothing is to be seen while the agent runs: {:?} {:?}",
        during.tcx,
        during.filters
    );
    let pinned = Pinned::below(node.pin_dir())?;
    ensure!(!pinned.maps.is_empty(), "no pinned maps: {pinned:?}");

    stage.agent(1).terminate()?;
    let node = stage.cluster.node(1);
    let stopped = Picture::of(node)?;
    ensure!((stopped.tcx, stopped.filters) == (during.tcx, during.filters), "programs went with the agent");
    stage.expect(stage.cluster.pod("a"), service.http(Family::V4), "b", |_| true)?;

    let output = stage.agents[0].cleanup()?;
    println!("{}", String::from_utf8_lossy(&output.stdout));
    pretty_equal(&before, &Picture::of(node)?)?;
    ensure!(!node.pin_dir().exists() || std::fs::read_dir(node.pin_dir())?.next().is_none(), "pins are left");
    // The kernel frees them after a grace period.
    eventually(Duration::from_secs(5), || {
        let remaining = pinned.remaining();
        ensure!(remaining.is_empty(), "still there: {remaining:?}");
        Ok(())
    })?;
    // Twice is no error.
    stage.agents[0].cleanup()?;
    Ok(())
}

fn pretty_equal(before: &Picture, after: &Picture) -> Result<()> {
    let [left, right] = [before, after].map(|picture| format!("{picture:#?}").replace("\\n", "\n"));
    let difference: Vec<String> = left
        .lines()
        .zip(right.lines())
        .filter(|(before, after)| before != after)
        .map(|(before, after)| format!("-{before}\n+{after}"))
        .collect();
    ensure!(left == right, "not as before:\n{}", difference.join("\n"));
    Ok(())
}

#[test]
fn cleanup_leaves_nothing_of_tcx() -> Result<()> {
    leaves_nothing(Cni::Routed, &AgentOptions::default())
}

#[test]
fn cleanup_leaves_nothing_on_bridges() -> Result<()> {
    leaves_nothing(Cni::Bridge, &AgentOptions::default())
}

#[test]
fn cleanup_leaves_nothing_of_clsact() -> Result<()> {
    leaves_nothing(Cni::Routed, &AgentOptions::default().with(&["--attach-mode", "clsact"]))
}

/// What the pods of a removed DaemonSet do on nodes that are clean (deploy/remove.yaml).
#[test]
fn a_pause_ends_with_the_first_signal() -> Result<()> {
    let cluster = Cluster::builder().nodes(1).build()?;
    let mut command = cluster.node(1).command(&sheave()?.to_string_lossy());
    command.arg("pause");
    let mut process = cluster.node(1).start("pause", command)?;
    process.wait_for_line(Duration::from_secs(5), |line| line.contains("waiting"))?;
    ensure!(process.is_running(), "it did not wait: {}", process.log());
    process.signal(Signal::SIGTERM)?;
    let status = process.wait(Duration::from_secs(5))?;
    ensure!(status.success(), "{status}: {}", process.log());
    Ok(())
}
