//! Frontends that cannot serve: resets and ICMP errors, silent drops, and their limits.

use proxy_common::{
    datapath::flow_hash,
    maglev,
    reason::{Hook, Reason},
    verdict::Verdict,
    wire::{Address, Device},
};

use super::{
    Row,
    walks::Kind,
    world::{Service, World},
};
use crate::packet::{Packet, Transport, flag};

pub(super) fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = Kind::all()
        .flat_map(|kind| {
            [
                refused(kind, "10: no endpoint anywhere", |packet| packet),
                refused(kind, "10: no endpoint, long packet", |packet| packet.payload(vec![3; 900])),
                refused(kind, "10: no endpoint, no payload", |packet| packet.payload(Vec::new())),
                refused(kind, "10: no endpoint, options or extension header", with_options),
                limited(kind),
                no_local_endpoint(kind),
                no_node_address(kind),
                stale(kind),
                maglev_choice(kind),
            ]
        })
        .collect();
    rows.extend(Kind::all().filter(|kind| kind.protocol == 6).flat_map(|kind| [mid_flow(kind), nobodys(kind)]));
    rows.extend(Kind::all().filter(|kind| kind.protocol == 17).map(beyond_the_quote));
    rows
}

/// The answer to `packet`: a reset, or an ICMP error that quotes its IP header and 8 bytes more.
fn answer(packet: &Packet) -> Packet {
    if matches!(packet.transport, Transport::Tcp { .. }) {
        return packet.clone().refusal();
    }
    let bytes = packet.bytes();
    let headers = if packet.source.is_ipv6() {
        40 + packet.extensions.iter().map(|(_, bytes)| bytes.len()).sum::<usize>()
    } else {
        20 + packet.options.len()
    };
    let about = &bytes[packet.l3()..packet.l3() + headers + 8];
    let mut error = Packet::port_unreachable(packet.destination.ip(), packet.source.ip(), about);
    error.identification = 0;
    // Internetwork control, RFC 1812 4.3.2.5.
    error.tos = if packet.source.is_ipv6() { 0 } else { 0xc0 };
    error.turned()
}

fn refused(kind: Kind, name: &str, shape: impl Fn(Packet) -> Packet) -> Row {
    let world = World::default().cluster_ip(kind.cluster_ip(), &kind.service(&[]));
    let packet = shape(kind.open(kind.client(), kind.cluster_ip()));
    Row::new(kind.name(name), world)
        .becomes(Hook::PodIngress, &packet, &answer(&packet), Verdict::Reply, &[Reason::NoEndpoint])
        .becomes(Hook::UplinkIngress, &packet, &answer(&packet), Verdict::Reply, &[Reason::NoEndpoint])
}

