//! Rows 14 to 21: which endpoints get new flows, and which keep theirs.

use std::net::SocketAddr;

use proxy_common::{reason::Hook, wire::BackendFlags};
use proxy_userspace::model::Protocol;
use serde_json::{Value, json};

use crate::{Answer, DROPPED, OUTSIDE, POD, World, endpoint, endpoint_that, host::Host, service, slice};

fn local_policies() -> Value {
    service(json!({
        "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local", "externalIPs": ["203.0.113.1"],
    }))
}

#[test]
fn row_14_an_external_policy_needs_an_external_frontend() {
    let mut world = World::new();
    world.apply(service(json!({"externalTrafficPolicy": "Local"})));
    world.apply(slice("web-1", json!([endpoint("10.1.1.1", "there")])));
    assert_eq!(world.reaches(OUTSIDE, "10.96.0.1:80"), ["10.1.1.1:8080"]);
}

#[test]
fn row_15_terminating_endpoints_are_the_last_resort_of_the_cluster_set() {
    let mut world = World::new();
    world.apply(service(json!({})));
    let terminating =
        [endpoint_that("10.1.0.1", "here", false, true, true), endpoint_that("10.1.1.1", "there", false, true, true)];
    world.apply(slice("web-1", json!([terminating[0], terminating[1], endpoint("10.1.1.2", "there")])));
    assert_eq!(world.reaches(POD, "10.96.0.1:80"), ["10.1.1.2:8080"]);
    world.apply(slice("web-1", json!(terminating)));
    assert_eq!(world.reaches(POD, "10.96.0.1:80"), ["10.1.0.1:8080", "10.1.1.1:8080"]);
}

#[test]
fn row_16_the_local_set_decides_for_itself() {
    let mut world = World::new();
    world.apply(local_policies());
    world.apply(slice(
        "web-1",
        json!([endpoint_that("10.1.0.1", "here", false, true, true), endpoint("10.1.1.2", "there"),]),
    ));
    assert_eq!(world.reaches(POD, "10.96.0.1:80"), ["10.1.0.1:8080"]);
    assert_eq!(world.reaches(OUTSIDE, "203.0.113.1:80"), ["10.1.0.1:8080"]);
    assert_eq!(world.reaches(POD, "203.0.113.1:80"), ["10.1.1.2:8080"]);
    world.apply(slice("web-2", json!([endpoint("10.1.0.3", "here")])));
    assert_eq!(world.reaches(POD, "10.96.0.1:80"), ["10.1.0.3:8080"]);
}

#[test]
fn row_16_hints_do_not_narrow_the_local_set() {
    let mut world = World::new();
    world.apply(service(json!({"internalTrafficPolicy": "Local"})));
    let mut hinted = endpoint("10.1.0.1", "here");
    hinted["hints"] = json!({"forZones": [{"name": "zone-b"}]});
    world.apply(slice("web-1", json!([hinted])));
    assert_eq!(world.reaches(POD, "10.96.0.1:80"), ["10.1.0.1:8080"]);
}

/// Endpoints 10.1.1.1, 10.1.1.2 ... with the hints.
fn hinted(hints: &[Value]) -> Value {
    let endpoint = |(at, hints): (usize, &Value)| {
        let mut endpoint = endpoint(&format!("10.1.1.{}", at + 1), "there");
        endpoint["hints"] = hints.clone();
        endpoint
    };
    slice("web-1", Value::Array(hints.iter().enumerate().map(endpoint).collect()))
}

#[test]
fn row_17_hints_narrow_the_cluster_set_if_every_ready_endpoint_has_some() {
    let (a, b, ab) = (
        json!({"forZones": [{"name": "zone-a"}]}),
        json!({"forZones": [{"name": "zone-b"}]}),
        json!({"forZones": [{"name": "zone-b"}, {"name": "zone-a"}]}),
    );
    let here = json!({"forZones": [{"name": "zone-b"}], "forNodes": [{"name": "here"}]});
    let there = json!({"forZones": [{"name": "zone-a"}], "forNodes": [{"name": "there"}]});
    for (hints, expected) in [
        (vec![a.clone(), b.clone(), ab], vec![1, 3]),
        (vec![b.clone(), b.clone()], vec![1, 2]),
        (vec![a.clone(), json!({})], vec![1, 2]),
        (vec![here.clone(), there.clone()], vec![1]),
        // The level of nodes is out: one endpoint has no such hint.
        (vec![here, there.clone(), a], vec![2, 3]),
        // Nobody is hinted to this node, so zones decide.
        (vec![there, json!({"forZones": [{"name": "zone-b"}], "forNodes": [{"name": "there"}]})], vec![1]),
    ] {
        let mut world = World::new();
        world.apply(service(json!({})));
        world.apply(hinted(&hints));
        let expected: Vec<String> = expected.iter().map(|last| format!("10.1.1.{last}:8080")).collect();
        assert_eq!(world.reaches(POD, "10.96.0.1:80"), expected, "{hints:?}");
    }
}

#[test]
fn row_17_only_ready_endpoints_are_asked_for_hints() {
    let mut world = World::new();
    world.apply(service(json!({})));
    let mut slice = hinted(&[json!({"forZones": [{"name": "zone-a"}]}), json!({"forZones": [{"name": "zone-b"}]})]);
    let unready = endpoint_that("10.1.1.9", "there", false, true, true);
    slice["endpoints"].as_array_mut().unwrap().push(unready);
    world.apply(slice);
    assert_eq!(world.reaches(POD, "10.96.0.1:80"), ["10.1.1.1:8080"]);
}

