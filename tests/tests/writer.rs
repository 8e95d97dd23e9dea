//! A writer at full speed beside packets that select their backends: nobody is sent to another Service's backend, and
//! nobody passes untranslated. Needs root.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use proxy_common::reason::{Hook, Reason};
use proxy_common::wire::{Class, Config, FrontendKey, Kind, Masquerade, Policy, Reach, Rule, Scope};
use proxy_tests::comparison::stay_on_one_processor;
use proxy_tests::packet::{Packet, ends};
use proxy_tests::rows::world::World;
use proxy_tests::runner::Shared;
use proxy_tests::scale::scaled;
use proxy_userspace::desired::{Endpoint, Frontend, NodeState, ServicePort, ServicePortName, Sets};
use proxy_userspace::kernel::MapTables;
use proxy_userspace::model::{Algorithm, ObjectName, Protocol};
use proxy_userspace::reconcile::{Limits, Reconciler};

/// Services that pass a packet on from one to the next: the backends of each are frontends of the next one. The kernel
/// gives a repeated run the packet that the run before left, so every run selects, and who was ever sent elsewhere, or
/// nowhere, is out of step in the end.
const RING: u8 = 4;
/// Frontends of each.
const DOORS: u8 = 2;
/// Other services, which come and go.
const NEIGHBOURS: u8 = 64;
const PORT: u16 = 80;
const UDP: u8 = 17;
/// Runs of the program in one call: a multiple of [`RING`].
const REPEAT: u32 = 1000;

fn address(network: u8, service: u8, door: u8) -> IpAddr {
    Ipv4Addr::new(10, network, service, door + 1).into()
}

fn ring(service: u8, door: u8) -> SocketAddr {
    (address(96, service % RING, door), PORT).into()
}

/// The service of the ring whose frontend an address is.
fn place(of: SocketAddr) -> Option<u8> {
    (0..RING).find(|&service| (0..DOORS).any(|door| ring(service, door) == of))
}

/// All of one service port: at `doors`, with backends of which those with bits in `members` are in its sets.
fn service(
    name: &str,
    doors: &[SocketAddr],
    backends: &[SocketAddr],
    members: u32,
    reach: Reach,
) -> (ObjectName, Vec<ServicePort>) {
    let name = ServicePortName {
        namespace: "default".into(),
        name: name.into(),
        port: String::new(),
        protocol: Protocol::Udp,
    };
    let policy = Policy::new(Kind::ClusterIp).with(Class::Pod, Rule { reach, masquerade: Masquerade::Never });
    let frontends = doors.iter().map(|door| {
        let key =
            FrontendKey { address: door.ip().into(), port: door.port().to_be(), protocol: UDP, scope: Scope::ADDRESS };
        Frontend { key, policy }
    });
    let chosen = backends.iter().enumerate().filter(|(index, _)| members & 1 << index != 0).map(|(_, address)| address);
    let backends: Vec<Endpoint> =
        chosen.map(|address| Endpoint { address: address.ip(), port: address.port(), local: true }).collect();
    let all: Vec<u32> = (0..backends.len() as u32).collect();
    let sets = Sets { cluster: all.clone(), local: all, has_endpoints: true };
    let port = ServicePort {
        created: 0,
        algorithm: Algorithm::Random,
        backends,
        sets: [Some(sets), None],
        frontends: frontends.collect(),
        name,
    };
    (port.name.service(), vec![port])
}

/// A service of the ring as it is in one of its states.
fn member(number: u8, state: u32) -> (ObjectName, Vec<ServicePort>) {
    let doors: Vec<SocketAddr> = (0..DOORS).map(|door| ring(number, door)).collect();
    let backends: Vec<SocketAddr> = (0..DOORS).map(|door| ring(number + 1, door)).collect();
    // One backend, the other, or both; and now and then another policy, for which the frontends are written anew.
    let reach = if state / 3 % 2 == 0 { Reach::Cluster } else { Reach::Local };
    service(&format!("ring-{number}"), &doors, &backends, state % 3 + 1, reach)
}