fn with_options(mut packet: Packet) -> Packet {
    if packet.source.is_ipv6() {
        packet.extensions.push((60, vec![0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    } else {
        packet.options = vec![1; 12];
    }
    packet
}

/// More headers than an error quotes: dropped rather than answered with half of them.
fn beyond_the_quote(kind: Kind) -> Row {
    let world = World::default().cluster_ip(kind.cluster_ip(), &kind.service(&[]));
    let mut packet = kind.open(kind.client(), kind.cluster_ip());
    if !kind.addresses.v6 {
        packet.options = vec![1; 40];
        return Row::new(kind.name("10: no endpoint, as many options as there can be"), world).becomes(
            Hook::PodIngress,
            &packet,
            &answer(&packet),
            Verdict::Reply,
            &[Reason::NoEndpoint],
        );
    }
    packet.extensions.push((60, vec![0, 8, 1, 4].into_iter().chain(vec![0; 68]).collect()));
    Row::new(kind.name("10: no endpoint, more headers than are quoted"), world).drops(
        Hook::PodIngress,
        &packet,
        Reason::RejectFailed,
    )
}

fn limited(kind: Kind) -> Row {
    let mut world = World::default().cluster_ip(kind.cluster_ip(), &kind.service(&[]));
    world.config.rejects_per_tick = 0;
    Row::new(kind.name("10: no reject is left for this tick"), world).drops(
        Hook::PodIngress,
        &kind.open(kind.client(), kind.cluster_ip()),
        Reason::RejectLimited,
    )
}

fn no_local_endpoint(kind: Kind) -> Row {
    let (client, vip) = (kind.outside(), kind.node_port());
    let service = kind.service(&[(kind.remote(), false)]);
    let world = World::default().node_port(kind.addresses.v6, vip.port(), &service, true);
    Row::new(kind.name("policy Local and no endpoint here: silent"), world).drops(
        Hook::UplinkIngress,
        &kind.open(client, vip),
        Reason::NoLocalEndpoint,
    )
}

fn no_node_address(kind: Kind) -> Row {
    let (client, vip) = (kind.outside(), kind.node_port());
    let service = kind.service(&[(kind.remote(), false)]);
    let mut world = World::default().node_port(kind.addresses.v6, vip.port(), &service, false);
    world.uplink = Device::default();
    let mut fallback = world.clone();
    fallback.config.node4 = kind.addresses.node.into();
    fallback.config.node6 = kind.addresses.node.into();
    Row::new(kind.name("no address to masquerade with on the device: the node's, or none"), world)
        .drops(Hook::UplinkIngress, &kind.open(client, vip), Reason::NoNodeAddress)
        .opens_past_the_stack(&kind.open(client, vip), &kind.open(kind.mask(), kind.remote()).ttl(63))
        .after(fallback)
}

/// The slot names a backend that belongs to another service by now.
fn stale(kind: Kind) -> Row {
    let mut world = World::default().cluster_ip(kind.cluster_ip(), &kind.service(&[(kind.local(), true)]));
    for backend in world.backends.values_mut() {
        backend.service = 99;
    }
    Row::new(kind.name("tables that change under the packet"), world).drops(
        Hook::PodIngress,
        &kind.open(kind.client(), kind.cluster_ip()),
        Reason::StaleTables,
    )
}

fn mid_flow(kind: Kind) -> Row {
    let world = World::default().cluster_ip(kind.cluster_ip(), &kind.service(&[(kind.local(), true)]));
    Row::new(kind.name("12: TCP in the middle of an unknown flow"), world)
        .passes(Hook::PodIngress, &kind.data(kind.client(), kind.cluster_ip()), &[Reason::MidFlow])
        .passes(Hook::PodIngress, &kind.answer(kind.client(), kind.cluster_ip()), &[Reason::MidFlow])
}

/// A segment for a frontend that leaves as it came: the router would send it here again.
fn nobodys(kind: Kind) -> Row {
    let (client, vip, backend) = (kind.client(), kind.cluster_ip(), kind.local());
    let world = World::default().cluster_ip(vip, &kind.service(&[(backend, true)]));
    let mut row = Row::new(kind.name("12: TCP that nobody has translated, on its way out"), world);
    for hook in [Hook::UplinkEgress, Hook::OverlayEgress] {
        for segment in [kind.data(client, vip), kind.answer(client, vip), Packet::tcp(client, vip, flag::FIN)] {
            row = row.becomes(hook, &segment, &segment.clone().refusal(), Verdict::Inward, &[Reason::UnknownFlow]);
        }
        row = row
            .drops(hook, &Packet::tcp(client, vip, flag::RST), Reason::UnknownFlow)
            .passes(hook, &kind.open(client, vip), &[])
            .passes(hook, &kind.data(client, (vip.ip(), vip.port() + 1).into()), &[]);
    }
    row.passes(Hook::PodEgress, &kind.data(client, vip), &[])
}

/// The backend is the one that the table has at the flow's hash.
fn maglev_choice(kind: Kind) -> Row {
    let (client, vip) = (kind.client(), kind.cluster_ip());
    let backends: Vec<_> = (0..3).map(|index| ((kind.addresses.neighbour, 8080 + index).into(), true)).collect();
    let service = Service { id: 2, ..kind.service(&backends) };
    let mut world = World::default().cluster_ip(vip, &service);
    let mut members: Vec<_> =
        world.backends.iter().map(|(&id, backend)| maglev::Member::new(id, &backend.address, backend.port)).collect();
    let size = maglev::table_size(members.len());
    let mut table = vec![0; size as usize];
    maglev::fill(&mut table, &mut members);
    const BASE: u32 = 100;
    world.maglev = (BASE..).zip(table.iter().copied()).collect();
    for sets in world.sets.values_mut() {
        (sets.cluster.maglev_base, sets.cluster.maglev_size) = (BASE, size);
    }
    let mut row = Row::new(kind.name("Maglev"), world.clone());
    for port in 40000_u16..40008 {
        let client = (client.ip(), port).into();
        let hash = flow_hash(&Address::from(kind.addresses.pod), port.to_be(), vip.port().to_be(), kind.protocol);
        let chosen = &world.backends[&table[(hash % size) as usize]];
        let backend = (chosen.address.ip(), u16::from_be(chosen.port)).into();
        row = row.opens(Hook::PodIngress, &kind.open(client, vip), &kind.open(client, backend));
    }
    row
}
