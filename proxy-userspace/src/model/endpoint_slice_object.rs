use k8s_openapi::api::discovery::v1 as api;

use super::{Endpoint, EndpointSlice, Family, ObjectName, Problem, Protocol, SlicePort, parse_ip};

const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

impl EndpointSlice {
    /// Converts an object of the API. `None`: it belongs to no service that is carried, or lists DNS names.
    pub fn from_object(object: &api::EndpointSlice) -> (Option<Self>, Vec<Problem>) {
        let metadata = &object.metadata;
        let name = ObjectName::new(
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default(),
        );
        let mut problems = Vec::new();
        let mut problem = |message: String| problems.push(Problem::new("EndpointSlice", &name, message));
        let labels = metadata.labels.as_ref();
        if labels.is_some_and(|labels| labels.contains_key(HEADLESS_LABEL)) || object.address_type == "FQDN" {
            return (None, problems);
        }
        let Some(service) = labels.and_then(|labels| labels.get(SERVICE_LABEL)).filter(|name| !name.is_empty()) else {
            return (None, problems);
        };
        if name.name.is_empty() {
            problem("has no name; the slice is left out".into());
            return (None, problems);
        }
        let Some(family) = Family::from_api(&object.address_type) else {
            problem(format!("addressType {:?} is unknown; the slice is left out", object.address_type));
            return (None, problems);
        };
        let mut endpoints = Vec::with_capacity(object.endpoints.len());
        for endpoint in &object.endpoints {
            // Only the first address is used, here as in kube-proxy.
            let text = endpoint.addresses.first().map(String::as_str).unwrap_or_default();
            match parse_ip(text) {
                Some(ip) if Family::of(&ip) == family => endpoints.push(Endpoint::from_object(endpoint, ip)),
                Some(ip) => problem(format!("endpoint {ip} is not {family}; it is left out")),
                None => problem(format!("endpoint {text:?} is not an IP address; it is left out")),
            }
        }
        let service = ObjectName::new(name.namespace.clone(), service.clone());
        let ports = object.ports.as_deref().unwrap_or_default().iter().filter_map(SlicePort::from_object).collect();
        (Some(Self { name, service, family, ports, endpoints }), problems)
    }
}

impl Endpoint {
    fn from_object(object: &api::Endpoint, address: std::net::IpAddr) -> Self {
        let conditions = object.conditions.as_ref();
        let hints = object.hints.as_ref();
        let nodes = hints.and_then(|hints| hints.for_nodes.as_deref()).unwrap_or_default();
        let zones = hints.and_then(|hints| hints.for_zones.as_deref()).unwrap_or_default();
        Self {
            address,
            node: object.node_name.as_deref().map(Into::into),
            ready: conditions.and_then(|conditions| conditions.ready).unwrap_or(true),
            serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(true),
            terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or(false),
            for_nodes: nodes.iter().map(|hint| hint.name.as_str().into()).collect(),
            for_zones: zones.iter().map(|hint| hint.name.as_str().into()).collect(),
        }
    }
}

impl SlicePort {
    /// `None` for a port that means nothing here: without a number, or of a protocol that is not carried. A missing
    /// name is the empty one, which the API server fills in and a directory of manifests leaves out.
    fn from_object(object: &api::EndpointPort) -> Option<Self> {
        let port = u16::try_from(object.port?).ok().filter(|&port| port != 0)?;
        let protocol = Protocol::from_api(object.protocol.as_deref())?;
        Some(Self { name: object.name.clone().unwrap_or_default(), protocol, port })
    }
}
