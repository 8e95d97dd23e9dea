//! Rows 2 to 10: which objects and which parts of them count.

use proxy_userspace::model::Protocol;
use serde_json::json;

use crate::{Answer, BOTH, OUTSIDE, POD, POD6, World, endpoint, endpoint_that, service, slice, two_pods};

#[test]
fn row_2_a_service_of_another_proxy_does_not_exist() {
    let mut world = World::new();
    world.apply(two_pods());
    let mut object = service(json!({}));
    world.apply(object.clone());
    assert_eq!(world.reaches(POD, "10.96.0.1:80").len(), 2);
    object["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": ""});
    assert!(world.apply(object).is_empty());
    assert_eq!(world.answer(POD, "10.96.0.1:80"), Answer::NotOurs);
    world.apply(service(json!({})));
    assert_eq!(world.reaches(POD, "10.96.0.1:80").len(), 2);
}

#[test]
fn row_3_a_headless_slice_is_not_seen() {
    let mut world = World::new();
    world.apply(service(json!({})));
    let mut object = two_pods();
    object["metadata"]["labels"]["service.kubernetes.io/headless"] = json!("");
    assert!(world.apply(object).is_empty());
    assert_eq!(world.answer(POD, "10.96.0.1:80"), Answer::Refused);
}

#[test]
fn row_4_headless_and_external_name_services_have_no_rules() {
    let mut world = World::new();
    world.apply(two_pods());
    for spec in [json!({"clusterIP": "None"}), json!({"type": "ExternalName", "externalName": "example.org"})] {
        world.apply(service(json!({})));
        assert_eq!(world.reaches(POD, "10.96.0.1:80").len(), 2);
        assert!(world.apply(service(spec)).is_empty());
        assert_eq!(world.answer(POD, "10.96.0.1:80"), Answer::NotOurs);
    }
    world.apply(service(json!({})));
    world.delete_service("web");
    assert_eq!(world.answer(POD, "10.96.0.1:80"), Answer::NotOurs);
}

