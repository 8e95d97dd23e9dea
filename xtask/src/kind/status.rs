//! `cargo xtask kind status`: what is up, where, and how one gets in.

use anyhow::Result;

use super::cluster::Cluster;
use super::progress::say;
use super::state::{self, Record};
use super::{engine, scripts};
use crate::{command, machine};

/// # Errors
/// Not root, or the API server does not answer.
pub fn run() -> Result<()> {
    machine::require_root("kind status")?;
    let Some(record) = Record::load()? else {
        println!("no cluster is up");
        return Ok(());
    };
    if record.engine.is_some_and(|first| !engine::is_running(first)) {
        println!("a cluster was up and has ended: `cargo xtask kind down` removes what is left of it");
        return Ok(());
    }
    if !record.complete {
        println!("a cluster is coming up, or was left half-finished: `cargo xtask kind down` removes it");
        return Ok(());
    }
    match (&record.engine, &record.machine_engine) {
        (Some(first), _) => println!("engine: podman in namespaces of its own, first process {}", first.pid),
        (None, Some(engine)) => println!("engine: the machine's {engine}"),
        (None, None) => println!("engine: unknown"),
    }
    println!("image:  {}", record.image);
    println!("proxy:  {}", record.proxy.name());
    println!("folder: {}", state::folder().display());
    println!();
    let cluster = Cluster::running()?;
    for list in [&["get", "nodes", "--output", "wide"][..], &["get", "pods", "--all-namespaces", "--output", "wide"]] {
        command::run(&mut cluster.kubectl(list))?;
        println!();
    }
    hints(&cluster)
}

/// What to type next.
///
/// # Errors
/// The API server does not answer.
pub fn hints(cluster: &Cluster) -> Result<()> {
    let nodes = cluster.nodes()?;
    let address = nodes.iter().flat_map(|node| &node.addresses).next().map_or("NODE", String::as_str);
    let script = |name: &str| state::path(name).display().to_string();
    let lines = [
        (
            format!("{} get pods --all-namespaces", script(scripts::KUBECTL)),
            "kubectl, with this cluster's address and rights",
        ),
        (
            format!("{} curl http://{address}:NODEPORT/", script(scripts::ENTER)),
            "a program next to the cluster, as its clients are",
        ),
        ("cargo xtask kind test".to_owned(), "tries all that users rely on, in five minutes"),
        ("cargo xtask kind status".to_owned(), "nodes, pods, proxy"),
        ("cargo xtask kind down".to_owned(), "removes all of it"),
    ];
    say("next:");
    for (line, meaning) in lines {
        eprintln!("  {line}");
        eprintln!("      {meaning}");
    }
    Ok(())
}
