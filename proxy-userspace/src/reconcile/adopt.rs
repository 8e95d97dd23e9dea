use std::collections::{HashMap, HashSet};

use proxy_common::wire::{Address, Backend, BackendFlags, Filter, Frontend, FrontendKey, Service, ServiceName, Sets};

use super::{
    adopt_sets::{self, Contents},
    batch::{Batch, frontend_number},
    claims::Claims,
    filters::Filters,
    ids::Ids,
    port::{PlacedBackend, Port, switches},
    space::Space,
    tables::{Capacity, Snapshot},
};
use crate::{
    desired::{self, Endpoint, ServicePortName},
    model::{Algorithm, Protocol},
};

/// What the maps turned out to hold.
pub(super) struct Adopted {
    pub space: Space,
    pub ports: HashMap<u32, Port>,
    pub claims: Claims,
    /// [`Filters::settle`] is still to be called, with what else needs their bits counted.
    pub filters: Filters,
    /// What has to go with the next full sync: rows without an owner, frontends of nobody. Places that nobody names but
    /// that were used once are in it too, since packets may be on their way to them.
    pub leftovers: Batch,
}

/// Makes sense of a snapshot. Nothing in it is trusted: what contradicts itself is left to be written anew.
pub(super) fn adopt(snapshot: &Snapshot, capacity: Capacity) -> Adopted {
    let mut leftovers = Batch::default();
    let mut ports = adopt_names(&snapshot.names, capacity, &mut leftovers);
    let services = adopt_ids(snapshot, capacity, &ports, &mut leftovers);
    let rows = snapshot.backends.get(..capacity.backends as usize).unwrap_or(&snapshot.backends);
    let backends =
        Ids::new(capacity.backends, |id| rows.get(id as usize).is_some_and(|row| *row != Backend::default()));
    let sets_rows = snapshot.sets.get(..capacity.sets as usize).unwrap_or(&snapshot.sets);
    let sets = Ids::new(capacity.sets, |at| sets_rows.get(at as usize).is_some_and(|row| *row != Sets::default()));
    let generations = rows.iter().map(|row| row.generation).collect();
    let mut space = Space::new(capacity, [services, sets, backends], &snapshot.services, generations);
    let ids = leftovers.freed.services.iter();
    leftovers.freed.switches = ids.flat_map(|&id| switches(id, &space)).collect();
    let mut filters = Filters::adopt(snapshot);

    let contents = Contents { sets: sets_rows, slots: &snapshot.slots, maglev: &snapshot.maglev, backends: rows };
    let in_sets = contents.named_backends(ports.keys().filter_map(|&id| snapshot.services.get(id as usize)));
    for row in rows.iter().skip(1).filter(|row| row.flags & BackendFlags::SERVING != 0) {
        filters.targets.count(target_number(row));
    }
    adopt_backends(rows, &in_sets, &mut ports, &mut space, &mut leftovers);
    adopt_sets::adopt(&contents, &mut ports, &mut space, &mut leftovers.freed);

    let mut claims = Claims::default();
    for &(key, value) in &snapshot.frontends {
        adopt_frontend(key, value, &mut ports, &mut claims, &mut leftovers);
        frontend_number(&key).into_iter().for_each(|number| filters.frontends.count(number));
    }
    Adopted { space, ports, claims, filters, leftovers }
}

/// The ids that are free. Those that something still names without there being a service port are not: they are
/// quarantined, and their rows are cleared then.
fn adopt_ids(snapshot: &Snapshot, capacity: Capacity, ports: &HashMap<u32, Port>, leftovers: &mut Batch) -> Ids {
    let of_frontends = snapshot.frontends.iter().map(|(_, value)| value.service);
    let of_rows = (0..).zip(&snapshot.services).filter(|(_, row)| **row != Service::default()).map(|(id, _)| id);
    let mut unusable: HashSet<u32> = leftovers.nameless.iter().copied().chain(of_frontends).chain(of_rows).collect();
    unusable.retain(|id| (1..=capacity.services).contains(id) && !ports.contains_key(id));
    let is_taken = |id| ports.contains_key(&id) || unusable.contains(&id);
    let services = Ids::new(capacity.services.saturating_add(1), is_taken);
    leftovers.freed.services.extend(unusable);
    services
}

