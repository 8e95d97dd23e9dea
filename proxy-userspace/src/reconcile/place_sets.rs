use proxy_common::{
    maglev::{self, Member},
    wire::{Address, Set, Sets, SetsFlags},
};

use super::{
    port::{PlacedBackend, Placement, Port},
    space::{Freed, Shortage, Space},
};
use crate::{
    desired::{self, ServicePort},
    model::Algorithm,
};

/// The sets of a service port in one family, and where they lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlacedSets {
    /// Of the row.
    pub index: u32,
    pub row: Sets,
    /// Backend ids, in the order of the slots.
    pub cluster: Vec<u32>,
    pub local: Vec<u32>,
}

impl PlacedSets {
    /// The two sets with their members.
    pub fn both(&self) -> [(&Set, &[u32]); 2] {
        [(&self.row.cluster, &self.cluster), (&self.row.local, &self.local)]
    }

    /// The places of its sets that are places, each once: the two may be the same.
    pub fn places(&self) -> impl Iterator<Item = &Set> {
        let Sets { cluster, local, .. } = &self.row;
        let second = Some(local).filter(|local| *local != cluster);
        [Some(cluster), second].into_iter().flatten().filter(|place| place.count != 0)
    }

    /// Adds the row and the places of its sets.
    pub fn free_all(&self, freed: &mut Freed) {
        self.free(freed, None);
    }

    /// The same without the places that the row that takes its place has as well.
    fn free(&self, freed: &mut Freed, next: Option<&Self>) {
        freed.sets.push(self.index);
        for place in self.places().filter(|place| next.is_none_or(|next| !next.places().any(|kept| kept == *place))) {
            freed.slots.push((place.base, place.count));
            if place.maglev_size != 0 {
                freed.maglev.push((place.maglev_base, place.maglev_size));
            }
        }
    }
}

impl Placement {
    pub(super) fn place_sets(
        &mut self,
        space: &mut Space,
        wanted: &ServicePort,
        current: Option<&Port>,
    ) -> Result<(), Shortage> {
        let held = current.map_or([None, None], |current| current.sets.each_ref().map(Option::as_ref));
        let mut placed = [None, None];
        for ((place, wanted), held) in placed.iter_mut().zip(&wanted.sets).zip(held) {
            if let Some(wanted) = wanted {
                *place = Some(self.place_family(space, wanted, held)?);
            }
        }
        for (held, placed) in held.into_iter().zip(&placed) {
            match (held, placed) {
                (Some(held), Some(placed)) if held.index == placed.index => {}
                (Some(held), placed) => held.free(&mut self.dropped.places, placed.as_ref()),
                (None, _) => {}
            }
        }
        for ((family, named), placed) in space.named(self.port.id).zip(&placed) {
            match placed {
                Some(placed) if named != placed.index => self.switches.push((family, placed.index)),
                // Its frontends are still there. Only when nobody can be on his way from one of them any more, the map
                // ceases to name its sets.
                None if named != 0 => self.dropped.places.switches.push((self.port.id, family, named)),
                _ => {}
            }
        }
        self.port.sets = placed;
        Ok(())
    }

    fn place_family(
        &mut self,
        space: &mut Space,
        wanted: &desired::Sets,
        held: Option<&PlacedSets>,
    ) -> Result<PlacedSets, Shortage> {
        let (cluster, local) = (self.ids(&wanted.cluster), self.ids(&wanted.local));
        let flags = if wanted.has_endpoints { SetsFlags::HAS_ENDPOINTS } else { 0 };
        let mut known: Vec<(Set, &[u32])> = Vec::new();
        if let Some(held) = held {
            let is_as_before = held.row.flags == flags
                && held.both().into_iter().zip([&cluster, &local]).all(|((place, members), wanted)| {
                    members == wanted && place.maglev_size == self.maglev_size(wanted)
                });
            if is_as_before {
                return Ok(held.clone());
            }
            known.extend(held.both().map(|(place, members)| (*place, members)));
        }
        let cluster_place = self.place_set(space, &wanted.cluster, &cluster, &known)?;
        known.push((cluster_place, &cluster));
        let local_place = self.place_set(space, &wanted.local, &local, &known)?;
        let row =
            Sets { cluster: cluster_place, local: local_place, service: self.port.id, flags, affinity: 0, ranges: 0 };
        let index = space.sets.take().ok_or(Shortage::Sets(space.capacity.sets))?;
        self.taken.sets.push(index);
        self.sets.push((index, row));
        Ok(PlacedSets { index, row, cluster, local })
    }

    fn ids(&self, indexes: &[u32]) -> Vec<u32> {
        indexes.iter().filter_map(|&at| self.port.backends.get(at as usize)).map(|backend| backend.id).collect()
    }

    fn maglev_size(&self, members: &[u32]) -> u32 {
        match self.port.algorithm {
            Algorithm::Maglev if !members.is_empty() => maglev::table_size(members.len()),
            _ => 0,
        }
    }

    /// A place for a set: that of one of the `known` if it has the same members, else a fresh one.
    fn place_set(
        &mut self,
        space: &mut Space,
        indexes: &[u32],
        members: &[u32],
        known: &[(Set, &[u32])],
    ) -> Result<Set, Shortage> {
        if members.is_empty() {
            return Ok(Set::default());
        }
        let maglev_size = self.maglev_size(members);
        let same = known.iter().find(|(place, others)| *others == members && place.maglev_size == maglev_size);
        if let Some((place, _)) = same {
            return Ok(*place);
        }
        let count = members.len() as u32;
        let base = space.slots.take(count).ok_or(Shortage::Slots(space.capacity.slots))?;
        self.taken.slots.push((base, count));
        self.slots.push((base, members.to_vec()));
        let mut place = Set { base, count, maglev_base: 0, maglev_size };
        if maglev_size != 0 {
            place.maglev_base = space.maglev.take(maglev_size).ok_or(Shortage::Maglev(space.capacity.maglev))?;
            self.taken.maglev.push((place.maglev_base, maglev_size));
            let backends = indexes.iter().filter_map(|&at| self.port.backends.get(at as usize));
            self.maglev.push((place.maglev_base, lookup_table(backends, maglev_size)));
        }
        Ok(place)
    }
}

pub(super) fn lookup_table<'a>(backends: impl Iterator<Item = &'a PlacedBackend>, size: u32) -> Vec<u32> {
    let member = |backend: &PlacedBackend| {
        Member::new(backend.id, &Address::from(backend.endpoint.address), backend.endpoint.port)
    };
    let mut table = vec![0; size as usize];
    maglev::fill(&mut table, &mut backends.map(member).collect::<Vec<_>>());
    table
}
