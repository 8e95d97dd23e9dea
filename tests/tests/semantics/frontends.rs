//! Rows 22 to 34 and 41: which addresses answer, with whom, and whose source address is kept.

use std::{collections::BTreeSet, net::SocketAddr};

use proxy_common::reason::Hook;
use proxy_userspace::model::{Protocol, Settings};
use serde_json::{Value, json};

use crate::{
    Answer, BOTH, DROPPED, OUTSIDE, OUTSIDE6, POD, World, endpoint, host::Host, service, service_named, slice, two_pods,
};

fn world(settings: Settings, spec: Value) -> World {
    let mut world = World::with(settings, &["primary"], &["10.1.0.0/16", "fd01::/64"]);
    world.apply(two_pods());
    world.apply(service(spec));
    world
}

fn external(policy: &str) -> Value {
    json!({
        "externalTrafficPolicy": policy, "externalIPs": ["203.0.113.1"],
        "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
    })
}

#[test]
fn row_22_everybody_may_dial_a_cluster_ip_and_pods_keep_their_address() {
    let world = world(Settings::default(), json!({}));
    assert_eq!(world.reaches(POD, "10.96.0.1:80"), BOTH);
    assert_eq!(world.reaches(OUTSIDE, "10.96.0.1:80"), BOTH);
    assert!(!world.masquerades(POD, "10.96.0.1:80"));
    assert_eq!(world.answer(POD, "10.96.0.1:81"), Answer::NotOurs);
}

#[test]
fn row_22_masquerade_all_is_about_cluster_ips() {
    let settings = Settings { masquerade_all: true, ..Settings::default() };
    let world = world(settings, external("Local"));
    assert!(world.masquerades(POD, "10.96.0.1:80"));
    assert!(world.masquerades(OUTSIDE, "10.96.0.1:80"), "also where the backend is on this node");
    assert!(!world.masquerades(POD, "203.0.113.1:80"));
}

#[test]
fn row_23_an_external_ip_under_policy_cluster_masquerades_pods() {
    let world = world(Settings::default(), external("Cluster"));
    for dialled in ["203.0.113.1:80", "192.0.2.1:30080"] {
        assert_eq!(world.reaches(POD, dialled), BOTH);
        assert_eq!(world.reaches(OUTSIDE, dialled), BOTH);
        assert!(world.masquerades(POD, dialled));
    }
}

#[test]
fn row_24_load_balancer_addresses_of_mode_vip() {
    let mut world = world(Settings::default(), json!({}));
    let mut object = service(json!({"type": "LoadBalancer", "loadBalancerIP": "203.0.113.9"}));
    object["status"] = json!({"loadBalancer": {"ingress": [
        {"ip": "203.0.113.1"}, {"ip": "203.0.113.2", "ipMode": "VIP"}, {"ip": "203.0.113.3", "ipMode": "Proxy"},
        {"hostname": "lb.example.org"},
    ]}});
    assert!(world.apply(object).is_empty());
    for last in [1, 2] {
        assert_eq!(world.reaches(POD, &format!("203.0.113.{last}:80")), BOTH);
    }
    for last in [3, 9] {
        assert_eq!(world.answer(POD, &format!("203.0.113.{last}:80")), Answer::NotOurs);
    }
}

#[test]
fn row_25_addresses_are_matched_before_node_ports() {
    let mut world = world(Settings::default(), external("Cluster"));
    let mut other = slice("other-1", json!([endpoint("10.1.0.9", "here")]));
    other["metadata"]["labels"]["kubernetes.io/service-name"] = json!("other");
    world.apply(other);
    let ports = json!([{"name": "http", "port": 30080}]);
    world
        .apply(service_named("other", json!({"clusterIP": "10.96.0.2", "externalIPs": ["192.0.2.1"], "ports": ports})));
    assert_eq!(world.reaches(OUTSIDE, "192.0.2.1:30080"), ["10.1.0.9:8080"]);
}

#[test]
fn row_25_and_41_node_ports_answer_on_allowed_addresses_of_the_node() {
    for (allowed, answering, silent) in [
        (&["primary"][..], &["192.0.2.1"][..], &["192.0.2.9", "192.0.2.77", "127.0.0.1", "203.0.113.5"][..]),
        (&["all"], &["192.0.2.1", "192.0.2.9"], &["192.0.2.77", "127.0.0.1"]),
        (&["192.0.2.8/29"], &["192.0.2.9"], &["192.0.2.1"]),
    ] {
        let mut world = World::with(Settings::default(), allowed, &["10.1.0.0/16"]);
        world.apply(two_pods());
        world.apply(service(external("Cluster")));
        for ip in answering {
            assert_eq!(world.reaches(OUTSIDE, &format!("{ip}:30080")), BOTH, "{allowed:?}");
            assert_eq!(world.answer(OUTSIDE, &format!("{ip}:30081")), Answer::NotOurs);
        }
        for ip in silent {
            assert_eq!(world.answer(OUTSIDE, &format!("{ip}:30080")), Answer::NotOurs, "{allowed:?} {ip}");
        }
    }
}

#[test]
fn row_26_pods_reach_the_cluster_set_past_policy_local() {
    let world = world(Settings::default(), external("Local"));
    for dialled in ["203.0.113.1:80", "192.0.2.1:30080"] {
        assert_eq!(world.reaches(POD, dialled), BOTH);
        assert!(!world.masquerades(POD, dialled));
    }
}

