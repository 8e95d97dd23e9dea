//! The ways of a packet (ARCHITECTURE.md), with real sockets: who answered, and what client did it see? Each in both
//! families, both protocols and both CNI styles. Needs root and the agent (`cargo build -p proxy-userspace`).

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use proxy_tests::cluster::{Cluster, ClusterBuilder, Cni, Endpoint, Family, Overlay, Place, Service, Stage};
use proxy_tests::traffic::{Failure, StreamOptions, UdpOptions};

const NODE_PORT: u16 = 30080;

/// `a` and `b` on the first node, `c` on the second.
fn two_nodes(cni: Cni) -> ClusterBuilder {
    Cluster::builder().nodes(2).cni(cni).pod(1, "a").pod(1, "b").pod(2, "c")
}

/// One service `web` whose endpoints are these pods.
fn stage(builder: ClusterBuilder, service: &Service, pods: &[&str]) -> Result<Stage> {
    Stage::start(builder, |cluster| {
        let endpoints: Vec<Endpoint> = pods.iter().map(|pod| Endpoint::of(cluster.pod(pod))).collect();
        cluster.manifests().apply(service, &endpoints)
    })
}

fn web() -> Service {
    Service::new("web", 1).node_port(NODE_PORT)
}

fn node_port(stage: &Stage, node: usize, family: Family) -> SocketAddr {
    (stage.cluster.node(node).ip(family), NODE_PORT).into()
}

/// Bytes enough for full-sized GSO packets, compared at their end.
fn bulk(stage: &Stage, from: &impl Place, to: SocketAddr) -> Result<()> {
    let options = StreamOptions { connections: 2, bytes: 8 << 20, ..StreamOptions::default() };
    let report = from.stream(to, &options)?;
    ensure!(report.broken().count() == 0, "{} to {to}: {report:?}\n{}", from.name(), stage.evidence());
    println!("{} to {to}: {:.2} s for {} connections", from.name(), report.seconds, report.connections.len());
    // Datagrams of one byte, of a full frame, and of more than one.
    for size in [8, 1400] {
        let to = SocketAddr::new(to.ip(), to.port() - 1);
        let report = from.udp(to, &UdpOptions { requests: 50, size, ..UdpOptions::default() })?;
        ensure!(
            report.lost == 0 && report.failures.is_empty(),
            "{} to {to}: {report:?}\n{}",
            from.name(),
            stage.evidence()
        );
    }
    Ok(())
}

