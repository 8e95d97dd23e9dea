//! Which address masquerades, and which device replies leave by.

use anyhow::{Result, ensure};
use proxy_tests::cluster::{Family, Place, Service};

use crate::{NODE_PORT, is_counted, node_port, prefix, stage, two_nodes};

/// kubernetes/kubernetes#75893: MASQUERADE takes the first address of the device in the next hop's network
/// (`inet_select_addr`), not the first of the device, to which nothing would come back.
#[test]
fn two_subnets_on_the_uplink() -> Result<()> {
    let web = Service::new("web", 1).node_port(NODE_PORT);
    let stage = stage(&[(&web, "c")], |cluster| {
        let (node, peer, gateway) = (cluster.node(1), cluster.node(2), cluster.fabric());
        let [pods4, pods6] = peer.pod_cidrs();
        let own = node.addresses();
        node.namespace().ip(&format!(
            "addr flush dev eth0 scope global
             addr add 192.168.50.5/24 dev eth0
             addr add fd00:50::5/64 dev eth0 nodad
             addr add {}/24 dev eth0
             addr add {}/64 dev eth0 nodad
             route replace default via {}
             route replace default via {}
             route replace {pods4} via {}
             route replace {pods6} via {}
            ",
            own.v4,
            own.v6,
            gateway.ip(Family::V4),
            gateway.ip(Family::V6),
            peer.ip(Family::V4),
            peer.ip(Family::V6),
        ))
    })?;
    let node = stage.cluster.node(1);
    for family in Family::BOTH {
        let to = node_port(&stage, family, NODE_PORT);
        stage.expect(stage.cluster.client(), to, "c", |client| client == node.ip(family))?;
    }
    Ok(())
}

/// aws/amazon-vpc-cni-k8s#75, antrea-io/antrea#678: pods have routes of their own, by another uplink, and the plugin's
/// marks by which replies of NodePorts are to find back know only what netfilter saw.
#[test]
fn pod_with_its_own_uplink() -> Result<()> {
    let web = Service::new("web", 1).node_port(NODE_PORT);
    let stage = stage(&[(&web, "b")], |cluster| {
        let (fabric, node, pod) = (cluster.fabric(), cluster.node(1), cluster.pod("b"));
        fabric.namespace().ip(&format!(
            "link add second type veth peer name eth1 netns {}
             addr add 172.19.0.1/24 dev second
             addr add fd00:19::1/64 dev second nodad
             link set second up
            ",
            node.namespace().name()
        ))?;
        // As the plugin sets it: what comes by the first uplink is answered by the second, for all that the kernel knows.
        node.set_sysctl("net/ipv4/conf/all/rp_filter", "2")?;
        // Like the network of a cloud, that takes from an interface only what has its address.
        fabric.run(
            "nft",
            &["add table inet cloud { chain c { type filter hook prerouting priority -300; \
            iifname second ip saddr 172.18.0.0/24 drop; iifname second ip6 saddr fd00:18::/64 drop; }; }"],
        )?;
        node.namespace().ip("addr add 172.19.0.11/24 dev eth1
             addr add fd00:19::11/64 dev eth1 nodad
             link set eth1 up
             route add default via 172.19.0.1 dev eth1 table 102
             route add default via fd00:19::1 dev eth1 table 102
            ")?;
        for family in Family::BOTH {
            let (ip, prefix) = (if family == Family::V4 { "-4" } else { "-6" }, prefix(pod.ip(family)));
            node.run("ip", &[ip, "rule", "add", "pref", "1024", "fwmark", "0x80/0x80", "lookup", "main"])?;
            node.run("ip", &[ip, "rule", "add", "pref", "1536", "from", &prefix, "lookup", "102"])?;
        }
        node.run(
            "nft",
            &["add table inet plugin { chain c { type filter hook prerouting priority mangle; \
            iifname eth0 fib daddr type local ct mark set ct mark or 0x80; \
            iifname veth* meta mark set ct mark and 0x80; }; }"],
        )
        .map(drop)
    })?;
    for family in Family::BOTH {
        let client = stage.cluster.client();
        stage.expect(client, node_port(&stage, family, NODE_PORT), "b", |seen| seen == client.ip(family))?;
    }
    is_counted(&stage, "detour")
}

/// vhive-serverless/vHive#1086: a machine behind a link like a pod's, but outside of the pods' networks, of which no other
/// node knows.
#[test]
fn client_outside_cluster_cidr() -> Result<()> {
    use proxy_tests::cluster::{Addresses, Endpoint, Stage, eventually};
    let (near, far) = (Service::new("near", 1), Service::new("far", 2));
    let mut stage = Stage::start(two_nodes(), |cluster| {
        cluster.manifests().apply(&near, &[Endpoint::of(cluster.pod("b"))])?;
        cluster.manifests().apply(&far, &[Endpoint::of(cluster.pod("c"))])
    })?;
    let addresses = Addresses { v4: "192.168.77.2".parse()?, v6: "fd00:77::2".parse()? };
    stage.cluster.add_machine(1, "machine", addresses)?;
    let (machine, node) = (stage.cluster.pod("machine"), stage.cluster.node(1));
    let own = node.own_addresses()?;
    ensure!(!own.contains(&machine.ip(Family::V4)));
    for family in Family::BOTH {
        eventually(std::time::Duration::from_secs(2), || {
            stage.expect(machine, near.http(family), "b", |client| client == machine.ip(family))
        })?;
        stage.expect(machine, far.http(family), "c", |client| own.contains(&client))?;
    }
    Ok(())
}
