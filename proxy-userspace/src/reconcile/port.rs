use proxy_common::{
    maglev::{self, Member},
    wire::{Address, Backend, BackendFlags, Frontend, FrontendKey, Set},
};

use super::space::{Freed, Shortage, Space};
use crate::{
    desired::{Endpoint, ServicePort, ServicePortName},
    model::Algorithm,
};

/// What the maps hold for a service port.
#[derive(Debug)]
pub(super) struct Port {
    pub id: u32,
    pub name: ServicePortName,
    pub created: i64,
    pub algorithm: Algorithm,
    /// Sorted by address and port.
    pub backends: Vec<PlacedBackend>,
    pub sets: Vec<PlacedSet>,
    /// What it writes wherever no older service claims the key.
    pub frontends: Vec<(FrontendKey, Frontend)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlacedBackend {
    pub id: u32,
    pub endpoint: Endpoint,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlacedSet {
    /// Backend ids, in the order of the slots.
    pub members: Vec<u32>,
    pub place: Set,
}

/// A service port that found its place in the maps, and what must be written for it.
#[derive(Debug)]
pub(super) struct Placement {
    pub port: Port,
    /// The name row is new or differs.
    pub is_named_anew: bool,
    /// What was taken for it; nobody names it yet.
    pub taken: Freed,
    pub rows: Vec<(u32, Backend)>,
    /// Backends that keep their row, with other flags.
    pub flags: Vec<(u32, u32)>,
    /// Starts and contents.
    pub slots: Vec<(u32, Vec<u32>)>,
    pub maglev: Vec<(u32, Vec<u32>)>,
    /// Backends and sets of the port that it names no longer.
    pub dropped: Dropped,
}

#[derive(Debug, Default)]
pub(super) struct Dropped {
    pub backends: Vec<PlacedBackend>,
    pub sets: Vec<PlacedSet>,
}

impl PlacedBackend {
    pub fn flags(&self) -> u32 {
        BackendFlags::SERVING | if self.endpoint.local { BackendFlags::LOCAL } else { 0 }
    }
}

impl Port {
    pub fn value(&self, key: &FrontendKey) -> Option<Frontend> {
        self.frontends.iter().find(|(other, _)| other == key).map(|&(_, value)| value)
    }
}

impl Placement {
    /// Finds a place for `wanted`. Whatever is as it was keeps its place; a set that changed goes to fresh places
    /// whole. Nothing stays taken after an error.
    pub fn find(space: &mut Space, wanted: &ServicePort, current: Option<&Port>) -> Result<Self, Shortage> {
        let mut placement = Self {
            port: Port {
                id: current.map_or(0, |current| current.id),
                name: wanted.name.clone(),
                created: wanted.created,
                algorithm: wanted.algorithm,
                backends: Vec::with_capacity(wanted.backends.len()),
                sets: Vec::with_capacity(wanted.sets.len()),
                frontends: Vec::with_capacity(wanted.frontends.len()),
            },
            is_named_anew: current.is_none_or(|current| current.algorithm != wanted.algorithm),
            taken: Freed::default(),
            rows: Vec::new(),
            flags: Vec::new(),
            slots: Vec::new(),
            maglev: Vec::new(),
            dropped: Dropped::default(),
        };
        match placement.fill(space, wanted, current) {
            Ok(()) => Ok(placement),
            Err(shortage) => {
                placement.undo(space);
                Err(shortage)
            }
        }
    }

    /// Gives back what was taken.
    pub fn undo(self, space: &mut Space) {
        space.give_back(self.taken);
    }

    fn fill(&mut self, space: &mut Space, wanted: &ServicePort, current: Option<&Port>) -> Result<(), Shortage> {
        if current.is_none() {
            self.port.id = space.services.take().ok_or(Shortage::ServicePorts(space.capacity.services))?;
            self.taken.services.push(self.port.id);
        }
        self.place_backends(space, &wanted.backends, current.map_or(&[], |current| &current.backends))?;
        let held = current.map_or(&[][..], |current| &current.sets);
        for set in &wanted.sets {
            self.place_set(space, set, held)?;
        }
        let place =
            |at: Option<usize>| at.and_then(|at| self.port.sets.get(at)).map(|set| set.place).unwrap_or_default();
        for frontend in &wanted.frontends {
            let (inside, outside) = (place(frontend.inside), place(frontend.outside));
            let value = Frontend { service: self.port.id, flags: frontend.flags, inside, outside };
            self.port.frontends.push((frontend.key, value));
        }
        let is_kept = |set: &&PlacedSet| self.port.sets.iter().any(|kept| kept.place.base == set.place.base);
        self.dropped.sets.extend(held.iter().filter(|set| !is_kept(set)).cloned());
        Ok(())
    }

    /// Walks through both sorted lists at once.
    fn place_backends(
        &mut self,
        space: &mut Space,
        wanted: &[Endpoint],
        held: &[PlacedBackend],
    ) -> Result<(), Shortage> {
        let mut held = held.iter().copied().peekable();
        for &endpoint in wanted {
            let place = (endpoint.address, endpoint.port);
            while let Some(gone) = held.next_if(|held| (held.endpoint.address, held.endpoint.port) < place) {
                self.dropped.backends.push(gone);
            }
            let kept = held.next_if(|held| (held.endpoint.address, held.endpoint.port) == place);
            let backend = match kept {
                Some(kept) => PlacedBackend { id: kept.id, endpoint },
                None => {
                    let id = space.backends.take().ok_or(Shortage::Backends(space.capacity.backends))?;
                    self.taken.backends.push(id);
                    PlacedBackend { id, endpoint }
                }
            };
            match kept {
                Some(kept) if kept == backend => {}
                Some(_) => self.flags.push((backend.id, backend.flags())),
                None => self.rows.push((backend.id, self.row(space, &backend))),
            }
            self.port.backends.push(backend);
        }
        self.dropped.backends.extend(held);
        Ok(())
    }

    fn row(&self, space: &mut Space, backend: &PlacedBackend) -> Backend {
        Backend {
            address: Address::from(backend.endpoint.address),
            port: backend.endpoint.port.to_be(),
            protocol: self.port.name.protocol.number(),
            pad: 0,
            flags: backend.flags(),
            generation: space.raise_generation(backend.id),
            service: self.port.id,
        }
    }

    fn place_set(&mut self, space: &mut Space, indexes: &[u32], held: &[PlacedSet]) -> Result<(), Shortage> {
        let backends: Vec<PlacedBackend> =
            indexes.iter().filter_map(|&index| self.port.backends.get(index as usize).copied()).collect();
        let members: Vec<u32> = backends.iter().map(|backend| backend.id).collect();
        let maglev_size = match self.port.algorithm {
            Algorithm::Random => 0,
            Algorithm::Maglev => maglev::table_size(members.len()),
        };
        let same = held.iter().find(|set| set.members == members && set.place.maglev_size == maglev_size);
        if let Some(same) = same {
            self.port.sets.push(same.clone());
            return Ok(());
        }
        let count = members.len() as u32;
        let base = space.slots.take(count).ok_or(Shortage::Slots(space.capacity.slots))?;
        self.taken.slots.push((base, count));
        self.slots.push((base, members.clone()));
        let mut place = Set { base, count, maglev_base: 0, maglev_size };
        if maglev_size != 0 {
            place.maglev_base = space.maglev.take(maglev_size).ok_or(Shortage::Maglev(space.capacity.maglev))?;
            self.taken.maglev.push((place.maglev_base, maglev_size));
            self.maglev.push((place.maglev_base, lookup_table(&backends, maglev_size)));
        }
        self.port.sets.push(PlacedSet { members, place });
        Ok(())
    }
}

pub(super) fn lookup_table(backends: &[PlacedBackend], size: u32) -> Vec<u32> {
    let member = |backend: &PlacedBackend| {
        Member::new(backend.id, &Address::from(backend.endpoint.address), backend.endpoint.port)
    };
    let mut table = vec![0; size as usize];
    maglev::fill(&mut table, &mut backends.iter().map(member).collect::<Vec<_>>());
    table
}
