//! What a packet would find, in terms that know no ids or places.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use proxy_common::{
    maglev::{self, Member},
    wire::{Address, BackendFlags, FrontendKey, ServiceName, Set},
};
use proxy_userspace::{
    desired::{Endpoint, ServicePort},
    model::{Algorithm, ObjectName},
    reconcile::MemoryTables,
};

pub type View = BTreeMap<FrontendKey, Seen>;
type Place = (IpAddr, u16);

/// What a frontend leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub service: String,
    pub flags: u32,
    pub inside: SeenSet,
    pub outside: SeenSet,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenSet {
    pub members: Vec<Place>,
    pub lookup: Vec<Place>,
}

/// Reads the maps as the datapath does.
pub fn of_tables(tables: &MemoryTables) -> View {
    let place = |service: u32, id: u32| {
        let row = tables.backends[id as usize];
        assert_eq!(row.service, service, "backend {id} belongs to another service port");
        (row.address.ip(), u16::from_be(row.port))
    };
    let range = |places: &[u32], base: u32, count: u32| places[base as usize..(base + count) as usize].to_vec();
    let set = |service: u32, set: Set| SeenSet {
        members: range(&tables.slots, set.base, set.count).into_iter().map(|id| place(service, id)).collect(),
        lookup: range(&tables.maglev, set.maglev_base, set.maglev_size)
            .into_iter()
            .map(|id| place(service, id))
            .collect(),
    };
    let seen = |(key, value): (&FrontendKey, &proxy_common::wire::Frontend)| {
        let seen = Seen {
            service: shown(&tables.services[&value.service]),
            flags: value.flags,
            inside: set(value.service, value.inside),
            outside: set(value.service, value.outside),
        };
        (*key, seen)
    };
    tables.frontends.iter().map(seen).collect()
}

/// What they are to find.
pub fn of_services(services: &BTreeMap<ObjectName, Vec<ServicePort>>) -> View {
    let mut ports: Vec<&ServicePort> = services.values().flatten().collect();
    ports.sort_by_key(|port| (port.created, port.name.clone()));
    let mut view = View::new();
    for port in ports {
        for frontend in &port.frontends {
            view.entry(frontend.key).or_insert_with(|| Seen {
                service: port.name.to_string(),
                flags: frontend.flags,
                inside: seen_set(port, frontend.inside),
                outside: seen_set(port, frontend.outside),
            });
        }
    }
    view
}

fn seen_set(port: &ServicePort, index: Option<usize>) -> SeenSet {
    let Some(index) = index else { return SeenSet::default() };
    let place = |at: u32| {
        let backend = port.backends[at as usize];
        (backend.address, backend.port)
    };
    let set = &port.sets[index];
    let members = set.iter().map(|&at| place(at)).collect();
    let mut lookup = Vec::new();
    if port.algorithm == Algorithm::Maglev {
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
        let name = shown(&tables.services[&row.service]);
        assert!(serving.insert((name.clone(), endpoint)), "{name} has {endpoint:?} twice");
    }
    serving
}

pub fn to_serve(services: &BTreeMap<ObjectName, Vec<ServicePort>>) -> BTreeSet<(String, Endpoint)> {
    let ports = services.values().flatten();
    ports.flat_map(|port| port.backends.iter().map(|&backend| (port.name.to_string(), backend))).collect()
}

fn shown(name: &ServiceName) -> String {
    let text = ServiceName::text;
    let (port, protocol) = (text(&name.port), if name.protocol == 6 { "TCP" } else { "UDP" });
    let colon = if port.is_empty() { "" } else { ":" };
    format!("{}/{}{colon}{port}/{protocol}", text(&name.namespace), text(&name.name))
}
