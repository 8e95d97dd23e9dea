use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use proxy_common::datapath::Link;

use super::device::{Device, DeviceAddress, Kind};

/// What a message of the kernel says about the devices of the network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is there like this, but for its addresses and routes, which the message does not tell.
    Device(Device),
    /// It is gone, to another network namespace perhaps. `peer`: index of its other end, if that lives on.
    DeviceGone {
        index: u32,
        peer: Option<u32>,
    },
    /// A device has this address.
    Address(u32, DeviceAddress),
    AddressGone(u32, DeviceAddress),
}

/// `None`: the message is about something else.
pub fn told(message: &RouteNetlinkMessage) -> Option<Told> {
    match message {
        RouteNetlinkMessage::NewLink(link) => device(link).map(Told::Device),
        RouteNetlinkMessage::DelLink(link) => device(link).map(|device| Told::DeviceGone {
            index: device.index,
            peer: device.peer.filter(|_| !device.peer_elsewhere),
        }),
        RouteNetlinkMessage::NewAddress(message) => address(message).map(|(index, found)| Told::Address(index, found)),
        RouteNetlinkMessage::DelAddress(message) => {
            address(message).map(|(index, found)| Told::AddressGone(index, found))
        }
        _ => None,
    }
}

/// `None`: a message about one aspect of a device only, such as its radio (`rtnetlink_ifinfo_prep`,
/// net/wireless/wext-core.c); or one of its bridge, which is sent to the same group and means by `RTM_DELLINK` that the
/// device has left the bridge (`br_ifinfo_notify`, net/bridge/br_netlink.c).
pub fn device(message: &LinkMessage) -> Option<Device> {
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let mut device = Device {
        index: message.header.index,
        name: String::new(),
        kind: Kind::Hardware,
        up: message.header.flags.contains(LinkFlags::Up),
        link: link_of(message.header.link_layer_type),
        peer: None,
        peer_elsewhere: false,
        controller: None,
        addresses: Vec::new(),
        gateway: false,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Wireless(_) => return None,
            LinkAttribute::IfName(name) => device.name.clone_from(name),
            LinkAttribute::Controller(index) if *index != 0 => device.controller = Some(*index),
            LinkAttribute::Link(index) if *index != 0 => device.peer = Some(*index),
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
pub fn address(message: &AddressMessage) -> Option<(u32, DeviceAddress)> {
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
        far: peer.or(local)?,
        global: message.header.scope == AddressScope::Universe || message.header.scope == AddressScope::Site,
        poor: flags.intersects(AddressFlags::Tentative | AddressFlags::Deprecated | AddressFlags::Dadfailed),
        secondary: flags.contains(AddressFlags::Secondary),
    };
    Some((message.header.index, address))
}
