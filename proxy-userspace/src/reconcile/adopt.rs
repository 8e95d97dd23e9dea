use std::collections::{HashMap, HashSet};

use proxy_common::{
    maglev,
    wire::{Address, Backend, BackendFlags, Frontend, FrontendKey, ServiceName, Set},
};

use super::{
    batch::Batch,
    claims::Claims,
    ids::Ids,
    port::{PlacedBackend, PlacedSet, Port, lookup_table},
    ranges::Ranges,
    space::Space,
    tables::{Capacity, Snapshot},
};
use crate::{
    desired::{Endpoint, ServicePortName},
    model::{Algorithm, Protocol},
};

/// What the maps turned out to hold.
pub(super) struct Adopted {
    pub space: Space,
    pub ports: HashMap<u32, Port>,
    pub claims: Claims,
    /// What has to go with the next full sync: rows without an owner, frontends of nobody. Places that nobody names but
    /// that were used once are in it too, since packets may be on their way to them.
    pub leftovers: Batch,
}

/// Makes sense of a snapshot. Nothing in it is trusted: what contradicts itself is left to be written anew.
pub(super) fn adopt(snapshot: &Snapshot, capacity: Capacity) -> Adopted {
    let mut leftovers = Batch::default();
    let mut ports = adopt_names(&snapshot.services, capacity, &mut leftovers);
    let orphaned: HashSet<u32> =
        snapshot.frontends.iter().map(|(_, value)| value.service).filter(|id| !ports.contains_key(id)).collect();
    let mut unusable: HashSet<u32> = leftovers.nameless.iter().copied().chain(orphaned).collect();
    unusable.retain(|id| (1..=capacity.services).contains(id));
    let services =
        Ids::new(capacity.services.saturating_add(1), |id| ports.contains_key(&id) || unusable.contains(&id));
    leftovers.freed.services.extend(unusable.into_iter().filter(|id| !ports.contains_key(id)));

    let rows = snapshot.backends.get(..capacity.backends as usize).unwrap_or(&snapshot.backends);
    let was_used = |id: u32| rows.get(id as usize).is_some_and(|row| *row != Backend::default());
    let backends = Ids::new(capacity.backends, was_used);
    let generations = rows.iter().map(|row| row.generation).collect();
    let mut space = Space::new(capacity, services, backends, generations);
    adopt_backends(snapshot, rows, &mut ports, &mut space, &mut leftovers);

    let mut claims = Claims::default();
    for &(key, value) in &snapshot.frontends {
        let owner = ports.get_mut(&value.service);
        claims.adopt(key, value, owner.as_ref().map(|port| port.id));
        match owner {
            Some(port) => adopt_frontend(snapshot, rows, key, value, port, &mut space),
            None => leftovers.touched.push(key),
        }
    }
    leftovers.freed.slots = take_used(&mut space.slots, &snapshot.slots);
    leftovers.freed.maglev = take_used(&mut space.maglev, &snapshot.maglev);
    Adopted { space, ports, claims, leftovers }
}

