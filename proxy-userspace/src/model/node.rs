use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as api;

use super::{ObjectName, Problem, parse_cidr, parse_ip};

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// A node of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    pub name: ObjectName,
    pub zone: Option<Box<str>>,
    /// Internal addresses, then external ones, each in the order of the object.
    pub addresses: Vec<IpAddr>,
    pub pod_cidrs: Vec<IpNet>,
}

impl Node {
    /// `None`: an object without a name.
    pub fn from_object(object: &api::Node) -> (Option<Self>, Vec<Problem>) {
        let name = ObjectName::new("", object.metadata.name.as_deref().unwrap_or_default());
        let mut problems = Vec::new();
        let mut problem = |message: String| problems.push(Problem::new("Node", &name, message));
        if name.name.is_empty() {
            problem("has no name".into());
            return (None, problems);
        }
        let zone = object.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE_LABEL));
        let mut addresses = Vec::new();
        let reported = object.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
        for kind in ["InternalIP", "ExternalIP"] {
            for address in reported.iter().filter(|address| address.type_ == kind) {
                match parse_ip(&address.address) {
                    Some(ip) if addresses.contains(&ip) => {}
                    Some(ip) => addresses.push(ip),
                    None => problem(format!("{kind} {:?} is not an IP address", address.address)),
                }
            }
        }
        let mut pod_cidrs = Vec::new();
        if let Some(spec) = &object.spec {
            let several = spec.pod_cidrs.as_deref().unwrap_or_default();
            let single = spec.pod_cidr.as_ref().filter(|_| several.is_empty());
            for text in several.iter().chain(single) {
                match parse_cidr(text) {
                    Some(net) => pod_cidrs.push(net),
                    None => problem(format!("podCIDR {text:?} is not an address prefix")),
                }
            }
        }
        let zone = zone.filter(|zone| !zone.is_empty()).map(|zone| zone.as_str().into());
        (Some(Self { name, zone, addresses, pod_cidrs }), problems)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn row_13_a_node_has_a_zone_addresses_and_pod_cidrs() {
        let object = serde_json::from_value(json!({
            "metadata": {"name": "n1", "labels": {ZONE_LABEL: "a"}},
            "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00:1::/64", "nonsense"]},
            "status": {"addresses": [
                {"type": "ExternalIP", "address": "192.0.2.1"},
                {"type": "Hostname", "address": "n1"},
                {"type": "InternalIP", "address": "10.0.0.01"},
                {"type": "InternalIP", "address": "oops"},
            ]},
        }))
        .unwrap();
        let (node, problems) = Node::from_object(&object);
        let node = node.unwrap();
        assert_eq!(node.zone.as_deref(), Some("a"));
        assert_eq!(node.addresses, ["10.0.0.1", "192.0.2.1"].map(|ip| ip.parse::<IpAddr>().unwrap()));
        assert_eq!(node.pod_cidrs, ["10.1.0.0/24", "fd00:1::/64"].map(|net| net.parse::<IpNet>().unwrap()));
        let shown: Vec<String> = problems.iter().map(Problem::to_string).collect();
        assert_eq!(
            shown,
            [
                r#"Node n1: InternalIP "oops" is not an IP address"#,
                r#"Node n1: podCIDR "nonsense" is not an address prefix"#
            ]
        );
    }

    #[test]
    fn row_17_an_empty_zone_label_is_no_zone() {
        let object = serde_json::from_value(json!({"metadata": {"name": "n1", "labels": {ZONE_LABEL: ""}}})).unwrap();
        assert_eq!(Node::from_object(&object).0.unwrap().zone, None);
    }
}
