//! Clients that send packets through the datapath in plain Rust, over what the agent wrote to its maps.

use std::net::SocketAddr;

use proxy_common::{
    datapath::Link,
    reason::{Hook, Reason},
    verdict::Verdict,
};
use proxy_tests::{
    packet::{self, Packet, flag},
    rows::world,
    runner::{Plain, Runner as _},
};
use proxy_userspace::{model::Protocol, reconcile::MemoryTables};

use crate::{NODE, NODE6, UPLINK};

/// What a client that opens a flow gets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// The packet goes where it was sent.
    NotOurs,
    Backend {
        address: SocketAddr,
        masqueraded: bool,
    },
    /// The client is the backend: the packet goes back out of its link.
    TurnedAround {
        address: SocketAddr,
    },
    Refused,
    Dropped(Reason),
}

/// The node with flows and dice of its own.
pub struct Host {
    plain: Plain,
}

impl Host {
    /// `seed` decides how the dice fall.
    pub fn new(maps: &MemoryTables, seed: u32) -> Self {
        Self { plain: Plain::new(contents(maps), seed) }
    }

    /// Goes on with what the maps hold by now.
    pub fn update(&mut self, maps: &MemoryTables) {
        self.plain.update(&contents(maps)).expect("plain maps take everything");
    }

    /// The first packet of a flow, or one more of it, to where it leaves the node.
    pub fn send(&self, hook: Hook, client: SocketAddr, dialled: SocketAddr, protocol: Protocol) -> Answer {
        let packet = match protocol {
            Protocol::Tcp => Packet::tcp(client, dialled, flag::SYN),
            Protocol::Udp => Packet::udp(client, dialled),
        };
        let packet = packet.bare();
        let mut bytes = packet.bytes();
        match self.plain.verdict(hook, &mut bytes, Link::Ip, 0) {
            Verdict::Pass => {
                assert_eq!(bytes, packet.bytes(), "touched, though it is not ours");
                Answer::NotOurs
            }
            Verdict::Reply | Verdict::Inward => Answer::Refused,
            Verdict::Drop(reason) => Answer::Dropped(reason),
            Verdict::Back => Answer::TurnedAround { address: sent(packet, &bytes).1 },
            Verdict::Forward => backend(client, sent(packet.ttl(63), &bytes)),
            Verdict::Translate => {
                // A masquerade shows only behind the stack, at whatever device the packet leaves by.
                let last = self.plain.verdict(Hook::UplinkEgress, &mut bytes, Link::Ip, 0);
                assert!(matches!(last, Verdict::Pass | Verdict::Translate), "{last:?} on the way out");
                backend(client, sent(packet, &bytes))
            }
        }
    }
}

/// Source and destination of what became of `packet`, which is to differ in nothing else.
fn sent(packet: Packet, bytes: &[u8]) -> (SocketAddr, SocketAddr) {
    let (source, destination) = packet::ends(bytes).expect("still a packet");
    assert_eq!(bytes, packet.from(source).to(destination).bytes(), "{source} -> {destination}");
    (source, destination)
}

fn backend(client: SocketAddr, (source, address): (SocketAddr, SocketAddr)) -> Answer {
    let masqueraded = source != client;
    let node: SocketAddr = (if client.is_ipv6() { NODE6 } else { NODE }, source.port()).into();
    assert!(!masqueraded || source == node, "neither the client nor the node sends from {source}");
    Answer::Backend { address, masqueraded }
}

fn contents(maps: &MemoryTables) -> world::World {
    world::World {
        config: maps.config,
        frontends: maps.frontends.iter().map(|(&key, &frontend)| (key, frontend)).collect(),
        services: (0..).zip(maps.services.iter().copied()).collect(),
        // As in the kernel, index 0 is no row.
        sets: (0..).zip(maps.sets.iter().copied()).skip(1).collect(),
        slots: (0..).zip(maps.slots.iter().copied()).collect(),
        maglev: (0..).zip(maps.maglev.iter().copied()).collect(),
        backends: (0..).zip(maps.backends.iter().copied()).collect(),
        local_addresses: maps.local_addresses.iter().copied().collect(),
        uplink: maps.devices[&UPLINK],
        flows: world::FLOWS,
    }
}
