use std::io;
use std::path::Path;
use std::sync::Arc;

use proxy_common::wire::{
    Address, Backend, Config, Device, Frontend, FrontendKey, Service, ServiceName, Sets, Wire, map,
};

use super::KernelError;
use super::capacity::floor_to_power_of_two;
use super::lock::PinDir;
use super::mapped::{Mapped, publish};
use super::rows::Rows;
use super::specs::Spec;
use crate::desired::Seats;
use crate::model::Family;
use crate::reconcile::{Capacity, FilterMap, Snapshot, TableError, Tables};

/// Word of a [`Backend`] that holds its flags; the next one holds its generation.
const BACKEND_FLAGS: usize = std::mem::offset_of!(Backend, flags) / 4;
const BACKEND_GENERATION: usize = std::mem::offset_of!(Backend, generation) / 4;
const EPOCH: usize = std::mem::offset_of!(Config, epoch) / 4;

/// Word of a [`Service`] that names its sets.
const fn sets_of(family: Family) -> usize {
    match family {
        Family::V4 => std::mem::offset_of!(Service, sets4) / 4,
        Family::V6 => std::mem::offset_of!(Service, sets6) / 4,
    }
}

/// The maps of the control plane in this kernel.
pub struct MapTables {
    names: Rows<u32, ServiceName>,
    frontends: Rows<FrontendKey, Frontend>,
    services: Mapped<Service>,
    sets: Mapped<Sets>,
    slots: Mapped<u32>,
    maglev: Mapped<u32>,
    backends: Mapped<Backend>,
    frontend_filter: Mapped<u32>,
    target_filter: Mapped<u32>,
    local_addresses: Rows<Address, u32>,
    devices: Rows<u32, Device>,
    config: Mapped<Config>,
    seats: Seats,
    /// Nobody else may write the maps.
    _pins: Arc<PinDir>,
}

impl MapTables {
    /// Opens the maps that are pinned in `directory`, all of which are there by now.
    pub(super) fn open(directory: &Path, specs: &[Spec], pins: &Arc<PinDir>) -> Result<Self, KernelError> {
        // Of the proven rings that leaves the places of datagrams out.
        let seats = |name| Ok(floor_to_power_of_two(Spec::of(specs, name)?.max_entries));
        Ok(Self {
            names: rows(directory, specs, map::NAMES)?,
            frontends: rows(directory, specs, map::FRONTENDS)?,
            services: mapped(directory, specs, map::SERVICES)?,
            sets: mapped(directory, specs, map::SETS)?,
            slots: mapped(directory, specs, map::SLOTS)?,
            maglev: mapped(directory, specs, map::MAGLEV)?,
            backends: mapped(directory, specs, map::BACKENDS)?,
            frontend_filter: mapped(directory, specs, map::FRONTEND_FILTER)?,
            target_filter: mapped(directory, specs, map::TARGET_FILTER)?,
            local_addresses: rows(directory, specs, map::LOCAL_ADDRESSES)?,
            devices: rows(directory, specs, map::DEVICES)?,
            config: mapped(directory, specs, map::CONFIG)?,
            seats: Seats {
                opening: [seats(map::OPENING4)?, seats(map::OPENING6)?],
                proven: [seats(map::PROVEN4)?, seats(map::PROVEN6)?],
            },
            _pins: Arc::clone(pins),
        })
    }

    /// How many flows the maps have seats for: what the configuration has to tell the programs.
    pub const fn seats(&self) -> Seats {
        self.seats
    }
}

pub(super) fn rows<K: Wire, V: Wire>(
    directory: &Path,
    specs: &[Spec],
    name: &'static str,
) -> Result<Rows<K, V>, KernelError> {
    Rows::open(directory, Spec::of(specs, name)?)
}

pub(super) fn mapped<V: Wire>(directory: &Path, specs: &[Spec], name: &'static str) -> Result<Mapped<V>, KernelError> {
    let rows: Rows<u32, V> = rows(directory, specs, name)?;
    Mapped::new(rows.fd(), rows.max_entries).map_err(|cause| KernelError::Map {
        name,
        operation: "mapping into memory",
        cause,
    })
}

fn read<V: Wire>(mapped: &Mapped<V>, map: &'static str) -> Result<Vec<V>, TableError> {
    mapped.read().map_err(|cause| TableError { map, operation: "read", count: 0, cause })
}

/// Runs an operation on a map; a failure is told with the name of the map and the number of elements.
fn on<K: Wire, V: Wire, T>(
    rows: &Rows<K, V>,
    operation: &'static str,
    count: usize,
    run: impl FnOnce(&Rows<K, V>) -> io::Result<T>,
) -> Result<T, TableError> {
    // What was stored into mapped memory has to be seen by whoever sees this update.
    publish();
    run(rows).map_err(|cause| TableError { map: rows.name, operation, count, cause })
}

