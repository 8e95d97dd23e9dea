//! Rows 13, 36, 41, 42 and 69: what the node knows about itself.

use proxy_common::wire::Address;
use proxy_userspace::{
    desired::{NodeSettings, NodeState, node_state},
    model::{Cluster, Delta, DetectLocal, Event, Interface, Node, Problem, Settings},
};
use serde_json::json;

use crate::{World, interfaces};

fn address(text: &str) -> Address {
    Address::from(text.parse::<std::net::IpAddr>().unwrap())
}

fn state(node_addresses: &[&str], node_port_addresses: &[&str], interfaces: &[Interface]) -> NodeState {
    let cidrs = ["10.1.0.0/16", "10.2.0.0/16", "fd01::/64"];
    let world = World::with(Settings::default(), node_port_addresses, &cidrs);
    let detect_local = DetectLocal::ClusterCidr(cidrs.iter().map(|text| text.parse().unwrap()).collect());
    let mut cluster = Cluster::new("HERE ", Settings { detect_local, ..Settings::default() });
    cluster.apply(Event::Nodes(Delta::Replace(vec![node(node_addresses)])));
    node_state(interfaces, &cluster, &world.settings)
}

fn node(addresses: &[&str]) -> Node {
    let addresses: Vec<_> = addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
    let object = json!({"metadata": {"name": "here"}, "status": {"addresses": addresses}});
    Node::from_object(&serde_json::from_value(object).unwrap()).0.unwrap()
}

#[test]
fn row_36_a_device_masquerades_towards_a_next_hop_in_a_network_of_its_own() {
    let mut interfaces = interfaces();
    interfaces[1].networks.insert(0, "198.51.100.5/24".parse().unwrap());
    let state = state(&["192.0.2.1"], &["primary"], &interfaces);
    // Loopback and link-local addresses are no source for what is routed.
    let [(2, device)] = &state.devices[..] else { panic!("{:?}", state.devices) };
    for (next_hop, expected) in
        [("192.0.2.254", "192.0.2.1"), ("198.51.100.1", "198.51.100.5"), ("10.0.0.1", "198.51.100.5")]
    {
        assert_eq!(device.towards(&address(next_hop), false), address(expected), "{next_hop}");
    }
    assert_eq!(device.towards(&address("fd02::fe"), true), address("fd02::1"));
}

#[test]
fn row_36_the_nodes_own_address_is_one_that_a_device_has() {
    let config = state(&["203.0.113.99", "192.0.2.9"], &["primary"], &interfaces()).config;
    assert_eq!((config.node4, config.node6), (address("192.0.2.9"), address("fd02::1")));
    let config = state(&[], &["primary"], &[]).config;
    assert_eq!((config.node4, config.node6), (Address::ANY, Address::ANY));
}

#[test]
fn row_41_primary_is_the_first_address_of_the_node_object_in_each_family() {
    let primary = |node: &[&str]| state(node, &["primary"], &interfaces()).local_addresses;
    assert_eq!(primary(&["192.0.2.9", "192.0.2.1", "fd02::1"]), [address("192.0.2.9"), address("fd02::1")]);
    // A family of which the object has none is not restricted; the link-local address is one of the node.
    assert_eq!(primary(&["fd02::1"]), [address("192.0.2.1"), address("192.0.2.9"), address("fd02::1")]);
    assert_eq!(primary(&["192.0.2.77", "fd02::1"]), [address("fd02::1")]);
}

/// A cluster whose Node objects come and go, and the NodePort addresses of a node with `primary`.
struct Watched {
    cluster: Cluster,
    settings: NodeSettings,
}

impl Watched {
    fn new(before: &[&str], bind_address: Option<&str>) -> Self {
        let mut settings = World::new().settings;
        settings.node_ports_before = before.iter().map(|ip| ip.parse().unwrap()).collect();
        settings.bind_address = bind_address.map(|ip| ip.parse().unwrap());
        Self { cluster: Cluster::new("here", Settings::default()), settings }
    }

