//! Flows beside ours that use the same tuples: none is hurt, and none hurts.

use std::net::SocketAddr;

use proxy_common::{
    reason::{Hook, Reason},
    verdict::Verdict,
    wire::{Address, Network4, Network6},
};

use super::{
    Input, Row,
    endpoints::from_another_port,
    walks::Kind,
    world::{BACKEND_PORT, CLIENT_PORT, MASQUERADE_PORT, NODE_PORT, SERVICE_PORT, Service, World},
};
use crate::packet::{Packet, flag};

pub(super) fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = Kind::all()
        .flat_map(|kind| {
            [
                direct_first(kind, Hook::PodIngress, Hook::PodEgress),
                direct_first(kind, Hook::UplinkIngress, Hook::UplinkEgress),
                pod_of_another_node(kind),
                machine_behind_a_pod_link(kind),
                another_hardware_address(kind),
                network_of_the_next_hop(kind),
                frontend_moves(kind),
            ]
        })
        .collect();
    rows.extend(
        Kind::all()
            .filter(|kind| kind.protocol == 6)
            .flat_map(|kind| [reset_by_the_backend(kind), taken_up_in_the_middle(kind), refused_by_the_backend(kind)]),
    );
    rows.extend(Kind::all().filter(|kind| kind.protocol == 17).map(datagrams_of_the_node));
    rows
}

/// A client is connected straight to an endpoint, and dials a frontend of it from the same port: the second flow gets
/// another port, and the first goes on.
fn direct_first(kind: Kind, comes: Hook, goes: Hook) -> Row {
    let at_pod = comes == Hook::PodIngress;
    let (client, vip) = if at_pod { (kind.client(), kind.cluster_ip()) } else { (kind.outside(), kind.node_port()) };
    let backend = kind.local();
    let service = kind.service(&[(backend, true)]);
    let world = if at_pod {
        World::default().cluster_ip(vip, &service)
    } else {
        World::default().node_port(kind.addresses.v6, vip.port(), &service, false)
    };
    let (there, back) = (kind.data(client, backend), kind.data(backend, client));
    Row::new(kind.name(&format!("straight to an endpoint first, {}", comes.word())), world)
        .enters(comes, &kind.open(client, backend))
        .translates(goes, &kind.answer(backend, client), &kind.answer(backend, client))
        .translates(comes, &there, &there)
        .step(
            comes,
            Input::Packet(kind.open(client, vip)),
            from_another_port(client, backend, kind),
            Verdict::Translate,
            &[Reason::NewFlow],
        )
        .translates(comes, &there, &there)
        .translates(goes, &back, &back)
        .not_xdp()
}

/// Connections of pods of other nodes straight to this node's endpoints are not entered. So what they dial through this
/// node keeps out of their range of ports.
fn pod_of_another_node(kind: Kind) -> Row {
    let client = SocketAddr::new(kind.addresses.remote, CLIENT_PORT);
    let drawn = SocketAddr::new(client.ip(), MASQUERADE_PORT);
    let (vip, backend) = (kind.node_port(), kind.local());
    let service = kind.service(&[(backend, true)]);
    let world = World::default().node_port(kind.addresses.v6, vip.port(), &service, false);
    Row::new(kind.name("a pod of another node, straight and through a NodePort"), world)
        .passes(Hook::UplinkIngress, &kind.open(client, backend), &[])
        .opens(Hook::UplinkIngress, &kind.open(client, vip), &kind.open(drawn, backend))
        .passes(Hook::UplinkEgress, &kind.answer(backend, client), &[])
        .translates(Hook::UplinkEgress, &kind.answer(backend, drawn), &kind.answer(vip, client))
}

