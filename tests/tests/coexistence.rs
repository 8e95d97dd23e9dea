//! What is not a service's is none of ours, and others on the node may look at everything. Needs root and the agent.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use proxy_tests::cluster::{Cluster, ClusterBuilder, Cni, Endpoint, Family, Place, Service, Stage};
use proxy_tests::traffic::{AskOptions, StreamOptions, Transport, UdpOptions, server};

const NODE_PORT: u16 = 30080;

fn stage(builder: ClusterBuilder, endpoints: &[&str]) -> Result<Stage> {
    let builder = builder.pod(1, "a").pod(1, "b").pod(2, "c");
    Stage::start(builder, |cluster| {
        let endpoints: Vec<Endpoint> = endpoints.iter().map(|pod| Endpoint::of(cluster.pod(pod))).collect();
        cluster.manifests().apply(&Service::new("web", 1).node_port(NODE_PORT), &endpoints)
    })
}

fn asked(from: &impl Place, to: IpAddr, server: &str) -> Result<()> {
    for protocol in Transport::BOTH {
        let report = from.ask(SocketAddr::new(to, server::PORT), &AskOptions::new(protocol))?;
        let what = || format!("{} to {server} at {to} {protocol:?}: {report:?}", from.name());
        let answer = report.answer.as_ref().with_context(what)?;
        ensure!(answer.server == server && answer.client.ip() == from.ip(family_of(to)), "{}", what());
    }
    Ok(())
}

fn family_of(ip: IpAddr) -> Family {
    if ip.is_ipv4() { Family::V4 } else { Family::V6 }
}

/// Pods and nodes by their own addresses, and datagrams in fragments.
fn plain_traffic_passes(cni: Cni) -> Result<()> {
    let mut stage = stage(Cluster::builder().nodes(2).cni(cni), &["a", "b", "c"])?;
    let servers = stage.cluster.nodes().iter().map(Place::serve).collect::<Result<Vec<_>>>()?;
    stage.servers.extend(servers);
    let cluster = &stage.cluster;
    for family in Family::BOTH {
        for from in cluster.pods() {
            for to in cluster.pods() {
                asked(from, to.ip(family), to.name()).with_context(|| stage.evidence())?;
            }
            for to in cluster.nodes() {
                asked(from, to.ip(family), to.name()).with_context(|| stage.evidence())?;
            }
            let other = cluster.pod(if from.name() == "c" { "a" } else { "c" });
            let options = UdpOptions { requests: 20, size: 4000, ..UdpOptions::default() };
            let report = from.udp(SocketAddr::new(other.ip(family), server::PORT), &options)?;
            ensure!(report.lost == 0 && report.failures.is_empty(), "{} to {}: {report:?}", from.name(), other.name());
        }
        for to in cluster.nodes() {
            asked(cluster.client(), to.ip(family), to.name())?;
        }
        asked(cluster.node(1), cluster.node(2).ip(family), "node2")?;
        // By the kernel's choice of address: only who answers matters.
        let to = SocketAddr::new(cluster.pod("b").ip(family), server::PORT);
        let answer = stage.answer(cluster.node(1), to, Transport::Tcp)?;
        ensure!(answer.server == "b", "{answer:?}");
    }
    Ok(())
}

#[test]
fn plain_traffic_of_routed_pods_passes() -> Result<()> {
    plain_traffic_passes(Cni::Routed)
}

#[test]
fn plain_traffic_of_bridged_pods_passes() -> Result<()> {
    plain_traffic_passes(Cni::Bridge)
}

/// A firewall that drops what connection tracking cannot make sense of sees both directions of every flow, with the
/// real client and the real backend.
fn strict_firewalls_are_satisfied(cni: Cni, endpoints: &[&str]) -> Result<()> {
    let stage = stage(Cluster::builder().nodes(2).cni(cni), endpoints)?;
    let cluster = &stage.cluster;
    for node in cluster.nodes() {
        node.run(
            "nft",
            &["add table inet strict { chain forward { type filter hook forward priority 0; policy drop; \
               ct state established,related accept; \
               ct state new ip daddr 10.244.0.0/16 tcp dport { 8080, 8081 } accept; \
               ct state new ip6 daddr fd00:244::/48 tcp dport { 8080, 8081 } accept; \
               ct state new udp dport 8080 accept; counter; }; }"],
        )?;
    }
    let service = Service::new("web", 1);
    let options = StreamOptions { connections: 12, bytes: 1 << 18, ..StreamOptions::default() };
    for family in Family::BOTH {
        let node_port = SocketAddr::new(cluster.node(1).ip(family), NODE_PORT + 1);
        for report in [
            cluster.pod("a").stream(service.stream(family), &options)?,
            cluster.pod("a").stream(node_port, &options)?,
            cluster.client().stream(node_port, &options)?,
        ] {
            ensure!(report.broken().count() == 0, "{cni} {family:?}: {report:?}\n{}", stage.evidence());
        }
    }
    Ok(())
}

#[test]
fn strict_firewalls_are_satisfied_with_routed_pods() -> Result<()> {
    strict_firewalls_are_satisfied(Cni::Routed, &["a", "b", "c"])
}

/// Not between two pods of one bridge: the client sends to its gateway, the backend answers past it, and connection
/// tracking sees half of it.
#[test]
fn strict_firewalls_are_satisfied_with_bridged_pods() -> Result<()> {
    strict_firewalls_are_satisfied(Cni::Bridge, &["a", "c"])
}
