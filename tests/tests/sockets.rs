//! What becomes of a process of the node that dials: the datapath of sockets in plain Rust. Real sockets: `host`.

use std::net::SocketAddr;

use proxy_common::datapath::socket::Dialled;
use proxy_common::reason::{Hook, Reason};
use proxy_common::wire::{Address, BackendFlags, Class, ConfigFlags, End, Frontend, Masquerade, Policy, Reach, Rule};
use proxy_tests::rows::world::{Addresses, BACKEND_PORT, NODE_PORT, SERVICE_PORT, Service, TIMEOUTS, World};
use proxy_tests::runner::{Call, Plain, Runner as _};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SERVICE: u32 = 1;

fn end(address: SocketAddr) -> End {
    End::new(address.ip().into(), address.port().to_be())
}

fn call(cookie: u64, protocol: u8, to: SocketAddr) -> Call {
    Call { cookie, end: end(to), protocol, of_node: true, is_connected: false, is_bound: false }
}

/// A service with two backends, at a ClusterIP and a NodePort.
fn world(v6: bool, protocol: u8) -> (World, Addresses, [SocketAddr; 2]) {
    let at = Addresses::of(v6);
    let backends = [(at.neighbour, true), (at.remote, false)].map(|(ip, local)| ((ip, BACKEND_PORT).into(), local));
    let service = Service { id: SERVICE, protocol, backends: backends.to_vec(), masquerades_pods: false };
    let mut world = World::default()
        .cluster_ip((at.cluster_ip, SERVICE_PORT).into(), &service)
        .node_port(v6, NODE_PORT, &service, true);
    world.config.flags |= ConfigFlags::LOOPBACK4 | ConfigFlags::LOOPBACK6;
    (world, at, backends.map(|(backend, _)| backend))
}

fn count(plain: &mut Plain, reason: Reason) -> u64 {
    plain.counters().unwrap().get(&(Hook::Socket, reason)).copied().unwrap_or_default()
}

/// Every frontend that a process can name, in both families, by both protocols: the socket gets an endpoint, and names
/// the frontend when it is asked.
#[test]
fn rows_22_to_27_whatever_a_process_dials_it_is_told_that_it_is_there() {
    for v6 in [false, true] {
        for protocol in [TCP, UDP] {
            let (world, at, backends) = world(v6, protocol);
            let (loopback, far_loopback, nowhere) =
                if v6 { ("::1", "::1", "::") } else { ("127.0.0.1", "127.9.9.9", "0.0.0.0") };
            let ip = |text: &str| text.parse().unwrap();
            for (address, port) in [
                (at.cluster_ip, SERVICE_PORT),
                (at.node, NODE_PORT),
                (ip(loopback), NODE_PORT),
                (ip(far_loopback), NODE_PORT),
                (ip(nowhere), NODE_PORT),
            ] {
                let mut plain = Plain::new(world.clone(), 1);
                let mut reached = [0; 2];
                for cookie in 0..200 {
                    let mut call = call(cookie, protocol, (address, port).into());
                    let what = format!("{address} {port} {protocol}");
                    assert_eq!(plain.dial(&mut call), Dialled::On, "{what}");
                    let backend = backends.iter().position(|&backend| end(backend) == call.end);
                    reached[backend.unwrap_or_else(|| panic!("{what}: {:?}", call.end))] += 1;
                    plain.recall(&mut call);
                    let told = if address.is_unspecified() { ip(loopback) } else { address };
                    assert_eq!(call.end, end((told, port).into()), "{what}");
                }
                assert!(reached.iter().all(|&count| count > 50), "{reached:?}");
                assert_eq!(count(&mut plain, Reason::NewFlow), 200);
            }
        }
    }
}

#[test]
fn what_is_no_frontend_is_left_alone() {
    let (mut world, at, backends) = world(false, TCP);
    let untouched = |world: &World, mut call: Call, what: &str| {
        let before = call.end;
        assert_eq!(Plain::new(world.clone(), 1).dial(&mut call), Dialled::On, "{what}");
        assert_eq!(call.end, before, "{what}");
    };
    let cluster_ip = SocketAddr::from((at.cluster_ip, SERVICE_PORT));
    let elsewhere = Call { of_node: false, ..call(1, TCP, cluster_ip) };
    untouched(&world, elsewhere, "a socket of a pod");
    untouched(&world, call(1, UDP, cluster_ip), "another protocol");
    untouched(&world, call(1, 132, cluster_ip), "a protocol that is not served");
    untouched(&world, call(1, TCP, (at.cluster_ip, SERVICE_PORT + 1).into()), "another port");
    untouched(&world, call(1, TCP, backends[0]), "an endpoint");
    untouched(&world, call(1, TCP, (at.pod, NODE_PORT).into()), "not an address of the node");
    world.config.flags &= !ConfigFlags::LOOPBACK4;
    untouched(&world, call(1, TCP, ([127, 0, 0, 1], NODE_PORT).into()), "NodePorts are not open there");
}

/// Replaces what processes of the node get at the ClusterIP.
fn with_policy(world: &mut World, at: &Addresses, policy: impl FnOnce(Policy) -> Policy) {
    let address = Address::from(at.cluster_ip);
    let (key, frontend) = world.frontends.iter_mut().find(|(key, _)| key.address == address).unwrap();
    *frontend = Frontend::new(key, SERVICE, policy(frontend.policy));
}