#[test]
fn row_28_outside_clients_reach_the_local_set_with_their_own_address() {
    let mut world = world(Settings::default(), external("Local"));
    for dialled in ["203.0.113.1:80", "192.0.2.1:30080"] {
        assert_eq!(world.reaches(OUTSIDE, dialled), ["10.1.0.1:8080"]);
        assert!(!world.masquerades(OUTSIDE, dialled));
    }
    world.apply(slice("web-1", json!([endpoint("10.1.1.1", "there")])));
    assert_eq!(world.answer(OUTSIDE, "192.0.2.1:30080"), DROPPED);
    world.apply(slice("web-1", json!([])));
    assert_eq!(world.answer(OUTSIDE, "192.0.2.1:30080"), Answer::Refused);
}

#[test]
fn row_30_each_frontend_has_its_own_policy() {
    let mut spec = external("Cluster");
    spec["internalTrafficPolicy"] = json!("Local");
    let mut world = world(Settings::default(), spec);
    assert_eq!(world.reaches(POD, "10.96.0.1:80"), ["10.1.0.1:8080"]);
    assert_eq!(world.reaches(POD, "203.0.113.1:80"), BOTH);
    assert_eq!(world.reaches(OUTSIDE, "203.0.113.1:80"), BOTH);
    world.apply(service(external("Local")));
    assert_eq!(world.reaches(OUTSIDE, "10.96.0.1:80"), BOTH);
    assert_eq!(world.reaches(OUTSIDE, "203.0.113.1:80"), ["10.1.0.1:8080"]);
}

#[test]
fn row_31_what_cannot_be_filtered_yet_is_not_opened() {
    let mut world = world(Settings::default(), json!({}));
    let mut object = service(json!({"loadBalancerSourceRanges": [" 198.51.100.0/24"]}));
    object["status"] = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}});
    assert_eq!(
        world.apply(object),
        ["Service default/web: loadBalancerSourceRanges is not supported yet; its load balancer addresses \
          (203.0.113.1) are left out, so that they are not open to everyone"]
    );
    assert_eq!(world.answer(OUTSIDE, "203.0.113.1:80"), Answer::NotOurs);
    assert_eq!(world.reaches(POD, "10.96.0.1:80"), BOTH);
}

#[test]
fn row_32_a_load_balancer_without_node_port() {
    let mut world = world(Settings::default(), json!({}));
    let mut object = service(json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false}));
    object["status"] = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}});
    world.apply(object);
    assert_eq!(world.reaches(OUTSIDE, "203.0.113.1:80"), BOTH);
    assert_eq!(world.maps.frontends.len(), 2);
}

#[test]
fn row_33_the_older_service_has_an_external_ip_that_both_claim() {
    let mut world = world(Settings::default(), json!({"externalIPs": ["203.0.113.1"]}));
    let mut other = slice("other-1", json!([endpoint("10.1.0.9", "here")]));
    other["metadata"]["labels"]["kubernetes.io/service-name"] = json!("other");
    world.apply(other);
    let mut object = service_named("other", json!({"clusterIP": "10.96.0.2", "externalIPs": ["203.0.113.1"]}));
    object["metadata"]["creationTimestamp"] = json!("2023-01-01T00:00:00Z");
    assert_eq!(
        world.apply(object),
        ["Service default/web:http/TCP: 203.0.113.1:80 belongs to default/other:http/TCP, which is older"]
    );
    assert_eq!(world.reaches(POD, "203.0.113.1:80"), ["10.1.0.9:8080"]);
    assert_eq!(world.reaches(POD, "10.96.0.1:80"), BOTH);
    world.delete_service("other");
    assert_eq!(world.reaches(POD, "203.0.113.1:80"), BOTH);
}

#[test]
fn row_34_a_pod_that_reaches_itself_is_turned_around() {
    let world = world(Settings::default(), json!({}));
    let answers: Vec<Answer> = world.answers("10.1.0.1:40000", "10.96.0.1:80", Protocol::Tcp).into_iter().collect();
    let (itself, other) = (BOTH[0].parse().unwrap(), BOTH[1].parse().unwrap());
    assert_eq!(
        answers,
        [Answer::Backend { address: other, masqueraded: false }, Answer::TurnedAround { address: itself }]
    );
}

#[test]
fn row_38_maglev_spreads_flows_and_repeats_itself() {
    let mut object = service(json!({}));
    object["metadata"]["annotations"] = json!({"sheave.dev/algorithm": "maglev"});
    let mut world = World::new();
    world.apply(two_pods());
    world.apply(object);
    assert_eq!(world.reaches(POD, "10.96.0.1:80"), BOTH);
    let hosts: Vec<Host> = (0..20).map(|seed| Host::new(&world.maps, seed)).collect();
    for port in 1000..1050 {
        let client = ([198, 51, 100, 7], port).into();
        let address =
            |host: &Host| match host.send(Hook::UplinkIngress, client, ([10, 96, 0, 1], 80).into(), Protocol::Tcp) {
                Answer::Backend { address, .. } => address,
                other => panic!("{other:?}"),
            };
        let answers: BTreeSet<SocketAddr> = hosts.iter().map(address).collect();
        assert_eq!(answers.len(), 1, "the dice decide for port {port}");
    }
}

#[test]
fn node_ports_of_ipv6_answer_too() {
    let mut world = World::new();
    world.apply(slice("web-6", json!([endpoint("fd01::1", "here")])));
    world.apply(service(json!({
        "clusterIP": "fd96::1", "clusterIPs": ["fd96::1"], "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
    })));
    assert_eq!(world.reaches(OUTSIDE6, "[fd02::1]:30080"), ["[fd01::1]:8080"]);
    assert_eq!(world.answer(OUTSIDE, "192.0.2.1:30080"), Answer::NotOurs);
}
