//! What holds for every packet, tried on the datapath in plain Rust.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::prelude::*;
use proxy_common::{
    datapath::Link,
    reason::{Hook, Reason},
    verdict::Verdict,
    wire::{Config, Scope},
};
use proxy_tests::{
    packet::{Packet, flag},
    rows::world::{Addresses, MASQUERADE_PORT, NODE_PORT, SERVICE_PORT, Service, World},
    runner::{Plain, Runner},
};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A service of every kind in both families.
fn world() -> World {
    let mut world = World::default();
    let mut id = 0;
    for v6 in [false, true] {
        let addresses = Addresses::of(v6);
        for protocol in [TCP, UDP] {
            let mut service = |backends: &[(IpAddr, bool)]| {
                id += 1;
                let backends = backends.iter().map(|&(ip, local)| (SocketAddr::new(ip, 8080), local)).collect();
                Service { id, protocol, backends, masquerades_pods: false }
            };
            let both = service(&[(addresses.neighbour, true), (addresses.remote, false)]);
            let none = service(&[]);
            world = world
                .cluster_ip((addresses.cluster_ip, SERVICE_PORT).into(), &both)
                .cluster_ip((addresses.other_ip, SERVICE_PORT).into(), &none)
                .node_port(v6, NODE_PORT, &service(&[(addresses.remote, false)]), false);
        }
    }
    assert!(world.frontends.keys().any(|key| key.scope == Scope::NODE_PORT6));
    world
}

fn plain() -> Plain {
    let mut plain = Plain::default();
    plain.install(&world()).expect("plain maps take everything");
    plain
}

fn address(v6: bool) -> impl Strategy<Value = IpAddr> {
    if v6 {
        any::<u128>().prop_map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits))).boxed()
    } else {
        any::<u32>().prop_map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits))).boxed()
    }
}

prop_compose! {
    /// A packet from anywhere to one of the services.
    fn packet()(v6 in any::<bool>())(
        source in address(v6), source_port in 1..=u16::MAX, tcp in any::<bool>(), flags in 0_u8..64,
        to in 0..3, payload in prop::collection::vec(any::<u8>(), 0..200), options in 0_usize..=10,
        v6 in Just(v6),
        ttl in any::<u8>(), checksum in any::<bool>(),
    ) -> Packet {
        let addresses = Addresses::of(v6);
        let destination = match to {
            0 => (addresses.cluster_ip, SERVICE_PORT),
            1 => (addresses.other_ip, SERVICE_PORT),
            _ => (addresses.node, NODE_PORT),
        };
        let source = SocketAddr::new(source, source_port);
        let mut packet = if tcp { Packet::tcp(source, destination.into(), flags) } else { Packet::udp(source, destination.into()) };
        if !tcp && !checksum {
            packet = packet.without_checksum();
        }
        if v6 {
            packet.extensions = vec![(60, vec![0; 8]); options % 6];
        } else {
            packet.options = vec![1; options * 4];
        }
        packet.ttl(ttl).payload(payload)
    }
}

/// Where packets come by.
fn hook() -> impl Strategy<Value = Hook> {
    let hooks: Vec<Hook> = Hook::ALL.iter().copied().filter(|&hook| hook != Hook::Socket).collect();
    prop::sample::select(hooks)
}

