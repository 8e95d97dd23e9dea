//! Processes of the node itself dial Services, by sockets of all kinds. Needs root and the agent.

use std::collections::BTreeMap;
use std::io::{Write as _, stdout};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proxy_tests::cluster::{AgentOptions, Cluster, Cni, Endpoint, Family, Place, Service, Stage, eventually};
use proxy_tests::patience::patience;
use proxy_tests::traffic::{CallOptions, Called, Failure, Manner, ResolveOptions, Resolved, Transport, now_us};

const NODE_PORT: u16 = 30080;

fn stage(service: &Service, endpoints: impl Fn(&Cluster) -> Vec<Endpoint>) -> Result<Stage> {
    stage_with(&AgentOptions::default(), service, endpoints)
}

fn stage_with(
    options: &AgentOptions,
    service: &Service,
    endpoints: impl Fn(&Cluster) -> Vec<Endpoint>,
) -> Result<Stage> {
    let builder = Cluster::builder().nodes(2).cni(Cni::Routed).pod(1, "a").pod(1, "b").pod(2, "c");
    Stage::start_with(builder, options, |cluster| cluster.manifests().apply(service, &endpoints(cluster)))
}

fn pods(cluster: &Cluster, names: &[&str]) -> Vec<Endpoint> {
    names.iter().map(|name| Endpoint::of(cluster.pod(name))).collect()
}

/// Questions on new sockets, every manner of using one; `servers` are to answer in turns, and the process is to be told
/// that it talks to `to`.
fn answered_by(stage: &Stage, from: &impl Place, to: SocketAddr, servers: &[&str]) -> Result<()> {
    for transport in Transport::BOTH {
        for manner in Manner::of(transport) {
            // No more than one run in ten million leaves one of two servers out.
            let sockets = if servers.len() > 1 { 24 } else { 3 };
            let called = from.call(to, &CallOptions { sockets, ..CallOptions::new(transport, manner) })?;
            let what = || format!("{} to {to} {transport:?} {manner:?}: {called:?}\n{}", from.name(), stage.evidence());
            let mut answers: BTreeMap<&str, u32> = BTreeMap::new();
            for Called { answer, told, .. } in &called {
                let answer = answer.as_ref().with_context(what)?;
                *answers.entry(&answer.server).or_default() += 1;
                ensure!(*told == Some(to), "told that {told:?} is there: {}", what());
            }
            ensure!(answers.keys().eq(servers), "not by {servers:?}: {}", what());
        }
    }
    Ok(())
}

fn fails(from: &impl Place, to: SocketAddr, expected: Failure) -> Result<()> {
    for transport in Transport::BOTH {
        for manner in Manner::of(transport) {
            let called = from.call(to, &CallOptions::new(transport, manner))?;
            let what = || format!("{} to {to} {transport:?} {manner:?}: {called:?}", from.name());
            ensure!(called.iter().all(|it| it.failure == Some(expected) && it.at_once), "{}", what());
        }
    }
    Ok(())
}

/// The same address for a socket of IPv6.
fn mapped(to: SocketAddr) -> SocketAddr {
    match to.ip() {
        IpAddr::V4(ip) => (ip.to_ipv6_mapped(), to.port()).into(),
        IpAddr::V6(_) => to,
    }
}

fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => [127, 0, 0, 1].into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    }
}

/// Rows 22 to 27 for a process of the node, whatever kind of socket it has.
#[test]
fn every_frontend_answers_every_kind_of_socket() -> Result<()> {
    let external: [IpAddr; 2] = ["192.0.2.80".parse()?, "2001:db8:80::80".parse()?];
    let service = Service::new("web", 1).node_port(NODE_PORT).external_ip(external[0]).external_ip(external[1]);
    let stage = stage(&service, |cluster| pods(cluster, &["b", "c"]))?;
    let node = stage.cluster.node(1);
    for (family, external) in Family::BOTH.into_iter().zip(external) {
        for to in [
            service.http(family),
            (external, Service::HTTP).into(),
            (node.ip(family), NODE_PORT).into(),
            (loopback(family), NODE_PORT).into(),
        ] {
            answered_by(&stage, node, to, &["b", "c"])?;
            if family == Family::V4 {
                answered_by(&stage, node, mapped(to), &["b", "c"])?;
            }
        }
    }
    Ok(())
}

/// The backend sees the address that the kernel chooses for its route, and that of a socket which has chosen itself.
#[test]
fn row_35_endpoints_on_the_host_network_are_reached_too() -> Result<()> {
    let service = Service::new("web", 1).node_port(NODE_PORT);
    let mut stage =
        stage(&service, |cluster| vec![Endpoint::on_host(cluster.node(1)), Endpoint::on_host(cluster.node(2))])?;
    let servers = [stage.cluster.node(1).serve()?, stage.cluster.node(2).serve()?];
    stage.servers.extend(servers);
    for family in Family::BOTH {
        for to in [service.http(family), (loopback(family), NODE_PORT).into()] {
            answered_by(&stage, stage.cluster.node(1), to, &["node1", "node2"])?;
        }
    }
    Ok(())
}