/// What comes from a pod link is a pod's only if its address is one: else an endpoint on another node would not find
/// its way back (kube-proxy masquerades to a ClusterIP whatever is not local traffic).
fn machine_behind_a_pod_link(kind: Kind) -> Row {
    let client = SocketAddr::new(kind.addresses.outside, CLIENT_PORT);
    let (vip, backend) = (kind.cluster_ip(), kind.remote());
    let world = World::default().cluster_ip(vip, &kind.service(&[(backend, false)]));
    Row::new(kind.name("22: a machine behind a pod link that is no pod"), world)
        .opens(Hook::PodIngress, &kind.open(client, vip), &kind.open(client, backend))
        .then(Hook::UplinkEgress, &kind.open(kind.mask(), backend), Verdict::Translate)
        .translates(Hook::UplinkIngress, &kind.answer(backend, kind.mask()), &kind.answer(backend, client))
        .then(Hook::PodEgress, &kind.answer(vip, client), Verdict::Translate)
}

/// A frame for somebody else on a device that listens to all.
fn another_hardware_address(kind: Kind) -> Row {
    let vip = kind.cluster_ip();
    let none = SocketAddr::new(kind.addresses.other_ip, SERVICE_PORT);
    let world = World::default()
        .cluster_ip(vip, &kind.service(&[(kind.local(), true)]))
        .cluster_ip(none, &Service { id: 2, ..kind.service(&[]) });
    let stray = |mut packet: Packet| {
        packet.macs.1 = [2, 0xde, 0xad, 0xbe, 0xef, 1];
        packet
    };
    Row::new(kind.name("a frame for another hardware address"), world)
        .passes(Hook::UplinkIngress, &stray(kind.open(kind.outside(), vip)), &[])
        .passes(Hook::UplinkIngress, &stray(kind.open(kind.outside(), none)), &[])
        .passes(Hook::OverlayIngress, &stray(kind.open(kind.outside(), vip)), &[])
        .opens(Hook::PodIngress, &stray(kind.open(kind.client(), vip)), &stray(kind.open(kind.client(), kind.local())))
        .not_xdp()
}

/// Of a device's addresses the one in the next hop's network masquerades, as in `inet_select_addr`.
fn network_of_the_next_hop(kind: Kind) -> Row {
    let (client, vip, backend) = (kind.outside(), kind.node_port(), kind.remote());
    let service = kind.service(&[(backend, false)]);
    let mut world = World::default().node_port(kind.addresses.v6, vip.port(), &service, false);
    let uplink = &mut world.uplink;
    let ip = |text: &str| Address::from(text.parse::<std::net::IpAddr>().expect("an address"));
    (uplink.networks4[1], uplink.networks6[1]) = (uplink.networks4[0], uplink.networks6[0]);
    uplink.networks4[0] = Network4 { address: ip("192.168.50.5").0[3], mask: ip("255.255.255.0").0[3] };
    uplink.networks6[0] = Network6 { address: ip("fd00:50::5"), mask: ip("ffff:ffff:ffff:ffff::") };
    Row::new(kind.name("36: two networks on the uplink"), world)
        .opens_past_the_stack(&kind.open(client, vip), &kind.open(kind.mask(), backend).ttl(63))
}

/// A frontend that belongs to another Service now: UDP goes there at once, TCP with its next connection.
fn frontend_moves(kind: Kind) -> Row {
    let (client, vip, old) = (kind.client(), kind.cluster_ip(), kind.local());
    let new = SocketAddr::new(old.ip(), 9090);
    let before = World::default().cluster_ip(vip, &kind.service(&[(old, true)]));
    let mut after = before.clone().cluster_ip(vip, &Service { id: 2, ..kind.service(&[(new, true)]) });
    after.config.epoch += 1;
    let row = Row::new(kind.name("a frontend that passes to another Service"), before)
        .opens(Hook::PodIngress, &kind.open(client, vip), &kind.open(client, old))
        .translates(Hook::PodEgress, &kind.answer(old, client), &kind.answer(vip, client))
        .translates(Hook::PodIngress, &kind.data(client, vip), &kind.data(client, old));
    if kind.protocol == 6 {
        row.translates(Hook::PodIngress, &kind.data(client, vip), &kind.data(client, old)).after(after).opens(
            Hook::PodIngress,
            &kind.open(client, vip),
            &kind.open(client, new),
        )
    } else {
        row.opens(Hook::PodIngress, &kind.data(client, vip), &kind.data(client, new)).after(after)
    }
}

