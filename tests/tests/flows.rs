//! What becomes of flows as time passes and others come: tried on the datapath in plain Rust, whose clock stands still
//! until it is told otherwise.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use proxy_common::{
    datapath::Link,
    reason::{Hook, Reason},
    verdict::Verdict,
};
use proxy_tests::{
    packet::{Packet, ends, flag},
    rows::world::{Addresses, NODE_PORT, SEATS, SERVICE_PORT, Service, World},
    runner::{Plain, Runner},
};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ACK: u8 = flag::ACK;

/// A ClusterIP with five local endpoints, whose clients are pods.
struct Node {
    plain: Plain,
    addresses: Addresses,
    protocol: u8,
    flooded: Cell<u32>,
}

impl Node {
    fn new(protocol: u8) -> Self {
        let addresses = Addresses::of(false);
        let backends = (0..5).map(|last| (SocketAddr::new(Ipv4Addr::new(10, 244, 1, 100 + last).into(), 8080), true));
        let service = Service { id: 1, protocol, backends: backends.collect(), masquerades_pods: false };
        let world = World::default()
            .cluster_ip((addresses.cluster_ip, SERVICE_PORT).into(), &service)
            .node_port(false, NODE_PORT, &service, false);
        let mut plain = Plain::default();
        plain.install(&world).expect("plain maps take everything");
        Self { plain, addresses, protocol, flooded: Cell::new(0) }
    }

    fn vip(&self) -> SocketAddr {
        (self.addresses.cluster_ip, SERVICE_PORT).into()
    }

    fn pod(&self, port: u16) -> SocketAddr {
        (self.addresses.pod, port).into()
    }

    /// Sends a packet through a hook and returns the ends that it then has.
    fn pass(&self, hook: Hook, from: SocketAddr, to: SocketAddr, flags: u8) -> (SocketAddr, SocketAddr) {
        let packet = if self.protocol == TCP { Packet::tcp(from, to, flags) } else { Packet::udp(from, to) };
        let mut bytes = packet.bytes();
        let verdict = self.plain.verdict(hook, &mut bytes, Link::Ethernet, 0);
        assert!(!matches!(verdict, Verdict::Drop(_)), "{from} > {to}: {verdict:?}");
        ends(&bytes[14..]).expect("a packet")
    }

    /// From the client to the ClusterIP: where it goes.
    fn ask(&self, from: SocketAddr, flags: u8) -> SocketAddr {
        self.pass(Hook::PodIngress, from, self.vip(), flags).1
    }

    /// From a backend to the client: whom it seems to come from.
    fn answer(&self, backend: SocketAddr, to: SocketAddr, flags: u8) -> SocketAddr {
        self.pass(Hook::PodEgress, backend, to, flags).0
    }

    /// A complete handshake.
    fn connect(&self, client: SocketAddr) -> SocketAddr {
        let backend = self.ask(client, flag::SYN);
        assert_eq!(self.answer(backend, client, flag::SYN | ACK), self.vip());
        assert_eq!(self.ask(client, ACK), backend);
        backend
    }

    fn count(&mut self, reason: Reason) -> u64 {
        let counters = self.plain.counters().expect("plain counters");
        counters.iter().filter(|((_, counted), _)| *counted == reason).map(|(_, count)| count).sum()
    }

    /// SYNs, or questions, from as many addresses of somebody who answers to none; each only once.
    fn flood(&self, count: u32) {
        for _ in 0..count {
            let index = self.flooded.replace(self.flooded.get() + 1);
            let source = SocketAddr::new(IpAddr::from(Ipv4Addr::from(0xc612_0000 + index)), 1025);
            let backend = self.ask(source, flag::SYN);
            if self.protocol == UDP {
                self.answer(backend, source, 0);
            }
        }
    }
}

#[test]
fn a_server_that_streams_keeps_the_flow_of_a_silent_client() {
    let node = Node::new(UDP);
    let client = node.pod(40000);
    let backend = node.ask(client, 0);
    for _ in 0..600 {
        node.plain.wait(1);
        assert_eq!(node.answer(backend, client, 0), node.vip());
    }
    assert_eq!(node.ask(client, 0), backend);
}

#[test]
fn a_clock_that_is_ahead_on_another_processor_moves_no_flow() {
    let node = Node::new(UDP);
    for port in 40000..41000 {
        let client = node.pod(port);
        let backend = node.ask(client, 0);
        node.answer(backend, client, 0);
        assert_eq!(node.ask(client, 0), backend);
        node.plain.wait(1);
        assert_eq!(node.ask(client, 0), backend);
        node.plain.turn_back(1);
        assert_eq!(node.ask(client, 0), backend, "port {port}");
        node.plain.wait(1);
    }
}

#[test]
fn a_connection_that_has_said_nothing_yet_is_kept() {
    let node = Node::new(TCP);
    let client = node.pod(40000);
    let backend = node.connect(client);
    node.plain.wait(118);
    // Straight to the same endpoint from the same port: under another one, and the first goes on.
    let (source, target) = node.pass(Hook::PodIngress, client, backend, flag::SYN);
    assert_eq!(target, backend);
    assert_ne!(source, client);
    assert_eq!(node.answer(backend, client, ACK), node.vip());
    assert_eq!(node.answer(backend, source, flag::SYN | ACK), backend);
    assert_eq!(node.ask(client, ACK), backend);
}

