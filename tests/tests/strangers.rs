//! A stranger beside us: connections that are not ours from the very ports of those that are, and packets of somebody who
//! says that he is another. None of them hurts the other. Needs root and the agent.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proxy_tests::cluster::{Cluster, ClusterBuilder, Cni, Endpoint, Family, Line, Place, Service, Stage};
use proxy_tests::packet::{Packet, flag};
use proxy_tests::scale::{is_full, scaled};
use proxy_tests::traffic::{BesideOptions, BesideReport, Raw, server};

const NODE_PORT: u16 = 30080;
const STREAM_NODE_PORT: u16 = NODE_PORT + 1;
const STREAM: u16 = server::PORT + 1;

fn two_nodes() -> ClusterBuilder {
    Cluster::builder().nodes(2).cni(Cni::Routed).pod(1, "client").pod(1, "near").pod(2, "far").pod(1, "spoofer")
}

/// One service for each of `near` and `far`.
fn stage() -> Result<Stage> {
    Stage::start(two_nodes(), |cluster| {
        for (service, pod) in services().iter().zip(["near", "far"]) {
            cluster.manifests().apply(service, &[Endpoint::of(cluster.pod(pod))])?;
        }
        // As a router has them that was told by BGP: whoever is outside may dial pods too.
        let fabric = cluster.fabric();
        for node in cluster.nodes() {
            for (cidr, family) in node.pod_cidrs().iter().zip(Family::BOTH) {
                fabric.namespace().ip(&format!("route add {cidr} via {}\n", node.ip(family)))?;
            }
        }
        Ok(())
    })
}

fn services() -> [Service; 2] {
    [Service::new("near", 1).node_port(NODE_PORT), Service::new("far", 2).node_port(NODE_PORT + 10)]
}

/// The two ways to one backend's echo port.
#[derive(Clone, Copy, Debug)]
struct Ways {
    service: SocketAddr,
    direct: SocketAddr,
}

impl Ways {
    /// From a pod: the ClusterIP, and the pod's address.
    fn inside(stage: &Stage, pod: &str, service: &Service, family: Family) -> Self {
        let direct = SocketAddr::new(stage.cluster.pod(pod).ip(family), STREAM);
        Self { service: service.stream(family), direct }
    }

    /// From outside, through the first node: the NodePort, and the pod's address.
    fn outside(stage: &Stage, pod: &str, port: u16, family: Family) -> Self {
        let direct = SocketAddr::new(stage.cluster.pod(pod).ip(family), STREAM);
        Self { service: SocketAddr::new(stage.cluster.node(1).ip(family), port), direct }
    }

