//! Firewalls of the node, put up while traffic runs: cilium/cilium#12781.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use proxy_tests::cluster::{Family, Place, Service, Stage, eventually};
use proxy_tests::traffic::{AskOptions, Failure, Transport};

use crate::{NODE_PORT, answered_from, is_counted, node_port, stage};

const FAR: u16 = NODE_PORT + 10;
/// Of a client whose flow was there before the firewall.
const OLDER: u16 = 20_123;

/// What puts a firewall up, and what takes it away: lines of programs that are run on the node.
struct Firewall {
    name: &'static str,
    up: Vec<String>,
    down: Vec<String>,
}

/// All that keep one client out.
fn firewalls(client: [std::net::IpAddr; 2]) -> Vec<Firewall> {
    let nft = |name, hook: &str| Firewall {
        name,
        up: vec![format!(
            "nft add table inet guard {{ chain c {{ type filter hook {hook}; ip saddr {} drop; ip6 saddr {} drop; }}; }}",
            client[0], client[1]
        )],
        down: vec!["nft delete table inet guard".into()],
    };
    let iptables = |name, programs: [&str; 2], chain: &str| {
        let lines = |action: &str| {
            let line = |(program, ip)| format!("{program} -w {} -s {ip} -j DROP", chain.replace('*', action));
            programs.into_iter().zip(client).map(line).collect()
        };
        Firewall { name, up: lines("-A"), down: lines("-D") }
    };
    vec![
        nft("nftables, prerouting", "prerouting priority -300"),
        nft("nftables, forward", "forward priority 0"),
        iptables("iptables, prerouting", ["iptables", "ip6tables"], "-t raw * PREROUTING"),
        iptables("iptables, forward", ["iptables", "ip6tables"], "* FORWARD"),
        iptables("iptables of old, forward", ["iptables-legacy", "ip6tables-legacy"], "* FORWARD"),
    ]
}

fn run(node: &impl Place, lines: &[String]) -> Result<()> {
    lines.iter().try_for_each(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some((program, arguments)) = words.split_first() else { return Ok(()) };
        // nft takes all of its words as one text or as many.
        node.run(program, arguments).map(drop)
    })
}

/// The packets that the fast path took.
fn taken(stage: &Stage) -> Result<u64> {
    stage.count("fast-path")
}

#[test]
fn firewall_on_the_node() -> Result<()> {
    let (near, far) = (Service::new("near", 1).node_port(NODE_PORT), Service::new("far", 2).node_port(FAR));
    let stage = stage(&[(&near, "b"), (&far, "c")], |_| Ok(()))?;
    let (client, node) = (stage.cluster.client(), stage.cluster.node(1));
    for firewall in firewalls(Family::BOTH.map(|family| client.ip(family))) {
        for family in Family::BOTH {
            let before = taken(&stage)?;
            eventually(Duration::from_secs(2), || {
                stage.expect(client, node_port(&stage, family, FAR), "c", |_| true)?;
                ensure!(taken(&stage)? > before, "the fast path is not taken: {}", stage.evidence());
                Ok(())
            })?;
            stage.expect(client, node_port(&stage, family, NODE_PORT), "b", |_| true)?;
            let older = answered_from(client, OLDER, node_port(&stage, family, FAR))?;
            ensure!(older.as_deref() == Some("c"), "{older:?}");
        }
        let started = Instant::now();
        run(node, &firewall.up)?;
        // Endless for who does not look; where the agent has noticed, the very next packet is kept out.
        for family in Family::BOTH {
            eventually(Duration::from_secs(2), || silent(&stage, family, FAR))?;
        }
        println!("{}: obeyed after {:?}", firewall.name, started.elapsed());
        let before = taken(&stage)?;
        for family in Family::BOTH {
            for port in [NODE_PORT, FAR] {
                stage.expect_failure(client, node_port(&stage, family, port), Failure::TimedOut)?;
            }
            ensure!(
                answered_from(client, OLDER, node_port(&stage, family, FAR))?.is_none(),
                "{}: a flow from before goes on",
                firewall.name
            );
        }
        ensure!(taken(&stage)? == before, "{}: the fast path is taken still", firewall.name);
        run(node, &firewall.down)?;
    }
    is_counted(&stage, "fast-path")
}

/// One datagram that nobody answers.
fn silent(stage: &Stage, family: Family, port: u16) -> Result<()> {
    let options = AskOptions { timeout_ms: 150, ..AskOptions::new(Transport::Udp) };
    let report = stage.cluster.client().ask(node_port(stage, family, port), &options)?;
    ensure!(report.answer.is_none(), "{family:?} {port} is answered");
    Ok(())
}
