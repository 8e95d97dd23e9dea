//! What the rows share: a node, its pods, a client outside, and what the maps hold.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use proxy_common::wire::{
    Address, Backend, BackendFlags, Cidr, Config, Device, Frontend, FrontendFlags, FrontendKey, Scope, Set,
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
    pub const MAC: Mac = [2, 0, 0, 0, 1, 1];
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
/// A tick is a second or so: no flow of a row grows old.
const TIMEOUT: u32 = 60;

/// Contents of the maps.
#[derive(Clone, Debug)]
pub struct World {
    pub config: Config,
    pub frontends: BTreeMap<FrontendKey, Frontend>,
    pub slots: BTreeMap<u32, u32>,
    pub maglev: BTreeMap<u32, u32>,
    pub backends: BTreeMap<u32, Backend>,
    pub local_addresses: Vec<Address>,
    /// Addresses of the uplink.
    pub uplink: Device,
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
                cluster: [cluster4, cidr("fd00:244::", "ffff:ffff::")],
                node4: Address::ANY,
                node6: Address::ANY,
                node_port_min: 30000,
                node_port_max: 32767,
                masquerade_port_min: MASQUERADE_PORT,
                masquerade_port_max: MASQUERADE_PORT,
                udp_timeout: TIMEOUT,
                tcp_timeout: TIMEOUT,
                rejects_per_tick: 100,
            },
            frontends: BTreeMap::new(),
            slots: BTreeMap::new(),
            maglev: BTreeMap::new(),
            backends: BTreeMap::new(),
            local_addresses: vec![four.node.into(), six.node.into()],
            uplink: Device { address4: four.node.into(), address6: six.node.into() },
        }
    }
}

/// A service port for the maps of a [`World`].
#[derive(Clone, Debug)]
pub struct Service {
    pub id: u32,
    pub protocol: u8,
    /// Pods, and whether they are on this node.
    pub backends: Vec<(SocketAddr, bool)>,
    pub flags: u32,
}

impl World {
    /// Writes the backends of a service and returns the set of all and the set of the local ones; ids and slots start
    /// at 16 times the service's id.
    fn write(&mut self, service: &Service) -> (Set, Set) {
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
        let all = Set { base, count: sorted.len() as u32, ..Set::default() };
        (all, Set { count: locals, ..all })
    }

    /// A frontend at `address`, for all sources alike.
    pub fn cluster_ip(mut self, address: SocketAddr, service: &Service) -> Self {
        let (all, _) = self.write(service);
        let key = FrontendKey {
            address: address.ip().into(),
            port: address.port().to_be(),
            protocol: service.protocol,
            scope: Scope::ADDRESS,
        };
        self.frontends.insert(key, frontend(service, all, all));
        self
    }

    /// A NodePort; `local` sends clients from outside to the pods of this node only.
    pub fn node_port(mut self, v6: bool, port: u16, service: &Service, local: bool) -> Self {
        let (all, locals) = self.write(service);
        let key = FrontendKey {
            address: Address::ANY,
            port: port.to_be(),
            protocol: service.protocol,
            scope: if v6 { Scope::NODE_PORT6 } else { Scope::NODE_PORT4 },
        };
        self.frontends.insert(key, frontend(service, all, if local { locals } else { all }));
        self
    }
}

fn frontend(service: &Service, inside: Set, outside: Set) -> Frontend {
    let has_endpoints = if service.backends.is_empty() { 0 } else { FrontendFlags::HAS_ENDPOINTS };
    Frontend { service: service.id, flags: service.flags | has_endpoints, inside, outside }
}
