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

/// Whoever takes a seat that was left displaces nobody, and is displaced himself when his turn has come.
#[test]
fn a_seat_that_was_left_shelters_nobody() {
    for protocol in [TCP, UDP] {
        let mut node = Node::new(protocol);
        let clients: Vec<SocketAddr> = (0..SEATS as u16 / 4).map(|index| node.pod(40000 + index)).collect();
        let backends: Vec<SocketAddr> = clients.iter().map(|&client| node.connect(client)).collect();
        node.flood(SEATS);
        assert_eq!(node.count(Reason::Displaced), 0);
        node.flood(SEATS);
        assert_eq!(node.count(Reason::Displaced), u64::from(SEATS));
        for (&client, &backend) in clients.iter().zip(&backends) {
            assert_eq!(node.ask(client, ACK), backend);
        }
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

/// A connection that is made while closed ones hold every lasting seat gets the oldest one's.
#[test]
fn closed_connections_keep_no_seat_from_one_that_lives() {
    let node = Node::new(TCP);
    for turn in 0..4 {
        for index in 0..SEATS as u16 {
            let client = SocketAddr::new(Ipv4Addr::new(10, 244, 3, turn).into(), 30000 + index);
            let backend = node.connect(client);
            node.ask(client, flag::FIN | ACK);
            node.answer(backend, client, flag::FIN | ACK);
            node.ask(client, ACK);
        }
        node.plain.wait(3);
    }
    let client = node.pod(40000);
    let backend = node.connect(client);
    node.flood(4 * SEATS);
    assert_eq!(node.ask(client, ACK), backend);
    assert_eq!(node.answer(backend, client, ACK), node.vip());
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

/// Nor does a SYN to a Service under another's address and port disturb his connection straight to its endpoint.
#[test]
fn a_spoofed_syn_to_a_service_disturbs_no_direct_connection() {
    let node = Node::new(TCP);
    for backend in (100..105).map(|last| SocketAddr::new(Ipv4Addr::new(10, 244, 1, last).into(), 8080)) {
        let client = node.pod(41000);
        let direct = |hook, from, to, flags| node.pass(hook, from, to, flags);
        assert_eq!(direct(Hook::PodIngress, client, backend, flag::SYN), (client, backend));
        assert_eq!(direct(Hook::PodEgress, backend, client, flag::SYN | ACK), (backend, client));
        assert_eq!(direct(Hook::PodIngress, client, backend, ACK), (client, backend));
    }
    let victim = node.pod(41000);
    let chosen = node.plain.elsewhere(|| node.ask(victim, flag::SYN));
    // Whatever the endpoint makes of that: to each connection its own answers.
    for backend in (100..105).map(|last| SocketAddr::new(Ipv4Addr::new(10, 244, 1, last).into(), 8080)) {
        assert_eq!(node.pass(Hook::PodEgress, backend, victim, ACK), (backend, victim), "{chosen}");
        assert_eq!(node.pass(Hook::PodIngress, victim, backend, ACK), (victim, backend));
    }
}

/// A NodePort connection that nobody has used for a while outlives one straight to its endpoint from the same outside
/// port, whichever is first.
#[test]
fn an_idle_connection_at_an_uplink_is_cut_by_no_direct_one() {
    let node = Node::new(TCP);
    let node_port = SocketAddr::new(node.addresses.node, NODE_PORT);
    for port in 42000..42100 {
        let client = SocketAddr::new(node.addresses.outside, port);
        let at = |hook, from, to, flags| node.pass(hook, from, to, flags);
        let (same, backend) = at(Hook::UplinkIngress, client, node_port, flag::SYN);
        assert_eq!(same, client);
        assert_eq!(at(Hook::UplinkEgress, backend, client, flag::SYN | ACK), (node_port, client));
        assert_eq!(at(Hook::UplinkIngress, client, node_port, ACK), (client, backend));
        node.plain.wait(4);
        let (other, _) = at(Hook::UplinkIngress, client, backend, flag::SYN);
        assert_ne!(other, client);
        assert_eq!(at(Hook::UplinkEgress, backend, other, flag::SYN | ACK), (backend, client));
        assert_eq!(at(Hook::UplinkIngress, client, node_port, ACK), (client, backend));
        assert_eq!(at(Hook::UplinkEgress, backend, client, ACK), (node_port, client));
    }
}

/// A client that dials again long after is a new flow, under the port that its backend knew it by (decision 6); and what a
/// direct flow has taken it gives back when a frontend takes the address that it dials.
#[test]
fn direct_flows_end() {
    let mut node = Node::new(TCP);
    let client = node.pod(43000);
    let backend = node.connect(client);
    let (other, _) = node.pass(Hook::PodIngress, client, backend, flag::SYN);
    assert_ne!(other, client);
    for (from, to, hook) in [(client, backend, Hook::PodIngress), (backend, other, Hook::PodEgress)] {
        node.pass(hook, from, to, flag::RST);
    }
    node.ask(client, flag::RST);
    node.plain.wait(3_600);
    assert_eq!(node.pass(Hook::PodIngress, client, backend, flag::SYN), (other, backend), "the same port again");
    assert_eq!(node.pass(Hook::PodEgress, backend, other, flag::SYN | ACK), (backend, client));

    node.protocol = UDP;
    let service = |id, backends: &[(IpAddr, u16)]| Service {
        id,
        protocol: UDP,
        backends: backends.iter().map(|&end| (end.into(), true)).collect(),
        masquerades_pods: false,
    };
    let (target, vip) = ((node.addresses.neighbour, 5353), node.vip());
    let before = World::default().cluster_ip(vip, &service(1, &[target]));
    node.plain.install(&before).expect("plain maps take everything");
    assert_eq!(node.pass(Hook::PodIngress, client, target.into(), 0).1, target.into());
    let mut after = before.cluster_ip(target.into(), &service(2, &[(node.addresses.remote, 5353)]));
    after.config.epoch += 1;
    node.plain.update(&after).expect("plain maps take everything");
    assert_eq!(node.pass(Hook::PodIngress, client, target.into(), 0).1, (node.addresses.remote, 5353).into());
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

/// The backend remembers a closed connection by its port, and takes the next one from there only if that is of the same
/// kind: where no port is free, each client gets those that were its own.
#[test]
fn a_port_that_rests_goes_to_its_own_kind() {
    let mut node = Node::new(TCP);
    let backend = SocketAddr::new(node.addresses.remote, 8080);
    let service = Service { id: 2, protocol: TCP, backends: vec![(backend, false)], masquerades_pods: false };
    let mut world = World::default().node_port(false, NODE_PORT, &service, false);
    world.config.masquerade_port_max = world.config.masquerade_port_min + 1;
    node.plain.update(&world).expect("plain maps take everything");
    let door = SocketAddr::new(node.addresses.node, NODE_PORT);
    // One connection from beginning to end; gives back the port that it had.
    let visit = |client: SocketAddr| {
        let ask = |flags| node.pass(Hook::UplinkIngress, client, door, flags);
        let (source, target) = ask(flag::SYN);
        assert_eq!(target, backend);
        for (answer, question) in [(flag::SYN | ACK, ACK), (flag::FIN | ACK, flag::FIN | ACK), (ACK, ACK)] {
            assert_eq!(node.pass(Hook::UplinkIngress, backend, source, answer), (door, client));
            assert_eq!(ask(question), (source, backend));
        }
        node.plain.wait(2);
        source.port()
    };
    let client = |last: u8, port: u16| SocketAddr::new(Ipv4Addr::new(198, 51, 100, last).into(), port);
    let owned = [visit(client(1, 40000)), visit(client(2, 40000))];
    assert_ne!(owned[0], owned[1]);
    for round in 1..12 {
        let again = [visit(client(1, 40000 + round)), visit(client(2, 40000 + round))];
        assert_eq!(again, owned, "round {round}");
    }
    // Rather than nobody's, somebody else's.
    assert!(owned.contains(&visit(client(3, 40000))));
}
