use std::collections::{BTreeMap, BTreeSet, HashMap};

use proxy_common::wire::{
    Address, Backend, Config, Device, Filter, Frontend, FrontendKey, Service, ServiceName, Sets, map,
};

use super::tables::{Capacity, FilterMap, Snapshot, TableError, Tables};
use crate::model::Family;

/// The maps in plain memory, with the capacities of the real ones: for tests, and to measure the work of the agent
/// without that of the kernel.
#[derive(Clone, Debug)]
pub struct MemoryTables {
    pub capacity: Capacity,
    pub names: BTreeMap<u32, ServiceName>,
    pub frontends: HashMap<FrontendKey, Frontend>,
    pub services: Vec<Service>,
    pub sets: Vec<Sets>,
    pub slots: Vec<u32>,
    pub maglev: Vec<u32>,
    pub backends: Vec<Backend>,
    pub frontend_filter: Vec<u32>,
    pub target_filter: Vec<u32>,
    pub local_addresses: BTreeSet<Address>,
    pub devices: BTreeMap<u32, Device>,
    pub config: Config,
}

impl MemoryTables {
    pub fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            names: BTreeMap::new(),
            frontends: HashMap::new(),
            services: vec![Service::default(); capacity.services as usize + 1],
            sets: vec![Sets::default(); capacity.sets as usize],
            slots: vec![0; capacity.slots as usize],
            maglev: vec![0; capacity.maglev as usize],
            backends: vec![Backend::default(); capacity.backends as usize],
            frontend_filter: vec![0; Filter::words(Filter::FRONTENDS) as usize],
            target_filter: vec![0; Filter::words(Filter::TARGETS) as usize],
            local_addresses: BTreeSet::new(),
            devices: BTreeMap::new(),
            config: Config::default(),
        }
    }
}

fn write<T: Copy>(places: &mut [T], base: u32, values: &[T]) {
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
            names: self.names.iter().map(|(&id, &name)| (id, name)).collect(),
            frontends: self.frontends.iter().map(|(&key, &value)| (key, value)).collect(),
            services: self.services.clone(),
            sets: self.sets.clone(),
            slots: self.slots.clone(),
            maglev: self.maglev.clone(),
            backends: self.backends.clone(),
            frontend_filter: self.frontend_filter.clone(),
            target_filter: self.target_filter.clone(),
            local_addresses: self.local_addresses.iter().copied().collect(),
            devices: self.devices.iter().map(|(&index, &device)| (index, device)).collect(),
            config: self.config,
        })
    }

    fn set_backend(&mut self, id: u32, backend: Backend) {
        write(&mut self.backends, id, &[backend]);
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

    fn set_sets(&mut self, index: u32, sets: Sets) {
        write(&mut self.sets, index, &[sets]);
    }

    fn set_service(&mut self, id: u32, family: Family, sets: u32) {
        if let Some(row) = self.services.get_mut(id as usize) {
            match family {
                Family::V4 => row.sets4 = sets,
                Family::V6 => row.sets6 = sets,
            }
        }
    }

    fn set_filter(&mut self, filter: FilterMap, word: u32, bits: u32) {
        match filter {
            FilterMap::Frontends => write(&mut self.frontend_filter, word, &[bits]),
            FilterMap::Targets => write(&mut self.target_filter, word, &[bits]),
        }
    }

    fn set_config(&mut self, config: &Config) {
        self.config = *config;
    }

    fn set_epoch(&mut self, epoch: u32) {
        self.config.epoch = epoch;
    }

    fn put_names(&mut self, names: &[(u32, ServiceName)]) -> Result<(), TableError> {
        names.iter().try_for_each(|&(id, name)| {
            self.names.insert(id, name);
            check(map::NAMES, self.names.len(), self.capacity.services)
        })
    }

    fn delete_names(&mut self, ids: &[u32]) -> Result<(), TableError> {
        for id in ids {
            self.names.remove(id);
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
}
