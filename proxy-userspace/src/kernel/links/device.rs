use std::net::IpAddr;

use ipnet::IpNet;
use proxy_common::datapath::Link;

use crate::model::{Family, Interface};

/// What a device is, as far as its role depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Loopback,
    /// A device without a kind in netlink: real and virtual hardware.
    Hardware,
    Veth,
    Bridge,
    /// Bonds and teams.
    Bond,
    /// VLAN, macvlan and ipvlan: a device on top of another one.
    Stacked,
    /// VXLAN, Geneve, IP in IP, GRE, WireGuard, tun ...
    Tunnel,
    /// A tap device: most often the host side of a virtual machine.
    Tap,
    /// Carries no traffic of other machines: dummy, ifb, VRF ...
    Other,
}

/// An address of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceAddress {
    pub ip: IpAddr,
    pub prefix: u8,
    /// The address of the far end; the same as `ip` but on point-to-point devices.
    pub far: IpAddr,
    /// Of global scope: other machines may use it.
    pub global: bool,
    /// Not to be used for new flows: tentative or deprecated.
    pub poor: bool,
    /// A second one of its network, or for IPv6 a temporary one (the same bit): never what the kernel chooses itself.
    pub secondary: bool,
}

/// A network device, with what netlink says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub index: u32,
    pub name: String,
    pub kind: Kind,
    pub up: bool,
    /// How its packets begin; `None` for media that the programs do not understand.
    pub link: Option<Link>,
    /// Index of its other end, or of the device below it, in that one's network namespace.
    pub peer: Option<u32>,
    /// Its other end, or the device below it, is in another network namespace.
    pub peer_elsewhere: bool,
    /// Index of the bridge, bond or VRF that it is a port of.
    pub controller: Option<u32>,
    pub addresses: Vec<DeviceAddress>,
    /// A route with a gateway leaves through it.
    pub gateway: bool,
}

impl DeviceAddress {
    pub fn family(&self) -> Family {
        Family::of(&self.ip)
    }

    /// Whether both are the same address, whatever has become of it.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.ip, self.prefix, self.far) == (other.ip, other.prefix, other.far)
    }

    /// Has a network behind it, where other machines may be.
    pub fn is_outward(&self) -> bool {
        self.global && self.prefix < if self.ip.is_ipv4() { 32 } else { 128 }
    }
}

impl Device {
    pub fn global_addresses(&self) -> impl Iterator<Item = &DeviceAddress> {
        self.addresses.iter().filter(|address| address.global)
    }

    /// Whether its role depends on whether a route with a gateway leaves through it.
    pub fn depends_on_routes(&self) -> bool {
        let has_address = self.global_addresses().next().is_some();
        match self.kind {
            Kind::Veth | Kind::Tap => self.has_outward_address() && self.controller.is_none(),
            Kind::Bridge => has_address,
            Kind::Hardware | Kind::Bond | Kind::Stacked => !has_address && self.controller.is_none(),
            Kind::Loopback | Kind::Tunnel | Kind::Other => false,
        }
    }

    /// Routed CNIs give the host side of a pod link the pod's gateway address, but as a host prefix (/32, /128).
    pub fn has_outward_address(&self) -> bool {
        self.addresses.iter().any(DeviceAddress::is_outward)
    }

    /// As the rest of the agent sees it.
    pub fn interface(&self) -> Interface {
        let of = |family| self.addresses.iter().filter(move |address| address.family() == family);
        let mut addresses = Vec::new();
        for family in Family::ALL {
            let good = |address: &&DeviceAddress| !address.poor && !is_link_local(&address.ip);
            let before = addresses.len();
            addresses.extend(of(family).filter(good).map(|address| address.ip));
            if addresses.len() == before {
                addresses.extend(of(family).map(|address| address.ip));
            }
        }
        // `inet_select_addr` (net/ipv4/devinet.c) looks through the primary ones of global scope.
        let usable = |address: &&DeviceAddress| address.global && !address.poor && !address.secondary;
        let networks = self.addresses.iter().filter(usable);
        let networks = networks.filter_map(|address| IpNet::new(address.ip, address.prefix).ok()).collect();
        Interface { index: self.index, name: self.name.clone(), controller: self.controller, addresses, networks }
    }
}

fn is_link_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(addresses: &[(&str, bool)]) -> Device {
        let addresses = addresses
            .iter()
            .map(|(ip, poor)| {
                let ip: IpAddr = ip.parse().unwrap();
                let global = !is_link_local(&ip);
                DeviceAddress { ip, prefix: 24, far: ip, global, poor: *poor, secondary: false }
            })
            .collect();
        Device {
            index: 2,
            name: "eth0".into(),
            kind: Kind::Hardware,
            up: true,
            link: Some(Link::Ethernet),
            peer: None,
            peer_elsewhere: false,
            controller: None,
            addresses,
            gateway: false,
        }
    }

    fn shown(device: &Device) -> Vec<String> {
        device.interface().addresses.iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn poor_addresses_count_only_where_there_is_no_other() {
        let both = device(&[
            ("fe80::1", false),
            ("10.0.0.1", false),
            ("fd00::2", true),
            ("fd00::1", false),
            ("10.0.0.2", true),
        ]);
        assert_eq!(shown(&both), ["10.0.0.1", "fd00::1"]);
        assert_eq!(shown(&device(&[("fe80::1", false), ("10.0.0.1", true)])), ["10.0.0.1", "fe80::1"]);
        assert!(shown(&device(&[])).is_empty());
    }

    #[test]
    fn the_order_of_the_kernel_is_kept() {
        assert_eq!(shown(&device(&[("10.0.0.9", false), ("10.0.0.1", false)])), ["10.0.0.9", "10.0.0.1"]);
    }

    #[test]
    fn a_flow_is_masqueraded_with_what_the_kernel_would_choose() {
        let mut eth0 = device(&[
            ("fe80::1", false),
            ("10.0.0.9", false),
            ("10.0.0.1", false),
            ("192.0.2.1", false),
            ("fd00::2", true),
            ("fd00::1", false),
        ]);
        eth0.addresses[2].secondary = true;
        let networks: Vec<String> = eth0.interface().networks.iter().map(IpNet::to_string).collect();
        assert_eq!(networks, ["10.0.0.9/24", "192.0.2.1/24", "fd00::1/24"]);
    }
}
