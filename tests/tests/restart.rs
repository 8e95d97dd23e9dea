//! The agent dies, comes back, and nobody notices. Needs root, the agent and iperf3.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proxy_tests::cluster::{
    AgentOptions, Cluster, Cni, Endpoint, Family, Place, Service, ServicePort, Stage, eventually,
};
use proxy_tests::traffic::{HttpOptions, StreamOptions, UdpOptions};
use serde_json::Value;

const NODE_PORT: u16 = 30080;
const IPERF: u16 = 5201;

#[test]
fn killing_and_restarting_agents_loses_nothing() -> Result<()> {
    restarts_lose_nothing(&AgentOptions::default())
}

#[test]
fn killing_and_restarting_agents_on_clsact_loses_nothing() -> Result<()> {
    restarts_lose_nothing(&AgentOptions::default().with(&["--attach-mode", "clsact"]))
}

fn restarts_lose_nothing(options: &AgentOptions) -> Result<()> {
    let mut service = Service::new("web", 1).node_port(NODE_PORT);
    service.ports.push(ServicePort {
        name: "iperf".into(),
        protocol: "TCP".into(),
        port: IPERF,
        target_port: IPERF,
        node_port: 0,
    });
    let builder = Cluster::builder().nodes(2).cni(Cni::Routed).pod(1, "client").pod(1, "b").pod(2, "c");
    let mut stage = Stage::start_with(builder, options, |cluster| {
        cluster.manifests().apply(&service, &[Endpoint::of(cluster.pod("c"))])
    })?;
    let cluster = &stage.cluster;
    let (pod, outside) = (cluster.pod("client"), cluster.client());

    let mut command = cluster.pod("c").command("iperf3");
    command.args(["--server", "--one-off", "--forceflush"]);
    let mut server = cluster.pod("c").start("iperf3-server", command)?;
    server.wait_for_line(Duration::from_secs(5), |line| line.contains("listening"))?;
    let mut command = pod.command("iperf3");
    let target = service.cluster_ips.of(Family::V4).to_string();
    command.args(["--json", "--time", "6", "--client", &target, "--port", &IPERF.to_string()]);
    let mut bulk = pod.start("iperf3", command)?;

    let rate = UdpOptions { rate: 1000, ..UdpOptions::default() };
    let datagrams = pod.start_udp(service.http(Family::V4), &rate)?;
    let datagrams_v6 = outside.start_udp(SocketAddr::new(cluster.node(1).ip(Family::V6), NODE_PORT), &rate)?;
    let streams = StreamOptions { connections: 4, block: 1000, interval_ms: 5, ..StreamOptions::default() };
    let held = outside.start_stream(SocketAddr::new(cluster.node(1).ip(Family::V4), NODE_PORT + 1), &streams)?;
    let requests = HttpOptions { rate: 100, ..HttpOptions::default() };
    let fresh = pod.start_http(service.http(Family::V6), &requests)?;

    std::thread::sleep(Duration::from_millis(1000));
    for agent in &mut stage.agents {
        agent.kill();
    }
    std::thread::sleep(Duration::from_millis(1500));
    for agent in &mut stage.agents {
        agent.start_again()?;
    }
    std::thread::sleep(Duration::from_millis(1000));

    for (name, load) in [("ClusterIP", datagrams), ("NodePort", datagrams_v6)] {
        let report = load.stop()?;
        println!("UDP {name}: {} sent, {} lost, {:?}", report.sent, report.lost, report.latency);
        ensure!(
            report.lost == 0 && report.failures.is_empty() && report.sent > 1000,
            "{name}: {report:?}\n{}",
            stage.evidence()
        );
    }
    let report = held.stop()?;
    ensure!(report.broken().count() == 0, "streams were cut: {report:?}\n{}", stage.evidence());
    let report = fresh.stop()?;
    ensure!(report.failures.is_empty() && report.requests > 100, "{report:?}\n{}", stage.evidence());

    let status = bulk.wait(Duration::from_secs(20))?;
    let log = bulk.log();
    ensure!(status.success(), "iperf3: {status}:\n{log}");
    let result: Value = serde_json::from_str(&log).context("report of iperf3")?;
    for interval in result["intervals"].as_array().context("intervals")? {
        ensure!(interval["sum"]["bytes"].as_f64().unwrap_or(0.0) > 0.0, "iperf3 stood still: {interval}");
    }
    println!("iperf3: {:.2} Gbit/s", result["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or(0.0) / 1e9);

    // The agents that came back do their work.
    let cluster = &stage.cluster;
    cluster.manifests().apply_endpoints(&service, &[Endpoint::of(cluster.pod("b"))])?;
    eventually(Duration::from_secs(2), || {
        stage.expect(pod, service.http(Family::V4), "b", |_| true)?;
        stage.expect(outside, (cluster.node(2).ip(Family::V6), NODE_PORT).into(), "b", |_| true)
    })
}

/// What changed while the agent was away is put right when it is back; what did not is not touched.
#[test]
fn changes_during_the_absence_are_caught_up() -> Result<()> {
    let (kept, gone, new) = (Service::new("kept", 1), Service::new("gone", 2), Service::new("new", 3));
    let builder = Cluster::builder().nodes(1).cni(Cni::Bridge).pod(1, "client").pod(1, "b").pod(1, "c");
    let mut stage = Stage::start(builder, |cluster| {
        let endpoints = [Endpoint::of(cluster.pod("b"))];
        cluster.manifests().apply(&kept, &endpoints)?;
        cluster.manifests().apply(&gone, &endpoints)
    })?;
    stage.agent(1).kill();
    let cluster = &stage.cluster;
    stage.expect(cluster.pod("client"), kept.http(Family::V4), "b", |_| true)?;
    cluster.manifests().delete(&gone)?;
    cluster.manifests().apply(&new, &[Endpoint::of(cluster.pod("c"))])?;
    stage.agent(1).start_again()?;
    let cluster = &stage.cluster;
    let pod = cluster.pod("client");
    for family in Family::BOTH {
        stage.expect(pod, kept.http(family), "b", |_| true)?;
        stage.expect(pod, new.http(family), "c", |_| true)?;
        stage.expect_unanswered(pod, gone.http(family)).context("a deleted service")?;
    }
    Ok(())
}

/// Agents of two nodes share the kernel and nothing else.
#[test]
fn agents_with_different_pin_directories_are_strangers() -> Result<()> {
    let service = Service::new("web", 1).node_port(NODE_PORT);
    let builder = Cluster::builder().nodes(2).cni(Cni::Routed).pod(1, "a").pod(1, "b").pod(2, "c").pod(2, "d");
    let mut stage = Stage::start(builder, |cluster| {
        let endpoints = ["b", "d"].map(|pod| Endpoint::of(cluster.pod(pod)));
        cluster.manifests().apply(&service, &endpoints)
    })?;
    let cluster = &stage.cluster;
    let (a, c) = (cluster.pod("a"), cluster.pod("c"));
    a.http(service.http(Family::V4), &HttpOptions { requests: 20, ..HttpOptions::default() })?;
    let flows = stage.agents[1].get("flows")?.to_string();
    let dialled = service.cluster_ips.v4.to_string();
    ensure!(stage.agents[0].get("flows")?.to_string().contains(&dialled), "no flows of the first node's own pod");
    ensure!(!flows.contains(&dialled), "the second node knows flows of the first: {flows}");

    // One is stopped and removed; the other goes on, with what flows through it.
    let streams = StreamOptions { connections: 2, block: 1000, interval_ms: 10, ..StreamOptions::default() };
    let held = c.start_stream(service.stream(Family::V4), &streams)?;
    std::thread::sleep(Duration::from_millis(200));
    stage.agent(1).terminate()?;
    stage.agents[0].cleanup()?;
    let cluster = &stage.cluster;
    let c = cluster.pod("c");
    let report = c.http(service.http(Family::V4), &HttpOptions::default())?;
    ensure!(report.failures.is_empty() && report.servers.len() == 2, "{report:?}");
    let report = held.stop()?;
    ensure!(report.broken().count() == 0, "{report:?}");
    let refused = stage.agents[0].get("services");
    ensure!(refused.is_err(), "the removed node still shows services: {refused:?}");
    Ok(())
}
