use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proxy_common::wire::{Address, Config, Device, Filter};

use super::{
    filters::{Counted, Filters},
    report::Writes,
    tables::{Snapshot, TableError, Tables},
};
use crate::desired::NodeState;

/// What the maps hold about this node.
#[derive(Debug, Default)]
pub(super) struct NodeRows {
    wanted: Option<NodeState>,
    /// Addresses and devices are as wanted.
    in_force: bool,
    local_addresses: BTreeSet<Address>,
    devices: BTreeMap<u32, Device>,
    /// Addresses that the filter of frontends has for the node: NodePorts answer on them, or flows are masqueraded with
    /// them, so that replies come to them.
    filtered: BTreeSet<Address>,
    /// `None`: not known, to be written.
    config: Option<Config>,
    epoch: u32,
    /// The epoch is to be raised.
    epoch_is_over: bool,
}

impl NodeRows {
    /// Takes in what the maps hold; what is wanted stays.
    pub fn adopt(&mut self, snapshot: &Snapshot, filter: &mut Counted) {
        self.local_addresses = snapshot.local_addresses.iter().copied().collect();
        self.devices = snapshot.devices.iter().copied().collect();
        let Config { node4, node6, epoch, .. } = snapshot.config;
        self.filtered = filtered(&self.local_addresses, self.devices.values(), [node4, node6]);
        self.filtered.iter().for_each(|address| filter.count(Filter::frontend(address)));
        self.config = None;
        // Whoever wrote before may have been stopped between a change and the end of its epoch.
        (self.epoch, self.epoch_is_over) = (epoch, true);
        self.in_force = false;
    }

    pub fn local_addresses(&self) -> impl Iterator<Item = &Address> {
        self.local_addresses.iter()
    }

    pub fn want(&mut self, state: NodeState) {
        self.wanted = Some(state);
        self.in_force = false;
    }

    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    pub fn end_epoch(&mut self) {
        self.epoch_is_over = true;
    }

    /// Raises the epoch if it is over: after the writes that ended it.
    pub fn raise_epoch(&mut self, tables: &mut impl Tables, writes: &mut Writes) {
        if std::mem::take(&mut self.epoch_is_over) {
            self.epoch = self.epoch.wrapping_add(1);
            writes.config += 1;
            tables.set_epoch(self.epoch);
        }
    }

    /// The configuration with this range of NodePorts, if the map does not hold it; the caller writes it.
    pub fn config_to_write(&mut self, node_ports: Option<(u16, u16)>) -> Option<Config> {
        let (node_port_min, node_port_max) = node_ports.unwrap_or((1, 0));
        let config = Config { node_port_min, node_port_max, epoch: 0, ..self.wanted.as_ref()?.config };
        let differs = self.config.replace(config) != Some(config);
        differs.then_some(Config { epoch: self.epoch, ..config })
    }

    /// Writes addresses and devices that differ. What is new comes first: an address that moves is never missing.
    pub fn write(
        &mut self,
        tables: &mut impl Tables,
        filters: &mut Filters,
        now: Duration,
        writes: &mut Writes,
    ) -> Result<(), TableError> {
        let Some(wanted) = self.wanted.as_ref().filter(|_| !self.in_force) else { return Ok(()) };
        let local_addresses = wanted.local_addresses.iter().copied().collect();
        let devices: BTreeMap<u32, Device> = wanted.devices.iter().copied().collect();
        let masquerading = [wanted.config.node4, wanted.config.node6];
        let filtered = filtered(&local_addresses, devices.values(), masquerading);
        for address in filtered.difference(&self.filtered) {
            filters.frontends.want(tables, Filter::frontend(address), writes);
        }
        write_addresses(tables, &self.local_addresses, &local_addresses, writes)?;
        write_devices(tables, &self.devices, &devices, writes)?;
        for address in self.filtered.difference(&filtered) {
            filters.frontends.drop(Filter::frontend(address), now);
        }
        (self.local_addresses, self.devices, self.filtered) = (local_addresses, devices, filtered);
        self.in_force = true;
        Ok(())
    }
}

fn filtered<'a>(
    local_addresses: &BTreeSet<Address>,
    devices: impl Iterator<Item = &'a Device>,
    masquerading: [Address; 2],
) -> BTreeSet<Address> {
    let of_device = |device: &'a Device| {
        let v4 = device.networks4.iter().filter(|network| network.address != 0);
        v4.map(|network| Address::from_v4(network.address))
            .chain(device.networks6.iter().map(|network| network.address))
    };
    let all = devices.flat_map(of_device).chain(masquerading).filter(|address| *address != Address::ANY);
    all.chain(local_addresses.iter().copied()).collect()
}

fn write_addresses(
    tables: &mut impl Tables,
    held: &BTreeSet<Address>,
    wanted: &BTreeSet<Address>,
    writes: &mut Writes,
) -> Result<(), TableError> {
    let new: Vec<Address> = wanted.difference(held).copied().collect();
    let old: Vec<Address> = held.difference(wanted).copied().collect();
    writes.local_addresses += (new.len() + old.len()) as u64;
    if !new.is_empty() {
        tables.put_local_addresses(&new)?;
    }
    if !old.is_empty() {
        tables.delete_local_addresses(&old)?;
    }
    Ok(())
}

fn write_devices(
    tables: &mut impl Tables,
    held: &BTreeMap<u32, Device>,
    wanted: &BTreeMap<u32, Device>,
    writes: &mut Writes,
) -> Result<(), TableError> {
    let differs = |(index, device): &(&u32, &Device)| held.get(index) != Some(*device);
    let new: Vec<(u32, Device)> = wanted.iter().filter(differs).map(|(&index, &device)| (index, device)).collect();
    let old: Vec<u32> = held.keys().filter(|index| !wanted.contains_key(index)).copied().collect();
    writes.devices += (new.len() + old.len()) as u64;
    if !new.is_empty() {
        tables.put_devices(&new)?;
    }
    if !old.is_empty() {
        tables.delete_devices(&old)?;
    }
    Ok(())
}
