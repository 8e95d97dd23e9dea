use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::device::{Device, DeviceAddress, Kind};
use super::message::Told;
use crate::model::Family;

/// The devices of the network namespace, as the messages of the kernel leave them. Pure: what messages do not tell is
/// noted in [`Touched`] for somebody else to ask.
///
/// Messages may come late, when a listing has shown what they tell already. Each describes its whole object, so the
/// last one of an object leaves it as it is.
#[derive(Debug, Default)]
pub struct Inventory {
    devices: BTreeMap<u32, Device>,
    /// Ports by the index of their bridge, bond or VRF, which may not be there yet.
    ports: BTreeMap<u32, BTreeSet<u32>>,
    /// Who has an address, among devices of one kind.
    holders: BTreeMap<(IpAddr, Kind), BTreeSet<u32>>,
}

/// What has come of changes, and has to be dealt with.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Devices that came, changed or went.
    pub devices: BTreeSet<u32>,
    /// Devices that went; another one may have come with the index of one.
    pub gone: BTreeSet<u32>,
    /// Devices whose role may be another one now; they may be gone.
    pub roles: BTreeSet<u32>,
    /// Devices to be asked for.
    pub unsure: BTreeSet<u32>,
    /// Devices whose addresses of a family are to be asked for, since messages do not tell their order.
    pub unordered: BTreeSet<(u32, Family)>,
    /// A device whose role depends on routes has changed, and its routes may have.
    pub routes: bool,
}

impl Inventory {
    pub fn get(&self, index: u32) -> Option<&Device> {
        self.devices.get(&index)
    }

