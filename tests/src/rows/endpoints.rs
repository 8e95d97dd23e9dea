//! Flows that outlive a change of endpoints, ports that are used again or by two, and misleading ICMP redirects.

use std::net::SocketAddr;

use proxy_common::{
    reason::{Hook, Reason},
    verdict::Verdict,
    wire::BackendFlags,
};

use super::{
    Expected, Input, Row,
    walks::Kind,
    world::{Service, World},
};
use crate::packet::{Packet, Transport, ends, flag};

pub(super) fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = Kind::all()
        .flat_map(|kind| {
            [
                endpoint_gone(kind),
                shared_backend(kind),
                direct_from_the_same_port(kind),
                ports_exhausted(kind),
                redirect(kind),
            ]
        })
        .collect();
    rows.extend(Kind::all().filter(|kind| kind.protocol == 6).flat_map(|kind| [port_reused(kind), second_hook(kind)]));
    rows
}

/// The world in which `service` has another backend, and the old one serves no more.
fn moved(kind: Kind, world: &World, to: SocketAddr) -> World {
    let mut moved = world.clone();
    for backend in moved.backends.values_mut() {
        backend.flags &= !BackendFlags::SERVING;
        backend.generation += 1;
    }
    let old = moved.backends.clone();
    let mut moved = moved.cluster_ip(kind.cluster_ip(), &kind.service(&[(to, true)]));
    // The new backend gets an id of its own.
    let new = moved.backends[&16];
    moved.backends.extend(old);
    moved.backends.insert(20, new);
    moved.slots.insert(16, 20);
    moved.config.epoch += 1;
    moved
}

/// Established TCP goes on to the endpoint it has; UDP, and a new connection, go to one that serves.
fn endpoint_gone(kind: Kind) -> Row {
    let (client, vip, old) = (kind.client(), kind.cluster_ip(), kind.local());
    let new = (old.ip(), 9090).into();
    let world = World::default().cluster_ip(vip, &kind.service(&[(old, true)]));
    let after = moved(kind, &world, new);
    let row = Row::new(kind.name("an endpoint that stops serving"), world).opens(
        Hook::PodIngress,
        &kind.open(client, vip),
        &kind.open(client, old),
    );
    if kind.protocol == 6 {
        row.translates(Hook::PodIngress, &kind.data(client, vip), &kind.data(client, old)).after(after).opens(
            Hook::PodIngress,
            &kind.open((client.ip(), 40001).into(), vip),
            &kind.open((client.ip(), 40001).into(), new),
        )
    } else {
        row.opens(Hook::PodIngress, &kind.data(client, vip), &kind.data(client, new)).after(after)
    }
}

/// The first packet of `client` to `backend`, from whatever port but its own.
pub(super) fn from_another_port(client: SocketAddr, backend: SocketAddr, kind: Kind) -> Expected {
    Expected::Given(Box::new(move |output| {
        let port = ends(&output[14..]).expect("a packet").0.port();
        assert!(port != client.port() && port >= 1024, "source port {port}");
        kind.open((client.ip(), port).into(), backend)
    }))
}

/// A pod dials another through a frontend and then itself, from one port: the second flow gets another one towards it.
fn direct_from_the_same_port(kind: Kind) -> Row {
    let (client, vip, backend) = (kind.client(), kind.cluster_ip(), kind.local());
    let world = World::default().cluster_ip(vip, &kind.service(&[(backend, true)]));
    Row::new(kind.name("a pod that is dialled through a frontend and directly, from one port"), world)
        .opens(Hook::PodIngress, &kind.open(client, vip), &kind.open(client, backend))
        .step(
            Hook::PodIngress,
            Input::Packet(kind.open(client, backend)),
            from_another_port(client, backend, kind),
            Verdict::Translate,
            &[Reason::DirectFlow],
        )
        .translates(Hook::PodEgress, &kind.answer(backend, client), &kind.answer(vip, client))
        .not_xdp()
}

/// Two frontends with one backend, dialled from one port: the second flow gets another source port towards the
/// backend, and both clients see their own.
fn shared_backend(kind: Kind) -> Row {
    let (client, vip, backend) = (kind.client(), kind.cluster_ip(), kind.local());
    let other = (kind.addresses.other_ip, vip.port()).into();
    let world = World::default()
        .cluster_ip(vip, &kind.service(&[(backend, true)]))
        .cluster_ip(other, &Service { id: 2, ..kind.service(&[(backend, true)]) });
    Row::new(kind.name("two frontends share a backend and a client's port"), world)
        .opens(Hook::PodIngress, &kind.open(client, vip), &kind.open(client, backend))
        .step(
            Hook::PodIngress,
            Input::Packet(kind.open(client, other)),
            from_another_port(client, backend, kind),
            Verdict::Translate,
            &[Reason::NewFlow],
        )
        .translates(Hook::PodEgress, &kind.answer(backend, client), &kind.answer(vip, client))
}

