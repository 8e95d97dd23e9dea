use std::io;
use std::path::Path;
use std::sync::Arc;

use proxy_common::wire::{Address, Backend, Config, Device, Frontend, FrontendKey, ServiceName, map};

use super::KernelError;
use super::lock::PinDir;
use super::mapped::{Mapped, publish};
use super::rows::Rows;
use super::specs::Spec;
use crate::reconcile::{Capacity, Snapshot, TableError, Tables};

/// Word of a [`Backend`] that holds its flags; the next one holds its generation.
const BACKEND_FLAGS: usize = std::mem::offset_of!(Backend, flags) / 4;
const BACKEND_GENERATION: usize = std::mem::offset_of!(Backend, generation) / 4;

/// The maps of the control plane in this kernel.
pub struct MapTables {
    services: Rows<u32, ServiceName>,
    frontends: Rows<FrontendKey, Frontend>,
    slots: Mapped<u32>,
    maglev: Mapped<u32>,
    backends: Mapped<Backend>,
    local_addresses: Rows<Address, u32>,
    devices: Rows<u32, Device>,
    config: Rows<u32, Config>,
    /// Nobody else may write the maps.
    _pins: Arc<PinDir>,
}

impl MapTables {
    /// Opens the maps that are pinned in `directory`, all of which are there by now.
    pub(super) fn open(directory: &Path, specs: &[Spec], pins: &Arc<PinDir>) -> Result<Self, KernelError> {
        Ok(Self {
            services: rows(directory, specs, map::SERVICES)?,
            frontends: rows(directory, specs, map::FRONTENDS)?,
            slots: mapped(directory, specs, map::SLOTS)?,
            maglev: mapped(directory, specs, map::MAGLEV)?,
            backends: mapped(directory, specs, map::BACKENDS)?,
            local_addresses: rows(directory, specs, map::LOCAL_ADDRESSES)?,
            devices: rows(directory, specs, map::DEVICES)?,
            config: rows(directory, specs, map::CONFIG)?,
            _pins: Arc::clone(pins),
        })
    }
}

fn rows<K, V>(directory: &Path, specs: &[Spec], name: &'static str) -> Result<Rows<K, V>, KernelError>
where
    K: proxy_common::wire::Wire,
    V: proxy_common::wire::Wire,
{
    Rows::open(directory, Spec::of(specs, name)?)
}

fn mapped<V>(directory: &Path, specs: &[Spec], name: &'static str) -> Result<Mapped<V>, KernelError>
where
    V: proxy_common::wire::Wire,
{
    let rows: Rows<u32, V> = rows(directory, specs, name)?;
    Mapped::new(rows.fd(), rows.max_entries).map_err(|cause| KernelError::Map {
        name,
        operation: "mapping into memory",
        cause,
    })
}

/// Runs an operation on a map; a failure is told with the name of the map and the number of elements.
fn on<K, V, T>(
    rows: &Rows<K, V>,
    operation: &'static str,
    count: usize,
    run: impl FnOnce(&Rows<K, V>) -> io::Result<T>,
) -> Result<T, TableError>
where
    K: proxy_common::wire::Wire,
    V: proxy_common::wire::Wire,
{
    // What was stored into mapped memory has to be seen by whoever sees this update.
    publish();
    run(rows).map_err(|cause| TableError { map: rows.name, operation, count, cause })
}

impl Tables for MapTables {
    fn capacity(&self) -> Capacity {
        Capacity {
            services: self.services.max_entries,
            frontends: self.frontends.max_entries,
            slots: self.slots.len(),
            maglev: self.maglev.len(),
            backends: self.backends.len(),
        }
    }

    fn snapshot(&self) -> Result<Snapshot, TableError> {
        Ok(Snapshot {
            services: on(&self.services, "read", 0, Rows::read)?,
            frontends: on(&self.frontends, "read", 0, Rows::read)?,
            slots: self.slots.iter().collect(),
            maglev: self.maglev.iter().collect(),
            backends: self.backends.iter().collect(),
            local_addresses: on(&self.local_addresses, "read", 0, Rows::read)?
                .into_iter()
                .map(|(key, _)| key)
                .collect(),
            devices: on(&self.devices, "read", 0, Rows::read)?,
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

    fn put_services(&mut self, services: &[(u32, ServiceName)]) -> Result<(), TableError> {
        on(&self.services, "write", services.len(), |rows| rows.put(services))
    }

    fn delete_services(&mut self, ids: &[u32]) -> Result<(), TableError> {
        on(&self.services, "delete", ids.len(), |rows| rows.delete(ids))
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

    fn set_config(&mut self, config: &Config) -> Result<(), TableError> {
        on(&self.config, "write", 1, |rows| rows.put(&[(0, *config)]))
    }
}
