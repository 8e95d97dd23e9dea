//! Flows that want the same tuple. Needs root and the agent.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use proxy_tests::cluster::{Cluster, ClusterBuilder, Cni, Endpoint, Family, Place, Service, Stage};
use proxy_tests::traffic::{AskOptions, HttpOptions, Transport, server};

const NODE_PORT: u16 = 30080;

fn two_nodes(cni: Cni) -> ClusterBuilder {
    Cluster::builder().nodes(2).cni(cni).pod(1, "a").pod(1, "b").pod(2, "c")
}

fn ask(stage: &Stage, from: &impl Place, to: SocketAddr, protocol: Transport, source_port: u16) -> Result<()> {
    let report = from.ask(to, &AskOptions { source_port, ..AskOptions::new(protocol) })?;
    let what = || format!("{} port {source_port} to {to} {protocol:?}: {report:?}\n{}", from.name(), stage.evidence());
    ensure!(report.repeats == 0, "packets were lost: {}", what());
    report.answer.as_ref().with_context(what).map(drop)
}

/// The ports from which the kernel takes those of its own connections.
fn set_local_ports(of: &impl Place, low: u16, high: u16) -> Result<()> {
    let write = || std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", format!("{low} {high}"));
    of.namespace().enter(write)?.context("set the range of local ports")
}

/// Two services with one backend, asked from one port: the backend must be able to tell the flows apart.
#[test]
fn services_that_share_a_backend_are_kept_apart() -> Result<()> {
    let services = [Service::new("one", 1).node_port(NODE_PORT), Service::new("two", 2)];
    let stage = Stage::start(two_nodes(Cni::Routed), |cluster| {
        services.iter().try_for_each(|service| cluster.manifests().apply(service, &[Endpoint::of(cluster.pod("c"))]))
    })?;
    let a = stage.cluster.pod("a");
    for family in Family::BOTH {
        for protocol in Transport::BOTH {
            for round in 0..3 {
                for service in &services {
                    ask(&stage, a, service.http(family), protocol, 20500 + round % 2)?;
                }
                ask(&stage, a, (stage.cluster.node(1).ip(family), NODE_PORT).into(), protocol, 20500 + round % 2)?;
            }
        }
    }
    Ok(())
}

/// A program finds its peers through a service and then talks to them from the same port, as gossip protocols do.
fn backends_can_be_asked_directly(protocol: Transport) -> Result<()> {
    let service = Service::new("web", 1);
    for pod in ["b", "c"] {
        let stage = Stage::start(two_nodes(Cni::Routed), |cluster| {
            cluster.manifests().apply(&service, &[Endpoint::of(cluster.pod(pod))])
        })?;
        let a = stage.cluster.pod("a");
        for family in Family::BOTH {
            let direct = SocketAddr::new(stage.cluster.pod(pod).ip(family), server::PORT);
            for _ in 0..2 {
                ask(&stage, a, service.http(family), protocol, 20600).context("by service")?;
                ask(&stage, a, direct, protocol, 20600).context("directly, after the service")?;
            }
        }
    }
    Ok(())
}

#[test]
fn tcp_backends_can_be_asked_directly_from_the_same_port() -> Result<()> {
    backends_can_be_asked_directly(Transport::Tcp)
}

#[test]
fn udp_backends_can_be_asked_directly_from_the_same_port() -> Result<()> {
    backends_can_be_asked_directly(Transport::Udp)
}

/// One client port, both nodes, one backend.
#[test]
fn one_client_port_through_both_nodes() -> Result<()> {
    let service = Service::new("web", 1).node_port(NODE_PORT);
    let stage = Stage::start(two_nodes(Cni::Bridge), |cluster| {
        cluster.manifests().apply(&service, &[Endpoint::of(cluster.pod("c"))])
    })?;
    for family in Family::BOTH {
        for protocol in Transport::BOTH {
            for node in [1, 2, 1, 2] {
                let to = SocketAddr::new(stage.cluster.node(node).ip(family), NODE_PORT);
                ask(&stage, stage.cluster.client(), to, protocol, 20700)?;
            }
        }
    }
    Ok(())
}

/// So many short connections that every port is used again and again, while the last flow that had it is remembered.
#[test]
fn ports_are_used_again() -> Result<()> {
    let service = Service::new("web", 1).node_port(NODE_PORT);
    let stage = Stage::start(two_nodes(Cni::Routed), |cluster| {
        let endpoints = ["b", "c"].map(|pod| Endpoint::of(cluster.pod(pod)));
        cluster.manifests().apply(&service, &endpoints)
    })?;
    let cluster = &stage.cluster;
    set_local_ports(cluster.pod("a"), 20000, 20063)?;
    set_local_ports(cluster.client(), 20000, 20063)?;
    let options = HttpOptions { requests: 1000, concurrency: 2, ..HttpOptions::default() };
    for family in Family::BOTH {
        for report in [
            cluster.pod("a").http(service.http(family), &options)?,
            cluster.client().http((cluster.node(1).ip(family), NODE_PORT).into(), &options)?,
        ] {
            ensure!(report.ok == 1000, "{family:?}: {report:?}\n{}", stage.evidence());
        }
    }
    Ok(())
}

/// More connections to one backend than the node has ports for its masquerade: those of finished ones are taken again.
#[test]
fn ports_of_the_node_are_used_again() -> Result<()> {
    const PORTS: u16 = 2048;
    let service = Service::new("web", 1).node_port(NODE_PORT);
    let stage = Stage::start(two_nodes(Cni::Routed), |cluster| {
        // The agent takes what the kernel leaves.
        set_local_ports(cluster.node(1), 1024, u16::MAX - PORTS)?;
        cluster.manifests().apply(&service, &[Endpoint::of(cluster.pod("c"))])
    })?;
    let requests = u64::from(PORTS) * 3 / 2;
    // Closed connections rest for up to two ticks of 256 jiffies, here half of the ports at most. So many at a time that
    // it does not take an hour to see the rest of them fail.
    let options = HttpOptions { requests, concurrency: 64, rate: 400, ..HttpOptions::default() };
    let report = stage.cluster.client().http((stage.cluster.node(1).ip(Family::V4), NODE_PORT).into(), &options)?;
    ensure!(report.ok == requests, "{report:?}\n{}", stage.evidence());
    Ok(())
}

/// The client is one of the endpoints: now itself, now another.
#[test]
fn a_client_among_the_endpoints() -> Result<()> {
    for cni in Cni::BOTH {
        let service = Service::new("web", 1);
        let stage = Stage::start(two_nodes(cni), |cluster| {
            let endpoints = ["a", "b", "c"].map(|pod| Endpoint::of(cluster.pod(pod)));
            cluster.manifests().apply(&service, &endpoints)
        })?;
        for family in Family::BOTH {
            let options = HttpOptions { requests: 200, ..HttpOptions::default() };
            let report = stage.cluster.pod("a").http(service.http(family), &options)?;
            ensure!(
                report.ok == 200 && report.servers.len() == 3,
                "{cni} {family:?}: {report:?}\n{}",
                stage.evidence()
            );
        }
    }
    Ok(())
}