/// A service that shares the maps with the ring and has nothing else to do with it.
fn neighbour(number: u8) -> (ObjectName, Vec<ServicePort>) {
    let door = |network| SocketAddr::new(address(network, number, 0), PORT);
    service(&format!("neighbour-{number}"), &[door(97), door(98)], &[door(99)], 1, Reach::Cluster)
}

/// Writes as an agent does, in the order and with the grace of its reconciler.
struct Writer {
    tables: MapTables,
    reconciler: Reconciler,
    started: Instant,
    rounds: u64,
}

impl Writer {
    fn start(mut tables: MapTables) -> Result<Self> {
        let mut reconciler = Reconciler::adopt(&tables, Limits::default())?;
        let config = Config {
            // The next flow takes the only seat there is, so that no entry outlives its first packet.
            opening_seats4: 1,
            opening_seats6: 1,
            ..World::default().config
        };
        let node = NodeState { config, ..NodeState::default() };
        let report = reconciler.set_node(&mut tables, &node, Duration::ZERO);
        ensure!(report.error.is_none(), "{report:?}");
        let report = reconciler.sync(&mut tables, (0..RING).map(|number| member(number, 0)), Duration::ZERO);
        ensure!(report.error.is_none() && report.problems.is_empty(), "{report:?}");
        Ok(Self { tables, reconciler, started: Instant::now(), rounds: 0 })
    }

    /// Another state of each service of the ring, and one neighbour more, one less.
    fn round(&mut self) -> Result<()> {
        let round = self.rounds;
        let at = |back: u64| (round.wrapping_sub(back) % u64::from(NEIGHBOURS)) as u8;
        let gone = (neighbour(at(u64::from(NEIGHBOURS) / 2)).0, Vec::new());
        let changes = (0..RING).map(|number| member(number, round as u32 + u32::from(number)));
        let changes = changes.chain([neighbour(at(0)), gone]);
        let report = self.reconciler.apply(&mut self.tables, changes, self.started.elapsed());
        ensure!(report.error.is_none(), "{report:?}");
        self.rounds += 1;
        Ok(())
    }
}

#[test]
fn a_reader_never_gets_anothers_frontend() -> Result<()> {
    let selections: u64 = scaled(200_000, 50_000_000);
    let (mut shared, tables) = Shared::open()?;
    let mut writer = Writer::start(tables)?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| -> Result<u64> {
            while !done.load(Ordering::Relaxed) {
                writer.round()?;
            }
            Ok(writer.rounds)
        });
        // The seat is one for each processor.
        let read = stay_on_one_processor().and_then(|()| select(&mut shared, selections));
        done.store(true, Ordering::Relaxed);
        let rounds = writing.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
        println!("{selections} selections beside {rounds} rounds of writes, {} stale", stale(&shared)?);
        ensure!(rounds > 100, "{rounds} rounds of writes are no writer beside");
        read
    })
}

fn stale(shared: &Shared) -> Result<u64> {
    shared.count(Hook::PodIngress, Reason::StaleTables)
}

/// Lets a packet go round until it has been given a backend so many times; `Err`: it went astray.
fn select(shared: &mut Shared, selections: u64) -> Result<()> {
    let from: SocketAddr = "10.244.1.5:40000".parse()?;
    let mut packet = Packet::udp(from, ring(0, 0)).bytes();
    let counted = |shared: &Shared| shared.count(Hook::PodIngress, Reason::NewFlow);
    let before = (counted(shared)?, stale(shared)?);
    for call in 1..=selections.div_ceil(REPEAT.into()) {
        packet = shared.repeat(Hook::PodIngress, &packet, REPEAT)?;
        let (_, to) = ends(&packet[14..]).context("a packet")?;
        let (selected, dropped) = (counted(shared)? - before.0, stale(shared)? - before.1);
        let what = || format!("call {call}: {selected} selections, {dropped} packets dropped, now at {to}");
        // Each run selects: what was dropped is counted, and whoever passed untranslated is missing here.
        ensure!(selected + dropped == call * u64::from(REPEAT), "some passed untranslated: {}", what());
        let expected = (selected % u64::from(RING)) as u8;
        ensure!(place(to) == Some(expected), "not at {expected}: {}", what());
    }
    Ok(())
}
