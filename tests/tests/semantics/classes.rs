//! Rows 22, 26, 29 and 69 to 72: who is a pod of this node, in each of the four ways to tell, and what follows from it.

use proxy_common::{
    reason::Hook,
    wire::{Config, ConfigFlags, DeviceFlags},
};
use proxy_userspace::{
    desired::node_state,
    model::{Cluster, Delta, DetectLocal, Event, Interface, Node, Settings},
};
use serde_json::{Value, json};

use crate::{Answer, BOTH, POD, POD6, World, endpoint, interfaces, service, slice, two_pods};

/// Behind a pod link, but with an address outside of the pods' prefixes: a virtual machine, or a container of another kind.
const STRANGER: &str = "172.30.0.9:40000";

fn by_cidr(prefixes: &[&str]) -> DetectLocal {
    DetectLocal::ClusterCidr(prefixes.iter().map(|text| text.parse().unwrap()).collect())
}

fn world(detect_local: DetectLocal, spec: Value) -> World {
    let mut world = World::detecting(Settings { detect_local, ..Settings::default() });
    world.apply(two_pods());
    world.apply(slice("web-6", json!([endpoint("fd01::1", "here"), endpoint("fd01:1::1", "there")])));
    world.apply(service(spec));
    world
}

fn cluster_ip() -> Value {
    json!({"clusterIPs": ["10.96.0.1", "fd96::1"], "ipFamilies": ["IPv4", "IPv6"]})
}

fn external_local() -> Value {
    let mut spec = cluster_ip();
    spec["externalTrafficPolicy"] = json!("Local");
    spec["externalIPs"] = json!(["203.0.113.1", "fd03::99"]);
    spec
}

/// What a client behind a pod link gets: the backends, and for which of them it is masqueraded.
fn from_pod_link(world: &World, client: &str, dialled: &str) -> Vec<(String, bool)> {
    let answers = world.answers_at(Hook::PodIngress, client, dialled);
    let shown = |answer| match answer {
        Answer::Backend { address, masqueraded } => (address.to_string(), masqueraded),
        other => panic!("{client} -> {dialled}: {other:?}"),
    };
    answers.into_iter().map(shown).collect()
}

fn expected(backends: &[(&str, bool)]) -> Vec<(String, bool)> {
    backends.iter().map(|&(address, masqueraded)| (address.to_owned(), masqueraded)).collect()
}

#[test]
fn rows_22_69_a_machine_behind_a_pod_link_that_is_no_pod_is_masqueraded_towards_other_nodes() {
    let world = world(by_cidr(&["10.1.0.0/16", "fd01::/16"]), cluster_ip());
    assert_eq!(from_pod_link(&world, POD, "10.96.0.1:80"), expected(&[(BOTH[0], false), (BOTH[1], false)]));
    assert_eq!(from_pod_link(&world, STRANGER, "10.96.0.1:80"), expected(&[(BOTH[0], false), (BOTH[1], true)]));
    let both6 = [("[fd01::1]:8080", false), ("[fd01:1::1]:8080", false)];
    assert_eq!(from_pod_link(&world, POD6, "[fd96::1]:80"), expected(&both6));
}

#[test]
fn row_69_a_prefix_of_everything_is_every_address_of_its_family() {
    let all6 = world(by_cidr(&["10.1.0.0/16", "::/0"]), cluster_ip());
    assert_eq!(from_pod_link(&all6, "[2001:db8::7]:40000", "[fd96::1]:80")[1], ("[fd01:1::1]:8080".to_owned(), false));
    assert_eq!(from_pod_link(&all6, STRANGER, "10.96.0.1:80")[1], (BOTH[1].to_owned(), true));
    let all4 = world(by_cidr(&["0.0.0.0/0"]), cluster_ip());
    assert_eq!(from_pod_link(&all4, STRANGER, "10.96.0.1:80")[1], (BOTH[1].to_owned(), false));
}

#[test]
fn rows_26_29_pods_reach_past_policy_local_only_where_they_can_be_told() {
    let known = world(by_cidr(&["10.1.0.0/16"]), external_local());
    assert_eq!(from_pod_link(&known, POD, "203.0.113.1:80"), expected(&[(BOTH[0], false), (BOTH[1], false)]));
    assert_eq!(from_pod_link(&known, STRANGER, "203.0.113.1:80"), expected(&[(BOTH[0], false)]));
    // Nothing is known of the other family: whoever is behind a pod link is a pod, and a client from outside too.
    assert_eq!(from_pod_link(&known, POD6, "[fd03::99]:80"), expected(&[("[fd01::1]:8080", false)]));
    assert_eq!(from_pod_link(&known, POD6, "[fd96::1]:80").len(), 2);
    let unknown = world(by_cidr(&[]), external_local());
    for client in [POD, STRANGER] {
        assert_eq!(from_pod_link(&unknown, client, "203.0.113.1:80"), expected(&[(BOTH[0], false)]), "{client}");
        assert_eq!(from_pod_link(&unknown, client, "10.96.0.1:80"), expected(&[(BOTH[0], false), (BOTH[1], false)]));
    }
}

