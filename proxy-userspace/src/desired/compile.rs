use proxy_common::wire::{Address, FrontendFlags, FrontendKey, Scope};

use super::{
    Endpoint, Frontend, ServicePort, ServicePortName,
    categorize::{Categories, categorize},
    gather::gather,
};
use crate::model::{Cluster, Family, ObjectName, Policy, Port, Service};

/// What the maps are to hold for `service`: its service ports, or nothing if there is no such service.
pub fn compile(cluster: &Cluster, service: &ObjectName) -> Vec<ServicePort> {
    let Some(service) = cluster.service(service) else { return Vec::new() };
    service.ports.iter().map(|port| compile_port(cluster, service, port)).collect()
}

fn compile_port(cluster: &Cluster, service: &Service, port: &Port) -> ServicePort {
    let candidates = gather(cluster, &service.name, port);
    let mut draft = Draft {
        masquerade_all: cluster.settings().masquerade_all,
        service,
        port,
        backends: Vec::with_capacity(candidates.len()),
        sets: Vec::new(),
        frontends: Vec::new(),
    };
    for family in Family::ALL {
        if !service.cluster_ips.iter().any(|ip| Family::of(ip) == family) {
            continue;
        }
        // IPv4 sorts before IPv6, so each family is one piece of the list.
        let start = candidates.partition_point(|candidate| Family::of(&candidate.address) < family);
        let end = candidates.partition_point(|candidate| Family::of(&candidate.address) <= family);
        let candidates = candidates.get(start..end).unwrap_or_default();
        let categories = categorize(candidates, cluster);
        let mut indexes = vec![None; candidates.len()];
        for (candidate, index) in candidates.iter().zip(&mut indexes).filter(|(candidate, _)| candidate.keeps_flows()) {
            *index = Some(draft.backends.len() as u32);
            let &super::gather::Candidate { address, port, local, .. } = candidate;
            draft.backends.push(Endpoint { address, port, local });
        }
        draft.add_frontends(family, &categories, &indexes);
    }
    let Draft { backends, sets, frontends, .. } = draft;
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
        frontends,
    }
}

struct Draft<'a> {
    masquerade_all: bool,
    service: &'a Service,
    port: &'a Port,
    backends: Vec<Endpoint>,
    sets: Vec<Vec<u32>>,
    frontends: Vec<Frontend>,
}

impl Draft<'_> {
    /// `indexes`: where the candidates of the family are in `backends`.
    fn add_frontends(&mut self, family: Family, categories: &Categories, indexes: &[Option<u32>]) {
        let members = |positions: &[usize]| -> Vec<u32> {
            positions.iter().filter_map(|&at| indexes.get(at).copied().flatten()).collect()
        };
        let (cluster, local) = (members(&categories.cluster), members(&categories.local));
        let any = if categories.any { FrontendFlags::HAS_ENDPOINTS } else { 0 };
        let service = self.service;
        let of_family = |ip: &&std::net::IpAddr| Family::of(ip) == family;

        let (set, masquerade) = match service.internal_policy {
            Policy::Cluster => (&cluster, self.masquerade_all),
            Policy::Local => (&local, self.masquerade_all),
        };
        let flags = any | if masquerade { FrontendFlags::MASQUERADE_INSIDE } else { 0 };
        for &ip in service.cluster_ips.iter().filter(of_family) {
            self.add(Address::from(ip), Scope::ADDRESS, self.port.port, flags, set, set);
        }

        // Replies to a pod need no detour, except where the answer must come from the address it dialled although
        // the client may sit behind any node: policy `Cluster` masquerades, as kube-proxy does. Under `Local` a pod
        // reaches all endpoints with its own address, since it is inside already.
        let (flags, outside) = match service.external_policy {
            Policy::Cluster => (any | FrontendFlags::MASQUERADE_INSIDE, &cluster),
            Policy::Local => (any, &local),
        };
        for &ip in service.external_ips.iter().chain(&service.load_balancer_ips).filter(of_family) {
            self.add(Address::from(ip), Scope::ADDRESS, self.port.port, flags, &cluster, outside);
        }
        if self.port.node_port != 0 {
            let scope = match family {
                Family::V4 => Scope::NODE_PORT4,
                Family::V6 => Scope::NODE_PORT6,
            };
            self.add(Address::ANY, scope, self.port.node_port, flags, &cluster, outside);
        }
    }

    /// The first of several frontends with one key counts: an external IP may well be the load balancer's.
    fn add(&mut self, address: Address, scope: u8, port: u16, flags: u32, inside: &[u32], outside: &[u32]) {
        let key = FrontendKey { address, port: port.to_be(), protocol: self.port.protocol.number(), scope };
        if self.frontends.iter().any(|frontend| frontend.key == key) {
            return;
        }
        let (inside, outside) = (self.set(inside), self.set(outside));
        self.frontends.push(Frontend { key, flags, inside, outside });
    }

    fn set(&mut self, members: &[u32]) -> Option<usize> {
        if members.is_empty() {
            return None;
        }
        let known = self.sets.iter().position(|set| set == members);
        Some(known.unwrap_or_else(|| {
            self.sets.push(members.to_vec());
            self.sets.len() - 1
        }))
    }
}