/// Makes a test of each style from a function of it.
macro_rules! in_both_styles {
    ($($walk:ident)+) => {
        mod routed {
            $(#[test] fn $walk() -> anyhow::Result<()> { super::$walk(super::Cni::Routed) })+
        }
        mod bridge {
            $(#[test] fn $walk() -> anyhow::Result<()> { super::$walk(super::Cni::Bridge) })+
        }
    };
}

in_both_styles! {
    walk_1_pod_to_cluster_ip_on_the_same_node
    walk_2_pod_to_cluster_ip_on_another_node
    walk_2_through_vxlan
    walk_4_outside_to_a_local_backend
    walk_4_outside_to_a_routed_cluster_ip
    walk_5_outside_to_a_remote_backend
    walk_5_through_the_stack
    walk_5_through_vxlan
    walk_6_pod_to_node_ports
    walk_7_hairpin
    walk_10_no_endpoint
    walk_10_no_local_endpoint
    host_network_backends_answer
    pods_that_come_later_are_served
}

fn walk_1_pod_to_cluster_ip_on_the_same_node(cni: Cni) -> Result<()> {
    let stage = stage(two_nodes(cni), &web(), &["b"])?;
    let a = stage.cluster.pod("a");
    for family in Family::BOTH {
        stage.expect(a, web().http(family), "b", |client| client == a.ip(family))?;
        bulk(&stage, a, web().stream(family))?;
    }
    Ok(())
}

fn walk_2_pod_to_cluster_ip_on_another_node(cni: Cni) -> Result<()> {
    let stage = stage(two_nodes(cni), &web(), &["c"])?;
    let a = stage.cluster.pod("a");
    for family in Family::BOTH {
        stage.expect(a, web().http(family), "c", |client| client == a.ip(family))?;
        bulk(&stage, a, web().stream(family))?;
    }
    Ok(())
}

fn walk_2_through_vxlan(cni: Cni) -> Result<()> {
    let stage = stage(two_nodes(cni).overlay(Overlay::Vxlan), &web(), &["c"])?;
    let a = stage.cluster.pod("a");
    for family in Family::BOTH {
        stage.expect(a, web().http(family), "c", |client| client == a.ip(family))?;
        bulk(&stage, a, web().stream(family))?;
    }
    Ok(())
}

fn walk_4_outside_to_a_local_backend(cni: Cni) -> Result<()> {
    let service = web().external_ip("192.0.2.80".parse()?).external_ip("2001:db8:80::80".parse()?);
    let stage = stage(two_nodes(cni), &service, &["b"])?;
    let client = stage.cluster.client();
    // What a load balancer announces: the external addresses are behind the first node.
    let node = stage.cluster.node(1);
    stage.cluster.fabric().namespace().ip(&format!(
        "route add 192.0.2.80 via {}\nroute add 2001:db8:80::80 via {}\n",
        node.ip(Family::V4),
        node.ip(Family::V6)
    ))?;
    for (family, external) in Family::BOTH.into_iter().zip(&service.external_ips) {
        let seen = |address| address == client.ip(family);
        stage.expect(client, node_port(&stage, 1, family), "b", seen)?;
        stage.expect(client, SocketAddr::new(*external, Service::HTTP), "b", seen)?;
        let stream = SocketAddr::new(node.ip(family), NODE_PORT + 1);
        bulk(&stage, client, stream)?;
    }
    Ok(())
}

fn walk_4_outside_to_a_routed_cluster_ip(cni: Cni) -> Result<()> {
    let stage = stage(two_nodes(cni), &web(), &["b"])?;
    stage.cluster.fabric().route_services_to(stage.cluster.node(1))?;
    let client = stage.cluster.client();
    for family in Family::BOTH {
        stage.expect(client, web().http(family), "b", |address| address == client.ip(family))?;
    }
    Ok(())
}

fn walk_5_outside_to_a_remote_backend(cni: Cni) -> Result<()> {
    remote_backend(two_nodes(cni))
}

/// Where the routing table has nothing to say to a program, as with routes that depend on netfilter's marks, the stack
/// forwards.
fn walk_5_through_the_stack(cni: Cni) -> Result<()> {
    let stage = stage(two_nodes(cni), &web(), &["c"])?;
    let client = stage.cluster.client();
    let node = stage.cluster.node(1);
    let cidrs = stage.cluster.node(2).pod_cidrs();
    node.run(
        "nft",
        &["add table inet marks { chain prerouting { type filter hook prerouting priority -150; meta mark set 1; }; }"],
    )?;
    // The reverse path is to be looked up with the mark as well.
    node.set_sysctl("net/ipv4/conf/all/src_valid_mark", "1")?;
    for (family, cidr) in ["-4", "-6"].into_iter().zip(&cidrs) {
        node.run("ip", &[family, "rule", "add", "pref", "10", "fwmark", "0/1", "to", cidr, "unreachable"])?;
    }
    let own = node.own_addresses()?;
    let before = node.forwarded()?;
    for family in Family::BOTH {
        stage.expect(client, node_port(&stage, 1, family), "c", |address| own.contains(&address))?;
        bulk(&stage, client, SocketAddr::new(node.ip(family), NODE_PORT + 1))?;
    }
    ensure!(node.forwarded()? > before + 100, "the stack forwarded nothing: the test is none");
    Ok(())
}

fn walk_5_through_vxlan(cni: Cni) -> Result<()> {
    remote_backend(two_nodes(cni).overlay(Overlay::Vxlan))
}

fn remote_backend(builder: ClusterBuilder) -> Result<()> {
    let stage = stage(builder, &web(), &["c"])?;
    let client = stage.cluster.client();
    let node = stage.cluster.node(1);
    let own = node.own_addresses()?;
    let before = node.forwarded()?;
    for family in Family::BOTH {
        stage.expect(client, node_port(&stage, 1, family), "c", |address| own.contains(&address))?;
        bulk(&stage, client, SocketAddr::new(node.ip(family), NODE_PORT + 1))?;
    }
    let slow = node.forwarded()? - before;
    ensure!(slow < 100, "{slow} packets went through the stack of the node in the middle");
    Ok(())
}

fn walk_6_pod_to_node_ports(cni: Cni) -> Result<()> {
    let local = Service::new("local", 2).node_port(NODE_PORT + 10).external_local();
    let stage = stage(two_nodes(cni), &web(), &["c"])?;
    let cluster = &stage.cluster;
    cluster.manifests().apply(&local, &[Endpoint::of(cluster.pod("c"))])?;
    let a = cluster.pod("a");
    let nodes = [cluster.node(1).own_addresses()?, cluster.node(2).own_addresses()?].concat();
    for family in Family::BOTH {
        // Policy Cluster: masqueraded, whichever node is asked.
        for node in [1, 2] {
            stage.expect(a, node_port(&stage, node, family), "c", |address| nodes.contains(&address))?;
        }
        bulk(&stage, a, SocketAddr::new(cluster.node(1).ip(family), NODE_PORT + 1))?;
        // Policy Local: a pod reaches every endpoint, with its own address.
        let to = SocketAddr::new(cluster.node(1).ip(family), NODE_PORT + 10);
        proxy_tests::cluster::eventually(std::time::Duration::from_secs(2), || {
            stage.expect(a, to, "c", |address| address == a.ip(family))
        })?;
    }
    Ok(())
}

fn walk_7_hairpin(cni: Cni) -> Result<()> {
    let stage = stage(two_nodes(cni), &web(), &["a"])?;
    let a = stage.cluster.pod("a");
    for family in Family::BOTH {
        // Its own address as the source would not have come back out of its own device.
        stage.expect(a, web().http(family), "a", |address| address != a.ip(family))?;
        stage.expect(a, node_port(&stage, 1, family), "a", |address| address != a.ip(family))?;
        bulk(&stage, a, web().stream(family))?;
    }
    Ok(())
}

fn walk_10_no_endpoint(cni: Cni) -> Result<()> {
    let stage = Stage::start(two_nodes(cni), |cluster| {
        let unready = Endpoint::of(cluster.pod("b")).not_ready();
        cluster.manifests().apply(&web(), &[unready])
    })?;
    let cluster = &stage.cluster;
    for family in Family::BOTH {
        stage.expect_failure(cluster.pod("a"), web().http(family), Failure::Refused)?;
        stage.expect_failure(cluster.pod("a"), node_port(&stage, 1, family), Failure::Refused)?;
        stage.expect_failure(cluster.client(), node_port(&stage, 1, family), Failure::Refused)?;
    }
    ensure!(stage.count("no-endpoint")? > 0, "not counted:\n{}", stage.evidence());
    Ok(())
}

fn walk_10_no_local_endpoint(cni: Cni) -> Result<()> {
    let service = web().external_local().internal_local();
    let stage = stage(two_nodes(cni), &service, &["c"])?;
    let cluster = &stage.cluster;
    let client = cluster.client();
    for family in Family::BOTH {
        stage.expect_failure(client, node_port(&stage, 1, family), Failure::TimedOut)?;
        stage.expect_failure(cluster.pod("a"), web().http(family), Failure::TimedOut)?;
        stage.expect(client, node_port(&stage, 2, family), "c", |address| address == client.ip(family))?;
    }
    ensure!(stage.count("no-local-endpoint")? > 0, "not counted:\n{}", stage.evidence());
    Ok(())
}

fn host_network_backends_answer(cni: Cni) -> Result<()> {
    let mut stage = Stage::start(two_nodes(cni), |cluster| {
        cluster.manifests().apply(&web(), &[Endpoint::on_host(cluster.node(1))])
    })?;
    let server = stage.cluster.node(1).serve_as("host", 8080)?;
    stage.servers.push(server);
    let cluster = &stage.cluster;
    let (a, c, client) = (cluster.pod("a"), cluster.pod("c"), cluster.client());
    for family in Family::BOTH {
        stage.expect(a, web().http(family), "host", |address| address == a.ip(family))?;
        stage.expect(c, web().http(family), "host", |address| address == c.ip(family))?;
        stage.expect(client, node_port(&stage, 1, family), "host", |address| address == client.ip(family))?;
    }
    Ok(())
}

fn pods_that_come_later_are_served(cni: Cni) -> Result<()> {
    let mut stage = stage(two_nodes(cni), &web(), &["c"])?;
    stage.cluster.add_pod(1, "late")?;
    let late = stage.cluster.pod("late");
    for family in Family::BOTH {
        proxy_tests::cluster::eventually(std::time::Duration::from_secs(2), || {
            stage.expect(late, web().http(family), "c", |address| address == late.ip(family))
        })?;
    }
    Ok(())
}

/// Segments and checksums as a device without offloads makes them.
#[test]
fn packets_without_offloads_arrive() -> Result<()> {
    let stage = stage(two_nodes(Cni::Routed), &web(), &["c"])?;
    let cluster = &stage.cluster;
    for pod in ["a", "c"] {
        cluster.pod(pod).run("ethtool", &["-K", "eth0", "tx", "off", "tso", "off", "gso", "off"])?;
    }
    cluster.client().run("ethtool", &["-K", "eth0", "tx", "off", "tso", "off", "gso", "off"])?;
    for family in Family::BOTH {
        bulk(&stage, cluster.pod("a"), web().stream(family))?;
        bulk(&stage, cluster.client(), SocketAddr::new(cluster.node(1).ip(family), NODE_PORT + 1))?;
    }
    Ok(())
}

/// A checksum of zero stays zero: whoever computes one from it by difference makes a wrong one.
#[test]
fn datagrams_without_a_checksum_arrive() -> Result<()> {
    let stage = stage(two_nodes(Cni::Routed), &web(), &["c"])?;
    let cluster = &stage.cluster;
    let options = UdpOptions { no_checksum: true, ..UdpOptions::default() };
    let report = cluster.pod("a").udp(web().http(Family::V4), &options)?;
    ensure!(report.answered == 100 && report.lost == 0, "{report:?}\n{}", stage.evidence());
    let report = cluster.client().udp(node_port(&stage, 1, Family::V4), &options)?;
    ensure!(report.answered == 100 && report.lost == 0, "{report:?}\n{}", stage.evidence());
    Ok(())
}

#[test]
fn vlan_tagged_uplinks_work() -> Result<()> {
    if let Some(reason) = proxy_tests::cluster::why_no_vlans()? {
        eprintln!("SKIPPED: no VLAN devices: {reason}");
        return Ok(());
    }
    let stage = stage(two_nodes(Cni::Routed).vlan(100), &web(), &["c"])?;
    let cluster = &stage.cluster;
    for family in Family::BOTH {
        bulk(&stage, cluster.pod("a"), web().stream(family))?;
        bulk(&stage, cluster.client(), SocketAddr::new(cluster.node(1).ip(family), NODE_PORT + 1))?;
        bulk(&stage, cluster.client(), SocketAddr::new(cluster.node(2).ip(family), NODE_PORT + 1))?;
    }
    Ok(())
}
