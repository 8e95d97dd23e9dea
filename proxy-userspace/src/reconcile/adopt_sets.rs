use std::collections::{HashMap, HashSet};

use proxy_common::{
    maglev,
    wire::{Backend, Service, Set, Sets, SetsFlags},
};

use super::{
    adopt::endpoint,
    place_sets::{PlacedSets, lookup_table},
    port::{PlacedBackend, Port},
    ranges::Ranges,
    space::{Freed, Space},
};
use crate::model::Family;

/// What the maps of sets were found to hold.
pub(super) struct Contents<'a> {
    pub sets: &'a [Sets],
    pub slots: &'a [u32],
    pub maglev: &'a [u32],
    pub backends: &'a [Backend],
}

/// Gives `ports` the sets that the map names for them, where those are just what would be written, and the places of
/// those. Other places that were used once are freed.
pub(super) fn adopt(contents: &Contents<'_>, ports: &mut HashMap<u32, Port>, space: &mut Space, freed: &mut Freed) {
    let mut owners = vec![0; contents.backends.len()];
    for port in ports.values() {
        for backend in &port.backends {
            if let Some(owner) = owners.get_mut(backend.id as usize) {
                *owner = port.id;
            }
        }
    }
    let mut taken = HashSet::new();
    let mut ids: Vec<u32> = ports.keys().copied().collect();
    ids.sort_unstable();
    for id in ids {
        let Some(port) = ports.get_mut(&id) else { continue };
        for ((family, index), place) in space.named(id).zip(&mut port.sets) {
            let found = contents.placed(index, family, id, &owners).filter(|placed| !taken.contains(&placed.index));
            *place = found.filter(|placed| take(placed, space));
            match place {
                Some(placed) => taken.extend([placed.index]),
                None if index != 0 => freed.switches.push((id, family, index)),
                None => {}
            }
        }
    }
    let rows = (0..).zip(contents.sets).skip(1);
    freed.sets.extend(rows.filter(|(at, row)| **row != Sets::default() && !taken.contains(at)).map(|(at, _)| at));
    freed.slots = take_used(&mut space.slots, contents.slots);
    freed.maglev = take_used(&mut space.maglev, contents.maglev);
}

/// Takes the places of the sets; `false`: somebody else has one of them, and none is taken.
fn take(placed: &PlacedSets, space: &mut Space) -> bool {
    let mut done = Freed::default();
    for place in placed.places() {
        let slots = space.slots.take_at(place.base, place.count);
        if slots {
            done.slots.push((place.base, place.count));
        }
        let maglev = place.maglev_size == 0 || space.maglev.take_at(place.maglev_base, place.maglev_size);
        if maglev && place.maglev_size != 0 {
            done.maglev.push((place.maglev_base, place.maglev_size));
        }
        if !slots || !maglev {
            space.give_back(done);
            return false;
        }
    }
    true
}

impl Contents<'_> {
    /// Every backend that a set of these service ports names.
    pub fn named_backends<'a>(&self, services: impl Iterator<Item = &'a Service>) -> HashSet<u32> {
        let rows = services.flat_map(|row| [row.sets4, row.sets6]).filter_map(|at| self.sets.get(at as usize));
        let members = rows.flat_map(|row| [&row.cluster, &row.local]).filter_map(|set| self.members(set));
        members.flatten().copied().collect()
    }

    /// The sets in a row, if it is one of the service port and of the family. `owners`: the service port that has each
    /// backend.
    fn placed(&self, index: u32, family: Family, port: u32, owners: &[u32]) -> Option<PlacedSets> {
        let row = *self.sets.get(index as usize).filter(|_| index != 0)?;
        let Sets { cluster, local, service, flags, affinity, ranges } = row;
        if service != port || flags & !SetsFlags::HAS_ENDPOINTS != 0 || affinity != 0 || ranges != 0 {
            return None;
        }
        let is_own = |&id: &u32| {
            owners.get(id as usize) == Some(&port)
                && self.backends.get(id as usize).is_some_and(|row| row.address.is_v4() == (family == Family::V4))
        };
        let members = |set: &Set| {
            if set.count == 0 {
                return (*set == Set::default()).then(Vec::new);
            }
            let members = self.members(set)?;
            (members.iter().all(is_own) && self.is_lookup_table(set, members)).then(|| members.to_vec())
        };
        Some(PlacedSets { index, row, cluster: members(&cluster)?, local: members(&local)? })
    }

    /// The backend ids of a set; `None`: its range is not one, or overshoots the map.
    fn members(&self, set: &Set) -> Option<&[u32]> {
        range(self.slots, set.base, set.count)
    }

    /// Whether the set's lookup table is the one that would be written now. All nodes have to agree on it, so one that
    /// an earlier version filled in another way does not stay.
    fn is_lookup_table(&self, set: &Set, members: &[u32]) -> bool {
        if set.maglev_size == 0 {
            return true;
        }
        // Filling a table of any other size need not end.
        if set.maglev_size != maglev::table_size(members.len()) {
            return false;
        }
        let member = |&id: &u32| Some(PlacedBackend { id, endpoint: endpoint(self.backends.get(id as usize)?) });
        let backends: Vec<PlacedBackend> = members.iter().filter_map(member).collect();
        range(self.maglev, set.maglev_base, set.maglev_size)
            .is_some_and(|table| table == lookup_table(backends.iter(), set.maglev_size))
    }
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
