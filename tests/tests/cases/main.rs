//! What people who run kube-proxy and its replacements met and reported, made small: a test for each report, with real
//! packets. What is right is what kube-proxy does, and its connection tracking. Needs root and the agent.

mod firewall;
mod neighbours;
mod routing;
mod udp_moves;
mod unknown_flows;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Result, ensure};
use proxy_tests::cluster::{Cluster, ClusterBuilder, Cni, Endpoint, Family, Place, Service, Stage};
use proxy_tests::traffic::{AskOptions, Transport};

const NODE_PORT: u16 = 30080;

/// `a` and `b` on the first node, `c` on the second.
fn two_nodes() -> ClusterBuilder {
    Cluster::builder().nodes(2).cni(Cni::Routed).pod(1, "a").pod(1, "b").pod(2, "c")
}

/// A service with a NodePort for each of these pods: its only endpoint.
fn stage(services: &[(&Service, &str)], before: impl FnOnce(&Cluster) -> Result<()>) -> Result<Stage> {
    Stage::start(two_nodes(), |cluster| {
        before(cluster)?;
        services
            .iter()
            .try_for_each(|(service, pod)| cluster.manifests().apply(service, &[Endpoint::of(cluster.pod(pod))]))
    })
}

fn node_port(stage: &Stage, family: Family, port: u16) -> SocketAddr {
    (stage.cluster.node(1).ip(family), port).into()
}

/// An address that a router sends to the first node, as one that was told so by BGP does; see [`route_external`].
fn external(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(192, 0, 2, 80).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0x80, 0, 0, 0, 0, 0x80).into(),
    }
}

/// The service with these addresses.
fn with_external(service: Service) -> Service {
    Family::BOTH.into_iter().fold(service, |service, family| service.external_ip(external(family)))
}

fn route_external(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let route = |family| format!("route add {} via {}\n", external(family), node.ip(family));
    cluster.fabric().namespace().ip(&Family::BOTH.map(route).concat())
}

/// Who answers a datagram from this very port, if anybody does.
fn answered_from(from: &impl Place, port: u16, to: SocketAddr) -> Result<Option<String>> {
    let options = AskOptions { source_port: port, timeout_ms: 500, ..AskOptions::new(Transport::Udp) };
    Ok(from.ask(to, &options)?.answer.map(|answer| answer.server))
}

/// A network of one family, as routes and rules write it.
fn prefix(ip: IpAddr) -> String {
    format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 })
}

fn is_counted(stage: &Stage, reason: &str) -> Result<()> {
    ensure!(stage.count(reason)? > 0, "{reason} is not counted:\n{}", stage.evidence());
    Ok(())
}