#[test]
fn rows_18_and_37_no_endpoint_is_a_refusal_and_none_that_the_policy_allows_is_none() {
    let (world, at, _) = world(false, TCP);
    let dialled = |world: &World, expected, reason| {
        let mut plain = Plain::new(world.clone(), 1);
        let mut call = call(1, TCP, (at.cluster_ip, SERVICE_PORT).into());
        let before = call.end;
        assert_eq!(plain.dial(&mut call), expected);
        assert_eq!(call.end, before);
        assert_eq!(count(&mut plain, reason), 1);
    };
    let mut empty = world.clone();
    let sets = empty.sets.get_mut(&SERVICE).unwrap();
    (sets.cluster.count, sets.local.count, sets.flags) = (0, 0, 0);
    dialled(&empty, Dialled::Refused, Reason::NoEndpoint);
    let mut elsewhere = world.clone();
    elsewhere.sets.get_mut(&SERVICE).unwrap().local.count = 0;
    with_policy(&mut elsewhere, &at, |policy| {
        policy.with(Class::Host, Rule { reach: Reach::Local, masquerade: Masquerade::Never })
    });
    dialled(&elsewhere, Dialled::Unreachable, Reason::NoLocalEndpoint);
    let mut changing = world;
    changing.backends.clear();
    dialled(&changing, Dialled::Unreachable, Reason::StaleTables);
}

/// NodeLocal DNSCache.
#[test]
fn a_socket_of_the_node_that_is_bound_to_the_cluster_ip_gets_it() {
    let (mut world, at, _) = world(false, UDP);
    with_policy(&mut world, &at, Policy::with_node_address);
    for is_bound in [true, false] {
        let mut plain = Plain::new(world.clone(), 1);
        let mut call = Call { is_bound, ..call(1, UDP, (at.cluster_ip, SERVICE_PORT).into()) };
        let before = call.end;
        assert_eq!(plain.dial(&mut call), Dialled::On);
        assert_eq!(call.end == before, is_bound);
        assert_eq!(count(&mut plain, Reason::OwnSocket), u64::from(is_bound));
    }
}

/// Where datagrams of one socket to the ClusterIP go, one after the other.
fn datagrams(plain: &Plain, at: &Addresses, number: usize) -> Vec<End> {
    let send = |_| {
        let mut call = call(1, UDP, (at.cluster_ip, SERVICE_PORT).into());
        assert_eq!(plain.send(&mut call), Dialled::On);
        call.end
    };
    (0..number).map(send).collect()
}

#[test]
fn row_38_datagrams_of_a_socket_stay_with_their_endpoint() {
    let (world, at, _) = world(false, UDP);
    for seed in 0..20 {
        let mut plain = Plain::new(world.clone(), seed);
        let sent = datagrams(&plain, &at, 20);
        assert!(sent.iter().all(|end| *end == sent[0]), "{sent:?}");
        assert_eq!(count(&mut plain, Reason::NewFlow), 1);
        // As long as it goes on.
        for _ in 0..5 {
            plain.wait(TIMEOUTS.udp);
            assert_eq!(datagrams(&plain, &at, 1), sent[..1]);
        }
        plain.wait(TIMEOUTS.udp + 1);
        let _ = datagrams(&plain, &at, 1);
        assert_eq!(count(&mut plain, Reason::NewFlow), 2, "silence has ended the flow");
    }
}

#[test]
fn rows_56_to_59_datagrams_leave_an_endpoint_that_does_not_serve() {
    let (world, at, backends) = world(false, UDP);
    for spoil in [
        (|world, id| world.backends.get_mut(&id).unwrap().flags &= !BackendFlags::SERVING) as fn(&mut World, u32),
        |world, id| world.backends.get_mut(&id).unwrap().generation += 1,
        |world, id| world.backends.get_mut(&id).unwrap().service += 1,
    ] {
        let mut plain = Plain::new(world.clone(), 3);
        let first = datagrams(&plain, &at, 1)[0];
        let index = backends.iter().position(|&backend| end(backend) == first).unwrap();
        let mut changed = world.clone();
        let (gone, left) = (16 + index as u32, 16 + (1 - index) as u32);
        spoil(&mut changed, gone);
        let sets = changed.sets.get_mut(&SERVICE).unwrap();
        (sets.cluster.base, sets.cluster.count) = (left, 1);
        plain.update(&changed).unwrap();
        assert_eq!(datagrams(&plain, &at, 2), [end(backends[1 - index]); 2]);
    }
}

/// An endpoint that is dialled straight sends from its own address; what was remembered of a frontend is not believed.
#[test]
fn an_endpoint_that_is_dialled_straight_answers_by_its_own_address() {
    let (world, at, backends) = world(false, UDP);
    let plain = Plain::new(world, 1);
    let through = datagrams(&plain, &at, 1)[0];
    let backend = backends.into_iter().find(|&backend| end(backend) == through).unwrap();
    let heard = |expected: End| {
        let mut heard = call(1, UDP, backend);
        plain.recall(&mut heard);
        assert_eq!(heard.end, expected);
    };
    heard(end((at.cluster_ip, SERVICE_PORT).into()));
    // The kernel names the other end of a connected socket itself.
    assert_eq!(plain.send(&mut Call { is_connected: true, ..call(1, UDP, backend) }), Dialled::On);
    heard(end((at.cluster_ip, SERVICE_PORT).into()));
    assert_eq!(plain.send(&mut call(1, UDP, backend)), Dialled::On);
    heard(through);
    let _ = datagrams(&plain, &at, 1);
    assert_eq!(plain.dial(&mut Call { is_connected: true, ..call(1, UDP, backend) }), Dialled::On);
    heard(through);
}
