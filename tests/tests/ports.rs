//! Ports of the node that take the place of its clients' towards one backend, nearly all of them in use. Needs root and
//! the agent.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proxy_tests::cluster::{Cluster, Cni, Endpoint, Family, Line, Place, Service, Stage};
use proxy_tests::scale::scaled;
use proxy_tests::traffic::{SessionsOptions, dial};

const NODE_PORT: u16 = 30080;
/// Of the node, for one backend.
const PORTS: u16 = 1024;

fn stage() -> Result<Stage> {
    let service = Service::new("web", 1).node_port(NODE_PORT);
    Stage::start(Cluster::builder().nodes(2).cni(Cni::Routed).pod(1, "a").pod(2, "far"), |cluster| {
        // The agent takes what the kernel leaves.
        let range = format!("1024 {}", u16::MAX - PORTS);
        cluster.node(1).set_sysctl("net/ipv4/ip_local_port_range", &range)?;
        cluster.manifests().apply(&service, &[Endpoint::of(cluster.pod("far"))])
    })
}

/// Nine of ten are in use by connections that live: new ones find a port. When hardly any is left, everybody who finds
/// none is counted.
#[test]
fn nine_of_ten_in_use_are_not_too_many() -> Result<()> {
    let stage = stage()?;
    let client = stage.cluster.client();
    let to = SocketAddr::new(stage.cluster.node(1).ip(Family::V4), NODE_PORT + 1);
    let hold = |count: u16| client.hold_sessions(to, &SessionsOptions::idle(count.into()));
    let exhausted = || stage.count("ports-exhausted");
    let nine_of_ten = hold(PORTS / 10 * 9)?;

    let flows = scaled(100_u32, 1000);
    let before = exhausted()?;
    let mut repeats = 0;
    for _ in 0..flows {
        let mut line = Line::open(client, 0, to).with_context(|| stage.evidence())?;
        line.exchange()?;
        repeats += line.repeats;
        // A port rests for up to two ticks after its connection: by this pace, one of forty at most does.
        std::thread::sleep(Duration::from_millis(100));
    }
    let failed = exhausted()? - before;
    println!("{flows} new connections with 9 of 10 ports in use: {failed} SYNs found none, {repeats} were sent again");
    ensure!(failed * 100 <= u64::from(flows) * 3, "{failed} of {flows} found no port\n{}", stage.evidence());

    let nearly_all = hold(PORTS / 10 - 20)?;
    let before = exhausted()?;
    // Long enough for one repetition each, which is at least one second after the first (RFC 6298).
    let dial = || dial(to, 0, Duration::from_millis(1500));
    let dialled = client.namespace().enter(|| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..60).map(|_| scope.spawn(dial)).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect::<Vec<_>>()
        })
    })?;
    let in_vain: u64 = dialled.iter().map(|one| u64::from(one.repeats) + u64::from(one.result.is_err())).sum();
    let counted = exhausted()? - before;
    println!("with all but {} in use: {in_vain} SYNs in vain, {counted} counted", PORTS - PORTS / 10 * 10 + 20);
    ensure!(counted > 0 && counted <= in_vain, "{in_vain} in vain, {counted} counted\n{}", stage.evidence());
    // On a machine with other work a SYN may be sent again although its answer is on the way.
    ensure!(counted * 10 >= in_vain * 9, "{in_vain} in vain, {counted} counted\n{}", stage.evidence());

    drop(dialled);
    for load in [nine_of_ten, nearly_all] {
        let report = load.stop()?;
        ensure!(report.failures.is_empty(), "{report:?}\n{}", stage.evidence());
    }
    Ok(())
}
