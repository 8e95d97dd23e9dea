//! The pods' network, without an agent: a link per pod (CNI's `ptp`), and a route per other node. Nothing is translated: a
//! Service's backend sees the client, and what is measured is the proxy.

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::cluster::{Cluster, Node, feed, output};
use crate::command;

/// Where pod-routes.sh of the node image finds what it is to do.
const ROUTES: &str = "/kind/pod-routes.conf";
const CONFIGURATION: &str = "/etc/cni/net.d/10-pods.conflist";

/// Gives every node its configuration and routes, and this side of the cluster routes to all pods.
///
/// # Errors
/// A node has no ranges, or a command fails.
pub fn set_up(cluster: &Cluster) -> Result<()> {
    let nodes = cluster.nodes()?;
    for (at, node) in nodes.iter().enumerate() {
        write_file(cluster, node, ROUTES, &routes(at, &nodes)?)?;
        let start = ["/kind/bin/pod-routes.sh"];
        command::run(&mut cluster.on_node(&node.name, start)).with_context(|| format!("routes of {}", node.name))?;
        let (v4, v6) = ranges(node)?;
        write_file(cluster, node, CONFIGURATION, &format!("{:#}\n", configuration(v4, v6)))?;
    }
    beside(cluster, &nodes)
}

/// For a node the file that pod-routes.sh reads: its own line, then those of the others.
fn routes(own: usize, nodes: &[Node]) -> Result<String> {
    let mut lines = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        let (v4, v6) = ranges(node)?;
        lines.push((at != own, format!("{} {v4} {v6}\n", at + 1)));
    }
    // Stable: only its own line moves.
    lines.sort_by_key(|(is_other, _)| *is_other);
    Ok(lines.into_iter().map(|(_, line)| line).collect())
}

fn configuration(v4: &str, v6: &str) -> serde_json::Value {
    json!({
        "cniVersion": "0.3.1",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": false,
                "mtu": 1500,
                "ipam": {
                    "type": "host-local",
                    // Gone with the pods when the node restarts.
                    "dataDir": "/run/cni-ipam-state",
                    "ranges": [[{"subnet": v4}], [{"subnet": v6}]],
                    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

/// The bridge is the nodes' way out, and its end of the network must know the way back: pods ask the name server there.
fn beside(cluster: &Cluster, nodes: &[Node]) -> Result<()> {
    let bridge = output(&mut cluster.engine(["network", "inspect", "kind", "--format", "{{.NetworkInterface}}"]))?;
    let bridge = bridge.trim();
    let mut lines = format!("address replace 169.254.77.254/24 dev {bridge} scope link\n");
    lines += &format!("address replace fe80::77:254/64 dev {bridge} nodad\n");
    for (at, node) in nodes.iter().enumerate() {
        let (v4, v6) = ranges(node)?;
        let number = at + 1;
        lines += &format!("route replace {v4} via 169.254.77.{number} dev {bridge}\n");
        lines += &format!("route replace {v6} via fe80::77:{number} dev {bridge}\n");
    }
    feed(&mut cluster.beside(["ip", "-batch", "-"]), &lines).context("routes to pods beside the cluster")?;
    // Frames between nodes are none of the engine's rules' business: where the kernel shows them (br_netfilter), those
    // that a node sends to a pod would leave with the bridge's address.
    let quiet = "for file in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e \"$file\" ] || echo 0 > \"$file\"; done";
    command::run(&mut cluster.beside(["sh", "-c", quiet]))
}

fn ranges(node: &Node) -> Result<(&str, &str)> {
    match &node.pod_ranges[..] {
        [v4, v6] => Ok((v4, v6)),
        other => bail!("{} should have a range of each family for its pods, and has {other:?}", node.name),
    }
}

/// Beside its place and moved: whoever watches the folder finds a whole file.
fn write_file(cluster: &Cluster, node: &Node, path: &str, text: &str) -> Result<()> {
    let script = r#"mkdir -p "$(dirname "$0")" && cat > "$0.new" && mv "$0.new" "$0""#;
    feed(&mut cluster.on_node(&node.name, ["sh", "-c", script, path]), text)
        .with_context(|| format!("cannot write {path} on {}", node.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> Node {
        let pod_ranges = vec![format!("10.244.{number}.0/24"), format!("fd00:10:244:{number}::/64")];
        Node { name: format!("node-{number}"), addresses: Vec::new(), pod_ranges }
    }

    #[test]
    fn a_node_finds_its_own_line_first_and_every_number_stays() {
        let nodes = [node(0), node(1), node(2)];
        let expected = "2 10.244.1.0/24 fd00:10:244:1::/64\n1 10.244.0.0/24 fd00:10:244:0::/64\n\
                        3 10.244.2.0/24 fd00:10:244:2::/64\n";
        assert_eq!(routes(1, &nodes).unwrap(), expected);
    }

    #[test]
    fn a_node_without_both_ranges_is_named() {
        let mut nodes = [node(0)];
        nodes[0].pod_ranges.pop();
        assert!(routes(0, &nodes).unwrap_err().to_string().contains("node-0"));
    }
}
