//! Sockets of the node itself, beside Services that have the same addresses and ports.

use anyhow::{Context as _, Result, ensure};
use proxy_tests::cluster::{Family, Place, Service, Stage};
use proxy_tests::traffic::{AskOptions, Transport, server};

use crate::{NODE_PORT, is_counted, prefix, stage};

/// projectcalico/calico#4689: the node has the ClusterIP itself, and a socket that is bound to it gets the questions of
/// its pods.
#[test]
fn node_local_dns_cache() -> Result<()> {
    let dns = Service::new("dns", 1);
    let mut stage = stage(&[(&dns, "c")], |cluster| {
        let node = cluster.node(1);
        node.namespace().ip(&format!(
            "addr add {} dev lo\naddr add {} dev lo nodad\n",
            prefix(dns.cluster_ips.v4.into()),
            prefix(dns.cluster_ips.v6.into())
        ))?;
        node.run(
            "nft",
            &[&format!(
                "add table inet cache {{ chain c {{ type filter hook prerouting priority raw; \
             ip daddr {} notrack; ip6 daddr {} notrack; }}; }}",
                dns.cluster_ips.v4, dns.cluster_ips.v6
            )],
        )
        .map(drop)
    })?;
    // The address alone does nothing: somebody has to listen.
    for family in Family::BOTH {
        stage.expect(stage.cluster.pod("a"), dns.http(family), "c", |_| true)?;
    }
    for family in Family::BOTH {
        let cache = stage.cluster.node(1).serve_at("cache", dns.http(family))?;
        stage.servers.push(cache);
    }
    let cluster = &stage.cluster;
    for family in Family::BOTH {
        let (a, c) = (cluster.pod("a"), cluster.pod("c"));
        stage.expect(a, dns.http(family), "cache", |client| client == a.ip(family))?;
        // Not those of pods of other nodes.
        stage.expect(c, dns.http(family), "c", |_| true)?;
        // Nor is another port the cache's.
        let report = a.stream(dns.stream(family), &proxy_tests::traffic::StreamOptions::default())?;
        ensure!(report.broken().count() == 0, "{report:?}\n{}", stage.evidence());
    }
    is_counted(&stage, "own-socket")
}

/// Of which a pod asks: the node would keep the first port for its own connection, where both ask the same server.
const PODS_PORT: u16 = NODE_PORT + 10;

/// cilium/cilium#44348, #34041: whoever asks somebody outside from a port that is a NodePort too gets the answer, a
/// process of the node as well as a pod that the network plugin masquerades.
#[test]
fn reply_to_a_port_of_the_node() -> Result<()> {
    let (web, other) = (Service::new("web", 1).node_port(NODE_PORT), Service::new("other", 2).node_port(PODS_PORT));
    let mut stage = stage(&[(&web, "b"), (&other, "b")], |cluster| {
        cluster
            .node(1)
            .run(
                "nft",
                &["add table inet plugin { chain c { type nat hook postrouting priority srcnat; \
                oifname eth0 ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade; \
                oifname eth0 ip6 saddr fd00:244::/48 ip6 daddr != fd00:244::/48 masquerade; }; }"],
            )
            .map(drop)
    })?;
    let servers = [stage.cluster.client().serve_as("outside", server::PORT)?];
    stage.servers.extend(servers);
    for family in Family::BOTH {
        for transport in Transport::BOTH {
            gets_its_answer(&stage, stage.cluster.node(1), NODE_PORT, family, transport)?;
            gets_its_answer(&stage, stage.cluster.pod("a"), PODS_PORT, family, transport)?;
            // What is dialled from outside is the Service's still.
            stage.expect(stage.cluster.client(), crate::node_port(&stage, family, NODE_PORT), "b", |_| true)?;
        }
    }
    Ok(())
}

/// Asks the server outside from the port that is the Service's too.
fn gets_its_answer(stage: &Stage, from: &impl Place, port: u16, family: Family, transport: Transport) -> Result<()> {
    let to = (stage.cluster.client().ip(family), server::PORT).into();
    let options = AskOptions { source_port: port, timeout_ms: 5000, ..AskOptions::new(transport) };
    let report = from.ask(to, &options)?;
    let what = || format!("{} {family:?} {transport:?}: {report:?}\n{}", from.name(), stage.evidence());
    let answer = report.answer.as_ref().with_context(what)?;
    let node = stage.cluster.node(1).ip(family);
    ensure!(answer.server == "outside" && answer.client == (node, port).into(), "not from its port: {}", what());
    Ok(())
}
