use std::{collections::HashMap, time::Duration};

use proxy_common::wire::{Address, Filter};

use super::{
    report::Writes,
    tables::{FilterMap, Snapshot, Tables},
};

/// Both filters.
#[derive(Debug)]
pub(super) struct Filters {
    pub frontends: Counted,
    pub targets: Counted,
}

/// A filter in the maps: a bit is set before the first frontend, address or backend that needs it can be found, and
/// cleared once neither the maps nor any flow does: packets of a flow that its frontend or backend has left behind would
/// be taken for strangers.
#[derive(Debug)]
pub(super) struct Counted {
    filter: FilterMap,
    /// By number: for how many it is wanted.
    counts: Vec<u32>,
    /// As the map holds them.
    words: Vec<u32>,
    /// Wanted numbers whose bit the map was found without.
    missing: Vec<u32>,
    /// Numbers that the maps do not want any more but whose bit is set, and since when.
    idle: HashMap<u32, Duration>,
}

/// What the flows of the node need of the filters, as words of the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowNeeds {
    frontends: Vec<u32>,
    targets: Vec<u32>,
}

impl FlowNeeds {
    /// Those of no flow.
    pub fn none() -> Self {
        let words = |bits| vec![0; Filter::words(bits) as usize];
        Self { frontends: words(Filter::FRONTENDS), targets: words(Filter::TARGETS) }
    }

    /// Packets to this address belong to a flow.
    pub fn add_frontend(&mut self, address: &Address) {
        set(&mut self.frontends, Filter::frontend(address));
    }

    /// A flow leads to this endpoint. `port` is in network order.
    pub fn add_target(&mut self, address: &Address, port: u16, protocol: u8) {
        set(&mut self.targets, Filter::target(address, port, protocol));
    }
}

impl Filters {
    /// Starts with what the maps hold. What wants it is told by [`Counted::count`], then [`Filters::settle`].
    pub fn adopt(snapshot: &Snapshot) -> Self {
        Self {
            frontends: Counted::new(FilterMap::Frontends, Filter::FRONTENDS, &snapshot.frontend_filter),
            targets: Counted::new(FilterMap::Targets, Filter::TARGETS, &snapshot.target_filter),
        }
    }

    /// Ends the counting of what was found.
    pub fn settle(&mut self, now: Duration) {
        self.frontends.settle(now);
        self.targets.settle(now);
    }

    /// Sets the bits that the maps were found without.
    pub fn repair(&mut self, tables: &mut impl Tables, writes: &mut Writes) {
        self.frontends.repair(tables, writes);
        self.targets.repair(tables, writes);
    }

    /// Clears the bits that nothing wants any more, by what the flows needed at `as_of`.
    pub fn forget(
        &mut self,
        tables: &mut impl Tables,
        needs: &FlowNeeds,
        as_of: Duration,
        grace: Duration,
        writes: &mut Writes,
    ) {
        self.frontends.forget(tables, &needs.frontends, as_of, grace, writes);
        self.targets.forget(tables, &needs.targets, as_of, grace, writes);
    }
}

impl Counted {
    fn new(filter: FilterMap, bits: u32, found: &[u32]) -> Self {
        let mut words = found.to_vec();
        words.resize(Filter::words(bits) as usize, 0);
        Self { filter, counts: vec![0; bits as usize], words, missing: Vec::new(), idle: HashMap::new() }
    }

    /// Counts something that was found in the maps.
    pub fn count(&mut self, number: u32) {
        self.raise(number);
        if !is_set(&self.words, number) {
            self.missing.push(number);
        }
    }

    /// Whatever else is set is not wanted.
    fn settle(&mut self, now: Duration) {
        for (word, bits) in (0..).zip(&self.words).filter(|(_, bits)| **bits != 0) {
            let numbers =
                (word * u32::BITS..).take(u32::BITS as usize).filter(|number| bits & Filter::place(*number).1 != 0);
            self.idle.extend(numbers.filter(|&number| count_of(&self.counts, number) == 0).map(|number| (number, now)));
        }
    }

    fn repair(&mut self, tables: &mut impl Tables, writes: &mut Writes) {
        for number in std::mem::take(&mut self.missing) {
            if count_of(&self.counts, number) > 0 {
                self.set(tables, number, writes);
            }
        }
    }

    /// One more wants it.
    pub fn want(&mut self, tables: &mut impl Tables, number: u32, writes: &mut Writes) {
        self.raise(number);
        self.set(tables, number, writes);
    }

    /// One less does.
    pub fn drop(&mut self, number: u32, now: Duration) {
        if let Some(count) = self.counts.get_mut(number as usize) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.idle.insert(number, now);
            }
        }
    }

    fn raise(&mut self, number: u32) {
        if let Some(count) = self.counts.get_mut(number as usize) {
            *count += 1;
        }
    }

    fn set(&mut self, tables: &mut impl Tables, number: u32, writes: &mut Writes) {
        if is_set(&self.words, number) {
            return;
        }
        set(&mut self.words, number);
        self.write(tables, number, writes);
    }

    fn write(&self, tables: &mut impl Tables, number: u32, writes: &mut Writes) {
        let (word, _) = Filter::place(number);
        writes.filters += 1;
        tables.set_filter(self.filter, word, self.words.get(word as usize).copied().unwrap_or_default());
    }

    fn forget(
        &mut self,
        tables: &mut impl Tables,
        needed: &[u32],
        as_of: Duration,
        grace: Duration,
        writes: &mut Writes,
    ) {
        let mut idle = std::mem::take(&mut self.idle);
        idle.retain(|&number, since| {
            if count_of(&self.counts, number) > 0 {
                return false;
            }
            // A program that found a frontend just before it went may enter a flow a little later.
            if *since + grace > as_of || is_set(needed, number) {
                return true;
            }
            let (word, bit) = Filter::place(number);
            if let Some(bits) = self.words.get_mut(word as usize) {
                *bits &= !bit;
            }
            self.write(tables, number, writes);
            false
        });
        self.idle = idle;
    }
}

fn count_of(counts: &[u32], number: u32) -> u32 {
    counts.get(number as usize).copied().unwrap_or_default()
}

fn is_set(words: &[u32], number: u32) -> bool {
    let (word, bit) = Filter::place(number);
    words.get(word as usize).is_some_and(|bits| bits & bit != 0)
}

fn set(words: &mut [u32], number: u32) {
    let (word, bit) = Filter::place(number);
    if let Some(bits) = words.get_mut(word as usize) {
        *bits |= bit;
    }
}
