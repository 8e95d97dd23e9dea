//! Which endpoints a client is given. Needs root and the agent.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use proxy_tests::cluster::{Cluster, Cni, Endpoint, Family, Place, Service, Stage};
use proxy_tests::traffic::{HttpOptions, HttpReport};

const NODE_PORT: u16 = 30080;

fn stage(service: &Service, endpoints: impl Fn(&Cluster) -> Vec<Endpoint>) -> Result<Stage> {
    let builder = Cluster::builder().nodes(2).cni(Cni::Routed).pod(1, "a").pod(1, "b").pod(2, "c").pod(2, "d");
    Stage::start(builder, |cluster| cluster.manifests().apply(service, &endpoints(cluster)))
}

fn answered_by(report: &HttpReport, servers: &[&str]) -> Result<()> {
    ensure!(report.failures.is_empty() && report.servers.keys().eq(servers), "not by {servers:?}: {report:?}");
    Ok(())
}

fn requests() -> HttpOptions {
    HttpOptions { requests: 40, ..HttpOptions::default() }
}

#[test]
fn local_policies_keep_traffic_on_the_node() -> Result<()> {
    let service = Service::new("web", 1).node_port(NODE_PORT).external_local().internal_local();
    let stage = stage(&service, |cluster| ["b", "c", "d"].map(|pod| Endpoint::of(cluster.pod(pod))).to_vec())?;
    let cluster = &stage.cluster;
    let client = cluster.client();
    for family in Family::BOTH {
        answered_by(&cluster.pod("a").http(service.http(family), &requests())?, &["b"])?;
        answered_by(&cluster.pod("c").http(service.http(family), &requests())?, &["c", "d"])?;
        for (node, servers) in [(1, &["b"][..]), (2, &["c", "d"])] {
            let to = SocketAddr::new(cluster.node(node).ip(family), NODE_PORT);
            let report = client.http(to, &requests())?;
            answered_by(&report, servers)?;
            ensure!(report.clients.keys().eq([&client.ip(family)]), "{report:?}");
            // Pods are not bound by the policy of the outside.
            let report = cluster.pod("a").http(SocketAddr::new(cluster.node(1).ip(family), NODE_PORT), &requests())?;
            answered_by(&report, &["b", "c", "d"])?;
        }
    }
    Ok(())
}

/// As long as one endpoint is ready, those that terminate get nothing new; when none is, they get it all.
#[test]
fn terminating_endpoints_are_the_last_resort() -> Result<()> {
    let service = Service::new("web", 1);
    let stage =
        stage(&service, |cluster| vec![Endpoint::of(cluster.pod("b")), Endpoint::of(cluster.pod("c")).terminating()])?;
    let cluster = &stage.cluster;
    let a = cluster.pod("a");
    for family in Family::BOTH {
        answered_by(&a.http(service.http(family), &requests())?, &["b"])?;
    }
    let endpoints = [Endpoint::of(cluster.pod("b")).not_ready(), Endpoint::of(cluster.pod("c")).terminating()];
    cluster.manifests().apply_endpoints(&service, &endpoints)?;
    for family in Family::BOTH {
        proxy_tests::cluster::eventually(std::time::Duration::from_secs(2), || {
            answered_by(&a.http(service.http(family), &requests())?, &["c"])
        })?;
    }
    Ok(())
}
