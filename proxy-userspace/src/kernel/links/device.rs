use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};
use proxy_common::datapath::Link;

use crate::model::{Family, Interface};

/// What a device is, as far as its role depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// How its packets begin; `None` for media that the programs do not understand.
    pub link: Option<Link>,
    /// Its other end, or the device below it, is in another network namespace.
    pub peer_elsewhere: bool,
    /// Index of the bridge, bond or VRF that it is a port of.
    pub controller: Option<u32>,
    pub addresses: Vec<DeviceAddress>,
    /// A route with a gateway leaves through it.
    pub gateway: bool,
}

impl Device {
    /// `None`: a message about a device without a name.
    pub fn from_message(message: &LinkMessage) -> Option<Self> {
        let mut device = Self {
            index: message.header.index,
            name: String::new(),
            kind: Kind::Hardware,
            link: link_of(message.header.link_layer_type),
            peer_elsewhere: false,
            controller: None,
            addresses: Vec::new(),
            gateway: false,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => device.name.clone_from(name),
                LinkAttribute::Controller(index) if *index != 0 => device.controller = Some(*index),
                LinkAttribute::LinkNetNsId(_) => device.peer_elsewhere = true,
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        if let LinkInfo::Kind(kind) = info {
                            device.kind = kind_of(kind, device.link);
                        }
                    }
                }
                _ => {}
            }
        }
        if message.header.flags.contains(LinkFlags::Loopback) {
            device.kind = Kind::Loopback;
        }
        (!device.name.is_empty()).then_some(device)
    }

    pub fn global_addresses(&self) -> impl Iterator<Item = &DeviceAddress> {
        self.addresses.iter().filter(|address| address.global)
    }

    /// As the rest of the agent sees it.
    pub fn interface(&self) -> Interface {
        let of = |family| self.addresses.iter().filter(move |address| Family::of(&address.ip) == family);
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

fn link_of(layer: LinkLayerType) -> Option<Link> {
    use LinkLayerType as Layer;
    match layer {
        Layer::Ether | Layer::Loopback => Some(Link::Ethernet),
        Layer::None
        | Layer::Rawip
        | Layer::Tunnel
        | Layer::Tunnel6
        | Layer::Sit
        | Layer::Ipgre
        | Layer::Ip6gre
        | Layer::Ppp => Some(Link::Ip),
        _ => None,
    }
}

fn kind_of(kind: &InfoKind, link: Option<Link>) -> Kind {
    match kind {
        InfoKind::Veth | InfoKind::Netkit => Kind::Veth,
        InfoKind::Bridge => Kind::Bridge,
        InfoKind::Bond | InfoKind::Team => Kind::Bond,
        InfoKind::Vlan | InfoKind::MacVlan | InfoKind::IpVlan => Kind::Stacked,
        InfoKind::Tun if link == Some(Link::Ethernet) => Kind::Tap,
        InfoKind::Tun
        | InfoKind::Vxlan
        | InfoKind::Geneve
        | InfoKind::IpIp
        | InfoKind::Ip6Tnl
        | InfoKind::SitTun
        | InfoKind::GreTun
        | InfoKind::GreTun6
        | InfoKind::GreTap
        | InfoKind::GreTap6
        | InfoKind::Vti
        | InfoKind::Vti6
        | InfoKind::Wireguard
        | InfoKind::Xfrm
        | InfoKind::BareUdp
        | InfoKind::ErSpan
        | InfoKind::Ip6ErSpan => Kind::Tunnel,
        InfoKind::Netdevsim | InfoKind::Dsa | InfoKind::Wwan | InfoKind::RmNet | InfoKind::MacSec => Kind::Hardware,
        // Virtual switches other than the kernel's have ports as a bridge has.
        InfoKind::Other(name) if name == "openvswitch" => Kind::Bridge,
        _ => Kind::Other,
    }
}

/// The device that has the address, and the address.
pub fn address_of(message: &AddressMessage) -> Option<(u32, DeviceAddress)> {
    let (mut local, mut peer) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => peer = Some(*ip),
            // Has the bits for which the header has no room.
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    if !matches!(message.header.family, AddressFamily::Inet | AddressFamily::Inet6) {
        return None;
    }
    let address = DeviceAddress {
        // On point-to-point devices the other attribute is the address of the far end.
        ip: local.or(peer)?,
        prefix: message.header.prefix_len,
        global: message.header.scope == AddressScope::Universe || message.header.scope == AddressScope::Site,
        poor: flags.intersects(AddressFlags::Tentative | AddressFlags::Deprecated | AddressFlags::Dadfailed),
        secondary: flags.contains(AddressFlags::Secondary),
    };
    Some((message.header.index, address))
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
                DeviceAddress { ip, prefix: 24, global, poor: *poor, secondary: false }
            })
            .collect();
        Device {
            index: 2,
            name: "eth0".into(),
            kind: Kind::Hardware,
            link: Some(Link::Ethernet),
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
