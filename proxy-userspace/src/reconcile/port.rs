use proxy_common::wire::{Address, Backend, BackendFlags, FrontendKey, Policy, ServiceName, Sets};

use super::{
    place_sets::PlacedSets,
    space::{Freed, Shortage, Space},
};
use crate::{
    desired::{Endpoint, Frontend, ServicePort, ServicePortName},
    model::{Algorithm, Family},
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
    /// By family.
    pub sets: [Option<PlacedSets>; 2],
    /// What it writes wherever no older service claims the key.
    pub frontends: Vec<Frontend>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlacedBackend {
    pub id: u32,
    pub endpoint: Endpoint,
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
    pub sets: Vec<(u32, Sets)>,
    /// The rows of sets that it has from now on.
    pub switches: Vec<(Family, u32)>,
    /// Of the port, and named by it no longer.
    pub dropped: Dropped,
}

#[derive(Debug, Default)]
pub(super) struct Dropped {
    pub backends: Vec<PlacedBackend>,
    /// Rows of sets, slots and Maglev tables.
    pub places: Freed,
}

impl PlacedBackend {
    pub fn flags(&self) -> u32 {
        BackendFlags::SERVING | if self.endpoint.local { BackendFlags::LOCAL } else { 0 }
    }
}

impl Port {
    /// A service port of which nothing is in the maps yet.
    pub fn new(id: u32, name: ServicePortName, created: i64, algorithm: Algorithm) -> Self {
        let (backends, frontends) = (Vec::new(), Vec::new());
        Self { id, name, created, algorithm, backends, sets: [None, None], frontends }
    }

    pub fn policy(&self, key: &FrontendKey) -> Option<Policy> {
        self.frontends.iter().find(|frontend| frontend.key == *key).map(|frontend| frontend.policy)
    }

    /// What it has in the maps besides its name and its frontends.
    pub fn into_dropped(self, space: &Space) -> Dropped {
        let mut places = Freed::default();
        self.sets.iter().flatten().for_each(|sets| sets.free_all(&mut places));
        places.switches.extend(switches(self.id, space));
        Dropped { backends: self.backends, places }
    }
}

impl Placement {
    /// Finds a place for `wanted`. Whatever is as it was keeps its place; sets that changed go to fresh places whole.
    /// Nothing stays taken after an error.
    pub fn find(space: &mut Space, wanted: &ServicePort, current: Option<&Port>) -> Result<Self, Shortage> {
        let id = current.map_or(0, |current| current.id);
        let mut port = Port::new(id, wanted.name.clone(), wanted.created, wanted.algorithm);
        port.frontends.clone_from(&wanted.frontends);
        port.backends.reserve_exact(wanted.backends.len());
        let mut placement = Self {
            port,
            is_named_anew: current.is_none_or(|current| current.algorithm != wanted.algorithm),
            taken: Freed::default(),
            rows: Vec::new(),
            flags: Vec::new(),
            slots: Vec::new(),
            maglev: Vec::new(),
            sets: Vec::new(),
            switches: Vec::new(),
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
        self.place_sets(space, wanted, current)
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
}

/// What the map names for a service port, as it is freed.
pub(super) fn switches(id: u32, space: &Space) -> impl Iterator<Item = (u32, Family, u32)> + use<> {
    space.named(id).filter(|(_, row)| *row != 0).map(move |(family, row)| (id, family, row))
}

/// `None` for a name that is too long, which the model lets nobody have.
pub(super) fn name_row(name: &ServicePortName, algorithm: Algorithm) -> Option<ServiceName> {
    Some(ServiceName {
        namespace: ServiceName::field(&name.namespace)?,
        name: ServiceName::field(&name.name)?,
        port: ServiceName::field(&name.port)?,
        protocol: name.protocol.number(),
        algorithm: match algorithm {
            Algorithm::Random => 0,
            Algorithm::Maglev => 1,
        },
        pad: [0; 2],
    })
}
