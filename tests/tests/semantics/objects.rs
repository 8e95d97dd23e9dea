//! Objects that are wrong: each is named with what is wrong about it, and the rest of it stays in use.

use proxy_userspace::model::{EndpointSlice, Problem, Service};
use serde_json::{Value, json};

use crate::{POD, World, endpoint, service, slice};

fn of_service(spec: Value) -> (Option<Service>, Vec<String>) {
    let (service, problems) = Service::from_object(&serde_json::from_value(service(spec)).unwrap());
    (service, problems.iter().map(Problem::to_string).collect())
}

#[test]
fn a_service_that_is_broken_as_a_whole_is_left_out() {
    let long = "x".repeat(64);
    for (spec, message) in [
        (json!({"ports": []}), "has no usable port; the service is left out"),
        (json!({"ports": null}), "has no usable port; the service is left out"),
        (json!({"clusterIP": ""}), "has no usable clusterIP; the service is left out"),
        (json!({"clusterIP": null}), "has no usable clusterIP; the service is left out"),
    ] {
        let (service, problems) = of_service(spec.clone());
        assert_eq!(service, None, "{spec}");
        assert_eq!(problems, [format!("Service default/web: {message}")], "{spec}");
    }
    let mut object = service(json!({}));
    object["metadata"]["name"] = json!(long);
    let (service, problems) = Service::from_object(&serde_json::from_value(object).unwrap());
    assert_eq!(service, None);
    assert_eq!(problems[0].message, "its name is not 1 to 63 bytes; the service is left out");
}

#[test]
fn a_bad_part_of_a_service_is_left_out() {
    let long = "x".repeat(64);
    let bad_ports = [
        (
            json!({"name": "x", "port": 80, "protocol": "SCTP"}),
            "port 80 (x): protocol SCTP is not supported; the port is left out".to_owned(),
        ),
        (json!({"name": "x", "port": 0}), "port 0 (x): not a port number; the port is left out".to_owned()),
        (json!({"name": "x", "port": -1}), "port -1 (x): not a port number; the port is left out".to_owned()),
        (json!({"name": "x", "port": 65536}), "port 65536 (x): not a port number; the port is left out".to_owned()),
        (
            json!({"name": "http", "port": 81}),
            "port 81 (http): a second TCP port of that name; the port is left out".to_owned(),
        ),
        (
            json!({"name": long, "port": 81}),
            format!("port 81 ({long}): its name is longer than 63 bytes; the port is left out"),
        ),
    ];
    for (port, message) in bad_ports {
        let (service, problems) = of_service(json!({"ports": [{"name": "http", "port": 80}, port]}));
        assert_eq!(problems, [format!("Service default/web: {message}")]);
        assert_eq!(service.unwrap().ports.len(), 1);
    }
    for (spec, message) in [
        (
            json!({"ports": [{"port": 80, "nodePort": 70000}]}),
            "port 80: its nodePort is not a port number; it is left out",
        ),
        (json!({"clusterIPs": ["10.96.0.1", "x"]}), r#"clusterIP "x" is not an IP address"#),
        (
            json!({"clusterIPs": ["10.96.0.1", "fd96::1"], "ipFamilies": ["IPv4"]}),
            "clusterIP fd96::1 is IPv6, but the family listed for it is none",
        ),
        (json!({"internalTrafficPolicy": "Nearby"}), r#"internalTrafficPolicy "Nearby" is unknown; Cluster is used"#),
        (
            json!({"sessionAffinity": "ClientIP"}),
            "sessionAffinity ClientIP is not supported yet; flows are balanced without affinity",
        ),
    ] {
        let (service, problems) = of_service(spec.clone());
        assert_eq!(problems, [format!("Service default/web: {message}")], "{spec}");
        assert!(service.is_some(), "{spec}");
    }
}

#[test]
fn a_bad_endpoint_is_left_out() {
    let mut world = World::new();
    world.apply(service(json!({})));
    let mut object = slice(
        "web-1",
        json!([
            endpoint("10.1.0.1", "here"), endpoint("pod.example.org", "here"), endpoint("fd01::1", "here"),
            {"addresses": [], "nodeName": "here"},
        ]),
    );
    object["addressType"] = json!("IPv4");
    assert_eq!(
        world.apply(object),
        [
            r#"EndpointSlice default/web-1: endpoint "pod.example.org" is not an IP address; it is left out"#,
            "EndpointSlice default/web-1: endpoint fd01::1 is not IPv4; it is left out",
            r#"EndpointSlice default/web-1: endpoint "" is not an IP address; it is left out"#,
        ]
    );
    assert_eq!(world.reaches(POD, "10.96.0.1:80"), ["10.1.0.1:8080"]);
}

#[test]
fn slices_of_nobody_or_of_names_are_left_out() {
    let of_slice = |change: fn(&mut Value)| {
        let mut object = slice("web-1", json!([endpoint("10.1.0.1", "here")]));
        change(&mut object);
        let (slice, problems) = EndpointSlice::from_object(&serde_json::from_value(object).unwrap());
        assert_eq!(slice, None);
        problems.iter().map(Problem::to_string).collect::<Vec<_>>()
    };
    let silent = Vec::<String>::new();
    assert_eq!(of_slice(|object| object["addressType"] = json!("FQDN")), silent);
    assert_eq!(of_slice(|object| object["metadata"]["labels"] = json!({})), silent);
    assert_eq!(of_slice(|object| object["metadata"]["labels"] = json!({"kubernetes.io/service-name": ""})), silent);
    assert_eq!(
        of_slice(|object| object["addressType"] = json!("IPX")),
        [r#"EndpointSlice default/web-1: addressType "IPX" is unknown; the slice is left out"#]
    );
}

#[test]
fn a_port_without_a_counterpart_is_reported_when_that_begins() {
    let mut world = World::new();
    assert!(world.apply(service(json!({"ports": [{"name": "web", "port": 80}]}))).is_empty());
    let message = r#"Service default/web: port "web" (TCP) matches no port of its EndpointSlices: it has no endpoint"#;
    assert_eq!(world.apply(slice("web-1", json!([endpoint("10.1.0.1", "here")]))), [message]);
    assert!(world.apply(slice("web-1", json!([endpoint("10.1.0.2", "here")]))).is_empty());
    assert!(world.apply(service(json!({}))).is_empty());
    assert_eq!(world.reaches(POD, "10.96.0.1:80"), ["10.1.0.2:8080"]);
}
