//! Packets of every make: options, extension headers, tags, fragments, and what is broken.

use proxy_common::{
    datapath::Link,
    reason::{Hook, Reason},
    verdict::Verdict,
};

use super::{Expected, Hosts, Input, Row, walks::Kind, world::World};
use crate::packet::{Packet, Transport};

pub(super) fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = Kind::all()
        .flat_map(|kind| {
            [
                shaped(kind, "an odd length", |packet| packet.payload(vec![9; 7])),
                shaped(kind, "no payload", |packet| packet.payload(Vec::new())),
            ]
        })
        .collect();
    for kind in Kind::all() {
        if kind.protocol == 17 {
            rows.push(shaped(kind, "UDP checksum 0 stays 0", Packet::without_checksum));
        } else {
            rows.push(shaped(kind, "TCP options", tcp_options));
        }
        if kind.addresses.v6 {
            rows.push(shaped(kind, "all kinds of extension headers", |packet| extended(packet, 5)));
            rows.push(shaped(kind, "as many extension headers as are followed", |packet| extended(packet, 6)));
            rows.push(left_alone(kind, "too many extension headers", Reason::ExtensionHeaders, |packet| {
                extended(packet, 7).bytes()
            }));
            rows.push(left_alone(kind, "fragment", Reason::Fragment, |mut packet| {
                packet.extensions.push((44, vec![0, 0, 0, 1, 0, 0, 0, 9]));
                packet.bytes()
            }));
            rows.push(left_alone(kind, "an extension header that ends the packet", Reason::Malformed, |mut packet| {
                packet.extensions.push((60, vec![0, 255, 0, 0, 0, 0, 0, 0]));
                packet.bytes()
            }));
            rows.push(left_alone(kind, "another version than its type says", Reason::Malformed, |packet| {
                edited(&packet, 0, 0x45)
            }));
        } else {
            rows.push(shaped(kind, "IPv4 options", |mut packet| {
                packet.options = vec![1; 40];
                packet
            }));
            rows.push(left_alone(kind, "first fragment", Reason::Fragment, |mut packet| {
                packet.fragment = (0, true);
                packet.bytes()
            }));
            rows.push(left_alone(kind, "last fragment", Reason::Fragment, |mut packet| {
                packet.fragment = (3, false);
                packet.bytes()
            }));
            rows.push(left_alone(kind, "a header length below 5 words", Reason::Malformed, |packet| {
                edited(&packet, 0, 0x44)
            }));
            rows.push(left_alone(kind, "another version than its type says", Reason::Malformed, |packet| {
                edited(&packet, 0, 0x65)
            }));
        }
        let mut cut = left_alone(kind, "cut in the IP header", Reason::Malformed, |packet| {
            packet.bytes()[..packet.l3() + 12].to_vec()
        });
        cut.steps.truncate(1);
        rows.push(Row { hosts: Hosts::NotTc, ..cut });
        rows.push(left_alone(kind, "cut in the transport header", Reason::Malformed, |packet| {
            let transport = packet.l3() + if packet.source.is_ipv6() { 40 } else { 20 };
            packet.bytes()[..transport + 6].to_vec()
        }));
        if kind.protocol == 6 {
            rows.push(left_alone(kind, "a TCP header length below 5 words", Reason::Malformed, |packet| {
                let transport = if packet.source.is_ipv6() { 40 } else { 20 };
                edited(&packet, transport + 12, 0x40)
            }));
        }
        rows.push(not_ours(kind));
    }
    rows
}

/// A flow there and back whose packets have some shape.
fn shaped(kind: Kind, name: &str, shape: impl Fn(Packet) -> Packet) -> Row {
    let (client, vip, backend) = (kind.outside(), kind.node_port(), kind.local());
    let service = kind.service(&[(backend, true)]);
    let world = World::default().node_port(kind.addresses.v6, vip.port(), &service, false);
    Row::new(kind.name(name), world)
        .opens(Hook::UplinkIngress, &shape(kind.open(client, vip)), &shape(kind.open(client, backend)))
        .translates(Hook::UplinkEgress, &shape(kind.answer(backend, client)), &shape(kind.answer(vip, client)))
}

/// A packet for a frontend that cannot be balanced: untouched, and counted where it came in only.
fn left_alone(kind: Kind, name: &str, reason: Reason, spoil: impl Fn(Packet) -> Vec<u8>) -> Row {
    let vip = kind.cluster_ip();
    let world = World::default().cluster_ip(vip, &kind.service(&[(kind.local(), true)]));
    let bytes = spoil(kind.open(kind.outside(), vip));
    let input = || Input::Bytes(Link::Ethernet, bytes.clone());
    Row::new(kind.name(name), world)
        .step(Hook::UplinkIngress, input(), Expected::Unchanged, Verdict::Pass, &[reason])
        .step(Hook::UplinkEgress, input(), Expected::Unchanged, Verdict::Pass, &[])
}

/// What is no TCP or UDP, and no IP, to the address of a frontend.
fn not_ours(kind: Kind) -> Row {
    let vip = kind.cluster_ip();
    let world = World::default().cluster_ip(vip, &kind.service(&[(kind.local(), true)]));
    let mut echo = kind.open(kind.outside(), vip);
    echo.transport = Transport::Raw { protocol: if kind.addresses.v6 { 58 } else { 1 }, header: vec![8; 8] };
    let mut arp = kind.open(kind.outside(), vip).bytes();
    arp[12..14].copy_from_slice(&[8, 6]);
    Row::new(kind.name("not ours: ICMP echo, another port, no IP"), world)
        .passes(Hook::UplinkIngress, &echo, &[])
        .passes(Hook::UplinkEgress, &echo, &[])
        .passes(Hook::UplinkIngress, &kind.open(kind.outside(), (vip.ip(), 81).into()), &[])
        .step(Hook::UplinkIngress, Input::Bytes(Link::Ethernet, arp), Expected::Unchanged, Verdict::Pass, &[])
}

/// The bytes with one of them changed, `offset` from the IP header.
fn edited(packet: &Packet, offset: usize, value: u8) -> Vec<u8> {
    let mut bytes = packet.bytes();
    bytes[packet.l3() + offset] = value;
    bytes
}

fn tcp_options(mut packet: Packet) -> Packet {
    if let Transport::Tcp { options, .. } = &mut packet.transport {
        *options = vec![1; 40];
    }
    packet
}

/// `count` extension headers: hop by hop, routing, an atomic fragment, authentication, destination options, ...
fn extended(mut packet: Packet, count: usize) -> Packet {
    let kinds = [
        (0, vec![0; 8]),
        (43, vec![0, 2, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2]),
        (44, vec![0, 0, 0, 0, 0, 0, 0, 9]),
        (51, vec![0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]),
        (60, vec![0; 8]),
        (60, vec![0; 8]),
        (60, vec![0; 8]),
    ];
    packet.extensions = kinds.into_iter().take(count).collect();
    packet
}
