//! The cluster itself, without an agent: what is not a service works before we touch anything. Needs root.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use proxy_tests::cluster::{Cluster, ClusterBuilder, Cni, Family, Namespace, Overlay, Place, residue, why_no_vlans};
use proxy_tests::patience::patience;
use proxy_tests::traffic::{
    AskOptions, Exchange, Failure, HttpOptions, LatencyOptions, StreamOptions, Transport, UdpOptions, server,
};

fn two_nodes(cni: Cni) -> ClusterBuilder {
    Cluster::builder().nodes(2).cni(cni).pod(1, "a").pod(1, "b").pod(2, "c")
}

/// Every pair of places that plain routing joins, both families, both protocols.
fn everybody_talks(cluster: &Cluster) -> Result<()> {
    let mut servers = cluster.start_servers()?;
    for node in cluster.nodes() {
        servers.push(node.serve()?);
    }
    let pods: Vec<&dyn Asks> = cluster.pods().iter().map(|pod| pod as &dyn Asks).collect();
    let nodes: Vec<&dyn Asks> = cluster.nodes().iter().map(|node| node as &dyn Asks).collect();
    let inside = pods.iter().flat_map(|&from| pods.iter().chain(&nodes).map(move |&to| (from, to)));
    let outside = nodes.iter().map(|&to| (cluster.client() as &dyn Asks, to));
    for (from, to) in inside.chain(outside) {
        for family in Family::BOTH {
            for transport in Transport::BOTH {
                let what = format!("{} to {} {family:?} {transport:?}", from.called(), to.called());
                let (server, client) = from.asks(to.at(family), transport).context(what.clone())?;
                assert_eq!(server, to.called(), "{what}");
                assert_eq!(client, from.at(family), "{what}");
            }
        }
    }
    Ok(())
}

/// [`Place`] as far as these tests need it behind a reference.
trait Asks {
    fn called(&self) -> &str;
    fn at(&self, family: Family) -> std::net::IpAddr;
    fn asks(&self, to: std::net::IpAddr, transport: Transport) -> Result<(String, std::net::IpAddr)>;
}

impl<P: Place> Asks for P {
    fn called(&self) -> &str {
        self.name()
    }

    fn at(&self, family: Family) -> std::net::IpAddr {
        self.ip(family)
    }

    fn asks(&self, to: std::net::IpAddr, transport: Transport) -> Result<(String, std::net::IpAddr)> {
        let report = self.ask(SocketAddr::new(to, server::PORT), &AskOptions::new(transport))?;
        let answer = report.answer.with_context(|| format!("{:?} after {} µs", report.failure, report.micros))?;
        Ok((answer.server, answer.client.ip()))
    }
}

#[test]
fn routed_pods_nodes_and_the_client_talk() -> Result<()> {
    everybody_talks(&two_nodes(Cni::Routed).build()?)
}

#[test]
fn bridged_pods_nodes_and_the_client_talk() -> Result<()> {
    everybody_talks(&two_nodes(Cni::Bridge).build()?)
}

#[test]
fn pods_talk_through_vxlan() -> Result<()> {
    for cni in Cni::BOTH {
        let cluster = two_nodes(cni).overlay(Overlay::Vxlan).build()?;
        let server = cluster.pod("c").serve()?;
        for family in Family::BOTH {
            let to = SocketAddr::new(cluster.pod("c").ip(family), server::PORT + 1);
            let report = cluster.pod("a").stream(to, &StreamOptions::default())?;
            assert_eq!(report.broken().count(), 0, "{cni} {family:?}: {report:?}");
        }
        let statistics = cluster.node(1).run("ip", &["-s", "link", "show", "flannel.1"])?;
        assert!(!statistics.contains(" 0          0      0"), "nothing went through the overlay:\n{statistics}");
        drop(server);
    }
    Ok(())
}

#[test]
fn everybody_talks_through_a_vlan() -> Result<()> {
    if let Some(reason) = why_no_vlans()? {
        eprintln!("SKIPPED: no VLAN devices: {reason}");
        return Ok(());
    }
    let cluster = two_nodes(Cni::Routed).vlan(100).build()?;
    assert!(cluster.node(1).run("ip", &["-o", "addr", "show", "dev", "eth0.100"])?.contains("172.18.0.11"));
    everybody_talks(&cluster)
}

#[test]
fn streams_arrive_byte_for_byte() -> Result<()> {
    let cluster = two_nodes(Cni::Routed).build()?;
    let _server = cluster.pod("c").serve()?;
    let to = SocketAddr::new(cluster.pod("c").ip(Family::V4), server::PORT + 1);
    let options = StreamOptions { connections: 2, bytes: 8 << 20, ..StreamOptions::default() };
    let report = cluster.pod("a").stream(to, &options)?;
    assert_eq!(report.broken().count(), 0, "{report:?}");
    assert!(report.connections.iter().all(|connection| connection.echoed == 8 << 20), "{report:?}");
    Ok(())
}

