use std::ops::AddAssign;

use super::tables::TableError;
use crate::model::Problem;

/// What a call did to the maps.
#[derive(Debug, Default)]
pub struct Report {
    pub writes: Writes,
    /// Services that are refused and frontends that several claim, as of this call: a problem that lasts is not
    /// repeated.
    pub problems: Vec<Problem>,
    /// A write failed; [`super::Reconciler::retry`] has the rest of the work.
    pub error: Option<TableError>,
}

/// Elements written or deleted, by map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    pub names: u64,
    pub frontends: u64,
    pub services: u64,
    pub sets: u64,
    pub slots: u64,
    pub maglev: u64,
    pub backends: u64,
    pub filters: u64,
    pub local_addresses: u64,
    pub devices: u64,
    pub config: u64,
}

impl Writes {
    pub fn total(&self) -> u64 {
        let Self { services, sets, slots, maglev, backends, filters, config, .. } = self;
        self.by_system_call() + services + sets + slots + maglev + backends + filters + config
    }

    /// Of these, the elements of hash maps.
    pub fn by_system_call(&self) -> u64 {
        self.names + self.frontends + self.local_addresses + self.devices
    }
}

impl AddAssign for Writes {
    fn add_assign(&mut self, other: Self) {
        self.names += other.names;
        self.frontends += other.frontends;
        self.services += other.services;
        self.sets += other.sets;
        self.slots += other.slots;
        self.maglev += other.maglev;
        self.backends += other.backends;
        self.filters += other.filters;
        self.local_addresses += other.local_addresses;
        self.devices += other.devices;
        self.config += other.config;
    }
}

impl AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.writes += other.writes;
        self.problems.extend(other.problems);
        self.error = self.error.take().or(other.error);
    }
}