/// A SYN after the client closed is a new connection; one before is a retransmission.
fn port_reused(kind: Kind) -> Row {
    let (client, vip, backend) = (kind.client(), kind.cluster_ip(), kind.local());
    let world = World::default().cluster_ip(vip, &kind.service(&[(backend, true)]));
    let fin = |to| Packet::tcp(client, to, flag::FIN | flag::ACK);
    let reset = |to| Packet::tcp(client, to, flag::RST);
    Row::new(kind.name("a port that is used again"), world)
        .opens(Hook::PodIngress, &kind.open(client, vip), &kind.open(client, backend))
        .translates(Hook::PodIngress, &kind.open(client, vip), &kind.open(client, backend))
        // The answer to an ACK out of the backend's past: the client tries again, and is to meet the same backend.
        .translates(Hook::PodIngress, &reset(vip), &reset(backend))
        .translates(Hook::PodIngress, &kind.open(client, vip), &kind.open(client, backend))
        .translates(Hook::PodIngress, &kind.data(client, vip), &kind.data(client, backend))
        .translates(Hook::PodIngress, &fin(vip), &fin(backend))
        .opens(Hook::PodIngress, &kind.open(client, vip), &kind.open(client, backend))
}

/// The port of the node belongs to a flow that goes on: the second is dropped. Were it a TCP flow that the client never
/// went on with, or a UDP flow long since quiet, time would free it (properties.rs).
fn ports_exhausted(kind: Kind) -> Row {
    let (client, vip, backend) = (kind.outside(), kind.node_port(), kind.remote());
    let service = kind.service(&[(backend, false)]);
    let world = World::default().node_port(kind.addresses.v6, vip.port(), &service, false);
    Row::new(kind.name("no port of the node is free"), world)
        .opens_past_the_stack(&kind.open(client, vip), &kind.open(kind.mask(), backend).ttl(63))
        .drops(Hook::UplinkIngress, &kind.open((client.ip(), 40001).into(), vip), Reason::PortsExhausted)
}

/// A packet that was translated at one device is left alone at the next: it comes from a pod, and those of other nodes
/// are not entered.
fn second_hook(kind: Kind) -> Row {
    let (client, vip, backend) = (kind.client(), kind.cluster_ip(), kind.local());
    let world = World::default().cluster_ip(vip, &kind.service(&[(backend, true)]));
    Row::new(kind.name("a translated SYN that meets a second hook"), world)
        .opens(Hook::PodIngress, &kind.open(client, vip), &kind.open(client, backend))
        .then(Hook::OverlayIngress, &kind.open(client, backend), Verdict::Pass)
        .translates(Hook::PodEgress, &kind.answer(backend, client), &kind.answer(vip, client))
}

/// An ICMP redirect to the client about a translated packet is dropped, one about any other is not.
fn redirect(kind: Kind) -> Row {
    let (client, vip, backend) = (kind.client(), kind.cluster_ip(), kind.local());
    let world = World::default().cluster_ip(vip, &kind.service(&[(backend, true)]));
    let message = |about: &Packet| {
        let embedded = about.bytes()[about.l3()..].to_vec();
        let mut message = Packet::udp((kind.addresses.node, 0).into(), (client.ip(), 0).into()).payload(embedded);
        message.transport = if kind.addresses.v6 {
            let mut header = vec![0; 48];
            header[0] = 137;
            // A target's hardware address, one unit long, would come first; then the packet.
            header.splice(40..40, [2, 1, 2, 0, 0, 0, 0, 1]);
            (header[48], header[49]) = (4, 20);
            Transport::Raw { protocol: 58, header }
        } else {
            Transport::Raw { protocol: 1, header: vec![5, 1, 0, 0, 10, 244, 1, 6] }
        };
        message
    };
    Row::new(kind.name("1: ICMP redirect"), world)
        .opens(Hook::PodIngress, &kind.open(client, vip), &kind.open(client, backend))
        .drops(Hook::PodEgress, &message(&kind.open(client, backend)), Reason::IcmpRedirect)
        .passes(Hook::PodEgress, &message(&kind.open(client, kind.remote())), &[])
}
