use std::collections::{BTreeMap, BTreeSet};

use proxy_common::wire::{Address, Config, Device};

use super::{
    report::Writes,
    tables::{Snapshot, TableError, Tables},
};
use crate::desired::NodeState;

/// What the maps hold about this node.
#[derive(Debug, Default)]
pub(super) struct Node {
    wanted: Option<NodeState>,
    /// Addresses and devices are as wanted.
    in_force: bool,
    local_addresses: BTreeSet<Address>,
    devices: BTreeMap<u32, Device>,
    /// `None`: not known, to be written.
    config: Option<Config>,
}

impl Node {
    /// Takes in what the maps hold; what is wanted stays.
    pub fn adopt(&mut self, snapshot: &Snapshot) {
        self.local_addresses = snapshot.local_addresses.iter().copied().collect();
        self.devices = snapshot.devices.iter().copied().collect();
        self.config = None;
        self.in_force = false;
    }

    pub fn local_addresses(&self) -> impl Iterator<Item = &Address> {
        self.local_addresses.iter()
    }

    pub fn want(&mut self, state: NodeState) {
        self.wanted = Some(state);
        self.in_force = false;
    }

    /// The configuration with this range of NodePorts, if the map does not hold it; the caller writes it.
    pub fn config_to_write(&mut self, node_ports: Option<(u16, u16)>) -> Option<Config> {
        let (node_port_min, node_port_max) = node_ports.unwrap_or((1, 0));
        let config = Config { node_port_min, node_port_max, ..self.wanted.as_ref()?.config };
        (self.config.replace(config) != Some(config)).then_some(config)
    }

    /// Writes addresses and devices that differ. What is new comes first: an address that moves is never missing.
    pub fn write(&mut self, tables: &mut impl Tables, writes: &mut Writes) -> Result<(), TableError> {
        let Some(wanted) = self.wanted.as_ref().filter(|_| !self.in_force) else { return Ok(()) };
        let new: Vec<Address> =
            wanted.local_addresses.iter().filter(|address| !self.local_addresses.contains(*address)).copied().collect();
        let old: Vec<Address> =
            self.local_addresses.iter().filter(|address| !wanted.local_addresses.contains(address)).copied().collect();
        if !new.is_empty() {
            writes.local_addresses += new.len() as u64;
            tables.put_local_addresses(&new)?;
        }
        if !old.is_empty() {
            writes.local_addresses += old.len() as u64;
            tables.delete_local_addresses(&old)?;
        }
        self.local_addresses = wanted.local_addresses.iter().copied().collect();

        let new: Vec<(u32, Device)> =
            wanted.devices.iter().filter(|(index, device)| self.devices.get(index) != Some(device)).copied().collect();
        let old: Vec<u32> = self
            .devices
            .keys()
            .filter(|index| !wanted.devices.iter().any(|(other, _)| other == *index))
            .copied()
            .collect();
        if !new.is_empty() {
            writes.devices += new.len() as u64;
            tables.put_devices(&new)?;
        }
        if !old.is_empty() {
            writes.devices += old.len() as u64;
            tables.delete_devices(&old)?;
        }
        self.devices = wanted.devices.iter().copied().collect();
        self.in_force = true;
        Ok(())
    }
}
