//! The ways of a packet, each in both families and for both protocols.

use std::net::SocketAddr;

use proxy_common::{
    reason::{Hook, Reason},
    verdict::Verdict,
    wire::ConfigFlags,
};

use super::{
    Row,
    world::{Addresses, BACKEND_PORT, CLIENT_PORT, MASQUERADE_PORT, NODE_PORT, SERVICE_PORT, Service, World},
};
use crate::packet::{Packet, flag};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A family and a protocol.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub addresses: Addresses,
    pub protocol: u8,
}

impl Kind {
    pub fn all() -> impl Iterator<Item = Self> {
        [(false, TCP), (false, UDP), (true, TCP), (true, UDP)]
            .into_iter()
            .map(|(v6, protocol)| Self { addresses: Addresses::of(v6), protocol })
    }

    pub fn name(&self, what: &str) -> String {
        let family = if self.addresses.v6 { "IPv6" } else { "IPv4" };
        format!("{what}, {family} {}", if self.protocol == TCP { "TCP" } else { "UDP" })
    }

    fn packet(&self, from: SocketAddr, to: SocketAddr, flags: u8) -> Packet {
        if self.protocol == TCP { Packet::tcp(from, to, flags) } else { Packet::udp(from, to) }
    }

    /// The first packet of a flow.
    pub fn open(&self, from: SocketAddr, to: SocketAddr) -> Packet {
        self.packet(from, to, flag::SYN)
    }

    /// The answer to the first.
    pub fn answer(&self, from: SocketAddr, to: SocketAddr) -> Packet {
        self.packet(from, to, flag::SYN | flag::ACK)
    }

    /// Any further packet.
    pub fn data(&self, from: SocketAddr, to: SocketAddr) -> Packet {
        self.packet(from, to, flag::ACK)
    }

    pub fn service(&self, backends: &[(SocketAddr, bool)]) -> Service {
        Service { id: 1, protocol: self.protocol, backends: backends.to_vec(), masquerades_pods: false }
    }

    pub fn client(&self) -> SocketAddr {
        SocketAddr::new(self.addresses.pod, CLIENT_PORT)
    }

    pub fn outside(&self) -> SocketAddr {
        SocketAddr::new(self.addresses.outside, CLIENT_PORT)
    }

    pub fn cluster_ip(&self) -> SocketAddr {
        SocketAddr::new(self.addresses.cluster_ip, SERVICE_PORT)
    }

    pub fn node_port(&self) -> SocketAddr {
        SocketAddr::new(self.addresses.node, NODE_PORT)
    }

    /// The node in the client's place.
    pub fn mask(&self) -> SocketAddr {
        SocketAddr::new(self.addresses.node, MASQUERADE_PORT)
    }

    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(self.addresses.neighbour, BACKEND_PORT)
    }

    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(self.addresses.remote, BACKEND_PORT)
    }
}

pub(super) fn rows() -> Vec<Row> {
    Kind::all()
        .flat_map(|kind| {
            [
                pod_to_local(kind),
                pod_to_remote(kind),
                outside_to_local(kind),
                outside_to_remote(kind),
                outside_to_remote_by_the_stack(kind),
                too_long_for_the_fast_path(kind),
                segments_that_fit(kind),
                tagged(kind),
                past_the_stack_where_nobody_looks(kind),
                pod_to_node_port(kind),
                pod_to_node_port_masqueraded(kind),
                hairpin(kind),
                without_link_layer(kind),
            ]
        })
        .collect()
}

fn pod_to_local(kind: Kind) -> Row {
    let (client, vip, backend) = (kind.client(), kind.cluster_ip(), kind.local());
    let world = World::default().cluster_ip(vip, &kind.service(&[(backend, true)]));
    Row::new(kind.name("1: pod to ClusterIP, backend on this node"), world)
        .opens(Hook::PodIngress, &kind.open(client, vip), &kind.open(client, backend))
        // Into the backend's link nothing is to be done, and nothing out of it.
        .passes(Hook::PodEgress, &kind.open(client, backend), &[])
        .passes(Hook::PodIngress, &kind.answer(backend, client), &[])
        .translates(Hook::PodEgress, &kind.answer(backend, client), &kind.answer(vip, client))
        .translates(Hook::PodIngress, &kind.data(client, vip), &kind.data(client, backend))
}