#[test]
fn row_70_the_pod_cidrs_of_the_node_tell_and_are_followed() {
    let mut world = world(DetectLocal::NodeCidr, external_local());
    let node = |cidrs: Value| {
        json!({"kind": "Node", "metadata": {"name": "here"}, "spec": {"podCIDRs": cidrs},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}})
    };
    assert_eq!(from_pod_link(&world, POD, "203.0.113.1:80").len(), 1, "not known yet");
    world.apply(node(json!(["10.1.0.0/24", "fd01::/64"])));
    assert_eq!(from_pod_link(&world, POD, "203.0.113.1:80").len(), 2);
    assert_eq!(from_pod_link(&world, STRANGER, "203.0.113.1:80").len(), 1);
    assert_eq!(from_pod_link(&world, POD6, "[fd03::99]:80").len(), 2);
    world.apply(node(json!(["10.9.0.0/24"])));
    assert_eq!(from_pod_link(&world, POD, "203.0.113.1:80").len(), 1, "of another node by now");
    // The last ones count as long as the object is gone or has none.
    world.apply(node(json!(["10.1.0.0/24"])));
    world.apply(node(json!([])));
    assert_eq!(from_pod_link(&world, POD, "203.0.113.1:80").len(), 2);
}

/// The configuration and the devices that have pods.
fn detected(detect_local: DetectLocal, interfaces: &[Interface]) -> (Config, Vec<u32>) {
    let world = World::detecting(Settings::default());
    let mut cluster = Cluster::new("here", Settings { detect_local, ..Settings::default() });
    let object = json!({"metadata": {"name": "here"}, "spec": {"podCIDRs": ["10.1.0.0/24"]}});
    let node = Node::from_object(&serde_json::from_value(object).unwrap()).0.unwrap();
    cluster.apply(Event::Nodes(Delta::Apply(node)));
    let state = node_state(interfaces, &cluster, &world.settings);
    let of_pods = state.devices.iter().filter(|(_, device)| device.flags & DeviceFlags::PODS != 0);
    (state.config, of_pods.map(|&(index, _)| index).collect())
}

#[test]
fn rows_69_to_72_what_the_programs_are_told() {
    const BY: u32 = ConfigFlags::PODS_BY_ADDRESS4 | ConfigFlags::PODS_BY_ADDRESS6 | ConfigFlags::PODS_BY_DEVICE;
    let mut interfaces = interfaces();
    let device =
        |index, name: &str, controller| Interface { index, name: name.into(), controller, ..Interface::default() };
    interfaces.extend([device(7, "cni0", None), device(8, "veth8", Some(7)), device(9, "veth9", Some(99))]);
    let (four, six, by_device) =
        (ConfigFlags::PODS_BY_ADDRESS4, ConfigFlags::PODS_BY_ADDRESS6, ConfigFlags::PODS_BY_DEVICE);
    for (detect_local, flags, devices) in [
        (by_cidr(&[]), 0, vec![]),
        (by_cidr(&["10.1.0.0/16"]), four, vec![]),
        (by_cidr(&["fd01::/64", "10.1.0.0/16"]), four | six, vec![]),
        (DetectLocal::NodeCidr, four, vec![]),
        // Ports of the bridge have no address of their own, and are told all the same.
        (DetectLocal::BridgeInterface("cni0".into()), by_device, vec![7, 8]),
        (DetectLocal::InterfaceNamePrefix("veth".into()), by_device, vec![3, 8, 9]),
    ] {
        let (config, of_pods) = detected(detect_local.clone(), &interfaces);
        assert_eq!((config.flags & BY, of_pods), (flags, devices), "{detect_local:?}");
    }
}

#[test]
fn a_cluster_ip_that_the_node_has_too_is_marked_as_long_as_it_has_it() {
    let mut world = world(by_cidr(&["10.1.0.0/16"]), cluster_ip());
    let marked = |world: &World| {
        let marked = world.maps.frontends.iter().filter(|(_, frontend)| frontend.policy.is_node_address());
        let mut shown: Vec<String> = marked.map(|(key, _)| key.address.ip().to_string()).collect();
        shown.sort();
        shown
    };
    assert_eq!(marked(&world), [""; 0]);
    let mut with_dns = interfaces();
    let addresses = ["169.254.20.10", "10.96.0.1"].map(|text| text.parse().unwrap()).to_vec();
    with_dns.push(Interface { index: 9, name: "nodelocaldns".into(), addresses, ..Interface::default() });
    assert_eq!(world.set_interfaces(&with_dns), 1, "its frontend of that family, and no other");
    assert_eq!(marked(&world), ["10.96.0.1"]);
    assert_eq!(world.set_interfaces(&with_dns), 0);
    // A service that comes later.
    let mut other = service(json!({"clusterIP": "10.96.0.2"}));
    other["metadata"]["name"] = json!("other");
    world.apply(other);
    with_dns[3].addresses.push("10.96.0.2".parse().unwrap());
    assert_eq!(world.set_interfaces(&with_dns), 1);
    assert_eq!(marked(&world), ["10.96.0.1", "10.96.0.2"]);
    assert_eq!(world.set_interfaces(&interfaces()), 2);
    assert_eq!(marked(&world), [""; 0]);
}
