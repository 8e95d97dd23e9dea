use std::{net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;
use proxy_common::wire::{Address, Cidr, Config, Device};

use crate::model::{Cluster, Family, Interface, NodePortAddresses, Primary};

/// What the configuration says about this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSettings {
    pub node_port_addresses: NodePortAddresses,
    /// Addresses on which NodePorts answered when this agent started. `primary` means these until the Node object says
    /// better: an agent that starts without one must not close what an earlier agent had opened.
    pub node_ports_before: Vec<IpAddr>,
    /// Clients in these prefixes are pods. The first one of each family counts, as in kube-proxy.
    pub cluster_cidrs: Vec<IpNet>,
    /// Stands for the addresses of the Node object in its family.
    pub bind_address: Option<IpAddr>,
    /// Source ports for masqueraded flows.
    pub masquerade_ports: RangeInclusive<u16>,
    /// In ticks, see [`Config`].
    pub udp_timeout: u32,
    /// In ticks, see [`Config`].
    pub tcp_timeout: u32,
    /// TCP resets and ICMP errors that one CPU may send in a tick.
    pub rejects_per_tick: u32,
}

/// What the maps are to hold about this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeState {
    /// Without the range of NodePorts, which follows the services.
    pub config: Config,
    /// Addresses on which NodePorts answer, sorted.
    pub local_addresses: Vec<Address>,
    /// By interface index, sorted. Devices without a usable address are left out.
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
        address(own.or_else(|| addresses().find(|ip| Family::of(ip) == family && can_send(ip))))
    };
    let primary = primary(cluster, settings);
    let allowed = addresses().filter(|ip| settings.node_port_addresses.allows(ip, &primary));
    let mut local_addresses: Vec<Address> = allowed.map(|&ip| Address::from(ip)).collect();
    local_addresses.sort_unstable();
    local_addresses.dedup();
    let mut devices: Vec<(u32, Device)> =
        interfaces.iter().filter_map(|interface| Some((interface.index, device(interface)?))).collect();
    devices.sort_unstable_by_key(|&(index, _)| index);
    let config = Config {
        cluster: Family::ALL.map(|family| cluster_prefix(&settings.cluster_cidrs, family)),
        node4: node(Family::V4),
        node6: node(Family::V6),
        node_port_min: 1,
        node_port_max: 0,
        masquerade_port_min: *settings.masquerade_ports.start(),
        masquerade_port_max: *settings.masquerade_ports.end(),
        udp_timeout: settings.udp_timeout,
        tcp_timeout: settings.tcp_timeout,
        rejects_per_tick: settings.rejects_per_tick,
    };
    NodeState { config, local_addresses, devices }
}

/// The addresses with which the kernel would masquerade on this device: the first of each family. One that is not
/// valid beyond the link is no use to a flow that is routed.
fn device(interface: &Interface) -> Option<Device> {
    let first = |family| address(interface.addresses.iter().find(|ip| Family::of(ip) == family && can_send(ip)));
    let device = Device { address4: first(Family::V4), address6: first(Family::V6) };
    (device != Device::default()).then_some(device)
}

fn can_send(ip: &IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !ip.is_loopback() && !link_local
}

fn address(ip: Option<&IpAddr>) -> Address {
    ip.map_or(Address::ANY, |&ip| Address::from(ip))
}

fn cluster_prefix(cidrs: &[IpNet], family: Family) -> Cidr {
    let Some(net) = cidrs.iter().find(|net| Family::of(&net.addr()) == family) else { return Cidr::default() };
    let mut mask = Address::from(net.netmask());
    if family == Family::V4 {
        // The mapped prefix is part of what has to match.
        mask.0 = [u32::MAX, u32::MAX, u32::MAX, mask.0[3]];
    }
    Cidr { address: Address::from(net.network()), mask }
}
