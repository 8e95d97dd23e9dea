use std::net::IpAddr;

use proxy_common::wire::{self, Address, FrontendKey, Kind, Scope};

use super::{
    Endpoint, Frontend, ServicePort, ServicePortName, Sets,
    categorize::{Categories, categorize},
    gather::{Candidate, gather},
    policy,
};
use crate::model::{Cluster, Family, ObjectName, Port, Service};

/// What the maps are to hold for `service`: its service ports, or nothing if there is no such service.
pub fn compile(cluster: &Cluster, service: &ObjectName) -> Vec<ServicePort> {
    let Some(service) = cluster.service(service) else { return Vec::new() };
    service.ports.iter().map(|port| compile_port(cluster, service, port)).collect()
}

fn compile_port(cluster: &Cluster, service: &Service, port: &Port) -> ServicePort {
    let candidates = gather(cluster, &service.name, port);
    let mut backends = Vec::with_capacity(candidates.len());
    let mut frontends = Frontends { protocol: port.protocol.number(), list: Vec::new() };
    let sets = Family::ALL.map(|family| {
        if !service.cluster_ips.iter().any(|ip| Family::of(ip) == family) {
            return None;
        }
        frontends.add_all(cluster, service, port, family);
        // IPv4 sorts before IPv6, so each family is one piece of the list.
        let start = candidates.partition_point(|candidate| Family::of(&candidate.address) < family);
        let end = candidates.partition_point(|candidate| Family::of(&candidate.address) <= family);
        let candidates = candidates.get(start..end).unwrap_or_default();
        Some(sets(candidates, &categorize(candidates, cluster), &mut backends))
    });
    ServicePort {
        name: ServicePortName {
            namespace: service.name.namespace.clone(),
            name: service.name.name.clone(),
            port: port.name.clone(),
            protocol: port.protocol,
        },
        created: service.created,
        algorithm: service.algorithm.unwrap_or(cluster.settings().algorithm),
        backends,
        sets,
        frontends: frontends.list,
    }
}

/// Adds those of the candidates that keep their flows to `backends`.
fn sets(candidates: &[Candidate<'_>], categories: &Categories, backends: &mut Vec<Endpoint>) -> Sets {
    let mut indexes = vec![None; candidates.len()];
    for (candidate, index) in candidates.iter().zip(&mut indexes).filter(|(candidate, _)| candidate.keeps_flows()) {
        *index = Some(backends.len() as u32);
        let &Candidate { address, port, local, .. } = candidate;
        backends.push(Endpoint { address, port, local });
    }
    let members = |positions: &[usize]| -> Vec<u32> {
        positions.iter().filter_map(|&at| indexes.get(at).copied().flatten()).collect()
    };
    Sets { cluster: members(&categories.cluster), local: members(&categories.local), has_endpoints: categories.any }
}

struct Frontends {
    protocol: u8,
    list: Vec<Frontend>,
}

impl Frontends {
    fn add_all(&mut self, cluster: &Cluster, service: &Service, port: &Port, family: Family) {
        let of_family = |ip: &&IpAddr| Family::of(ip) == family;
        let internal = policy::of_cluster_ip(service.internal_policy, cluster.settings().masquerade_all);
        for ip in service.cluster_ips.iter().filter(of_family) {
            let policy = if cluster.is_own_address(ip) { internal.with_node_address() } else { internal };
            self.add(Address::from(*ip), Scope::ADDRESS, port.port, policy);
        }
        let external = |kind| policy::of_external(kind, service.external_policy, cluster.detects_pods(family));
        let addresses = [(Kind::ExternalIp, &service.external_ips), (Kind::LoadBalancer, &service.load_balancer_ips)];
        for (kind, list) in addresses {
            for ip in list.iter().filter(of_family) {
                self.add(Address::from(*ip), Scope::ADDRESS, port.port, external(kind));
            }
        }
        if port.node_port != 0 {
            let scope = match family {
                Family::V4 => Scope::NODE_PORT4,
                Family::V6 => Scope::NODE_PORT6,
            };
            self.add(Address::ANY, scope, port.node_port, external(Kind::NodePort));
        }
    }

    /// The first of several frontends with one key counts: an external IP may well be the load balancer's.
    fn add(&mut self, address: Address, scope: u8, port: u16, policy: wire::Policy) {
        let key = FrontendKey { address, port: port.to_be(), protocol: self.protocol, scope };
        if !self.list.iter().any(|frontend| frontend.key == key) {
            self.list.push(Frontend { key, policy });
        }
    }
}