#[test]
fn rows_18_22_and_27_policies() -> Result<()> {
    let service = Service::new("web", 1).node_port(NODE_PORT).internal_local().external_local();
    let stage = stage(&service, |cluster| pods(cluster, &["c"]))?;
    let cluster = &stage.cluster;
    for family in Family::BOTH {
        // No endpoint on node 1: none by the ClusterIP, and the whole cluster by the NodePort.
        fails(cluster.node(1), service.http(family), Failure::Unreachable)?;
        answered_by(&stage, cluster.node(2), service.http(family), &["c"])?;
        for to in [cluster.node(1).ip(family), loopback(family)] {
            answered_by(&stage, cluster.node(1), (to, NODE_PORT).into(), &["c"])?;
        }
    }
    cluster.manifests().apply_endpoints(&service, &[])?;
    eventually(Duration::from_secs(2), || {
        for family in Family::BOTH {
            fails(cluster.node(1), service.http(family), Failure::Refused)?;
            fails(cluster.node(1), (loopback(family), NODE_PORT).into(), Failure::Refused)?;
        }
        Ok(())
    })
}

/// Row 38: connection tracking would keep the datagrams of a socket together.
#[test]
fn datagrams_of_a_socket_stay_with_their_endpoint() -> Result<()> {
    let service = Service::new("web", 1);
    let stage = stage(&service, |cluster| pods(cluster, &["b", "c"]))?;
    for family in Family::BOTH {
        for manner in Manner::of(Transport::Udp) {
            let options = CallOptions { sockets: 24, questions: 5, ..CallOptions::new(Transport::Udp, manner) };
            let mut by_socket: BTreeMap<u32, Vec<String>> = BTreeMap::new();
            for called in stage.cluster.node(1).call(service.http(family), &options)? {
                let answer = called.answer.with_context(|| format!("{:?}", called.failure))?;
                by_socket.entry(called.socket).or_default().push(answer.server);
            }
            let steady =
                by_socket.values().all(|servers| servers.len() == 5 && servers.iter().all(|it| *it == servers[0]));
            ensure!(steady, "{manner:?}: {by_socket:?}");
            let firsts: Vec<&String> = by_socket.values().filter_map(|servers| servers.first()).collect();
            ensure!(["b", "c"].iter().all(|server| firsts.iter().any(|it| it == server)), "{firsts:?}");
        }
    }
    Ok(())
}

/// How long after a moment the resolver had its first answer by `server`.
fn first_answer(resolved: &[Resolved], since_us: u64, server: &str) -> Result<Duration> {
    let answer = resolved.iter().find(|it| it.at_us > since_us && it.server.as_deref() == Some(server));
    let answer = answer.with_context(|| format!("no answer by {server} after {since_us}: {resolved:?}"))?;
    Ok(Duration::from_micros(answer.at_us - since_us))
}

/// Rows 56 to 59: a resolver whose socket is connected dials again, since its socket ends.
#[test]
fn connected_sockets_leave_an_endpoint_that_is_gone() -> Result<()> {
    let service = Service::new("dns", 1);
    let stage = stage(&service, |cluster| pods(cluster, &["b"]))?;
    let cluster = &stage.cluster;
    for family in Family::BOTH {
        let resolvers = [service.http(family), mapped(service.http(family))]
            .map(|to| cluster.node(1).start_resolver(to, &ResolveOptions::default()).map(|resolver| (to, resolver)));
        std::thread::sleep(Duration::from_secs(1));
        let mut moments = Vec::new();
        for endpoints in [&["c"][..], &[], &["b"]] {
            moments.push(now_us());
            cluster.manifests().apply_endpoints(&service, &pods(cluster, endpoints))?;
            std::thread::sleep(Duration::from_secs(2));
        }
        for resolver in resolvers {
            let (to, resolver) = resolver?;
            let resolved = resolver.stop()?.resolved;
            let [replaced, gone, back] = moments[..] else { unreachable!("three moments") };
            let what = || format!("{to}: {resolved:?}\n{}", stage.evidence());
            let answered = |since, server| first_answer(&resolved, since, server).with_context(|| stage.evidence());
            let (moved, returned) = (answered(replaced, "c")?, answered(back, "b")?);
            // Not by println!, which the test runner holds back where nothing fails.
            writeln!(stdout(), "{to}: answered by the new endpoint after {moved:?}, after none after {returned:?}")?;
            ensure!(moved.max(returned) < patience(Duration::from_secs(1)), "{}", what());
            let later = resolved.iter().filter(|it| (gone..back).contains(&it.at_us)).skip(10);
            ensure!(later.clone().count() > 3, "{}", what());
            let refused = later.filter(|it| it.failure == Some(Failure::Refused)).count();
            ensure!(refused > 0, "a frontend without endpoints refuses: {}", what());
        }
    }
    Ok(())
}