fn pod_to_remote(kind: Kind) -> Row {
    let (client, vip, backend) = (kind.client(), kind.cluster_ip(), kind.remote());
    let world = World::default().cluster_ip(vip, &kind.service(&[(backend, false)]));
    Row::new(kind.name("2: pod to ClusterIP, backend on another node"), world)
        .opens(Hook::PodIngress, &kind.open(client, vip), &kind.open(client, backend))
        .passes(Hook::UplinkEgress, &kind.open(client, backend), &[])
        .passes(Hook::UplinkIngress, &kind.answer(backend, client), &[])
        .then(Hook::PodEgress, &kind.answer(vip, client), Verdict::Translate)
}

fn outside_to_local(kind: Kind) -> Row {
    let (client, vip, backend) = (kind.outside(), kind.node_port(), kind.local());
    let service = kind.service(&[(backend, true)]);
    let world = World::default().node_port(kind.addresses.v6, vip.port(), &service, false);
    Row::new(kind.name("4: outside to NodePort, local backend sees the client"), world)
        .opens(Hook::UplinkIngress, &kind.open(client, vip), &kind.open(client, backend))
        .translates(Hook::UplinkEgress, &kind.answer(backend, client), &kind.answer(vip, client))
}

fn outside_to_remote(kind: Kind) -> Row {
    let (client, vip, backend) = (kind.outside(), kind.node_port(), kind.remote());
    let service = kind.service(&[(backend, false)]);
    let world = World::default().node_port(kind.addresses.v6, vip.port(), &service, false);
    Row::new(kind.name("5: outside to NodePort, remote backend, past the stack"), world)
        .opens_past_the_stack(&kind.open(client, vip), &kind.open(kind.mask(), backend).ttl(63))
        .becomes(
            Hook::UplinkIngress,
            &kind.answer(backend, kind.mask()),
            &kind.answer(vip, client).ttl(63),
            Verdict::Forward,
            &[],
        )
        .becomes(
            Hook::UplinkIngress,
            &kind.data(client, vip).ttl(2),
            &kind.data(kind.mask(), backend).ttl(1),
            Verdict::Forward,
            &[],
        )
}

/// A TTL of 1 is the stack's to answer.
fn outside_to_remote_by_the_stack(kind: Kind) -> Row {
    let (client, vip, backend) = (kind.outside(), kind.node_port(), kind.remote());
    let service = kind.service(&[(backend, false)]);
    let world = World::default().node_port(kind.addresses.v6, vip.port(), &service, false);
    Row::new(kind.name("5: outside to NodePort, remote backend, through the stack"), world)
        .opens(Hook::UplinkIngress, &kind.open(client, vip).ttl(1), &kind.open(client, backend).ttl(1))
        .then(Hook::UplinkEgress, &kind.open(kind.mask(), backend).ttl(1), Verdict::Translate)
        .translates(
            Hook::UplinkIngress,
            &kind.answer(backend, kind.mask()).ttl(1),
            &kind.answer(backend, client).ttl(1),
        )
        .then(Hook::UplinkEgress, &kind.answer(vip, client).ttl(1), Verdict::Translate)
}

fn too_long_for_the_fast_path(kind: Kind) -> Row {
    let (client, vip, backend) = (kind.outside(), kind.node_port(), kind.remote());
    let service = kind.service(&[(backend, false)]);
    let world = World::default().node_port(kind.addresses.v6, vip.port(), &service, false);
    let long = |packet: Packet| packet.payload(vec![7; 1600]);
    Row::new(kind.name("5: longer than the MTU of the next link: through the stack"), world).opens(
        Hook::UplinkIngress,
        &long(kind.open(client, vip)),
        &long(kind.open(client, backend)),
    )
}

/// A frame of a VLAN is met again at that VLAN's device, if there is one.
fn tagged(kind: Kind) -> Row {
    let (client, vip, backend) = (kind.outside(), kind.node_port(), kind.remote());
    let service = kind.service(&[(backend, false)]);
    let world = World::default().node_port(kind.addresses.v6, vip.port(), &service, false);
    Row::new(kind.name("a frame of a VLAN"), world)
        .passes(Hook::UplinkIngress, &kind.open(client, vip).tagged(0x8100, 100), &[])
        .passes(Hook::UplinkIngress, &kind.open(client, vip).tagged(0x88a8, 5).tagged(0x8100, 100), &[])
        .passes(Hook::PodIngress, &kind.open(kind.client(), vip).tagged(0x8100, 100), &[])
}

