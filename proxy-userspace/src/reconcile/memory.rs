use std::collections::{BTreeMap, BTreeSet, HashMap};

use proxy_common::wire::{Address, Backend, Config, Device, Frontend, FrontendKey, ServiceName, map};

use super::tables::{Capacity, Snapshot, TableError, Tables};

/// The maps in plain memory, with the capacities of the real ones: for tests, and to measure the work of the agent
/// without that of the kernel.
#[derive(Clone, Debug)]
pub struct MemoryTables {
    pub capacity: Capacity,
    pub services: BTreeMap<u32, ServiceName>,
    pub frontends: HashMap<FrontendKey, Frontend>,
    pub slots: Vec<u32>,
    pub maglev: Vec<u32>,
    pub backends: Vec<Backend>,
    pub local_addresses: BTreeSet<Address>,
    pub devices: BTreeMap<u32, Device>,
    pub config: Option<Config>,
}

impl MemoryTables {
    pub fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            services: BTreeMap::new(),
            frontends: HashMap::new(),
            slots: vec![0; capacity.slots as usize],
            maglev: vec![0; capacity.maglev as usize],
            backends: vec![Backend::default(); capacity.backends as usize],
            local_addresses: BTreeSet::new(),
            devices: BTreeMap::new(),
            config: None,
        }
    }
}

fn write(places: &mut [u32], base: u32, values: &[u32]) {
    for (place, value) in places.iter_mut().skip(base as usize).zip(values) {
        *place = *value;
    }
}

/// The answer of a hash map that is full.
fn check(map: &'static str, elements: usize, capacity: u32) -> Result<(), TableError> {
    if elements <= capacity as usize {
        return Ok(());
    }
    let cause = std::io::ErrorKind::StorageFull.into();
    Err(TableError { map, operation: "update", count: 1, cause })
}

impl Tables for MemoryTables {
    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn snapshot(&self) -> Result<Snapshot, TableError> {
        Ok(Snapshot {
            services: self.services.iter().map(|(&id, &name)| (id, name)).collect(),
            frontends: self.frontends.iter().map(|(&key, &value)| (key, value)).collect(),
            slots: self.slots.clone(),
            maglev: self.maglev.clone(),
            backends: self.backends.clone(),
            local_addresses: self.local_addresses.iter().copied().collect(),
            devices: self.devices.iter().map(|(&index, &device)| (index, device)).collect(),
        })
    }

    fn set_backend(&mut self, id: u32, backend: Backend) {
        if let Some(row) = self.backends.get_mut(id as usize) {
            *row = backend;
        }
    }

    fn set_backend_state(&mut self, id: u32, flags: u32, generation: u32) {
        if let Some(row) = self.backends.get_mut(id as usize) {
            (row.flags, row.generation) = (flags, generation);
        }
    }

    fn set_slots(&mut self, base: u32, backends: &[u32]) {
        write(&mut self.slots, base, backends);
    }

    fn set_maglev(&mut self, base: u32, backends: &[u32]) {
        write(&mut self.maglev, base, backends);
    }

    fn put_services(&mut self, services: &[(u32, ServiceName)]) -> Result<(), TableError> {
        services.iter().try_for_each(|&(id, name)| {
            self.services.insert(id, name);
            check(map::SERVICES, self.services.len(), self.capacity.services)
        })
    }

    fn delete_services(&mut self, ids: &[u32]) -> Result<(), TableError> {
        for id in ids {
            self.services.remove(id);
        }
        Ok(())
    }

    fn put_frontends(&mut self, frontends: &[(FrontendKey, Frontend)]) -> Result<(), TableError> {
        frontends.iter().try_for_each(|&(key, value)| {
            self.frontends.insert(key, value);
            check(map::FRONTENDS, self.frontends.len(), self.capacity.frontends)
        })
    }

    fn delete_frontends(&mut self, keys: &[FrontendKey]) -> Result<(), TableError> {
        for key in keys {
            self.frontends.remove(key);
        }
        Ok(())
    }

    fn put_local_addresses(&mut self, addresses: &[Address]) -> Result<(), TableError> {
        self.local_addresses.extend(addresses);
        Ok(())
    }

    fn delete_local_addresses(&mut self, addresses: &[Address]) -> Result<(), TableError> {
        for address in addresses {
            self.local_addresses.remove(address);
        }
        Ok(())
    }

    fn put_devices(&mut self, devices: &[(u32, Device)]) -> Result<(), TableError> {
        self.devices.extend(devices.iter().copied());
        Ok(())
    }

    fn delete_devices(&mut self, indexes: &[u32]) -> Result<(), TableError> {
        for index in indexes {
            self.devices.remove(index);
        }
        Ok(())
    }

    fn set_config(&mut self, config: &Config) -> Result<(), TableError> {
        self.config = Some(*config);
        Ok(())
    }
}