    /// By index.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values()
    }

    /// The bridge, bond or VRF that a device is a port of.
    pub fn controller(&self, device: &Device) -> Option<&Device> {
        self.devices.get(&device.controller?)
    }

    pub fn ports(&self, controller: u32) -> impl Iterator<Item = &Device> {
        self.ports.get(&controller).into_iter().flatten().filter_map(|index| self.devices.get(index))
    }

    /// How many devices of a kind have an address.
    pub fn holders(&self, ip: IpAddr, kind: Kind) -> usize {
        self.holders.get(&(ip, kind)).map_or(0, BTreeSet::len)
    }

    /// Takes in a message.
    pub fn take(&mut self, told: Told, touched: &mut Touched) {
        match told {
            Told::Device(device) => {
                touched.unsure.extend(self.unsure_about(&device));
                self.update(device, touched);
            }
            Told::DeviceGone { index, peer } => {
                // Its other end lives on only if it was moved to another network namespace.
                touched.unsure.extend(peer.filter(|peer| self.devices.contains_key(peer)));
                self.remove(index, touched);
            }
            Told::Address(index, address) => self.add_address(index, address, touched),
            Told::AddressGone(index, address) => {
                if let Some(mut device) = self.devices.get(&index).cloned() {
                    device.addresses.retain(|other| !other.is_same(&address));
                    self.put(index, Some(device), touched);
                }
            }
        }
    }

    /// Takes in a device as it was asked for, without addresses.
    pub fn update(&mut self, mut device: Device, touched: &mut Touched) {
        if let Some(known) = self.devices.get(&device.index) {
            device.addresses.clone_from(&known.addresses);
            device.gateway = known.gateway;
        }
        self.put(device.index, Some(device), touched);
    }

    /// Takes in the addresses of a device as they were asked for.
    pub fn set_addresses(&mut self, index: u32, family: Family, list: Vec<DeviceAddress>, touched: &mut Touched) {
        if let Some(mut device) = self.devices.get(&index).cloned() {
            device.addresses.retain(|address| address.family() != family);
            device.addresses.extend(list);
            self.put(index, Some(device), touched);
        }
    }

    /// Takes in a listing of everything but routes.
    pub fn replace(&mut self, list: Vec<Device>, touched: &mut Touched) {
        let listed: BTreeSet<u32> = list.iter().map(|device| device.index).collect();
        let gone: Vec<u32> = self.devices.keys().filter(|index| !listed.contains(index)).copied().collect();
        for index in gone {
            self.remove(index, touched);
        }
        for mut device in list {
            device.gateway = self.devices.get(&device.index).is_some_and(|known| known.gateway);
            self.put(device.index, Some(device), touched);
        }
        touched.unsure.clear();
        touched.unordered.clear();
        touched.routes = true;
    }

    /// Takes in the devices through which a route with a gateway leaves.
    pub fn set_gateways(&mut self, gateways: &BTreeSet<u32>, touched: &mut Touched) {
        let other: Vec<u32> = self
            .devices
            .values()
            .filter(|device| device.gateway != gateways.contains(&device.index))
            .map(|device| device.index)
            .collect();
        for index in other {
            if let Some(mut device) = self.devices.get(&index).cloned() {
                device.gateway = !device.gateway;
                self.put(index, Some(device), touched);
            }
        }
        touched.routes = false;
    }

    /// Devices whose description in messages may be behind, now that one is told to be like this. The two ends of a
    /// pair are made, and moved between network namespaces, one after the other, and only one of them is told of.
    fn unsure_about(&self, device: &Device) -> Option<u32> {
        if device.kind != Kind::Veth || device.peer_elsewhere {
            return None;
        }
        match device.peer {
            // The first end, before there was a second one.
            None => Some(device.index),
            Some(peer) => self.devices.get(&peer).filter(|peer| peer.peer_elsewhere).map(|peer| peer.index),
        }
    }

    fn add_address(&mut self, index: u32, address: DeviceAddress, touched: &mut Touched) {
        let Some(mut device) = self.devices.get(&index).cloned() else { return };
        match device.addresses.iter_mut().find(|other| other.is_same(&address)) {
            Some(known) => *known = address,
            None => device.addresses.push(address),
        }
        let family = address.family();
        if device.addresses.iter().filter(|other| other.family() == family).count() > 1 {
            touched.unordered.insert((index, family));
        }
        self.put(index, Some(device), touched);
    }

    /// Takes in that a device is gone.
    pub fn remove(&mut self, index: u32, touched: &mut Touched) {
        if self.devices.contains_key(&index) {
            touched.gone.insert(index);
            self.put(index, None, touched);
        }
    }

    /// The one place where devices change: keeps the indexes and notes what depends on the change.
    fn put(&mut self, index: u32, new: Option<Device>, touched: &mut Touched) {
        let old = match &new {
            Some(device) if self.devices.get(&index) == Some(device) => return,
            Some(device) => self.devices.insert(index, device.clone()),
            None => self.devices.remove(&index),
        };
        touched.devices.insert(index);
        touched.roles.insert(index);
        touched.routes |= [&old, &new].into_iter().flatten().any(Device::depends_on_routes);

        let [before, after] = [&old, &new].map(|device| device.as_ref().and_then(|device| device.controller));
        if before != after {
            if let Some(controller) = before {
                remove_from(&mut self.ports, controller, index);
            }
            if let Some(controller) = after {
                self.ports.entry(controller).or_default().insert(index);
            }
        }
        // A bridge looks at its ports, a port at its bridge.
        touched.roles.extend([before, after].into_iter().flatten());
        let [before, after] = [&old, &new].map(|device| device.as_ref().map(|device| device.kind));
        if before != after {
            touched.roles.extend(self.ports.get(&index).into_iter().flatten());
        }

        let [before, after] = [&old, &new].map(|device| device.as_ref().map(held).unwrap_or_default());
        for held in before.difference(&after) {
            remove_from(&mut self.holders, *held, index);
        }
        for held in after.difference(&before) {
            self.holders.entry(*held).or_default().insert(index);
        }
        // Whether an address is held by one device or by several makes a difference; by how many does not.
        for held in before.symmetric_difference(&after) {
            touched.roles.extend(self.holders.get(held).into_iter().filter(|all| all.len() <= 2).flatten());
        }
    }
}

fn held(device: &Device) -> BTreeSet<(IpAddr, Kind)> {
    device.addresses.iter().map(|address| (address.ip, device.kind)).collect()
}

fn remove_from<K: Ord>(sets: &mut BTreeMap<K, BTreeSet<u32>>, key: K, index: u32) {
    if let Some(set) = sets.get_mut(&key) {
        set.remove(&index);
        if set.is_empty() {
            sets.remove(&key);
        }
    }
}

#[cfg(test)]
#[path = "inventory_tests.rs"]
mod tests;
