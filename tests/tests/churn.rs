//! Endpoints come and go under load. Needs root and the agent.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use proxy_tests::cluster::{Cluster, Cni, Endpoint, Family, Place, Service, Stage, eventually};
use proxy_tests::traffic::{HttpOptions, StreamOptions, UdpOptions};

const NODE_PORT: u16 = 30080;
const CHANGES: usize = 200;
/// A file counts when it has been left alone for 50 ms.
const BETWEEN_CHANGES: Duration = Duration::from_millis(75);

/// `b` and `c` are endpoints throughout; `d` and `e` are added, removed and replaced. All four answer all the time, so
/// any failure is ours.
#[test]
fn nothing_fails_while_endpoints_change() -> Result<()> {
    let service = Service::new("web", 1).node_port(NODE_PORT);
    let builder = Cluster::builder().nodes(2).cni(Cni::Routed);
    let builder = builder.pod(1, "client").pod(1, "b").pod(2, "c").pod(1, "d").pod(2, "e");
    let stage = Stage::start(builder, |cluster| {
        let endpoints = ["b", "c"].map(|pod| Endpoint::of(cluster.pod(pod)));
        cluster.manifests().apply(&service, &endpoints)
    })?;
    let cluster = &stage.cluster;
    let (pod, outside) = (cluster.pod("client"), cluster.client());
    let endpoints =
        |pods: &[&str]| -> Vec<Endpoint> { pods.iter().map(|pod| Endpoint::of(cluster.pod(pod))).collect() };

    let requests = HttpOptions { rate: 200, concurrency: 4, ..HttpOptions::default() };
    let streams = StreamOptions { connections: 8, block: 1000, interval_ms: 10, ..StreamOptions::default() };
    let inside = pod.start_http(service.http(Family::V4), &requests)?;
    let inside_v6 = pod.start_http(service.http(Family::V6), &requests)?;
    let through_node = outside.start_http(SocketAddr::new(cluster.node(1).ip(Family::V4), NODE_PORT), &requests)?;
    let held = pod.start_stream(service.stream(Family::V4), &streams)?;
    let held_outside =
        outside.start_stream(SocketAddr::new(cluster.node(2).ip(Family::V6), NODE_PORT + 1), &streams)?;
    std::thread::sleep(Duration::from_millis(200));

    let sets: [&[&str]; 4] = [&["b", "c", "d"], &["e", "b", "c"], &["c", "b", "d", "e"], &["b", "c"]];
    for change in 0..CHANGES {
        cluster.manifests().apply_endpoints(&service, &endpoints(sets[change % sets.len()]))?;
        std::thread::sleep(BETWEEN_CHANGES);
    }

    for (name, load) in [("ClusterIP v4", inside), ("ClusterIP v6", inside_v6), ("NodePort", through_node)] {
        let report = load.stop()?;
        println!("{name}: {} requests, {:?}", report.requests, report.servers);
        ensure!(report.failures.is_empty() && report.requests > 200, "{name}: {report:?}\n{}", stage.evidence());
        // The changes were seen at all.
        ensure!(report.servers.len() == 4, "{name}: {report:?}");
    }
    for (name, load) in [("ClusterIP", held), ("NodePort", held_outside)] {
        let report = load.stop()?;
        ensure!(report.broken().count() == 0, "streams to {name} were cut: {report:?}\n{}", stage.evidence());
        ensure!(report.connections.iter().all(|connection| connection.echoed > 0), "{report:?}");
    }

    // And what was written last is what counts.
    eventually(Duration::from_secs(2), || {
        let options = HttpOptions { requests: 60, ..HttpOptions::default() };
        let report = pod.http(service.http(Family::V4), &options)?;
        ensure!(report.servers.keys().all(|server| server == "b" || server == "c"), "{report:?}");
        Ok(())
    })
}

/// A connection outlives the endpoint's place in the service; a new one does not go there.
#[test]
fn established_connections_outlive_their_endpoint() -> Result<()> {
    let service = Service::new("web", 1);
    let builder = Cluster::builder().nodes(2).cni(Cni::Bridge).pod(1, "client").pod(1, "b").pod(2, "c");
    let stage =
        Stage::start(builder, |cluster| cluster.manifests().apply(&service, &[Endpoint::of(cluster.pod("b"))]))?;
    let cluster = &stage.cluster;
    let pod = cluster.pod("client");
    let options = StreamOptions { connections: 4, block: 1000, interval_ms: 10, ..StreamOptions::default() };
    let held = pod.start_stream(service.stream(Family::V4), &options)?;
    // One socket for all: the flow has to move when its endpoint no longer serves.
    let datagrams = pod.start_udp(service.http(Family::V4), &UdpOptions { rate: 200, ..UdpOptions::default() })?;
    std::thread::sleep(Duration::from_millis(300));
    cluster.manifests().apply_endpoints(&service, &[Endpoint::of(cluster.pod("c"))])?;
    eventually(Duration::from_secs(2), || stage.expect(pod, service.http(Family::V4), "c", |_| true))?;
    std::thread::sleep(Duration::from_millis(500));
    let report = held.stop()?;
    ensure!(report.broken().count() == 0, "{report:?}\n{}", stage.evidence());
    for connection in &report.connections {
        ensure!(connection.answer.as_ref().is_some_and(|answer| answer.server == "b"), "{report:?}");
    }
    let report = datagrams.stop()?;
    ensure!(report.lost == 0 && report.servers.len() == 2, "{report:?}");
    Ok(())
}

/// A service that loses its last endpoint is refused; one that is deleted is no longer ours; both come back.
#[test]
fn services_come_and_go() -> Result<()> {
    use proxy_tests::traffic::Failure;
    let service = Service::new("web", 1);
    let builder = Cluster::builder().nodes(1).cni(Cni::Routed).pod(1, "client").pod(1, "b");
    let stage = Stage::start(builder, |_| Ok(()))?;
    let cluster = &stage.cluster;
    let pod = cluster.pod("client");
    let soon = Duration::from_secs(2);
    for family in Family::BOTH {
        let to = service.http(family);
        cluster.manifests().apply(&service, &[Endpoint::of(cluster.pod("b"))])?;
        eventually(soon, || stage.expect(pod, to, "b", |_| true))?;
        cluster.manifests().apply_endpoints(&service, &[])?;
        eventually(soon, || stage.expect_failure(pod, to, Failure::Refused))?;
        cluster.manifests().apply_endpoints(&service, &[Endpoint::of(cluster.pod("b"))])?;
        eventually(soon, || stage.expect(pod, to, "b", |_| true))?;
        cluster.manifests().delete(&service)?;
        eventually(soon, || stage.expect_unanswered(pod, to))?;
    }
    Ok(())
}
