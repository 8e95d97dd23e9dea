//! `sheave get` shows what is in the kernel. Needs root and the agent.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use proxy_tests::cluster::{Cluster, Cni, Endpoint, Family, Place, Service, Stage};
use proxy_tests::traffic::{AskOptions, Failure, HttpOptions, Transport};
use serde_json::Value;

const NODE_PORT: u16 = 30080;

fn rows(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().with_context(|| format!("not a list: {value}"))
}

#[test]
fn tables_show_what_the_kernel_holds() -> Result<()> {
    let (service, nobody) = (Service::new("web", 1).node_port(NODE_PORT), Service::new("nobody", 2));
    let builder = Cluster::builder().nodes(2).cni(Cni::Routed).pod(1, "a").pod(1, "b").pod(2, "c");
    let stage = Stage::start(builder, |cluster| {
        let endpoints = ["b", "c"].map(|pod| Endpoint::of(cluster.pod(pod)));
        cluster.manifests().apply(&service, &endpoints)?;
        cluster.manifests().apply(&nobody, &[])
    })?;
    let cluster = &stage.cluster;
    let agent = &stage.agents[0];
    let options = HttpOptions { requests: 20, ..HttpOptions::default() };
    for family in Family::BOTH {
        cluster.pod("a").http(service.http(family), &options)?;
    }

    let services = agent.get("services")?;
    let shown = services.to_string();
    for family in Family::BOTH {
        ensure!(shown.contains(&service.cluster_ips.of(family).to_string()), "{shown}");
    }
    ensure!(shown.contains(&NODE_PORT.to_string()) && shown.contains("web"), "{shown}");
    // Three ports, of each family a ClusterIP and, of one of the two services, a NodePort.
    ensure!(rows(&services)?.len() == 18, "{shown}");
    let of_kind = |kind: &str| rows(&services).map(|rows| rows.iter().filter(|row| row["kind"] == kind).count());
    ensure!(of_kind("ClusterIP")? == 12 && of_kind("NodePort")? == 6, "{shown}");

    let backends = agent.get("backends")?;
    // Three ports, two pods, two families.
    ensure!(rows(&backends)?.len() == 12, "{backends}");
    let local = rows(&backends)?.iter().filter(|row| row["local"] == true).count();
    ensure!(local == 6, "{backends}");

    let flows = agent.get("flows")?;
    for family in Family::BOTH {
        let dialled = service.http(family).to_string();
        let towards = rows(&flows)?.iter().filter(|row| row["destination"] == dialled.as_str());
        // Each connection has a port of its own.
        ensure!(towards.clone().count() == 20, "{dialled}: {flows}");
        ensure!(towards.clone().all(|row| row["role"] == "client" && row["side"] == "ingress"), "{flows}");
        // Both ends have closed.
        ensure!(
            towards.clone().all(|row| row["state"] == "closing" && row["service"] == "default/web:http"),
            "{flows}"
        );
        let replies =
            rows(&flows)?.iter().filter(|row| row["role"] == "reply" && row["new_source"] == dialled.as_str());
        // Each finds its service and its device by the client's entry.
        ensure!(replies.clone().count() == 20, "{dialled}: {flows}");
        ensure!(replies.clone().all(|row| row["service"] == "default/web:http" && row["device"] != ""), "{flows}");
    }
    ensure!(stage.count("new-flow")? >= 40, "{}", stage.evidence());
    let report = cluster.pod("a").ask(nobody.http(Family::V4), &AskOptions::new(Transport::Tcp))?;
    ensure!(report.failure == Some(Failure::Refused), "{:?}", report.failure);
    for what in ["services", "backends", "flows", "counters", "drops"] {
        let table = agent.get_table(what)?;
        ensure!(table.lines().count() > 1, "{what}:\n{table}");
    }
    let drops = agent.get("drops")?;
    let outcomes: BTreeSet<&str> = rows(&drops)?.iter().filter_map(|row| row["outcome"].as_str()).collect();
    ensure!(outcomes == BTreeSet::from(["rejected"]), "{drops}");
    Ok(())
}

/// With the agent gone the tables are still there; after a cleanup they are not, and that is said.
#[test]
fn what_is_gone_is_said_to_be_gone() -> Result<()> {
    let builder = Cluster::builder().nodes(1);
    let mut stage = Stage::start(builder, |_| Ok(()))?;
    stage.agent(1).terminate()?;
    // The kernel goes on, so there is something to be seen.
    ensure!(stage.agents[0].get("services")? == Value::Array(Vec::new()));
    stage.agents[0].cleanup()?;
    let message = stage.agents[0].get("services").err().context("nothing is pinned")?;
    ensure!(format!("{message:#}").contains("nothing is pinned"), "{message:#}");
    Ok(())
}
