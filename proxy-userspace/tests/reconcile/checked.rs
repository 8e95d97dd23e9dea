//! Maps that hold their writer to the contract: every write is checked, and what packets would find after it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proxy_common::wire::{
    Address, Backend, BackendFlags, Config, Device, Filter, Frontend, FrontendKey, Reach, Scope, ServiceName, Set, Sets,
};
use proxy_userspace::{
    model::Family,
    reconcile::{Capacity, FilterMap, MemoryTables, Snapshot, TableError, Tables},
};

use crate::{
    reader::{Found, Reader},
    view::{self, View},
};

pub const GRACE: Duration = Duration::from_secs(2);

pub struct Checked {
    pub maps: MemoryTables,
    pub now: Duration,
    /// Every frontend has to be found as in one of these at any moment; none: not checked.
    pub allowed: Vec<View>,
    /// So many writes by system call succeed before one fails half-way.
    pub failing: Option<u32>,
    /// So many writes are made before the agent dies: what it writes then is lost.
    pub dies_after: Option<u32>,
    pub writes: u64,
    /// Something happened that ends an epoch.
    pub disturbed: bool,
    left: [BTreeMap<u32, Duration>; KINDS],
    /// The last name of each service id.
    names: BTreeMap<u32, ServiceName>,
    readers: Vec<Reader>,
    /// What readers on their way may find.
    views: Vec<(Duration, View)>,
    dice: fastrand::Rng,
}

/// Places that a frontend leads to.
type Named = [BTreeSet<u32>; KINDS];
const SLOTS: usize = 0;
const MAGLEV: usize = 1;
const BACKENDS: usize = 2;
const SETS: usize = 3;
/// A service id and a family: see [`lead`].
const LEADS: usize = 4;
const KINDS: usize = 5;

fn lead(id: u32, family: Family) -> u32 {
    id * 2 + family as u32
}

impl Checked {
    pub fn new(capacity: Capacity) -> Self {
        Self {
            maps: MemoryTables::new(capacity),
            now: Duration::ZERO,
            allowed: Vec::new(),
            failing: None,
            dies_after: None,
            writes: 0,
            disturbed: false,
            left: Default::default(),
            names: BTreeMap::new(),
            readers: Vec::new(),
            views: Vec::new(),
            dice: fastrand::Rng::with_seed(7),
        }
    }

    pub fn is_dead(&self) -> bool {
        self.dies_after == Some(0)
    }

    /// Whether the writer still lives to make a write.
    fn lives(&mut self) -> bool {
        let lives = !self.is_dead();
        self.dies_after = self.dies_after.and_then(|left| left.checked_sub(1)).or(self.dies_after);
        lives
    }

    /// Lets time pass. No reader takes longer than a grace period.
    pub fn wait(&mut self, time: Duration) {
        let late = self.now + time;
        for mut reader in std::mem::take(&mut self.readers) {
            if reader.began + GRACE < late {
                while !self.advance(&mut reader) {}
            } else {
                self.readers.push(reader);
            }
        }
        self.now = late;
        self.views.retain(|(then, _)| *then + GRACE >= late);
    }

    /// What programs that begin now can come to.
    fn named(&self) -> Named {
        let mut named = Named::default();
        for (key, value) in &self.maps.frontends {
            let family = view::family(key);
            if !named[LEADS].insert(lead(value.service, family)) {
                continue;
            }
            let row = self.sets_of(value.service, family);
            named[SETS].insert(row);
            let row = self.maps.sets[row as usize];
            for set in [row.cluster, row.local] {
                let (slots, elements) = ranges(&set);
                named[BACKENDS].extend(slots.clone().map(|at| self.maps.slots[at as usize]));
                named[BACKENDS].extend(elements.clone().map(|at| self.maps.maglev[at as usize]));
                named[SLOTS].extend(slots);
                named[MAGLEV].extend(elements);
            }
        }
        named
    }

    /// Nobody may find `place`, and nobody may have found it for a grace period.
    fn check_unnamed(&self, named: &Named, kind: usize, place: u32) {
        assert!(!named[kind].contains(&place), "{kind}/{place} is written while a frontend leads to it");
        let left = self.left[kind].get(&place);
        assert!(left.is_none_or(|&left| left + GRACE <= self.now), "{kind}/{place} is used again too early");
    }