#[test]
fn row_17_a_change_of_the_zone_is_taken_in() {
    let mut world = World::new();
    world.apply(service(json!({})));
    world.apply(hinted(&[json!({"forZones": [{"name": "zone-a"}]}), json!({"forZones": [{"name": "zone-b"}]})]));
    assert_eq!(world.reaches(POD, "10.96.0.1:80"), ["10.1.1.1:8080"]);
    let node = |labels: Value| {
        json!({"kind": "Node", "metadata": {"name": "here", "labels": labels},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}})
    };
    world.apply(node(json!({"topology.kubernetes.io/zone": "zone-b"})));
    assert_eq!(world.reaches(POD, "10.96.0.1:80"), ["10.1.1.2:8080"]);
    world.apply(node(json!({})));
    assert_eq!(world.reaches(POD, "10.96.0.1:80"), ["10.1.1.1:8080", "10.1.1.2:8080"]);
}

#[test]
fn row_18_nobody_anywhere_is_refused_nobody_here_is_dropped() {
    let mut world = World::new();
    world.apply(local_policies());
    for (client, dialled) in [(POD, "10.96.0.1:80"), (OUTSIDE, "203.0.113.1:80"), (POD, "203.0.113.1:80")] {
        assert_eq!(world.answer(client, dialled), Answer::Refused);
    }
    world.apply(slice("web-1", json!([endpoint("10.1.1.1", "there")])));
    assert_eq!(world.answer(POD, "10.96.0.1:80"), DROPPED);
    assert_eq!(world.answer(OUTSIDE, "203.0.113.1:80"), DROPPED);
    // Pods are inside: no policy keeps them from the cluster set of an external frontend.
    assert_eq!(world.reaches(POD, "203.0.113.1:80"), ["10.1.1.1:8080"]);
    // One that terminates but serves is somebody.
    world.apply(slice("web-1", json!([endpoint_that("10.1.1.1", "there", false, true, true)])));
    assert_eq!(world.answer(POD, "10.96.0.1:80"), DROPPED);
}

#[test]
fn row_19_who_does_not_serve_or_is_only_unready_gets_nothing() {
    let mut world = World::new();
    world.apply(service(json!({})));
    world.apply(slice(
        "web-1",
        json!([
            endpoint_that("10.1.0.1", "here", false, false, true),
            endpoint_that("10.1.0.2", "here", false, true, false),
            endpoint_that("10.1.0.3", "here", false, false, false),
        ]),
    ));
    assert_eq!(world.answer(POD, "10.96.0.1:80"), Answer::Refused);
}

/// A flow that is opened, then the endpoint changes: where does its next packet go?
fn next_packet(protocol: Protocol, change: Value) -> Answer {
    let mut world = World::new();
    let ports = json!([{"name": "http", "port": 80, "protocol": protocol.to_string()}]);
    world.apply(service(json!({"ports": ports})));
    let with_ports = |mut slice: Value| {
        slice["ports"] = json!([{"name": "http", "port": 8080, "protocol": protocol.to_string()}]);
        slice
    };
    world.apply(with_ports(slice("web-1", json!([endpoint("10.1.0.1", "here")]))));
    let (client, dialled): (SocketAddr, SocketAddr) = (POD.parse().unwrap(), "10.96.0.1:80".parse().unwrap());
    let mut host = Host::new(&world.maps, 0);
    assert!(matches!(host.send(Hook::PodIngress, client, dialled, protocol), Answer::Backend { .. }));
    world.apply(with_ports(slice("web-2", json!([endpoint("10.1.1.2", "there")]))));
    world.apply(with_ports(slice("web-1", change)));
    host.update(&world.maps);
    host.send(Hook::PodIngress, client, dialled, protocol)
}

fn goes_to(address: &str) -> Answer {
    Answer::Backend { address: address.parse().unwrap(), masqueraded: false }
}

#[test]
fn row_21_and_57_a_udp_flow_ends_when_its_backend_stops_serving() {
    let serving = json!([endpoint_that("10.1.0.1", "here", false, true, true)]);
    assert_eq!(next_packet(Protocol::Udp, serving), goes_to("10.1.0.1:8080"));
    for gone in [json!([]), json!([endpoint_that("10.1.0.1", "here", false, false, true)])] {
        assert_eq!(next_packet(Protocol::Udp, gone), goes_to("10.1.1.2:8080"));
    }
}

#[test]
fn row_21_a_reused_tcp_port_does_not_revive_a_removed_backend() {
    assert_eq!(next_packet(Protocol::Tcp, json!([])), goes_to("10.1.1.2:8080"));
}

#[test]
fn row_57_a_backend_that_returns_does_not_get_its_old_flows() {
    let mut world = World::new();
    world.apply(service(json!({})));
    let rows = |world: &World| {
        let rows = world.maps.backends.iter().enumerate();
        rows.filter(|(_, row)| row.flags & BackendFlags::SERVING != 0)
            .map(|(id, row)| (id, row.generation))
            .collect::<Vec<_>>()
    };
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..5 {
        world.apply(slice("web-1", json!([endpoint("10.1.0.1", "here")])));
        assert!(seen.insert(rows(&world)));
        world.apply(slice("web-1", json!([])));
        assert!(rows(&world).is_empty());
        world.now += std::time::Duration::from_secs(10);
    }
}
