//! What a packet would find, in terms that know no ids or places.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use proxy_common::{
    maglev::{self, Member},
    wire::{Address, BackendFlags, FrontendKey, Policy, Scope, ServiceName, Set, SetsFlags},
};
use proxy_userspace::{
    desired::{Endpoint, ServicePort, Sets},
    model::{Algorithm, Family, ObjectName},
    reconcile::MemoryTables,
};

pub type Place = (IpAddr, u16);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Whose each frontend is, and what it gives to whom.
    pub frontends: BTreeMap<FrontendKey, (String, Policy)>,
    /// The sets of those service ports, where a frontend leads to them.
    pub sets: BTreeMap<(String, Family), SeenSets>,
}

/// The sets of all service ports, whether a frontend leads to them or not.
pub fn all_sets(services: &BTreeMap<ObjectName, Vec<ServicePort>>) -> BTreeMap<(String, Family), SeenSets> {
    let of_port = |port: &ServicePort| {
        let families = Family::ALL.into_iter().zip(&port.sets);
        let sets = families
            .filter_map(|(family, sets)| Some(((port.name.to_string(), family), wanted_sets(port, sets.as_ref()?))));
        sets.collect::<Vec<_>>()
    };
    services.values().flatten().flat_map(of_port).collect()
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenSets {
    pub cluster: SeenSet,
    pub local: SeenSet,
    pub has_endpoints: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenSet {
    pub members: Vec<Place>,
    pub lookup: Vec<Place>,
}

pub fn family(key: &FrontendKey) -> Family {
    let v4 = key.scope == Scope::NODE_PORT4 || (key.scope == Scope::ADDRESS && key.address.is_v4());
    if v4 { Family::V4 } else { Family::V6 }
}

/// Reads the maps as the datapath does.
pub fn of_tables(tables: &MemoryTables) -> View {
    let mut view = View::default();
    for (key, value) in &tables.frontends {
        assert!(value.is_of(key), "{key:?} has the value of another key");
        let name = shown(&tables.names[&value.service]);
        view.frontends.insert(*key, (name.clone(), value.policy));
        view.sets.entry((name, family(key))).or_insert_with(|| seen_sets(tables, value.service, family(key)));
    }
    view
}

fn seen_sets(tables: &MemoryTables, service: u32, family: Family) -> SeenSets {
    let row = tables.services[service as usize];
    let index = if family == Family::V4 { row.sets4 } else { row.sets6 };
    assert_ne!(index, 0, "service {service} has no sets");
    let row = tables.sets[index as usize];
    assert_eq!(row.service, service, "sets {index} belong to another service port");
    let place = |id: u32| {
        let row = tables.backends[id as usize];
        assert_eq!(row.service, service, "backend {id} belongs to another service port");
        assert_eq!(row.address.is_v4(), family == Family::V4);
        (row.address.ip(), u16::from_be(row.port))
    };
    let range = |places: &[u32], base: u32, count: u32| -> Vec<Place> {
        places[base as usize..(base + count) as usize].iter().map(|&id| place(id)).collect()
    };
    let set = |set: Set| SeenSet {
        members: range(&tables.slots, set.base, set.count),
        lookup: range(&tables.maglev, set.maglev_base, set.maglev_size),
    };
    let has_endpoints = row.flags & SetsFlags::HAS_ENDPOINTS != 0;
    SeenSets { cluster: set(row.cluster), local: set(row.local), has_endpoints }
}

/// What they are to find.
pub fn of_services(services: &BTreeMap<ObjectName, Vec<ServicePort>>) -> View {
    let mut ports: Vec<&ServicePort> = services.values().flatten().collect();
    ports.sort_by_key(|port| (port.created, port.name.clone()));
    let mut view = View::default();
    for port in ports {
        let name = port.name.to_string();
        for frontend in port.frontends.iter() {
            if view.frontends.contains_key(&frontend.key) {
                continue;
            }
            view.frontends.insert(frontend.key, (name.clone(), frontend.policy));
            let family = family(&frontend.key);
            let sets = port.sets[family as usize].as_ref().expect("a family without sets has no frontends");
            view.sets.insert((name.clone(), family), wanted_sets(port, sets));
        }
    }
    view
}

fn wanted_sets(port: &ServicePort, sets: &Sets) -> SeenSets {
    let set = |members: &[u32]| wanted_set(port, members);
    SeenSets { cluster: set(&sets.cluster), local: set(&sets.local), has_endpoints: sets.has_endpoints }
}

fn wanted_set(port: &ServicePort, set: &[u32]) -> SeenSet {
    let place = |at: u32| {
        let backend = port.backends[at as usize];
        (backend.address, backend.port)
    };
    let members = set.iter().map(|&at| place(at)).collect();
    let mut lookup = Vec::new();
    if port.algorithm == Algorithm::Maglev && !set.is_empty() {
        let mut table = vec![0; maglev::table_size(set.len()) as usize];
        let member = |&at: &u32| Member::new(at + 1, &Address::from(place(at).0), place(at).1);
        maglev::fill(&mut table, &mut set.iter().map(member).collect::<Vec<_>>());
        lookup = table.into_iter().map(|id| place(id - 1)).collect();
    }
    SeenSet { members, lookup }
}

/// Service port and endpoint of every row that serves; no endpoint may have two.
pub fn serving(tables: &MemoryTables) -> BTreeSet<(String, Endpoint)> {
    let mut serving = BTreeSet::new();
    for row in tables.backends.iter().filter(|row| row.flags & BackendFlags::SERVING != 0) {
        let local = row.flags & BackendFlags::LOCAL != 0;
        let endpoint = Endpoint { address: row.address.ip(), port: u16::from_be(row.port), local };
        let name = shown(&tables.names[&row.service]);
        assert!(serving.insert((name.clone(), endpoint)), "{name} has {endpoint:?} twice");
    }
    serving
}

pub fn to_serve(services: &BTreeMap<ObjectName, Vec<ServicePort>>) -> BTreeSet<(String, Endpoint)> {
    let ports = services.values().flatten();
    ports.flat_map(|port| port.backends.iter().map(|&backend| (port.name.to_string(), backend))).collect()
}

pub fn shown(name: &ServiceName) -> String {
    let text = ServiceName::text;
    let (port, protocol) = (text(&name.port), if name.protocol == 6 { "TCP" } else { "UDP" });
    let colon = if port.is_empty() { "" } else { ":" };
    format!("{}/{}{colon}{port}/{protocol}", text(&name.namespace), text(&name.name))
}