/// What a stranger opens without an answer to it displaces only its like.
#[test]
fn a_flood_displaces_only_its_like() {
    for protocol in [TCP, UDP] {
        let mut node = Node::new(protocol);
        let clients: Vec<(SocketAddr, SocketAddr)> = (0..SEATS as u16 / 8)
            .map(|index| {
                let client = node.pod(40000 + index);
                let backend = node.ask(client, flag::SYN);
                node.answer(backend, client, flag::SYN | ACK);
                assert_eq!(node.ask(client, ACK), backend);
                (client, backend)
            })
            .collect();
        for round in 0..10 {
            node.flood(20 * SEATS);
            // A new client comes through in the middle of it.
            let newcomer = node.pod(50000 + round);
            let backend = node.ask(newcomer, flag::SYN);
            node.flood(SEATS / 2);
            assert_eq!(node.answer(backend, newcomer, flag::SYN | ACK), node.vip());
            assert_eq!(node.ask(newcomer, ACK), backend);
            node.flood(20 * SEATS);
            assert_eq!(node.ask(newcomer, ACK), backend);
            for &(client, backend) in &clients {
                assert_eq!(node.ask(client, ACK), backend);
                assert_eq!(node.answer(backend, client, ACK), node.vip());
            }
        }
        assert!(node.count(Reason::Displaced) > u64::from(SEATS));
        assert_eq!(node.count(Reason::FlowTableFull), 0);
    }
}

/// Idle connections survive any number of others that came and went.
#[test]
fn finished_connections_and_questions_displace_no_idle_one() {
    let node = Node::new(TCP);
    let idle: Vec<_> =
        (0..SEATS as u16 / 2).map(|index| (node.pod(10000 + index), node.connect(node.pod(10000 + index)))).collect();
    node.plain.wait(1);
    for turn in 0..20_u16 {
        for port in 30000..30500 {
            let client = SocketAddr::new(Ipv4Addr::new(10, 244, 3, turn as u8).into(), port);
            let backend = node.connect(client);
            node.ask(client, flag::FIN | ACK);
            node.answer(backend, client, flag::FIN | ACK);
            node.ask(client, ACK);
        }
        node.plain.wait(70);
    }
    for (client, backend) in idle {
        assert_eq!(node.ask(client, ACK), backend);
        assert_eq!(node.answer(backend, client, ACK), node.vip());
    }
}

/// Datagrams prove little: what was asked twice holds no seat that a connection could have.
#[test]
fn datagrams_take_no_lasting_seat_from_connections() {
    let mut node = Node::new(UDP);
    for index in 0..2 * SEATS as u16 {
        let client = node.pod(10000 + index);
        let backend = node.ask(client, 0);
        node.answer(backend, client, 0);
        node.ask(client, 0);
    }
    node.protocol = TCP;
    let service = Service {
        id: 2,
        protocol: TCP,
        backends: vec![((node.addresses.neighbour, 8080).into(), true)],
        masquerades_pods: false,
    };
    let world = World::default().cluster_ip(node.vip(), &service);
    node.plain.update(&world).expect("plain maps take everything");
    let clients: Vec<_> =
        (0..SEATS as u16 / 2).map(|index| (node.pod(10000 + index), node.connect(node.pod(10000 + index)))).collect();
    node.flood(4 * SEATS);
    for (client, backend) in clients {
        assert_eq!(node.ask(client, ACK), backend);
    }
}

/// Where every lasting seat is taken by a flow that lives, further ones work, only not as safely.
#[test]
fn more_flows_than_lasting_seats_are_carried_all_the_same() {
    let mut node = Node::new(TCP);
    for index in 0..SEATS as u16 {
        node.connect(node.pod(10000 + index));
    }
    for index in 0..100 {
        let client = node.pod(20000 + index);
        let backend = node.connect(client);
        assert_eq!(node.ask(client, ACK), backend);
        assert_eq!(node.answer(backend, client, ACK), node.vip());
    }
    assert_eq!(node.count(Reason::FlowTableFull), 0);
}

/// A connection straight to an endpoint works while the same pod opens and closes tens of thousands to its Service: each
/// packet of either reaches the other end under one pair of ports.
#[test]
fn direct_connections_live_beside_any_number_through_the_service() {
    let node = Node::new(TCP);
    let mut shown = 0;
    for round in 0..20_000_u32 {
        let client = node.pod(32768 + (round % 5_000) as u16);
        let backend = node.ask(client, flag::SYN);
        let (client_there, target) = node.pass(Hook::PodIngress, client, backend, flag::SYN);
        assert_eq!(target, backend);
        // The answer to each comes to the same socket from whom it dialled.
        assert_eq!(node.pass(Hook::PodEgress, backend, client_there, flag::SYN | ACK), (backend, client));
        assert_eq!(node.pass(Hook::PodIngress, client, backend, ACK), (client_there, backend));
        shown += u32::from(client_there != client);
        node.ask(client, flag::RST);
        node.pass(Hook::PodIngress, client, backend, flag::RST);
        if round % 100 == 0 {
            node.plain.wait(1);
        }
    }
    assert!(shown > 0, "no port was ever used by both");
}

/// A pod that writes another's address ends none of its connections.
#[test]
fn a_spoofed_reset_ends_nothing() {
    let node = Node::new(TCP);
    let client = node.pod(40000);
    let backend = node.connect(client);
    node.plain.elsewhere(|| {
        node.ask(client, flag::RST);
        node.ask(client, flag::FIN | ACK);
    });
    node.plain.wait(60);
    // Its own SYN is taken for what it is, one within a connection that lives.
    assert_eq!(node.ask(client, flag::SYN), backend);
    assert_eq!(node.ask(client, ACK), backend);
}