/// A reset of the backend ends a flow: the client's next SYN opens another.
fn reset_by_the_backend(kind: Kind) -> Row {
    let (client, vip, backend) = (kind.client(), kind.cluster_ip(), kind.local());
    let world = World::default().cluster_ip(vip, &kind.service(&[(backend, true)]));
    let reset = |from| Packet::tcp(from, client, flag::RST);
    Row::new(kind.name("a connection that the backend resets"), world)
        .opens(Hook::PodIngress, &kind.open(client, vip), &kind.open(client, backend))
        .translates(Hook::PodEgress, &kind.answer(backend, client), &kind.answer(vip, client))
        .translates(Hook::PodIngress, &kind.data(client, vip), &kind.data(client, backend))
        .translates(Hook::PodIngress, &kind.open(client, vip), &kind.open(client, backend))
        .translates(Hook::PodEgress, &reset(backend), &reset(vip))
        .opens(Hook::PodIngress, &kind.open(client, vip), &kind.open(client, backend))
}

fn refused_by_the_backend(kind: Kind) -> Row {
    let (client, vip, backend) = (kind.client(), kind.cluster_ip(), kind.local());
    let world = World::default().cluster_ip(vip, &kind.service(&[(backend, true)]));
    let reset = |from| Packet::tcp(from, client, flag::RST | flag::ACK);
    Row::new(kind.name("a connection that the backend refuses"), world)
        .opens(Hook::PodIngress, &kind.open(client, vip), &kind.open(client, backend))
        .translates(Hook::PodEgress, &reset(backend), &reset(vip))
        .opens(Hook::PodIngress, &kind.open(client, vip), &kind.open(client, backend))
}

/// A connection straight to an endpoint that is older than we are is entered with its next packet; a reset is not.
fn taken_up_in_the_middle(kind: Kind) -> Row {
    let (client, vip, backend) = (kind.client(), kind.cluster_ip(), kind.local());
    let world = World::default().cluster_ip(vip, &kind.service(&[(backend, true)]));
    let reset = Packet::tcp(client, backend, flag::RST);
    Row::new(kind.name("straight to an endpoint, from the middle on"), world)
        .passes(Hook::PodIngress, &reset, &[])
        .passes(Hook::PodIngress, &kind.answer(client, backend), &[])
        .enters(Hook::PodIngress, &kind.data(client, backend))
        .step(
            Hook::PodIngress,
            Input::Packet(kind.open(client, vip)),
            from_another_port(client, backend, kind),
            Verdict::Translate,
            &[Reason::NewFlow],
        )
        .not_xdp()
}

/// A process of the node asks somebody from a port that is a NodePort too: the answers are its own.
fn datagrams_of_the_node(kind: Kind) -> Row {
    let (node, backend) = (kind.node_port(), kind.local());
    let server = SocketAddr::new(kind.addresses.outside, 53);
    let service = kind.service(&[(backend, true)]);
    let world = World::default().node_port(kind.addresses.v6, NODE_PORT, &service, false);
    let other = SocketAddr::new(server.ip(), 54);
    Row::new(kind.name("45: datagrams of the node from a NodePort"), world)
        .passes(Hook::UplinkEgress, &kind.data(node, server), &[])
        .translates(Hook::UplinkIngress, &kind.data(server, node), &kind.data(server, node))
        .passes(Hook::UplinkEgress, &kind.data(node, server), &[])
        .opens(
            Hook::UplinkIngress,
            &kind.data(other, node),
            &kind.data(other, SocketAddr::new(backend.ip(), BACKEND_PORT)),
        )
        .not_xdp()
}
