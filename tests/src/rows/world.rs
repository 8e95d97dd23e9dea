//! What the rows share: a node, its pods, a client outside, and what the maps hold.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use proxy_common::wire::{
    Address, Backend, BackendFlags, Cidr, Class, Config, ConfigFlags, Device, Filter, Frontend, FrontendKey, Kind,
    Masquerade, Network4, Network6, Policy, Reach, Rule, Scope, Service as ServiceRow, Set, Sets, SetsFlags, Timeouts,
};

/// Addresses of one family.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub v6: bool,
    /// A pod of this node, the client.
    pub pod: IpAddr,
    /// Another pod of this node.
    pub neighbour: IpAddr,
    /// A pod of another node.
    pub remote: IpAddr,
    pub cluster_ip: IpAddr,
    /// A second ClusterIP.
    pub other_ip: IpAddr,
    pub node: IpAddr,
    /// A client outside of the cluster.
    pub outside: IpAddr,
}

impl Addresses {
    pub fn of(v6: bool) -> Self {
        let ip = |v4: &str, text6: &str| (if v6 { text6 } else { v4 }).parse().expect("an address");
        Self {
            v6,
            pod: ip("10.244.1.5", "fd00:244:1::5"),
            neighbour: ip("10.244.1.6", "fd00:244:1::6"),
            remote: ip("10.244.2.7", "fd00:244:2::7"),
            cluster_ip: ip("10.96.0.10", "fd00:96::10"),
            other_ip: ip("10.96.0.11", "fd00:96::11"),
            node: ip("192.168.1.1", "fd00:192::1"),
            outside: ip("203.0.113.9", "2001:db8::9"),
        }
    }
}

/// What the remote pods are routed by: the prefixes, the gateway and its hardware address. Both the plain runner and
/// the network namespace of the kernel runners have it.
pub mod route {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use crate::packet::Mac;

    pub const DEVICE: &str = "up0";
    pub const POD_DEVICE: &str = "pod0";
    /// To whom packets are sent in rows, unless they say otherwise.
    pub const MAC: Mac = [2, 0, 0, 0, 0, 2];
    pub const GATEWAY_MAC: Mac = [2, 0, 0, 0, 1, 2];
    pub const GATEWAY4: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
    pub const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x192, 0, 0, 0, 0, 0, 2);
    /// Where every other address goes, so that a reply finds its way to the client outside.
    pub const MTU: u16 = 1500;
}

/// The one port of the node that masqueraded flows get, so that it can be foretold.
pub const MASQUERADE_PORT: u16 = 61000;
pub const SERVICE_PORT: u16 = 80;
pub const BACKEND_PORT: u16 = 8080;
pub const NODE_PORT: u16 = 30080;
pub const CLIENT_PORT: u16 = 40000;
/// In ticks, of a second or so each: no flow of a row grows old.
pub const TIMEOUTS: Timeouts = Timeouts {
    tcp_opening: 60,
    tcp_established: 86_400,
    tcp_half_closed: 3_600,
    tcp_closed: 60,
    tcp_reset: 10,
    udp_opening: 30,
    udp: 60,
    pressed: 5,
};
/// Of each ring.
pub const SEATS: u32 = 256;
/// Entries of each flow table.
pub const FLOWS: usize = 4096;

/// Contents of the maps.
#[derive(Clone, Debug)]
pub struct World {
    pub config: Config,
    pub frontends: BTreeMap<FrontendKey, Frontend>,
    pub services: BTreeMap<u32, ServiceRow>,
    pub sets: BTreeMap<u32, Sets>,
    pub slots: BTreeMap<u32, u32>,
    pub maglev: BTreeMap<u32, u32>,
    pub backends: BTreeMap<u32, Backend>,
    pub local_addresses: Vec<Address>,
    /// Addresses of the uplink.
    pub uplink: Device,
    /// Entries that the flow tables take.
    pub flows: usize,
}

impl Default for World {
    fn default() -> Self {
        let (four, six) = (Addresses::of(false), Addresses::of(true));
        let cidr = |address: &str, mask: &str| {
            let parse = |text: &str| Address::from(text.parse::<IpAddr>().expect("an address"));
            Cidr { address: parse(address), mask: parse(mask) }
        };
        let mut cluster4 = cidr("10.244.0.0", "255.255.0.0");
        // The mask of an IPv4-mapped prefix covers the mapping too.
        cluster4.mask.0[..3].fill(u32::MAX);
        Self {
            config: Config {
                pods: [cluster4, cidr("fd00:244::", "ffff:ffff::")],
                node4: Address::ANY,
                node6: Address::ANY,
                node_port_min: 30000,
                node_port_max: 32767,
                masquerade_port_min: MASQUERADE_PORT,
                masquerade_port_max: MASQUERADE_PORT,
                flags: ConfigFlags::PODS_BY_ADDRESS4
                    | ConfigFlags::PODS_BY_ADDRESS6
                    | ConfigFlags::FAST4
                    | ConfigFlags::FAST6,
                epoch: 1,
                timeouts: TIMEOUTS,
                rejects_per_tick: 100,
                opening_seats4: SEATS,
                opening_seats6: SEATS,
                proven_seats4: SEATS,
                proven_seats6: SEATS,
            },
            frontends: BTreeMap::new(),
            services: BTreeMap::new(),
            sets: BTreeMap::new(),
            slots: BTreeMap::new(),
            maglev: BTreeMap::new(),
            backends: BTreeMap::new(),
            local_addresses: vec![four.node.into(), six.node.into()],
            uplink: uplink(four.node, six.node),
            flows: FLOWS,
        }
    }
}