    /// Checks everything that a packet could find now.
    fn check(&mut self) {
        self.check_filters();
        if self.allowed.is_empty() {
            return;
        }
        let seen = view::of_tables(&self.maps);
        for key in self.allowed.iter().flat_map(|view| view.frontends.keys()).chain(seen.frontends.keys()) {
            let found = seen.frontends.get(key);
            assert!(self.allowed.iter().any(|view| view.frontends.get(key) == found), "{key:?} leads to {found:?}");
        }
        for (of, found) in &seen.sets {
            assert!(self.allowed.iter().any(|view| view.sets.get(of) == Some(found)), "{of:?} has {found:?}");
        }
        self.run_readers(&seen);
    }

    fn run_readers(&mut self, seen: &View) {
        self.views.push((self.now, seen.clone()));
        let keys: Vec<FrontendKey> = seen.frontends.keys().copied().collect();
        if let Some(&key) = self.dice.choice(&keys)
            && self.readers.len() < 6
        {
            let reach = if self.dice.bool() { Reach::Cluster } else { Reach::Local };
            self.readers.push(Reader::start(&self.maps, key, reach, self.now));
        }
        for mut reader in std::mem::take(&mut self.readers) {
            let ends = self.dice.bool() && self.advance(&mut reader);
            if !ends {
                self.readers.push(reader);
            }
        }
    }

    /// One step of a reader; `true`: it has come to its end.
    fn advance(&mut self, reader: &mut Reader) -> bool {
        let endpoint = match reader.step(&self.maps, self.dice.u32(..)) {
            Found::NotYet => return false,
            Found::Nobody => return true,
            Found::Endpoint(endpoint) => endpoint,
        };
        let of = (reader.service.clone(), reader.family());
        let mut since = self.views.iter().filter(|(then, _)| *then >= reader.began).map(|(_, view)| view);
        let has = |view: &View| {
            view.sets
                .get(&of)
                .is_some_and(|sets| [&sets.cluster, &sets.local].into_iter().any(|set| set.members.contains(&endpoint)))
        };
        assert!(since.any(has), "{reader:?} came to {endpoint:?}");
        true
    }

    fn check_filters(&self) {
        let maps = &self.maps;
        let is_set = |words: &[u32], number: u32| {
            let (word, bit) = Filter::place(number);
            words[word as usize] & bit != 0
        };
        let dialled = maps.frontends.keys().filter(|key| key.scope == Scope::ADDRESS).map(|key| key.address);
        let v4 = |device: &Device| device.networks4.map(|network| Address::from_v4(network.address));
        let v6 = |device: &Device| device.networks6.map(|network| network.address);
        let own = maps.devices.values().flat_map(|device| v4(device).into_iter().chain(v6(device)));
        let nowhere = [Address::ANY, Address::from_v4(0)];
        for address in dialled.chain(own).chain(maps.local_addresses.iter().copied()) {
            let set = is_set(&maps.frontend_filter, Filter::frontend(&address));
            assert!(set || nowhere.contains(&address), "{address:?} is not in the filter");
        }
        for row in maps.backends.iter().filter(|row| row.flags & BackendFlags::SERVING != 0) {
            let number = Filter::target(&row.address, row.port, row.protocol);
            assert!(is_set(&maps.target_filter, number), "{row:?} is not in the filter");
        }
    }

    /// What a service port is given has to be its own, whole, and in use.
    fn check_sets(&self, id: u32, family: Family, index: u32) {
        let row = self.maps.sets[index as usize];
        assert_eq!(row.service, id, "sets {index} belong to another service port");
        for set in [row.cluster, row.local] {
            let (slots, elements) = ranges(&set);
            let slots: Vec<u32> = slots.map(|at| self.maps.slots[at as usize]).collect();
            let elements: Vec<u32> = elements.map(|at| self.maps.maglev[at as usize]).collect();
            for &id in slots.iter().chain(&elements) {
                let backend = self.maps.backends[id as usize];
                assert_eq!(backend.service, row.service, "backend {id} of another service port");
                assert_eq!(backend.address.is_v4(), family == Family::V4, "backend {id} of the other family");
                assert!(backend.flags & BackendFlags::SERVING != 0, "backend {id} does not serve");
            }
            assert!(elements.iter().all(|id| slots.contains(id)));
        }
    }