impl Tables for MapTables {
    fn capacity(&self) -> Capacity {
        Capacity {
            services: self.names.max_entries.min(self.services.len().saturating_sub(1)),
            frontends: self.frontends.max_entries,
            sets: self.sets.len(),
            slots: self.slots.len(),
            maglev: self.maglev.len(),
            backends: self.backends.len(),
        }
    }

    fn snapshot(&self) -> Result<Snapshot, TableError> {
        let local_addresses = on(&self.local_addresses, "read", 0, Rows::read)?;
        Ok(Snapshot {
            names: on(&self.names, "read", 0, Rows::read)?,
            frontends: on(&self.frontends, "read", 0, Rows::read)?,
            services: read(&self.services, map::SERVICES)?,
            sets: read(&self.sets, map::SETS)?,
            slots: read(&self.slots, map::SLOTS)?,
            maglev: read(&self.maglev, map::MAGLEV)?,
            backends: read(&self.backends, map::BACKENDS)?,
            frontend_filter: read(&self.frontend_filter, map::FRONTEND_FILTER)?,
            target_filter: read(&self.target_filter, map::TARGET_FILTER)?,
            local_addresses: local_addresses.into_iter().map(|(address, _)| address).collect(),
            devices: on(&self.devices, "read", 0, Rows::read)?,
            config: self.config.get(0).unwrap_or_default(),
        })
    }

    fn set_backend(&mut self, id: u32, backend: Backend) {
        self.backends.set(id, &backend);
    }

    fn set_backend_state(&mut self, id: u32, flags: u32, generation: u32) {
        self.backends.set_word(id, BACKEND_FLAGS, flags);
        self.backends.set_word(id, BACKEND_GENERATION, generation);
    }

    fn set_slots(&mut self, base: u32, backends: &[u32]) {
        for (slot, backend) in (base..=u32::MAX).zip(backends) {
            self.slots.set_word(slot, 0, *backend);
        }
    }

    fn set_maglev(&mut self, base: u32, backends: &[u32]) {
        for (element, backend) in (base..=u32::MAX).zip(backends) {
            self.maglev.set_word(element, 0, *backend);
        }
    }

    fn set_sets(&mut self, index: u32, sets: Sets) {
        self.sets.set(index, &sets);
    }

    fn set_service(&mut self, id: u32, family: Family, sets: u32) {
        self.services.set_word(id, sets_of(family), sets);
    }

    fn set_filter(&mut self, filter: FilterMap, word: u32, bits: u32) {
        let filter = match filter {
            FilterMap::Frontends => &self.frontend_filter,
            FilterMap::Targets => &self.target_filter,
        };
        filter.set_word(word, 0, bits);
    }

    fn set_config(&mut self, config: &Config) {
        self.config.set(0, config);
    }

    fn set_epoch(&mut self, epoch: u32) {
        self.config.set_word(0, EPOCH, epoch);
    }

    fn put_names(&mut self, names: &[(u32, ServiceName)]) -> Result<(), TableError> {
        on(&self.names, "write", names.len(), |rows| rows.put(names))
    }

    fn delete_names(&mut self, ids: &[u32]) -> Result<(), TableError> {
        on(&self.names, "delete", ids.len(), |rows| rows.delete(ids))
    }

    fn put_frontends(&mut self, frontends: &[(FrontendKey, Frontend)]) -> Result<(), TableError> {
        on(&self.frontends, "write", frontends.len(), |rows| rows.put(frontends))
    }

    fn delete_frontends(&mut self, keys: &[FrontendKey]) -> Result<(), TableError> {
        on(&self.frontends, "delete", keys.len(), |rows| rows.delete(keys))
    }

    fn put_local_addresses(&mut self, addresses: &[Address]) -> Result<(), TableError> {
        let pairs: Vec<(Address, u32)> = addresses.iter().map(|address| (*address, 1)).collect();
        on(&self.local_addresses, "write", pairs.len(), |rows| rows.put(&pairs))
    }

    fn delete_local_addresses(&mut self, addresses: &[Address]) -> Result<(), TableError> {
        on(&self.local_addresses, "delete", addresses.len(), |rows| rows.delete(addresses))
    }

    fn put_devices(&mut self, devices: &[(u32, Device)]) -> Result<(), TableError> {
        on(&self.devices, "write", devices.len(), |rows| rows.put(devices))
    }

    fn delete_devices(&mut self, indexes: &[u32]) -> Result<(), TableError> {
        on(&self.devices, "delete", indexes.len(), |rows| rows.delete(indexes))
    }
}
