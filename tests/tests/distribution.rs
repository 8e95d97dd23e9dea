//! How requests are spread over endpoints. Needs root and the agent.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use proxy_tests::cluster::{Cluster, Cni, Endpoint, Family, Place, Service, Stage};
use proxy_tests::statistics::{chi_square, is_even};
use proxy_tests::traffic::{AskOptions, HttpOptions, HttpReport, Transport, UdpOptions};

const NODE_PORT: u16 = 30080;

/// A client pod, and three endpoints on two nodes.
fn three_endpoints(service: &Service) -> Result<Stage> {
    let builder = Cluster::builder().nodes(2).cni(Cni::Routed).pod(1, "client").pod(1, "b").pod(2, "c").pod(2, "d");
    Stage::start(builder, |cluster| {
        let endpoints = ["b", "c", "d"].map(|pod| Endpoint::of(cluster.pod(pod)));
        cluster.manifests().apply(service, &endpoints)
    })
}

fn thousand(from: &impl Place, to: SocketAddr) -> Result<HttpReport> {
    from.http(to, &HttpOptions { requests: 1000, ..HttpOptions::default() })
}

fn check(what: &str, report: &HttpReport) -> Result<()> {
    ensure!(report.ok == 1000 && report.failures.is_empty(), "{what}: {report:?}");
    let counts: Vec<u64> = report.servers.values().copied().collect();
    println!("{what}: {:?}, chi-square {:.2}", report.servers, chi_square(&counts));
    ensure!(counts.len() == 3, "{what}: not every endpoint answered: {report:?}");
    ensure!(is_even(&counts), "{what}: not even at p = 0.001: {report:?}");
    Ok(())
}

#[test]
fn a_thousand_requests_are_spread_evenly() -> Result<()> {
    let service = Service::new("web", 1).node_port(NODE_PORT);
    let stage = three_endpoints(&service)?;
    let cluster = &stage.cluster;
    for family in Family::BOTH {
        check(&format!("ClusterIP {family:?}"), &thousand(cluster.pod("client"), service.http(family))?)?;
        let to = SocketAddr::new(cluster.node(1).ip(family), NODE_PORT);
        check(&format!("NodePort {family:?}"), &thousand(cluster.client(), to)?)?;
        let options = UdpOptions { requests: 300, rate: 0, new_sockets: true, ..UdpOptions::default() };
        let report = cluster.pod("client").udp(service.http(family), &options)?;
        ensure!(report.lost == 0 && report.failures.is_empty() && report.servers.len() == 3, "UDP {family:?}: {report:?}");
    }
    Ok(())
}

#[test]
fn one_udp_flow_stays_with_one_endpoint() -> Result<()> {
    let service = Service::new("web", 1);
    let stage = three_endpoints(&service)?;
    for family in Family::BOTH {
        let report = stage.cluster.pod("client").udp(service.http(family), &UdpOptions::default())?;
        ensure!(report.lost == 0 && report.servers.len() == 1, "{family:?}: {report:?}");
    }
    Ok(())
}

/// Whichever node a router sends a flow to, the same endpoint gets it.
#[test]
fn maglev_chooses_alike_on_all_nodes() -> Result<()> {
    let service = Service::new("web", 1).node_port(NODE_PORT).annotate("sheave.dev/algorithm", "maglev");
    let stage = three_endpoints(&service)?;
    let (fabric, client) = (stage.cluster.fabric(), stage.cluster.client());
    for family in Family::BOTH {
        let mut servers = std::collections::BTreeSet::new();
        for source_port in 20000..20012 {
            for protocol in Transport::BOTH {
                // The port of the client after which the second node is asked is the same, so is the ClusterIP.
                let mut answers = Vec::new();
                for node in stage.cluster.nodes() {
                    fabric.route_services_to(node)?;
                    let options = AskOptions { source_port, ..AskOptions::new(protocol) };
                    let report = client.ask(service.http(family), &options)?;
                    answers.push(report.answer.with_context(|| format!("{:?}\n{}", report.failure, stage.drops()))?.server);
                }
                ensure!(answers[0] == answers[1], "{family:?} {protocol:?} port {source_port}: {answers:?}");
                servers.insert(answers.swap_remove(0));
            }
        }
        ensure!(servers.len() > 1, "{family:?}: all went to {servers:?}");
    }
    Ok(())
}