/// A socket that was connected to an endpoint itself is nobody's business.
#[test]
fn sockets_that_dialled_an_endpoint_straight_are_left_alone() -> Result<()> {
    let service = Service::new("dns", 1);
    let stage = stage(&service, |cluster| pods(cluster, &["b"]))?;
    let cluster = &stage.cluster;
    for family in Family::BOTH {
        let straight = SocketAddr::new(cluster.pod("b").ip(family), 8080);
        let resolver = cluster.node(1).start_resolver(straight, &ResolveOptions::default())?;
        std::thread::sleep(Duration::from_millis(500));
        cluster.manifests().apply_endpoints(&service, &pods(cluster, &["c"]))?;
        std::thread::sleep(Duration::from_secs(1));
        cluster.manifests().apply_endpoints(&service, &pods(cluster, &["b"]))?;
        let resolved = resolver.stop()?.resolved;
        ensure!(resolved.len() > 5 && resolved.iter().all(|it| it.failure.is_none()), "{resolved:?}");
    }
    Ok(())
}

/// Pods go the way of packets, though their processes are in the same control groups.
#[test]
fn sockets_of_pods_are_left_alone() -> Result<()> {
    let service = Service::new("web", 1);
    let stage = stage(&service, |cluster| pods(cluster, &["b"]))?;
    let new = |hook: &str| -> Result<u64> {
        let rows = stage.agents[0].get("counters")?;
        let rows = rows.as_array().into_iter().flatten();
        let rows = rows.filter(|row| row["hook"] == hook && row["reason"] == "new-flow");
        Ok(rows.filter_map(|row| row["packets"].as_u64()).sum())
    };
    let before = new("socket")?;
    for family in Family::BOTH {
        answered_by(&stage, stage.cluster.pod("a"), service.http(family), &["b"])?;
    }
    ensure!(new("socket")? == before, "{}", stage.evidence());
    answered_by(&stage, stage.cluster.node(1), service.http(Family::V4), &["b"])?;
    ensure!(new("socket")? > before, "{}", stage.evidence());
    Ok(())
}

/// Links outlive the agent, its successor takes them over, and goes without them when told to.
#[test]
fn the_kernel_goes_on_without_an_agent_and_ends_with_cleanup() -> Result<()> {
    let service = Service::new("web", 1).node_port(NODE_PORT);
    let mut stage = stage(&service, |cluster| pods(cluster, &["b"]))?;
    let to = service.http(Family::V4);
    let links = |stage: &Stage| -> Result<Vec<String>> { links(stage.cluster.node(1).pin_dir()) };
    let before = links(&stage)?;
    ensure!(before.len() == 8, "{before:?}");
    stage.agent(1).kill();
    answered_by(&stage, stage.cluster.node(1), to, &["b"])?;
    stage.agent(1).start_again()?;
    answered_by(&stage, stage.cluster.node(1), to, &["b"])?;
    ensure!(links(&stage)? == before);
    stage.agent(1).terminate()?;
    let node = stage.cluster.node(1);
    let pin_dir = node.pin_dir().to_string_lossy().into_owned();
    stage.agent(1).cleanup()?;
    ensure!(!Path::new(&pin_dir).exists(), "{pin_dir} is left");
    let node = stage.cluster.node(1);
    let called =
        node.call(to, &CallOptions { timeout_ms: 500, ..CallOptions::new(Transport::Udp, Manner::Connected) })?;
    ensure!(called[0].answer.is_none(), "nothing serves it any more: {called:?}");
    Ok(())
}

#[test]
fn switched_off_it_takes_what_an_earlier_agent_left() -> Result<()> {
    let service = Service::new("web", 1);
    let stage =
        stage_with(&AgentOptions::default().with(&["--socket-lb=off"]), &service, |cluster| pods(cluster, &["b"]))?;
    ensure!(links(stage.cluster.node(1).pin_dir())?.is_empty());
    answered_by(&stage, stage.cluster.pod("a"), service.http(Family::V4), &["b"])
}

/// Pins of links at sockets.
fn links(pin_dir: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for version in std::fs::read_dir(pin_dir)? {
        for directory in std::fs::read_dir(version?.path())? {
            let directory = directory?;
            if directory.file_name().to_string_lossy().starts_with("sockets-") {
                for link in std::fs::read_dir(directory.path())? {
                    found.push(link?.file_name().to_string_lossy().into_owned());
                }
            }
        }
    }
    found.sort();
    Ok(found)
}