    fn sets_of(&self, id: u32, family: Family) -> u32 {
        let row = self.maps.services[id as usize];
        if family == Family::V4 { row.sets4 } else { row.sets6 }
    }

    /// Notes what a write has left without a name.
    fn note_left(&mut self, before: &Named) {
        let after = self.named();
        for (left, (before, after)) in self.left.iter_mut().zip(before.iter().zip(&after)) {
            left.extend(before.difference(after).map(|&place| (place, self.now)));
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
        self.note_left(&before);
        self.check();
        result.expect("within the capacity");
        if !fails {
            return Ok(());
        }
        let cause = std::io::Error::other("made to fail");
        Err(TableError { map: "a map", operation: "a write", count, cause })
    }

    /// A store.
    fn store(&mut self, count: usize, write: impl FnOnce(&mut MemoryTables)) {
        self.writes += count as u64;
        write(&mut self.maps);
        self.check();
    }
}

fn ranges(set: &Set) -> (std::ops::Range<u32>, std::ops::Range<u32>) {
    (set.base..set.base + set.count, set.maglev_base..set.maglev_base + set.maglev_size)
}

impl Tables for Checked {
    fn capacity(&self) -> Capacity {
        self.maps.capacity
    }

    fn snapshot(&self) -> Result<Snapshot, TableError> {
        self.maps.snapshot()
    }

    fn set_backend(&mut self, id: u32, backend: Backend) {
        if !self.lives() {
            return;
        }
        assert!(id != 0 && (id as usize) < self.maps.backends.len());
        self.check_unnamed(&self.named(), BACKENDS, id);
        let old = self.maps.backends[id as usize];
        assert_eq!(old.flags & BackendFlags::SERVING, 0, "backend {id} serves and gets another endpoint");
        assert!(backend.generation > old.generation, "backend {id}: its flows would go to another endpoint");
        self.store(1, |maps| maps.set_backend(id, backend));
    }

    fn set_backend_state(&mut self, id: u32, flags: u32, generation: u32) {
        if !self.lives() {
            return;
        }
        let old = self.maps.backends[id as usize];
        if old.flags & !flags & BackendFlags::SERVING != 0 {
            self.disturbed = true;
            assert!(!self.named()[BACKENDS].contains(&id), "backend {id} is retired while it gets flows");
            assert!(generation > old.generation, "backend {id} is retired in its generation");
        } else {
            assert_eq!(generation, old.generation);
        }
        self.store(1, |maps| maps.set_backend_state(id, flags, generation));
    }

    fn set_slots(&mut self, base: u32, backends: &[u32]) {
        if !self.lives() {
            return;
        }
        assert!(base as usize + backends.len() <= self.maps.slots.len());
        let named = self.named();
        (base..).zip(backends).for_each(|(at, _)| self.check_unnamed(&named, SLOTS, at));
        self.store(backends.len(), |maps| maps.set_slots(base, backends));
    }

    fn set_maglev(&mut self, base: u32, backends: &[u32]) {
        if !self.lives() {
            return;
        }
        assert!(base as usize + backends.len() <= self.maps.maglev.len());
        let named = self.named();
        (base..).zip(backends).for_each(|(at, _)| self.check_unnamed(&named, MAGLEV, at));
        self.store(backends.len(), |maps| maps.set_maglev(base, backends));
    }

    fn set_sets(&mut self, index: u32, sets: Sets) {
        if !self.lives() {
            return;
        }
        assert!(index != 0 && (index as usize) < self.maps.sets.len());
        self.check_unnamed(&self.named(), SETS, index);
        self.store(1, |maps| maps.set_sets(index, sets));
    }

    fn set_service(&mut self, id: u32, family: Family, sets: u32) {
        if !self.lives() {
            return;
        }
        assert!((1..=self.maps.capacity.services).contains(&id));
        let before = self.named();
        match sets {
            // Readers may be on their way from a frontend.
            0 => self.check_unnamed(&before, LEADS, lead(id, family)),
            sets => self.check_sets(id, family, sets),
        }
        self.writes += 1;
        self.maps.set_service(id, family, sets);
        self.note_left(&before);
        self.check();
    }