    fn both(self) -> [(&'static str, SocketAddr, SocketAddr); 2] {
        [("direct, then service", self.direct, self.service), ("service, then direct", self.service, self.direct)]
    }
}

/// Every pair of a place and the ways that it has to one backend.
fn each_way(
    stage: &Stage,
    mut look: impl FnMut(&dyn Fn(u16, SocketAddr) -> Result<Line>, IpAddr, Ways) -> Result<()>,
) -> Result<()> {
    let cluster = &stage.cluster;
    let (client, outside) = (cluster.pod("client"), cluster.client());
    for family in Family::BOTH {
        for ((service, pod), port) in
            services().iter().zip(["near", "far"]).zip([STREAM_NODE_PORT, STREAM_NODE_PORT + 10])
        {
            let inside = Ways::inside(stage, pod, service, family);
            look(&|port, to| Line::open(client, port, to), client.ip(family), inside)
                .with_context(|| format!("from a pod to {pod}, {family:?}"))?;
            let through = Ways::outside(stage, pod, port, family);
            look(&|port, to| Line::open(outside, port, to), outside.ip(family), through)
                .with_context(|| format!("from outside to {pod}, {family:?}"))?;
        }
    }
    Ok(())
}

/// An established connection goes on when the same port is used for the other way to the same backend; the new one
/// works as well. So it is after a pause that makes the first one look forgotten.
#[test]
fn connections_by_both_ways_from_one_port_go_on() -> Result<()> {
    let stage = stage()?;
    let mut port = 20000;
    each_way(&stage, |open, _, ways| {
        for (what, first, second) in ways.both() {
            for pause in [Duration::ZERO, scaled(Duration::from_millis(1500), Duration::from_secs(4))] {
                port += 1;
                let mut old = open(port, first)?;
                old.exchange()?;
                std::thread::sleep(pause);
                let mut new = open(port, second).with_context(|| what.to_owned())?;
                for _ in 0..3 {
                    new.exchange().with_context(|| format!("{what}: the second one"))?;
                    old.exchange().with_context(|| format!("{what}: the first one, after {pause:?}"))?;
                }
            }
        }
        Ok(())
    })
    .with_context(|| stage.evidence())
}

/// A pod that writes another's address into a SYN, a reset or a FIN ends none of his connections.
#[test]
fn packets_with_anothers_source_end_nothing() -> Result<()> {
    let stage = stage()?;
    let spoofer = stage.cluster.pod("spoofer");
    let mut port = 21000;
    each_way(&stage, |open, source, ways| {
        for (what, first, second) in ways.both() {
            port += 1;
            let mut line = open(port, first)?;
            line.exchange()?;
            for to in [first, second] {
                for flags in [flag::SYN, flag::RST, flag::FIN | flag::ACK] {
                    // The sequence number is a guess: the backend takes none of them for the client's.
                    let packet = Packet::tcp((source, port).into(), to, flags).payload(Vec::new()).bare().bytes();
                    let send = || Raw::towards(to).and_then(|mut raw| raw.send(&[&packet]));
                    let sent = spoofer.namespace().enter(send)?.context("send")?;
                    ensure!(sent == 1, "{sent} packets were sent");
                    for _ in 0..2 {
                        line.exchange().with_context(|| format!("{what}: {flags:#04x} to {to}"))?;
                    }
                }
            }
        }
        Ok(())
    })
    .with_context(|| stage.evidence())
}

/// Connections by both ways come and go from a handful of ports in any order. All that are open go on, all the time.
#[test]
fn random_interleavings_break_nothing() -> Result<()> {
    let stage = stage()?;
    let cluster = &stage.cluster;
    let steps = scaled(120, 1000);
    for family in Family::BOTH {
        let [near, far] = services();
        let inside = [Ways::inside(&stage, "near", &near, family), Ways::inside(&stage, "far", &far, family)];
        let through = [
            Ways::outside(&stage, "near", STREAM_NODE_PORT, family),
            Ways::outside(&stage, "far", STREAM_NODE_PORT + 10, family),
        ];
        interleave(cluster.pod("client"), &inside, steps)
            .with_context(|| format!("a pod, {family:?}\n{}", stage.evidence()))?;
        interleave(cluster.client(), &through, steps)
            .with_context(|| format!("outside, {family:?}\n{}", stage.evidence()))?;
    }
    Ok(())
}

fn interleave(from: &impl Place, ways: &[Ways], steps: u32) -> Result<()> {
    const PORTS: [u16; 4] = [22000, 22001, 22002, 22003];
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let targets: Vec<SocketAddr> = ways.iter().flat_map(|ways| [ways.service, ways.direct]).collect();
    let mut open: Vec<Option<Line>> = Vec::new();
    open.resize_with(PORTS.len() * targets.len(), || None);
    let (mut opened, mut resets, mut repeats) = (0, 0, 0);
    for step in 0..steps {
        let at = random.usize(..open.len());
        let (port, to) = (PORTS[at / targets.len()], targets[at % targets.len()]);
        let what = || format!("seed {seed}, step {step}: port {port} to {to}");
        match open[at].take() {
            None => match Line::open(from, port, to) {
                Ok(line) => {
                    opened += 1;
                    repeats += line.repeats;
                    open[at] = Some(line);
                }
                // The last connection of the very same ends is still remembered by the client itself.
                Err(error) if is_in_use(&error) => {}
                Err(error) => return Err(error).with_context(what),
            },
            Some(line) if random.bool() => {
                resets += 1;
                line.reset()?;
            }
            Some(line) => drop(line),
        }
        for line in open.iter_mut().flatten() {
            line.exchange().with_context(what)?;
        }
    }
    println!("{}: {steps} steps, {opened} connections, {resets} resets, {repeats} SYNs sent again", from.name());
    Ok(())
}

fn is_in_use(error: &anyhow::Error) -> bool {
    let causes = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    causes.into_iter().any(|cause| cause.kind() == std::io::ErrorKind::AddrNotAvailable)
}

/// One pod dials a Service and its only backend, 16 connections at a time, more often than it has ports: those straight
/// to the backend are as many a second as without the Service, and no SYN is lost.
#[test]
fn a_service_beside_does_not_slow_direct_connections() -> Result<()> {
    let stage = stage()?;
    for (service, pod) in services().iter().zip(["near", "far"]) {
        let client = stage.cluster.pod("client");
        let direct = SocketAddr::new(stage.cluster.pod(pod).ip(Family::V4), server::PORT);
        let (pairs, others) = scaled((5, 400), (100, 1000));
        let options =
            BesideOptions { pairs, others, measured: others / 4, ..BesideOptions::new(service.http(Family::V4)) };
        let report = client.beside(direct, &options)?;
        let ratio = report.ratio();
        let BesideReport { others, beside, alone, ratios } = &report;
        println!("{pod}: ratio {ratio:.3} of {ratios:.2?}\nservice {others:?}\nbeside {beside:?}\nalone {alone:?}");
        let evidence = || format!("{pod}: {report:?}\n{}", stage.evidence());
        for kind in [others, beside, alone] {
            ensure!(kind.failures.is_empty() && kind.ok > 0, "{}", evidence());
        }
        // On a machine with other work, the answer to a SYN may take longer than the second after which it is sent again.
        let repeats = others.repeats + beside.repeats;
        ensure!(repeats <= scaled(others.ok / 100, 0), "{repeats} SYNs were sent again: {}", evidence());
        // These only follow: as many more, from ports whose connections rest at the backend.
        ensure!(alone.repeats <= scaled(others.ok / 100, 10), "{} SYNs were sent again: {}", alone.repeats, evidence());
        ensure!(!is_full() || ratio >= 0.95, "{}", evidence());
    }
    Ok(())
}
