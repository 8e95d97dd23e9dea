use std::{collections::VecDeque, ops::AddAssign, time::Duration};

use proxy_common::wire::Service;

use super::{ids::Ids, ranges::Ranges, tables::Capacity};
use crate::model::Family;

/// What is free in the maps, and what will be once no packet can still see it.
#[derive(Debug)]
pub(super) struct Space {
    pub capacity: Capacity,
    pub services: Ids,
    pub sets: Ids,
    pub backends: Ids,
    pub slots: Ranges,
    pub maglev: Ranges,
    /// By backend id, the generation of its row, used or not: it only ever rises, so that a flow never takes the next
    /// endpoint of an id for its own.
    generations: Vec<u32>,
    /// By service id and family, the row of sets that the map names. It may be one of a family that the service has no
    /// longer, or of a service that is gone.
    named: Vec<[u32; 2]>,
    quarantine: VecDeque<(Duration, Freed)>,
}

/// Places that nothing names any more. A program that read what named them just before may still be on its way to
/// them, so they are used again only after a grace period.
#[derive(Debug, Default)]
pub(super) struct Freed {
    pub services: Vec<u32>,
    /// Service ids, families and the rows of sets that the map names for them, though no frontend leads there any more:
    /// for programs that read one just before it went.
    pub switches: Vec<(u32, Family, u32)>,
    pub sets: Vec<u32>,
    pub backends: Vec<u32>,
    /// Starts and lengths.
    pub slots: Vec<(u32, u32)>,
    pub maglev: Vec<(u32, u32)>,
}

/// What a service did not find room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shortage {
    /// The configured maximum.
    Services(usize),
    ServicePorts(u32),
    Frontends(u32),
    Sets(u32),
    Slots(u32),
    Maglev(u32),
    Backends(u32),
}

impl Space {
    pub fn new(
        capacity: Capacity,
        [services, sets, backends]: [Ids; 3],
        rows: &[Service],
        generations: Vec<u32>,
    ) -> Self {
        let (slots, maglev) = (Ranges::new(capacity.slots), Ranges::new(capacity.maglev));
        let named = rows.iter().map(|row| [row.sets4, row.sets6]).collect();
        Self { capacity, services, sets, backends, slots, maglev, generations, named, quarantine: VecDeque::new() }
    }

    /// The rows of sets that the map names for a service port; 0: none.
    pub fn named(&self, service: u32) -> impl Iterator<Item = (Family, u32)> + use<> {
        Family::ALL.into_iter().zip(self.named.get(service as usize).copied().unwrap_or_default())
    }

    pub fn set_named(&mut self, service: u32, family: Family, row: u32) {
        let at = service as usize;
        if self.named.len() <= at {
            self.named.resize(at + 1, [0; 2]);
        }
        if let Some(named) = self.named.get_mut(at).and_then(|named| named.get_mut(family as usize)) {
            *named = row;
        }
    }

    pub fn generation(&self, backend: u32) -> u32 {
        self.generations.get(backend as usize).copied().unwrap_or_default()
    }

    pub fn raise_generation(&mut self, backend: u32) -> u32 {
        let at = backend as usize;
        if self.generations.len() <= at {
            self.generations.resize(at + 1, 0);
        }
        let generation = self.generation(backend).wrapping_add(1);
        if let Some(held) = self.generations.get_mut(at) {
            *held = generation;
        }
        generation
    }

    pub fn quarantine(&mut self, freed: Freed, until: Duration) {
        if !freed.is_empty() {
            self.quarantine.push_back((until, freed));
        }
    }

    /// The next thing whose quarantine has ended.
    pub fn due(&mut self, now: Duration) -> Option<Freed> {
        if self.quarantine.front().is_none_or(|&(until, _)| until > now) {
            return None;
        }
        self.quarantine.pop_front().map(|(_, freed)| freed)
    }

    /// When the next quarantine ends.
    pub fn release_at(&self) -> Option<Duration> {
        self.quarantine.front().map(|&(until, _)| until)
    }

    /// Makes places free: right only for those that nothing has ever named, or whose quarantine has ended.
    pub fn give_back(&mut self, freed: Freed) {
        freed.services.into_iter().for_each(|id| self.services.give_back(id));
        freed.sets.into_iter().for_each(|index| self.sets.give_back(index));
        freed.backends.into_iter().for_each(|id| self.backends.give_back(id));
        freed.slots.into_iter().for_each(|(start, length)| self.slots.give_back(start, length));
        freed.maglev.into_iter().for_each(|(start, length)| self.maglev.give_back(start, length));
    }
}

impl AddAssign for Freed {
    fn add_assign(&mut self, other: Self) {
        let Self { services, switches, sets, backends, slots, maglev } = other;
        self.services.extend(services);
        self.switches.extend(switches);
        self.sets.extend(sets);
        self.backends.extend(backends);
        self.slots.extend(slots);
        self.maglev.extend(maglev);
    }
}

impl Freed {
    fn is_empty(&self) -> bool {
        let Self { services, switches, sets, backends, slots, maglev } = self;
        let ids = [services, sets, backends].into_iter().all(Vec::is_empty);
        ids && switches.is_empty() && slots.is_empty() && maglev.is_empty()
    }
}

impl std::fmt::Display for Shortage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Services(limit) => write!(f, "the configured maximum of {limit} services is reached"),
            Self::ServicePorts(limit) => write!(f, "the map of services is full ({limit} service ports)"),
            Self::Frontends(limit) => write!(f, "the map of frontends has no room for it ({limit} frontends)"),
            Self::Sets(limit) => write!(f, "its endpoints find no room in the map of sets ({limit} rows)"),
            Self::Slots(limit) => write!(f, "its endpoints find no room in the map of slots ({limit} slots)"),
            Self::Maglev(limit) => write!(f, "its lookup table finds no room in the Maglev map ({limit} elements)"),
            Self::Backends(limit) => write!(f, "its endpoints find no room in the map of backends ({limit} rows)"),
        }
    }
}
