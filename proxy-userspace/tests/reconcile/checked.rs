//! Maps that hold their writer to the contract: every write is checked, and what packets would find after it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proxy_common::wire::{Address, Backend, BackendFlags, Config, Device, Frontend, FrontendKey, ServiceName};
use proxy_userspace::reconcile::{Capacity, MemoryTables, Snapshot, TableError, Tables};

use crate::view::{self, View};

pub const GRACE: Duration = Duration::from_secs(2);

pub struct Checked {
    pub maps: MemoryTables,
    pub now: Duration,
    /// Every frontend has to be found as in one of these at any moment; none: not checked.
    pub allowed: Vec<View>,
    /// So many writes by system call succeed before one fails half-way.
    pub failing: Option<u32>,
    pub writes: u64,
    left: [BTreeMap<u32, Duration>; 3],
}

/// Places that some frontend names: slots, Maglev elements, backends.
type Named = [BTreeSet<u32>; 3];
const SLOTS: usize = 0;
const MAGLEV: usize = 1;
const BACKENDS: usize = 2;

impl Checked {
    pub fn new(capacity: Capacity) -> Self {
        let maps = MemoryTables::new(capacity);
        Self { maps, now: Duration::ZERO, allowed: Vec::new(), failing: None, writes: 0, left: Default::default() }
    }

    fn named(&self) -> Named {
        let mut named = Named::default();
        for value in self.maps.frontends.values() {
            for set in [value.inside, value.outside] {
                let slots = set.base..set.base + set.count;
                let elements = set.maglev_base..set.maglev_base + set.maglev_size;
                named[BACKENDS].extend(slots.clone().map(|at| self.maps.slots[at as usize]));
                named[BACKENDS].extend(elements.clone().map(|at| self.maps.maglev[at as usize]));
                named[SLOTS].extend(slots);
                named[MAGLEV].extend(elements);
            }
        }
        named
    }

    /// Nobody may find `place`, and nobody may have found it for a grace period.
    fn check_unnamed(&self, kind: usize, place: u32) {
        assert!(!self.named()[kind].contains(&place), "{kind}/{place} is written while a frontend names it");
        let left = self.left[kind].get(&place);
        assert!(left.is_none_or(|&left| left + GRACE <= self.now), "{kind}/{place} is used again too early");
    }

    fn check_view(&self) {
        if self.allowed.is_empty() {
            return;
        }
        let seen = view::of_tables(&self.maps);
        for key in self.allowed.iter().flat_map(View::keys).chain(seen.keys()) {
            let found = seen.get(key);
            assert!(self.allowed.iter().any(|view| view.get(key) == found), "{key:?} leads to {found:?}");
        }
    }

    fn check_frontend(&self, value: &Frontend) {
        assert!(self.maps.services.contains_key(&value.service), "service {} has no name", value.service);
        for set in [value.inside, value.outside] {
            let slots = &self.maps.slots[set.base as usize..(set.base + set.count) as usize];
            let elements = &self.maps.maglev[set.maglev_base as usize..(set.maglev_base + set.maglev_size) as usize];
            for &id in slots.iter().chain(elements) {
                let row = self.maps.backends[id as usize];
                assert_eq!(row.service, value.service, "backend {id} of another service port");
                assert!(row.flags & BackendFlags::SERVING != 0, "backend {id} does not serve");
            }
            assert!(elements.iter().all(|id| slots.contains(id)));
        }
    }

    /// A write of `count` elements by `write`, which gets how many of them to write.
    fn call(
        &mut self,
        count: usize,
        write: impl FnOnce(&mut MemoryTables, usize) -> Result<(), TableError>,
    ) -> Result<(), TableError> {
        self.writes += count as u64;
        let before = self.named();
        let fails = self.failing == Some(0);
        self.failing = self.failing.and_then(|left| left.checked_sub(1));
        let result = write(&mut self.maps, if fails { count / 2 } else { count });
        let after = self.named();
        for kind in [SLOTS, MAGLEV, BACKENDS] {
            self.left[kind].extend(before[kind].difference(&after[kind]).map(|&place| (place, self.now)));
        }
        self.check_view();
        result.expect("within the capacity");
        if !fails {
            return Ok(());
        }
        let cause = std::io::Error::other("made to fail");
        Err(TableError { map: "a map", operation: "a write", count, cause })
    }
}