    fn set_filter(&mut self, filter: FilterMap, word: u32, bits: u32) {
        if !self.lives() {
            return;
        }
        self.store(1, |maps| maps.set_filter(filter, word, bits));
    }

    fn set_config(&mut self, config: &Config) {
        if !self.lives() {
            return;
        }
        assert_eq!(config.epoch, self.maps.config.epoch, "the configuration has another epoch");
        self.store(1, |maps| maps.set_config(config));
    }

    fn set_epoch(&mut self, epoch: u32) {
        if !self.lives() {
            return;
        }
        assert_eq!(epoch, self.maps.config.epoch.wrapping_add(1));
        self.disturbed = false;
        self.store(1, |maps| maps.set_epoch(epoch));
    }

    fn put_names(&mut self, names: &[(u32, ServiceName)]) -> Result<(), TableError> {
        if !self.lives() {
            return Ok(());
        }
        let named = self.named();
        for &(id, name) in names {
            let before = self.names.insert(id, name);
            let is_other = |before: ServiceName| ServiceName { algorithm: name.algorithm, ..before } != name;
            if before.is_some_and(is_other) {
                Family::ALL.into_iter().for_each(|family| self.check_unnamed(&named, LEADS, lead(id, family)));
            }
        }
        self.call(names.len(), |maps, count| maps.put_names(&names[..count]))
    }

    fn delete_names(&mut self, ids: &[u32]) -> Result<(), TableError> {
        if !self.lives() {
            return Ok(());
        }
        let used = |id: &u32| self.maps.frontends.values().any(|value| value.service == *id);
        assert!(!ids.iter().any(used), "a service loses its name before its frontends");
        self.call(ids.len(), |maps, count| maps.delete_names(&ids[..count]))
    }

    fn put_frontends(&mut self, frontends: &[(FrontendKey, Frontend)]) -> Result<(), TableError> {
        if !self.lives() {
            return Ok(());
        }
        for (key, value) in frontends {
            assert!(value.is_of(key));
            assert!(self.maps.names.contains_key(&value.service), "service {} has no name", value.service);
            self.check_sets(value.service, view::family(key), self.sets_of(value.service, view::family(key)));
            let before = self.maps.frontends.get(key);
            self.disturbed |= before.is_some_and(|before| before.service != value.service);
            if key.scope == Scope::ADDRESS {
                let (word, bit) = Filter::place(Filter::frontend(&key.address));
                assert!(self.maps.frontend_filter[word as usize] & bit != 0, "{key:?} is not in the filter yet");
            }
        }
        self.call(frontends.len(), |maps, count| maps.put_frontends(&frontends[..count]))
    }

    fn delete_frontends(&mut self, keys: &[FrontendKey]) -> Result<(), TableError> {
        if !self.lives() {
            return Ok(());
        }
        self.disturbed = true;
        self.call(keys.len(), |maps, count| maps.delete_frontends(&keys[..count]))
    }

    fn put_local_addresses(&mut self, addresses: &[Address]) -> Result<(), TableError> {
        if !self.lives() {
            return Ok(());
        }
        self.call(addresses.len(), |maps, count| maps.put_local_addresses(&addresses[..count]))
    }

    fn delete_local_addresses(&mut self, addresses: &[Address]) -> Result<(), TableError> {
        if !self.lives() {
            return Ok(());
        }
        self.call(addresses.len(), |maps, count| maps.delete_local_addresses(&addresses[..count]))
    }

    fn put_devices(&mut self, devices: &[(u32, Device)]) -> Result<(), TableError> {
        if !self.lives() {
            return Ok(());
        }
        self.call(devices.len(), |maps, count| maps.put_devices(&devices[..count]))
    }

    fn delete_devices(&mut self, indexes: &[u32]) -> Result<(), TableError> {
        if !self.lives() {
            return Ok(());
        }
        self.call(indexes.len(), |maps, count| maps.delete_devices(&indexes[..count]))
    }
}