/// The tools themselves, where nothing is in the way.
#[test]
fn tools_count_what_they_send() -> Result<()> {
    let cluster = two_nodes(Cni::Routed).build()?;
    let _server = cluster.pod("c").serve()?;
    let from = cluster.pod("a");
    let to = SocketAddr::new(cluster.pod("c").ip(Family::V6), server::PORT);
    for keep_alive in [false, true] {
        let report = from.http(to, &HttpOptions { requests: 200, keep_alive, ..HttpOptions::default() })?;
        assert!(report.ok == 200 && report.servers["c"] == 200 && report.failures.is_empty(), "{report:?}");
        assert!(report.latency.p50 > 0.0 && report.latency.max >= report.latency.p50, "{report:?}");
    }
    let started = Instant::now();
    let load = from.start_udp(to, &UdpOptions { rate: 1000, ..UdpOptions::default() })?;
    std::thread::sleep(Duration::from_millis(2000));
    let report = load.stop()?;
    let most = started.elapsed().as_millis() as u64;
    assert!(report.sent == report.answered && report.sent > 100 && report.sent < most, "{report:?}");
    let report = from.udp(to, &UdpOptions { requests: 20, new_sockets: true, ..UdpOptions::default() })?;
    assert_eq!((report.answered, report.lost), (20, 0), "{report:?}");
    for exchange in [Exchange::Crr, Exchange::Connect, Exchange::Udp] {
        let report = from.latency(to, &LatencyOptions::new(exchange, Duration::from_millis(500)))?;
        assert!(report.failures == 0 && report.exchanges > 3, "{exchange:?}: {report:?}");
    }
    let stream = SocketAddr::new(to.ip(), server::PORT + 1);
    let report = from.latency(stream, &LatencyOptions::new(Exchange::Rr, Duration::from_millis(500)))?;
    assert!(report.failures == 0 && report.exchanges > 3, "{report:?}");
    let ask = AskOptions { source_port: 20123, ..AskOptions::new(Transport::Tcp) };
    let answer = from.ask(to, &ask)?.answer.context("an answer")?;
    assert_eq!(answer.client, SocketAddr::new(from.ip(Family::V6), 20123));
    // Nobody listens.
    let nobody = SocketAddr::new(to.ip(), 9999);
    let report = from.http(nobody, &HttpOptions { requests: 5, ..HttpOptions::default() })?;
    assert_eq!(report.failures.get(&Failure::Refused), Some(&5), "{report:?}");
    for transport in Transport::BOTH {
        assert_eq!(from.ask(nobody, &AskOptions::new(transport))?.failure, Some(Failure::Refused));
    }
    Ok(())
}

#[test]
fn nothing_is_left() -> Result<()> {
    let (names, directory) = {
        let cluster = two_nodes(Cni::Bridge).build()?;
        let names: BTreeSet<String> = cluster
            .pods()
            .iter()
            .map(Place::namespace)
            .chain(cluster.nodes().iter().map(Place::namespace))
            .map(|namespace| namespace.name().to_owned())
            .collect();
        assert!(names.iter().all(|name| Path::new(Namespace::DIRECTORY).join(name).exists()));
        let mounts = std::fs::read_to_string("/proc/mounts")?;
        assert!(mounts.contains(cluster.directory().to_str().context("name")?), "{mounts}");
        (names, cluster.directory().to_owned())
    };
    assert!(!names.iter().any(|name| Path::new(Namespace::DIRECTORY).join(name).exists()));
    assert!(!directory.exists());
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    assert!(!mounts.contains(directory.to_str().context("name")?), "{mounts}");
    Ok(())
}

#[test]
fn kept_clusters_stay_until_they_are_removed() -> Result<()> {
    let name = format!("kept{}", std::process::id());
    let cluster = Cluster::builder().nodes(1).pod(1, "a").keep(&name).build()?;
    let namespace = cluster.pod("a").namespace().path();
    let mut command = cluster.pod("a").command("sleep");
    command.arg("60");
    let process = cluster.pod("a").start("sleep", command)?;
    let pid = process.pid();
    process.leave();
    cluster.leave();
    residue::sweep()?;
    assert!(namespace.exists() && Path::new(&format!("/proc/{pid}")).exists());
    residue::remove_kept(&name)?;
    assert!(!namespace.exists());
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
    Ok(())
}

/// The test below in a process of its own, killed in the middle; then what it left is swept.
#[test]
fn a_killed_process_leaves_what_the_next_one_sweeps() -> Result<()> {
    let mut orphan = Command::new(std::env::current_exe()?)
        .args(["--exact", "orphan", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(orphan.stdout.take().context("pipe")?);
    let made =
        output.lines().find_map(|line| Some(line.ok()?.strip_prefix("made ")?.to_owned())).context("no cluster")?;
    let (directory, namespace) = made.split_once(' ').context("two paths")?;
    orphan.kill()?;
    orphan.wait()?;
    assert!(Path::new(directory).exists() && Path::new(namespace).exists());
    residue::sweep()?;
    assert!(!Path::new(directory).exists() && !Path::new(namespace).exists());
    assert!(!std::fs::read_to_string("/proc/mounts")?.contains(directory));
    Ok(())
}

#[test]
#[ignore = "run by the test above, which kills it"]
fn orphan() -> Result<()> {
    let cluster = Cluster::builder().nodes(1).pod(1, "a").build()?;
    let _server = cluster.pod("a").serve()?;
    println!("made {} {}", cluster.directory().display(), cluster.pod("a").namespace().path().display());
    std::thread::sleep(Duration::from_secs(10));
    Ok(())
}

#[test]
fn a_cluster_is_up_in_time() -> Result<()> {
    let started = Instant::now();
    let cluster = two_nodes(Cni::Bridge).pod(1, "d").pod(2, "e").pod(2, "f").build()?;
    let took = started.elapsed();
    println!("2 nodes with 6 pods in {took:?}");
    // Loose, since other tests and programs run beside this one.
    assert!(took < patience(Duration::from_secs(10)), "{took:?}");
    drop(cluster);
    Ok(())
}