/// The uplink's addresses, each in a network with the gateway.
fn uplink(four: IpAddr, six: IpAddr) -> Device {
    let address = |text: &str| Address::from(text.parse::<IpAddr>().expect("an address"));
    let mut device = Device::default();
    device.networks4[0] = Network4 { address: Address::from(four).0[3], mask: address("255.255.255.0").0[3] };
    device.networks6[0] = Network6 { address: six.into(), mask: address("ffff:ffff:ffff:ffff::") };
    device
}

/// A service port for the maps of a [`World`].
#[derive(Clone, Debug)]
pub struct Service {
    pub id: u32,
    pub protocol: u8,
    /// Pods, and whether they are on this node.
    pub backends: Vec<(SocketAddr, bool)>,
    /// Pods are masqueraded.
    pub masquerades_pods: bool,
}

impl World {
    /// Writes the backends and sets of a service; ids and slots start at 16 times the service's id, and the rows of its
    /// sets at twice it.
    fn write(&mut self, service: &Service) {
        let base = service.id * 16;
        let mut sorted = service.backends.clone();
        sorted.sort_by_key(|&(_, local)| !local);
        for (index, (address, local)) in (0..).zip(&sorted) {
            let local = if *local { BackendFlags::LOCAL } else { 0 };
            self.backends.insert(
                base + index,
                Backend {
                    address: address.ip().into(),
                    port: address.port().to_be(),
                    protocol: service.protocol,
                    flags: BackendFlags::SERVING | local,
                    generation: 1,
                    service: service.id,
                    ..Backend::default()
                },
            );
            self.slots.insert(base + index, base + index);
        }
        let locals = sorted.iter().filter(|(_, local)| *local).count() as u32;
        let cluster = Set { base, count: sorted.len() as u32, ..Set::default() };
        let flags = if sorted.is_empty() { 0 } else { SetsFlags::HAS_ENDPOINTS };
        let sets =
            Sets { cluster, local: Set { count: locals, ..cluster }, service: service.id, flags, ..Sets::default() };
        // The backends of a row are of one family, which alone is asked for.
        self.sets.insert(service.id, sets);
        self.services.insert(service.id, ServiceRow { sets4: service.id, sets6: service.id });
    }

    /// A ClusterIP.
    pub fn cluster_ip(mut self, address: SocketAddr, service: &Service) -> Self {
        self.write(service);
        let key = FrontendKey {
            address: address.ip().into(),
            port: address.port().to_be(),
            protocol: service.protocol,
            scope: Scope::ADDRESS,
        };
        self.put(key, service, Kind::ClusterIp, false)
    }

    /// A NodePort; `local` sends clients from outside to the pods of this node only.
    pub fn node_port(mut self, v6: bool, port: u16, service: &Service, local: bool) -> Self {
        self.write(service);
        let key = FrontendKey {
            address: Address::ANY,
            port: port.to_be(),
            protocol: service.protocol,
            scope: if v6 { Scope::NODE_PORT6 } else { Scope::NODE_PORT4 },
        };
        self.put(key, service, Kind::NodePort, local)
    }

    fn put(mut self, key: FrontendKey, service: &Service, kind: Kind, local: bool) -> Self {
        let rule = |reach, masquerade| Rule { reach, masquerade };
        let pods = if service.masquerades_pods { Masquerade::Always } else { Masquerade::Never };
        let outside = if local { Reach::Local } else { Reach::Cluster };
        let policy = Policy::new(kind)
            .with(Class::Pod, rule(Reach::Cluster, pods))
            .with(Class::Host, rule(Reach::Cluster, Masquerade::Always))
            .with(Class::Outside, rule(outside, Masquerade::Remote));
        self.frontends.insert(key, Frontend::new(&key, service.id, policy));
        self
    }

    /// What the filter of frontends holds.
    pub fn frontend_numbers(&self) -> impl Iterator<Item = u32> {
        let addresses = self.frontends.keys().filter(|key| key.scope == Scope::ADDRESS).map(|key| &key.address);
        addresses.chain(&self.local_addresses).map(Filter::frontend)
    }

    /// What the filter of targets holds.
    pub fn target_numbers(&self) -> impl Iterator<Item = u32> {
        self.backends.values().map(|backend| Filter::target(&backend.address, backend.port, backend.protocol))
    }
}