impl Tables for Checked {
    fn capacity(&self) -> Capacity {
        self.maps.capacity
    }

    fn snapshot(&self) -> Result<Snapshot, TableError> {
        self.maps.snapshot()
    }

    fn set_backend(&mut self, id: u32, backend: Backend) {
        assert!(id != 0 && (id as usize) < self.maps.backends.len());
        self.check_unnamed(BACKENDS, id);
        let old = self.maps.backends[id as usize];
        assert_eq!(old.flags & BackendFlags::SERVING, 0, "backend {id} serves and gets another endpoint");
        assert!(backend.generation > old.generation, "backend {id}: its flows would go to another endpoint");
        self.writes += 1;
        self.maps.set_backend(id, backend);
        self.check_view();
    }

    fn set_backend_state(&mut self, id: u32, flags: u32, generation: u32) {
        let old = self.maps.backends[id as usize];
        if old.flags & !flags & BackendFlags::SERVING != 0 {
            assert!(!self.named()[BACKENDS].contains(&id), "backend {id} is retired while it gets flows");
            assert!(generation > old.generation, "backend {id} is retired in its generation");
        } else {
            assert_eq!(generation, old.generation);
        }
        self.writes += 1;
        self.maps.set_backend_state(id, flags, generation);
        self.check_view();
    }

    fn set_slots(&mut self, base: u32, backends: &[u32]) {
        assert!(base as usize + backends.len() <= self.maps.slots.len());
        (base..).zip(backends).for_each(|(at, _)| self.check_unnamed(SLOTS, at));
        self.writes += backends.len() as u64;
        self.maps.set_slots(base, backends);
        self.check_view();
    }

    fn set_maglev(&mut self, base: u32, backends: &[u32]) {
        assert!(base as usize + backends.len() <= self.maps.maglev.len());
        let (named, left) = (self.named(), &self.left[MAGLEV]);
        for (at, _) in (base..).zip(backends) {
            assert!(!named[MAGLEV].contains(&at));
            assert!(left.get(&at).is_none_or(|&left| left + GRACE <= self.now));
        }
        self.writes += backends.len() as u64;
        self.maps.set_maglev(base, backends);
        self.check_view();
    }

    fn put_services(&mut self, services: &[(u32, ServiceName)]) -> Result<(), TableError> {
        self.call(services.len(), |maps, count| maps.put_services(&services[..count]))
    }

    fn delete_services(&mut self, ids: &[u32]) -> Result<(), TableError> {
        let used = |id: &u32| self.maps.frontends.values().any(|value| value.service == *id);
        assert!(!ids.iter().any(used), "a service loses its name before its frontends");
        self.call(ids.len(), |maps, count| maps.delete_services(&ids[..count]))
    }

    fn put_frontends(&mut self, frontends: &[(FrontendKey, Frontend)]) -> Result<(), TableError> {
        frontends.iter().for_each(|(_, value)| self.check_frontend(value));
        self.call(frontends.len(), |maps, count| maps.put_frontends(&frontends[..count]))
    }

    fn delete_frontends(&mut self, keys: &[FrontendKey]) -> Result<(), TableError> {
        self.call(keys.len(), |maps, count| maps.delete_frontends(&keys[..count]))
    }

    fn put_local_addresses(&mut self, addresses: &[Address]) -> Result<(), TableError> {
        self.call(addresses.len(), |maps, count| maps.put_local_addresses(&addresses[..count]))
    }

    fn delete_local_addresses(&mut self, addresses: &[Address]) -> Result<(), TableError> {
        self.call(addresses.len(), |maps, count| maps.delete_local_addresses(&addresses[..count]))
    }

    fn put_devices(&mut self, devices: &[(u32, Device)]) -> Result<(), TableError> {
        self.call(devices.len(), |maps, count| maps.put_devices(&devices[..count]))
    }

    fn delete_devices(&mut self, indexes: &[u32]) -> Result<(), TableError> {
        self.call(indexes.len(), |maps, count| maps.delete_devices(&indexes[..count]))
    }

    fn set_config(&mut self, config: &Config) -> Result<(), TableError> {
        self.call(1, |maps, count| if count == 1 { maps.set_config(config) } else { Ok(()) })
    }
}