/// The fast path is counted once a flow, at its first packet.
fn past_the_stack_where_nobody_looks(kind: Kind) -> Row {
    let (client, vip, backend) = (kind.outside(), kind.node_port(), kind.remote());
    let service = kind.service(&[(backend, false)]);
    let fast = World::default().node_port(kind.addresses.v6, vip.port(), &service, false);
    let mut world = fast.clone();
    world.config.flags &= !(ConfigFlags::FAST4 | ConfigFlags::FAST6);
    Row::new(kind.name("5: through the stack while somebody looks there, past it when nobody does"), world.clone())
        .opens(Hook::UplinkIngress, &kind.open(client, vip), &kind.open(client, backend))
        .then(Hook::UplinkEgress, &kind.open(kind.mask(), backend), Verdict::Translate)
        .translates(Hook::UplinkIngress, &kind.answer(backend, kind.mask()), &kind.answer(backend, client))
        .becomes(
            Hook::UplinkIngress,
            &kind.data(client, vip),
            &kind.data(kind.mask(), backend).ttl(63),
            Verdict::Forward,
            &[],
        )
        .after(fast)
        .translates(Hook::UplinkIngress, &kind.data(client, vip), &kind.data(client, backend))
        .after(world)
}

fn segments_that_fit(kind: Kind) -> Row {
    let (client, vip, backend) = (kind.outside(), kind.node_port(), kind.remote());
    let service = kind.service(&[(backend, false)]);
    let world = World::default().node_port(kind.addresses.v6, vip.port(), &service, false);
    let long = |packet: Packet| packet.payload(vec![7; 2800]);
    Row::new(kind.name("5: GSO packet whose segments fit the MTU: past the stack"), world)
        .opens_past_the_stack(&long(kind.open(client, vip)), &long(kind.open(kind.mask(), backend)).ttl(63))
        .segments(1400)
}

fn pod_to_node_port(kind: Kind) -> Row {
    let (client, vip, backend) = (kind.client(), kind.node_port(), kind.local());
    let service = kind.service(&[(backend, true)]);
    let world = World::default().node_port(kind.addresses.v6, vip.port(), &service, true);
    Row::new(kind.name("6: pod to NodePort of this node"), world)
        .opens(Hook::PodIngress, &kind.open(client, vip), &kind.open(client, backend))
        .translates(Hook::PodEgress, &kind.answer(backend, client), &kind.answer(vip, client))
}

fn pod_to_node_port_masqueraded(kind: Kind) -> Row {
    let (client, vip, backend) = (kind.client(), kind.node_port(), kind.remote());
    let service = Service { masquerades_pods: true, ..kind.service(&[(backend, false)]) };
    let world = World::default().node_port(kind.addresses.v6, vip.port(), &service, false);
    Row::new(kind.name("6: pod to NodePort, masqueraded, remote backend"), world)
        .opens(Hook::PodIngress, &kind.open(client, vip), &kind.open(client, backend))
        .then(Hook::UplinkEgress, &kind.open(kind.mask(), backend), Verdict::Translate)
        .translates(Hook::UplinkIngress, &kind.answer(backend, kind.mask()), &kind.answer(backend, client))
        .then(Hook::PodEgress, &kind.answer(vip, client), Verdict::Translate)
}

fn hairpin(kind: Kind) -> Row {
    let (client, vip) = (kind.client(), kind.cluster_ip());
    let backend = SocketAddr::new(client.ip(), BACKEND_PORT);
    let shadow = SocketAddr::new(vip.ip(), client.port());
    let world = World::default().cluster_ip(vip, &kind.service(&[(backend, true)]));
    Row::new(kind.name("7: hairpin"), world)
        .becomes(
            Hook::PodIngress,
            &kind.open(client, vip),
            &kind.open(shadow, backend).turned(),
            Verdict::Back,
            &[Reason::NewFlow],
        )
        .becomes(
            Hook::PodIngress,
            &kind.answer(backend, shadow),
            &kind.answer(vip, client).turned(),
            Verdict::Back,
            &[],
        )
}

fn without_link_layer(kind: Kind) -> Row {
    let (client, vip, backend) = (kind.outside(), kind.node_port(), kind.local());
    let service = kind.service(&[(backend, true)]);
    let world = World::default().node_port(kind.addresses.v6, vip.port(), &service, false);
    Row::new(kind.name("4: the same over a device without link layer headers"), world)
        .not_xdp()
        .opens(Hook::OverlayIngress, &kind.open(client, vip).bare(), &kind.open(client, backend).bare())
        .translates(Hook::OverlayEgress, &kind.answer(backend, client).bare(), &kind.answer(vip, client).bare())
}
