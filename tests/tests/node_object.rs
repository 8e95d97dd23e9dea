//! The Node object comes late, goes and comes back; NodePorts with `primary`, the default, follow what it says. Needs
//! root and the agent.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use proxy_tests::cluster::{Cluster, Cni, Endpoint, Family, Place, Service, Stage, eventually};
use proxy_tests::traffic::{Failure, HttpOptions};

const NODE_PORT: u16 = 30080;
const OBJECT: &str = "node1.node.json";
const SOON: Duration = Duration::from_secs(3);

/// The address of the bridge: the node's own, and not that of its object.
const BRIDGE: [&str; 2] = ["10.244.1.1", "fd00:244:0:1::1"];

/// NodePorts never answer there.
fn bridge_is_closed(stage: &Stage) -> Result<()> {
    let pod = stage.cluster.pod("a");
    BRIDGE
        .iter()
        .try_for_each(|ip| stage.expect_failure(pod, SocketAddr::new(ip.parse()?, NODE_PORT), Failure::Refused))
}

fn node_ports(stage: &Stage) -> [SocketAddr; 2] {
    Family::BOTH.map(|family| SocketAddr::new(stage.cluster.node(1).ip(family), NODE_PORT))
}

fn node_answers(stage: &Stage) -> Result<()> {
    node_ports(stage).into_iter().try_for_each(|to| stage.expect(stage.cluster.client(), to, "b", |_| true))
}

fn is_logged(stage: &Stage, words: &str) -> Result<()> {
    let log = stage.agents[0].log();
    ensure!(log.contains(words), "no {words:?} in:\n{log}");
    Ok(())
}

#[test]
fn node_ports_stay_where_the_node_object_put_them() -> Result<()> {
    let service = Service::new("web", 1).node_port(NODE_PORT);
    let builder = Cluster::builder().nodes(1).cni(Cni::Bridge).pod(1, "a").pod(1, "b");
    let mut stage = Stage::start(builder, |cluster| {
        cluster.manifests().remove(OBJECT)?;
        cluster.manifests().apply(&service, &[Endpoint::of(cluster.pod("b"))])
    })?;
    is_logged(&stage, "Node node1: does not exist")?;
    for to in node_ports(&stage) {
        stage.expect_failure(stage.cluster.client(), to, Failure::Refused)?;
    }
    bridge_is_closed(&stage)?;

    stage.cluster.write_node_objects()?;
    eventually(SOON, || node_answers(&stage))?;
    bridge_is_closed(&stage)?;

    let [to, _] = node_ports(&stage);
    let load = stage.cluster.client().start_http(to, &HttpOptions { rate: 200, ..HttpOptions::default() })?;
    stage.cluster.manifests().remove(OBJECT)?;
    eventually(SOON, || is_logged(&stage, "does not exist; the last ones stay in use: 172.18.0.11"))?;
    node_answers(&stage)?;
    bridge_is_closed(&stage)?;

    // An agent that starts without the object does not know it, but what is open.
    stage.agent(1).kill();
    stage.agent(1).start_again()?;
    is_logged(&stage, "Node node1: does not exist")?;
    node_answers(&stage)?;
    bridge_is_closed(&stage)?;

    let report = load.stop()?;
    ensure!(report.failures.is_empty() && report.ok > 0, "{report:?}\n{}", stage.evidence());
    bridge_is_closed(&stage)
}
