use std::{collections::HashMap, net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;
use proxy_common::wire::{
    Address, Cidr, Config, ConfigFlags, Device, DeviceFlags, NETWORKS, Network4, Network6, Timeouts,
};

use crate::model::{Cluster, Family, Interface, NodePortAddresses, Primary};

/// What the configuration and the kernel say about this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSettings {
    pub node_port_addresses: NodePortAddresses,
    /// Addresses on which NodePorts answered when this agent started. `primary` means these until the Node object says
    /// better: an agent that starts without one must not close what an earlier agent had opened.
    pub node_ports_before: Vec<IpAddr>,
    /// Stands for the addresses of the Node object in its family.
    pub bind_address: Option<IpAddr>,
    /// Source ports for masqueraded flows.
    pub masquerade_ports: RangeInclusive<u16>,
    pub timeouts: Timeouts,
    /// TCP resets and ICMP errors that one CPU may send in a tick.
    pub rejects_per_tick: u32,
    pub seats: Seats,
    /// Whether translated flows may pass the stack by, for IPv4 and IPv6: nobody looks at them there.
    pub fast: [bool; 2],
}

/// Places in the rings that bound the flows of the node, for IPv4 and IPv6; powers of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seats {
    /// Of flows that have not proved themselves, on each CPU.
    pub opening: [u32; 2],
    /// Of those that have.
    pub proven: [u32; 2],
}

/// What the maps are to hold about this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeState {
    /// Without the range of NodePorts, which follows the services, and without the epoch.
    pub config: Config,
    /// Addresses on which NodePorts answer, sorted.
    pub local_addresses: Vec<Address>,
    /// By interface index, sorted. Devices of which there is nothing to say are left out.
    pub devices: Vec<(u32, Device)>,
}

/// The addresses by which the cluster knows this node or knew it last, the primary ones of each family first.
pub fn node_addresses(cluster: &Cluster, settings: &NodeSettings) -> Vec<IpAddr> {
    let reported = cluster.node_addresses().iter().copied();
    match settings.bind_address {
        Some(bind) => {
            let rest = reported.filter(|ip| Family::of(ip) != Family::of(&bind));
            std::iter::once(bind).chain(rest).collect()
        }
        None => reported.collect(),
    }
}

/// What `primary` means now.
fn primary(cluster: &Cluster, settings: &NodeSettings) -> Primary {
    let known = node_addresses(cluster, settings);
    if !cluster.node_addresses().is_empty() {
        return Primary::Known(known);
    }
    // Only the address of the configuration is known, which speaks for its family.
    let is_told = |ip: &IpAddr| settings.bind_address.is_some_and(|bind| Family::of(&bind) == Family::of(ip));
    let before = settings.node_ports_before.iter().filter(|ip| !is_told(ip));
    Primary::Unknown(known.iter().chain(before).copied().collect())
}

/// Compiles the state of the node from its devices and its object.
pub fn node_state(interfaces: &[Interface], cluster: &Cluster, settings: &NodeSettings) -> NodeState {
    let reported = &node_addresses(cluster, settings);
    let addresses = || interfaces.iter().flat_map(|interface| &interface.addresses);
    // A reported address that no device has, as behind the address translation of a cloud, is not one to send from.
    let node = |family: Family| {
        let own = reported.iter().find(|ip| Family::of(ip) == family && addresses().any(|other| other == *ip));
        let found = own.or_else(|| addresses().find(|ip| Family::of(ip) == family && can_send(ip)));
        found.map_or(Address::ANY, |&ip| Address::from(ip))
    };
    let primary = primary(cluster, settings);
    let allowed = addresses().filter(|ip| settings.node_port_addresses.allows(ip, &primary));
    let mut local_addresses: Vec<Address> = allowed.map(|&ip| Address::from(ip)).collect();
    local_addresses.sort_unstable();
    local_addresses.dedup();
    let names: HashMap<u32, &str> =
        interfaces.iter().map(|interface| (interface.index, interface.name.as_str())).collect();
    let detect_local = &cluster.settings().detect_local;
    let known = |interface: &Interface| {
        let mut device = device(interface);
        let controller = interface.controller.and_then(|index| names.get(&index)).copied();
        if detect_local.by_device(&interface.name, controller) == Some(true) {
            device.flags |= DeviceFlags::PODS;
        }
        (device != Device::default()).then_some((interface.index, device))
    };
    let mut devices: Vec<(u32, Device)> = interfaces.iter().filter_map(known).collect();
    devices.sort_unstable_by_key(|&(index, _)| index);
    let config = Config {
        pods: Family::ALL.map(|family| cluster.pod_prefix(family).map(cidr).unwrap_or_default()),
        node4: node(Family::V4),
        node6: node(Family::V6),
        node_port_min: 1,
        node_port_max: 0,
        masquerade_port_min: *settings.masquerade_ports.start(),
        masquerade_port_max: *settings.masquerade_ports.end(),
        flags: flags(cluster, settings),
        epoch: 0,
        timeouts: settings.timeouts,
        rejects_per_tick: settings.rejects_per_tick,
        opening_seats4: settings.seats.opening[0],
        opening_seats6: settings.seats.opening[1],
        proven_seats4: settings.seats.proven[0],
        proven_seats6: settings.seats.proven[1],
    };
    NodeState { config, local_addresses, devices }
}

fn flags(cluster: &Cluster, settings: &NodeSettings) -> u32 {
    let [fast4, fast6] = settings.fast;
    let by_address = |family| cluster.pod_prefix(family).is_some();
    let by_device = cluster.settings().detect_local.is_by_device();
    [
        (by_address(Family::V4), ConfigFlags::PODS_BY_ADDRESS4),
        (by_address(Family::V6), ConfigFlags::PODS_BY_ADDRESS6),
        (by_device, ConfigFlags::PODS_BY_DEVICE),
        (fast4, ConfigFlags::FAST4),
        (fast6, ConfigFlags::FAST6),
        (settings.node_port_addresses.allows_loopback(Family::V4), ConfigFlags::LOOPBACK4),
        (settings.node_port_addresses.allows_loopback(Family::V6), ConfigFlags::LOOPBACK6),
    ]
    .into_iter()
    .fold(0, |flags, (is_set, flag)| if is_set { flags | flag } else { flags })
}

fn device(interface: &Interface) -> Device {
    let mut device = Device::default();
    let usable = |family| {
        let usable = move |net: &&IpNet| Family::of(&net.addr()) == family && can_send(&net.addr());
        interface.networks.iter().filter(usable).take(NETWORKS)
    };
    for (place, net) in device.networks4.iter_mut().zip(usable(Family::V4)) {
        let Cidr { address, mask } = network(net);
        *place = Network4 { address: address.0[3], mask: mask.0[3] };
    }
    for (place, net) in device.networks6.iter_mut().zip(usable(Family::V6)) {
        let Cidr { address, mask } = network(net);
        *place = Network6 { address, mask };
    }
    device
}

/// Valid beyond the link: other addresses are no use to a flow that is routed.
fn can_send(ip: &IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !ip.is_loopback() && !link_local
}

/// An address with the mask of its network.
fn network(net: &IpNet) -> Cidr {
    let mut mask = Address::from(net.netmask());
    if net.addr().is_ipv4() {
        // The mapped prefix is part of what has to match.
        mask.0 = [u32::MAX, u32::MAX, u32::MAX, mask.0[3]];
    }
    Cidr { address: Address::from(net.addr()), mask }
}

fn cidr(net: IpNet) -> Cidr {
    network(&net.trunc())
}