/// A verdict of "pass" is for packets that were not touched.
fn untouched_if_passed(
    plain: &Plain,
    hook: Hook,
    link: Link,
    bytes: &[u8],
    segment: usize,
) -> Result<(), TestCaseError> {
    let mut after = bytes.to_vec();
    if plain.verdict(hook, &mut after, link, segment) == Verdict::Pass {
        prop_assert_eq!(after, bytes);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_come_through(
        bytes in prop::collection::vec(any::<u8>(), 0..200), hook in hook(), ip: bool, segment in 0_usize..3000,
    ) {
        let link = if ip { Link::Ip } else { Link::Ethernet };
        untouched_if_passed(&plain(), hook, link, &bytes, segment)?;
    }

    /// Nearly right packets reach further than noise.
    #[test]
    fn spoilt_packets_come_through(
        packet in packet(), hook in hook(), edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        keep in any::<prop::sample::Index>(), segment in prop::sample::select(vec![0_usize, 536, 1400]), again: bool,
    ) {
        let mut bytes = packet.bytes();
        for (index, value) in edits {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        bytes.truncate(keep.index(bytes.len() + 1).max(bytes.len() / 2));
        let plain = plain();
        untouched_if_passed(&plain, hook, Link::Ethernet, &bytes, segment)?;
        if again {
            untouched_if_passed(&plain, hook, Link::Ethernet, &bytes, segment)?;
        }
    }

    /// What the backend sends back reaches the client as the answer of the address that it dialled, whatever the
    /// client, the shape of the packet and the state of the ports.
    #[test]
    fn replies_mirror_what_was_translated(packet in packet(), before in 0_u16..4) {
        let plain = plain();
        let v6 = packet.source.is_ipv6();
        let addresses = Addresses::of(v6);
        let tcp = matches!(packet.transport, proxy_tests::packet::Transport::Tcp { .. });
        let mut packet = packet.to((addresses.cluster_ip, SERVICE_PORT).into());
        if tcp {
            let Packet { source, destination, .. } = packet;
            packet.transport = Packet::tcp(source, destination, flag::SYN).transport;
        }
        // Earlier flows of the same client.
        for port in 1..=before {
            let mut earlier = packet.clone().from((packet.source.ip(), port).into()).bytes();
            let _ = plain.verdict(Hook::PodIngress, &mut earlier, Link::Ethernet, 0);
        }
        let mut bytes = packet.bytes();
        prop_assume!(plain.verdict(Hook::PodIngress, &mut bytes, Link::Ethernet, 0) == Verdict::Translate);
        let backends = [addresses.neighbour, addresses.remote];
        let chosen = backends.iter().find(|&&ip| bytes == packet.clone().to((ip, 8080).into()).bytes());
        let Some(&chosen) = chosen else {
            return Err(TestCaseError::fail("translated into no packet to a backend"));
        };
        let backend = SocketAddr::new(chosen, 8080);
        let reply = packet.clone().from(backend).to(packet.source);
        let mut bytes = reply.bytes();
        prop_assert_eq!(plain.verdict(Hook::PodEgress, &mut bytes, Link::Ethernet, 0), Verdict::Translate);
        prop_assert_eq!(bytes, reply.from(packet.destination).bytes());
    }
}

#[test]
fn rejects_are_limited_by_the_tick() {
    let mut plain = plain();
    let mut world = world();
    world.config = Config { rejects_per_tick: 3, ..world.config };
    plain.update(&world).expect("plain maps take everything");
    let addresses = Addresses::of(false);
    let packet = Packet::udp((addresses.pod, 1).into(), (addresses.other_ip, SERVICE_PORT).into()).bytes();
    let send = |plain: &Plain| plain.verdict(Hook::PodIngress, &mut packet.clone(), Link::Ethernet, 0);
    for _ in 0..2 {
        for _ in 0..3 {
            assert_eq!(send(&plain), Verdict::Reply);
        }
        assert_eq!(send(&plain), Verdict::Drop(Reason::RejectLimited));
        // Another client does not pay for that.
        let other = Packet::udp((addresses.neighbour, 1).into(), (addresses.other_ip, SERVICE_PORT).into());
        assert_eq!(plain.verdict(Hook::PodIngress, &mut other.bytes(), Link::Ethernet, 0), Verdict::Reply);
        plain.wait(1);
    }
}

#[test]
fn udp_flows_start_anew_after_their_timeout() {
    let mut plain = plain();
    let addresses = Addresses::of(true);
    let packet = Packet::udp((addresses.pod, 1).into(), (addresses.cluster_ip, SERVICE_PORT).into()).bytes();
    let begun = |plain: &mut Plain| {
        assert_eq!(plain.verdict(Hook::PodIngress, &mut packet.clone(), Link::Ethernet, 0), Verdict::Translate);
        plain.counters().expect("plain counters")[&(Hook::PodIngress, Reason::NewFlow)]
    };
    let timeout = world().config.timeouts.udp_opening;
    assert_eq!(begun(&mut plain), 1);
    plain.wait(timeout);
    assert_eq!(begun(&mut plain), 1);
    plain.wait(timeout + 1);
    assert_eq!(begun(&mut plain), 2);
}

/// Clients outside, a NodePort, a backend on another node and a node with one port for all of them.
struct OnePort {
    plain: Plain,
    addresses: Addresses,
    protocol: u8,
}

impl OnePort {
    fn new(protocol: u8) -> Self {
        Self { plain: plain(), addresses: Addresses::of(false), protocol }
    }

    fn send(&self, from: SocketAddr, to: SocketAddr, flags: u8) -> Verdict {
        let packet = if self.protocol == TCP { Packet::tcp(from, to, flags) } else { Packet::udp(from, to) };
        self.plain.verdict(Hook::UplinkIngress, &mut packet.bytes(), Link::Ethernet, 0)
    }

    /// What becomes of a packet from the client at `port`.
    fn ask(&self, port: u16, flags: u8) -> Verdict {
        self.send((self.addresses.outside, port).into(), (self.addresses.node, NODE_PORT).into(), flags)
    }

    fn answer(&self, flags: u8) {
        let verdict =
            self.send((self.addresses.remote, 8080).into(), (self.addresses.node, MASQUERADE_PORT).into(), flags);
        assert_eq!(verdict, Verdict::Forward);
    }
}

const NO_PORT: Verdict = Verdict::Drop(Reason::PortsExhausted);
const ACK: u8 = flag::ACK;

/// For how long, in ticks, a flow keeps its port that after `lived` ticks went through `packets` of its client (`true`) and its
/// backend.
fn keeps_its_port(protocol: u8, lived: u32, packets: &[(bool, u8)]) -> Option<u32> {
    (0..=300).find(|&ticks| {
        let node = OnePort::new(protocol);
        assert_eq!(node.ask(1, flag::SYN), Verdict::Forward);
        node.plain.wait(lived);
        for &(client, flags) in packets {
            if client {
                assert_eq!(node.ask(1, flags), Verdict::Forward);
            } else {
                node.answer(flags);
            }
        }
        node.plain.wait(ticks);
        let verdict = node.ask(2, flag::SYN);
        assert!(verdict == Verdict::Forward || verdict == NO_PORT, "{verdict:?}");
        if verdict == Verdict::Forward {
            // Nothing of the first client goes to the second one's connection.
            assert_ne!(node.ask(1, ACK), Verdict::Forward);
            node.answer(ACK);
        }
        verdict == Verdict::Forward
    })
}

#[test]
fn a_flow_that_is_over_leaves_its_port() {
    let timeouts = world().config.timeouts;
    let open: &[(bool, u8)] = &[(false, flag::SYN | ACK), (true, ACK), (false, ACK)];
    let then = |more: &[(bool, u8)]| [open, more].concat();
    let (fin, rst) = (flag::FIN | ACK, flag::RST);
    for (name, packets, expected) in [
        ("no answer", Vec::new(), Some(timeouts.pressed + 1)),
        ("half open", vec![(false, flag::SYN | ACK)], Some(timeouts.pressed + 1)),
        ("refused", vec![(false, rst | ACK)], Some(2)),
        ("a complete handshake and not a byte", vec![(false, flag::SYN | ACK), (true, ACK)], None),
        ("established", open.to_vec(), None),
        ("client closed", then(&[(true, fin), (false, ACK)]), None),
        ("client reset", then(&[(true, rst)]), Some(2)),
        ("backend reset", then(&[(false, rst)]), Some(2)),
        ("backend closed", then(&[(false, fin), (true, ACK)]), None),
        ("both closed", then(&[(true, fin), (false, fin), (true, ACK)]), Some(2)),
    ] {
        assert_eq!(keeps_its_port(TCP, 0, &packets), expected, "{name}");
    }
    assert_eq!(keeps_its_port(UDP, 0, &[]), Some(timeouts.udp_opening / 2 + 1), "a question");
    assert_eq!(keeps_its_port(UDP, 1, &[(false, 0)]), Some(timeouts.udp_opening / 2 + 1), "question and answer");
    assert_eq!(keeps_its_port(UDP, 2, &[(false, 0), (true, 0)]), Some(timeouts.udp_opening + 1), "an exchange");
}