#[test]
fn row_5_a_service_port_is_its_name_and_protocol() {
    let mut world = World::new();
    let ports = json!([
        {"name": "dns", "port": 53, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "web", "port": 80, "targetPort": 1}, {"name": "none", "port": 90},
    ]);
    let problems = world.apply(service(json!({"ports": ports})));
    assert_eq!(problems, Vec::<String>::new());
    let mut object = two_pods();
    object["ports"] = json!([
        {"name": "dns", "port": 5353, "protocol": "TCP"}, {"name": "dns", "port": 5354, "protocol": "UDP"},
        {"name": "web", "port": 8080}, {"name": "none", "port": null}, {"name": "none", "port": 0},
    ]);
    let problems = world.apply(object);
    assert_eq!(
        problems,
        [r#"Service default/web: port "none" (TCP) matches no port of its EndpointSlices: it has no endpoint"#]
    );
    assert_eq!(world.reaches(POD, "10.96.0.1:53"), ["10.1.0.1:5353", "10.1.1.1:5353"]);
    let udp = world.answers(POD, "10.96.0.1:53", Protocol::Udp);
    assert!(udp.iter().all(|answer| matches!(answer, Answer::Backend { address, .. } if address.port() == 5354)));
    assert_eq!(world.reaches(POD, "10.96.0.1:80"), BOTH);
    assert_eq!(world.answer(POD, "10.96.0.1:90"), Answer::Refused);

    // A named target port may be another number in another slice.
    let mut object = slice("web-2", json!([endpoint("10.1.0.5", "here")]));
    object["ports"] = json!([{"name": "web", "port": 9090}]);
    world.apply(object);
    assert_eq!(world.reaches(POD, "10.96.0.1:80"), ["10.1.0.1:8080", "10.1.0.5:9090", "10.1.1.1:8080"]);
}

#[test]
fn row_6_each_family_has_its_own_addresses_and_endpoints() {
    let mut world = World::new();
    world.apply(two_pods());
    let v6 = slice("web-6", json!([endpoint("fd01::1", "here")]));
    world.apply(v6);
    world.apply(service(json!({
        "clusterIPs": ["fd96::1", "10.96.0.1"], "ipFamilies": ["IPv6", "IPv4"],
        "externalIPs": ["203.0.113.1", "fd03::99"], "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
    })));
    for v4 in ["10.96.0.1:80", "203.0.113.1:80", "192.0.2.1:30080"] {
        assert_eq!(world.reaches(POD, v4), BOTH, "{v4}");
    }
    for v6 in ["[fd96::1]:80", "[fd03::99]:80", "[fd02::1]:30080"] {
        assert_eq!(world.reaches(POD6, v6), ["[fd01::1]:8080"], "{v6}");
    }
    // Of one family: neither the NodePort nor the external address of the other is served.
    world.apply(service(json!({
        "clusterIPs": ["10.96.0.1"], "ipFamilies": ["IPv4"],
        "externalIPs": ["203.0.113.1", "fd03::99"], "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
    })));
    assert_eq!(world.reaches(POD, "203.0.113.1:80").len(), 2);
    for v6 in ["[fd96::1]:80", "[fd03::99]:80", "[fd02::1]:30080"] {
        assert_eq!(world.answer(POD6, v6), Answer::NotOurs, "{v6}");
    }
}

#[test]
fn row_7_addresses_are_read_leniently_and_bad_ones_are_skipped() {
    let mut world = World::new();
    world.apply(two_pods());
    let problems = world.apply(service(json!({
        "clusterIP": "10.96.0.001", "externalIPs": ["203.0.113.010", "nonsense"],
    })));
    assert_eq!(problems, [r#"Service default/web: externalIP "nonsense" is not an IP address"#]);
    assert_eq!(world.reaches(POD, "10.96.0.1:80").len(), 2);
    assert_eq!(world.reaches(POD, "203.0.113.10:80").len(), 2);
}

#[test]
fn row_8_the_first_address_counts_and_absent_conditions_mean_ready() {
    let mut world = World::new();
    world.apply(service(json!({"internalTrafficPolicy": "Local"})));
    world.apply(slice(
        "web-1",
        json!([
            {"addresses": ["10.1.0.1", "10.1.0.2"], "nodeName": "here"},
            {"addresses": ["10.1.0.3"], "nodeName": "Here", "conditions": {}},
            {"addresses": ["10.1.0.4"]},
        ]),
    ));
    assert_eq!(world.reaches(POD, "10.96.0.1:80"), ["10.1.0.1:8080"]);
}

#[test]
fn row_9_an_endpoint_that_lives_wins_over_one_that_terminates() {
    for reversed in [false, true] {
        let mut world = World::new();
        world.apply(service(json!({})));
        let mut slices = [
            slice("web-1", json!([endpoint_that("10.1.0.1", "there", false, true, true)])),
            slice("web-2", json!([endpoint("10.1.0.1", "here"), endpoint("10.1.0.1", "here")])),
        ];
        if reversed {
            slices.reverse();
        }
        for slice in slices {
            world.apply(slice);
        }
        assert_eq!(world.reaches(POD, "10.96.0.1:80"), ["10.1.0.1:8080"]);
        assert!(!world.masquerades(OUTSIDE, "10.96.0.1:80"), "it runs on this node");
    }
}

#[test]
fn row_10_the_controller_makes_unready_endpoints_ready() {
    let mut world = World::new();
    world.apply(service(json!({"publishNotReadyAddresses": true})));
    world.apply(slice("web-1", json!([endpoint_that("10.1.0.1", "here", true, false, true)])));
    assert_eq!(world.reaches(POD, "10.96.0.1:80"), ["10.1.0.1:8080"]);
    world.apply(slice("web-1", json!([endpoint_that("10.1.0.1", "here", false, false, true)])));
    assert_eq!(world.answer(POD, "10.96.0.1:80"), Answer::Refused);
}
