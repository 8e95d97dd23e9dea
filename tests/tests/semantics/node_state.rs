//! Rows 36, 41, 42 and 69: what the node knows about itself.

use proxy_common::wire::{Address, Device};
use proxy_userspace::{
    desired::{NodeState, node_state},
    model::{Cluster, Delta, Event, Interface, Node, Settings},
};
use serde_json::json;

use crate::{World, interfaces};

fn address(text: &str) -> Address {
    Address::from(text.parse::<std::net::IpAddr>().unwrap())
}

fn state(node_addresses: &[&str], node_port_addresses: &[&str], interfaces: &[Interface]) -> NodeState {
    let world = World::with(Settings::default(), node_port_addresses, &["10.1.0.0/16", "10.2.0.0/16", "fd01::/64"]);
    let mut cluster = Cluster::new("HERE ", Settings::default());
    let addresses: Vec<_> =
        node_addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
    let object = json!({"metadata": {"name": "here"}, "status": {"addresses": addresses}});
    let node = Node::from_object(&serde_json::from_value(object).unwrap()).0.unwrap();
    cluster.apply(Event::Nodes(Delta::Replace(vec![node])));
    node_state(interfaces, &cluster, &world.settings)
}

#[test]
fn row_36_a_device_masquerades_with_its_first_address() {
    let state = state(&["192.0.2.1"], &["primary"], &interfaces());
    // Loopback and link-local addresses are no source for what is routed.
    assert_eq!(state.devices, [(2, Device { address4: address("192.0.2.1"), address6: address("fd02::1") })]);
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

#[test]
fn row_42_all_means_every_address_but_loopback() {
    let all = state(&["192.0.2.1"], &["all"], &interfaces()).local_addresses;
    assert_eq!(all, [address("192.0.2.1"), address("192.0.2.9"), address("fd02::1"), address("fe80::1")]);
}

#[test]
fn row_69_the_first_cluster_cidr_of_a_family_counts() {
    let config = state(&["192.0.2.1"], &["primary"], &interfaces()).config;
    let inside = |text: &str| config.cluster.iter().any(|cidr| cidr.contains(&address(text)));
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