fn adopt_names(rows: &[(u32, ServiceName)], capacity: Capacity, leftovers: &mut Batch) -> HashMap<u32, Port> {
    let mut known = HashSet::new();
    let mut ports = HashMap::new();
    for &(id, ref row) in rows {
        let name = decode_name(row).filter(|_| (1..=capacity.services).contains(&id));
        match name.filter(|(name, _)| known.insert(name.clone())) {
            Some((name, algorithm)) => {
                let (backends, sets, frontends) = (Vec::new(), Vec::new(), Vec::new());
                // The age comes with the object.
                ports.insert(id, Port { id, name, created: i64::MAX, algorithm, backends, sets, frontends });
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
    snapshot: &Snapshot,
    rows: &[Backend],
    ports: &mut HashMap<u32, Port>,
    space: &mut Space,
    leftovers: &mut Batch,
) {
    let sets = snapshot.frontends.iter().flat_map(|(_, value)| [value.inside, value.outside]);
    let named: HashSet<u32> = sets.filter_map(|set| members(snapshot, &set)).flatten().copied().collect();
    for (id, row) in (0..).zip(rows).skip(1).filter(|(_, row)| **row != Backend::default()) {
        let backend = PlacedBackend { id, endpoint: endpoint(row) };
        match ports.get_mut(&row.service) {
            Some(port) if is_live(row, port) => port.backends.push(backend),
            _ if row.flags & BackendFlags::SERVING != 0 => leftovers.retire(&backend, space),
            _ => leftovers.freed.backends.push(id),
        }
    }
    for port in ports.values_mut() {
        // An agent that was stopped between writing a row and naming it leaves a second one of the endpoint.
        let place = |backend: &PlacedBackend| (backend.endpoint.address, backend.endpoint.port);
        port.backends.sort_by_key(|backend| (place(backend), !named.contains(&backend.id), backend.id));
        port.backends.dedup_by(|second, first| {
            let same = place(second) == place(first);
            if same {
                leftovers.retire(second, space);
            }
            same
        });
    }
}

fn endpoint(row: &Backend) -> Endpoint {
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
    snapshot: &Snapshot,
    rows: &[Backend],
    key: FrontendKey,
    value: Frontend,
    port: &mut Port,
    space: &mut Space,
) {
    port.frontends.push((key, value));
    for place in [value.inside, value.outside] {
        if place.count == 0 || port.sets.iter().any(|set| set.place == place) {
            continue;
        }
        let Some(members) = members(snapshot, &place) else { continue };
        let is_own = |&id: &u32| rows.get(id as usize).is_some_and(|row| row.service == port.id && is_live(row, port));
        if !members.iter().all(is_own) || !is_lookup_table(snapshot, rows, &place, members) {
            continue;
        }
        if !space.slots.take_at(place.base, place.count) {
            continue;
        }
        if place.maglev_size != 0 && !space.maglev.take_at(place.maglev_base, place.maglev_size) {
            space.slots.give_back(place.base, place.count);
            continue;
        }
        port.sets.push(PlacedSet { members: members.to_vec(), place });
    }
}

/// The backend ids of a set; `None`: its range is not one, or overshoots the map.
fn members<'a>(snapshot: &'a Snapshot, place: &Set) -> Option<&'a [u32]> {
    range(&snapshot.slots, place.base, place.count)
}

/// Whether the set's lookup table is the one that would be written now. All nodes have to agree on it, so one that an
/// earlier version filled in another way does not stay.
fn is_lookup_table(snapshot: &Snapshot, rows: &[Backend], place: &Set, members: &[u32]) -> bool {
    if place.maglev_size == 0 {
        return true;
    }
    // Filling a table of any other size need not end.
    if place.maglev_size != maglev::table_size(members.len()) {
        return false;
    }
    let member = |&id: &u32| Some(PlacedBackend { id, endpoint: endpoint(rows.get(id as usize)?) });
    let backends: Vec<PlacedBackend> = members.iter().filter_map(member).collect();
    range(&snapshot.maglev, place.maglev_base, place.maglev_size)
        .is_some_and(|table| table == lookup_table(&backends, place.maglev_size))
}

fn range(places: &[u32], base: u32, count: u32) -> Option<&[u32]> {
    places.get(base as usize..base.checked_add(count)? as usize)
}

/// Takes the free places that hold something, and returns them as starts and lengths.
fn take_used(ranges: &mut Ranges, places: &[u32]) -> Vec<(u32, u32)> {
    let mut used = Vec::new();
    for (hole, length) in ranges.holes() {
        let held = range(places, hole, length).unwrap_or_default();
        let mut at = 0;
        for run in held.chunk_by(|a, b| (*a == 0) == (*b == 0)) {
            let length = run.len() as u32;
            if run.first().is_some_and(|&id| id != 0) {
                used.push((hole + at, length));
            }
            at += length;
        }
    }
    used.retain(|&(start, length)| ranges.take_at(start, length));
    used
}