    fn told(&mut self, delta: Delta<Node>) -> Vec<Problem> {
        self.cluster.apply(Event::Nodes(delta)).problems
    }

    fn open(&self) -> Vec<Address> {
        node_state(&interfaces(), &self.cluster, &self.settings).local_addresses
    }
}

#[test]
fn rows_13_41_no_node_object_opens_nothing_and_one_that_goes_closes_nothing() {
    let mut node = Watched::new(&[], None);
    assert_eq!(node.open(), []);
    let problems = node.told(Delta::Replace(Vec::new()));
    assert!(problems[0].to_string().starts_with("Node here: does not exist; "), "{problems:?}");
    assert_eq!(node.open(), []);
    assert_eq!(node.told(Delta::Replace(Vec::new())), [], "said once");

    let known = self::node(&["192.0.2.9"]);
    let open = [address("192.0.2.9"), address("fd02::1"), address("fe80::1")];
    assert_eq!(node.told(Delta::Apply(known.clone())), []);
    assert_eq!(node.open(), open);
    let problems = node.told(Delta::Delete(known.name.clone()));
    assert_eq!(problems[0].to_string(), "Node here: does not exist; the last ones stay in use: 192.0.2.9");
    assert_eq!(node.open(), open, "deleted");
    node.told(Delta::Replace(vec![known]));
    node.told(Delta::Replace(Vec::new()));
    assert_eq!(node.open(), open, "a list without it");
    let problems = node.told(Delta::Apply(self::node(&[])));
    assert_eq!(problems, [], "nothing got worse");
    assert_eq!(node.open(), open, "an object without addresses");
    node.told(Delta::Apply(self::node(&["192.0.2.1", "fd02::1"])));
    assert_eq!(node.open(), [address("192.0.2.1"), address("fd02::1")]);
    let problems = node.told(Delta::Apply(self::node(&[])));
    assert_eq!(problems[0].to_string(), "Node here: has no addresses; the last ones stay in use: 192.0.2.1, fd02::1");
}

#[test]
fn rows_13_41_a_restart_without_a_node_object_closes_nothing_and_opens_nothing() {
    // One that the node has no longer, too.
    let mut node = Watched::new(&["192.0.2.9", "192.0.2.200"], None);
    node.told(Delta::Replace(Vec::new()));
    assert_eq!(node.open(), [address("192.0.2.9")]);
    node.told(Delta::Apply(self::node(&["192.0.2.1", "fd02::1"])));
    assert_eq!(node.open(), [address("192.0.2.1"), address("fd02::1")]);
}

#[test]
fn rows_13_41_a_bind_address_is_known_without_a_node_object() {
    let mut node = Watched::new(&["192.0.2.9", "fd02::1"], Some("192.0.2.1"));
    node.told(Delta::Replace(Vec::new()));
    assert_eq!(node.open(), [address("192.0.2.1"), address("fd02::1")]);
    let mut node = Watched::new(&[], Some("192.0.2.1"));
    node.told(Delta::Replace(Vec::new()));
    assert_eq!(node.open(), [address("192.0.2.1")]);
}

#[test]
fn row_42_all_means_every_address_but_loopback() {
    let all = state(&["192.0.2.1"], &["all"], &interfaces()).local_addresses;
    assert_eq!(all, [address("192.0.2.1"), address("192.0.2.9"), address("fd02::1"), address("fe80::1")]);
}

#[test]
fn row_69_the_first_cluster_cidr_of_a_family_counts() {
    let config = state(&["192.0.2.1"], &["primary"], &interfaces()).config;
    let inside = |text: &str| config.is_pod(&address(text)) == Some(true);
    for (text, expected) in [
        ("10.1.0.1", true),
        ("10.1.255.255", true),
        ("10.2.0.1", false),
        ("192.0.2.1", false),
        ("fd01::1", true),
        ("fd01:0:0:1::1", false),
    ] {
        assert_eq!(inside(text), expected, "{text}");
    }
}
