use std::{cmp::Reverse, net::IpAddr};

use crate::model::{self, Cluster, ObjectName, Port};

/// An endpoint of a service port, joined with the port number of its slice.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub address: IpAddr,
    /// Host order.
    pub port: u16,
    pub local: bool,
    pub endpoint: &'a model::Endpoint,
}

impl Candidate<'_> {
    /// Gets new flows.
    pub fn is_ready(&self) -> bool {
        self.endpoint.ready
    }

    /// Gets new flows where nobody is ready (KEP-1669).
    pub fn is_last_resort(&self) -> bool {
        self.endpoint.serving && self.endpoint.terminating
    }

    /// Keeps the flows that it has.
    pub fn keeps_flows(&self) -> bool {
        self.endpoint.ready || self.endpoint.serving
    }
}

/// The endpoints of `port` in all slices of the service, sorted by address and port, each once. Where several slices
/// list one, an endpoint that is not terminating wins: a new pod got the address of an old one (Kubernetes 1.36).
pub fn gather<'a>(cluster: &'a Cluster, service: &ObjectName, port: &Port) -> Vec<Candidate<'a>> {
    let own = cluster.node_name();
    let mut found = Vec::new();
    for slice in cluster.endpoint_slices(service) {
        let ports = slice.ports.iter().filter(|other| other.name == port.name && other.protocol == port.protocol);
        for slice_port in ports {
            found.extend(slice.endpoints.iter().map(|endpoint| Candidate {
                address: endpoint.address,
                port: slice_port.port,
                local: endpoint.node.as_deref() == Some(own),
                endpoint,
            }));
        }
    }
    found.sort_by_key(|candidate| {
        let endpoint = candidate.endpoint;
        let preference = (!endpoint.terminating, endpoint.ready, endpoint.serving, candidate.local);
        (candidate.address, candidate.port, Reverse(preference))
    });
    found.dedup_by_key(|candidate| (candidate.address, candidate.port));
    found
}