/// The number of a row's endpoint in the filter of targets.
fn target_number(row: &Backend) -> u32 {
    Filter::target(&row.address, row.port, row.protocol)
}

fn adopt_names(rows: &[(u32, ServiceName)], capacity: Capacity, leftovers: &mut Batch) -> HashMap<u32, Port> {
    let mut known = HashSet::new();
    let mut ports = HashMap::new();
    for &(id, ref row) in rows {
        let name = decode_name(row).filter(|_| (1..=capacity.services).contains(&id));
        match name.filter(|(name, _)| known.insert(name.clone())) {
            Some((name, algorithm)) => {
                // The age comes with the object.
                ports.insert(id, Port::new(id, name, i64::MAX, algorithm));
            }
            None => leftovers.nameless.push(id),
        }
    }
    ports
}

fn decode_name(row: &ServiceName) -> Option<(ServicePortName, Algorithm)> {
    let text = |field| ServiceName::text(field).to_owned();
    let name = ServicePortName {
        namespace: text(&row.namespace),
        name: text(&row.name),
        port: text(&row.port),
        protocol: Protocol::from_number(row.protocol)?,
    };
    let algorithm = match row.algorithm {
        0 => Algorithm::Random,
        1 => Algorithm::Maglev,
        _ => return None,
    };
    (!name.namespace.is_empty() && !name.name.is_empty()).then_some((name, algorithm))
}

fn adopt_backends(
    rows: &[Backend],
    in_sets: &HashSet<u32>,
    ports: &mut HashMap<u32, Port>,
    space: &mut Space,
    leftovers: &mut Batch,
) {
    for (id, row) in (0..).zip(rows).skip(1).filter(|(_, row)| **row != Backend::default()) {
        match ports.get_mut(&row.service) {
            Some(port) if is_live(row, port) => port.backends.push(PlacedBackend { id, endpoint: endpoint(row) }),
            _ if row.flags & BackendFlags::SERVING != 0 => {
                leftovers.retire(id, row.flags & BackendFlags::LOCAL, target_number(row), space);
            }
            _ => leftovers.freed.backends.push(id),
        }
    }
    for port in ports.values_mut() {
        // An agent that was stopped between writing a row and naming it leaves a second one of the endpoint.
        let place = |backend: &PlacedBackend| (backend.endpoint.address, backend.endpoint.port);
        port.backends.sort_by_key(|backend| (place(backend), !in_sets.contains(&backend.id), backend.id));
        port.backends.dedup_by(|second, first| {
            let same = place(second) == place(first);
            if same && let Some(row) = rows.get(second.id as usize) {
                leftovers.retire(second.id, row.flags, target_number(row), space);
            }
            same
        });
    }
}

pub(super) fn endpoint(row: &Backend) -> Endpoint {
    let local = row.flags & BackendFlags::LOCAL != 0;
    Endpoint { address: row.address.ip(), port: u16::from_be(row.port), local }
}

/// Whether a row is just what would be written for a serving endpoint of `port`.
fn is_live(row: &Backend, port: &Port) -> bool {
    row.flags & !BackendFlags::LOCAL == BackendFlags::SERVING
        && row.protocol == port.name.protocol.number()
        && row.pad == 0
        && row.address == Address::from(row.address.ip())
}

fn adopt_frontend(
    key: FrontendKey,
    value: Frontend,
    ports: &mut HashMap<u32, Port>,
    claims: &mut Claims,
    leftovers: &mut Batch,
) {
    // One that readers would not take for its own is written anew, whosever it is.
    let owner = ports.get_mut(&value.service).filter(|_| value.is_of(&key));
    claims.adopt(key, value, owner.as_ref().map(|port| port.id));
    match owner {
        Some(port) => port.frontends.push(desired::Frontend { key, policy: value.policy }),
        None => leftovers.touched.push(key),
    }
}
