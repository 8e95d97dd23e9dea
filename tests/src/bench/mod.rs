//! What a packet costs in the programs, in nanoseconds by `BPF_PROG_TEST_RUN`.
//!
//! The kernel gives a repeated run the packet that the run before left. So an established flow is two entries that
//! translate into each other, to and fro. Programs are timed in turns, many short series each, and compared within a
//! turn: clocks and neighbours change between turns, ratios hardly.

mod circle;

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, ensure};
use aya::maps::{HashMap, MapData};
use proxy_common::{
    reason::Hook,
    wire::{Address, Flow4, Flow6, FlowFlags, FlowKey4, FlowKey6, Frontend, FrontendKey, Role, Side},
};
use serde::Serialize;

use crate::{
    comparison::stay_on_one_processor,
    packet::{Packet, flag},
    rows::world::{Addresses, Service, World},
    runner::{
        Kernel, Runner,
        kernel::{Bytes, bytes},
        namespace::{self, Devices},
        object::{self, Sizes},
        test_run,
    },
};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Turns.
    pub rounds: usize,
    /// Runs of a program in a turn.
    pub repeat: u32,
    /// Flows that are begun to time a new one.
    pub new_flows: u16,
    /// The larger number of services.
    pub services: u32,
    /// Established flows of which each run of a packet belongs to another.
    pub flows: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { rounds: 41, repeat: 50_000, new_flows: 5_000, services: 20_000, flows: 131_072 }
    }
}

/// One kind of packet through one program.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    pub program: &'static str,
    pub packet: &'static str,
    pub services: u32,
    /// Median over the turns, the kernel's own loop around the program included.
    pub nanoseconds: f64,
    /// Median over the turns of the ratio to the calibrator in the same turn.
    pub to_calibrator: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub calibrator: f64,
    /// Spread of the calibrator: the ratio of its third quartile to its first.
    pub calibrator_spread: f64,
    pub costs: Vec<Cost>,
    /// The established IPv4 TCP packet through the tc program with many services, as a ratio to one service.
    pub many_to_one: f64,
}

const PORT: u16 = 80;
const CLIENT_PORT: u16 = 40000;

/// Measures.
///
/// # Errors
/// Without root, or where the kernel refuses something.
pub fn packets(options: &Options) -> anyhow::Result<Report> {
    stay_on_one_processor()?;
    let devices = namespace::enter()?;
    let (few, many) = (world(1), world(options.services));
    let extra: Vec<_> = many.frontends.iter().filter(|(key, _)| !few.frontends.contains_key(key)).collect();
    let extra: Vec<_> = extra.into_iter().map(|(&key, &frontend)| (key, frontend)).collect();
    let size = options.services * 16 + 64;
    let services = options.services + 8;
    let sizes = Sizes {
        frontends: services,
        services,
        slots: size,
        backends: size,
        flows: FLOWS,
        seats: SEATS,
        ..Sizes::default()
    };
    let mut hosts = Vec::new();
    for xdp in [false, true] {
        let mut kernel = Kernel::load(sizes, devices, xdp)?;
        kernel.install(&World { frontends: few.frontends.clone(), ..many.clone() })?;
        flows(&mut kernel)?;
        hosts.push(Host { kernel, few: [const { Vec::new() }; PACKETS], many: [const { Vec::new() }; PACKETS] });
    }
    let mut crowd = Crowd::load(options, devices)?;
    let mut calibrator = Calibrator::load()?;
    let mut base = Vec::new();
    // The first two turns warm caches and are thrown away.
    for round in 0..options.rounds + 2 {
        base.push(calibrator.time(options.repeat)?);
        for host in &mut hosts {
            host.turn(round, &extra, options.repeat)?;
        }
        crowd.turn(options.repeat)?;
    }
    let base = &base[2..];
    let mut costs = vec![crowd.cost(base)];
    let mut many_to_one = f64::NAN;
    for host in &mut hosts {
        let program = host.kernel.name();
        if program == "tc" {
            many_to_one = ratio(&host.many[0][2..], &host.few[0][2..]);
        }
        for (services, times) in [(1, &host.few), (options.services, &host.many)] {
            for ((packet, _), series) in packets_to_and_fro().iter().zip(times) {
                let (nanoseconds, to_calibrator) = (median(&series[2..]), ratio(&series[2..], base));
                costs.push(Cost { program, packet, services, nanoseconds, to_calibrator });
            }
        }
        for (v6, packet) in [(false, "new flow, one run each, IPv4"), (true, "new flow, one run each, IPv6")] {
            host.kernel.install(&many)?;
            let nanoseconds = median(&new_flows(&mut host.kernel, v6, options)?);
            let (services, to_calibrator) = (options.services, nanoseconds / median(base));
            costs.push(Cost { program, packet, services, nanoseconds, to_calibrator });
        }
    }
    let calibrator_spread = quantile(base, 0.75) / quantile(base, 0.25);
    Ok(Report { calibrator: median(base), calibrator_spread, costs, many_to_one })
}

const PACKETS: usize = 4;

/// The packets that are repeated.
fn packets_to_and_fro() -> [(&'static str, Vec<u8>); PACKETS] {
    let bytes = |v6, to| Packet::tcp(client(v6), to, flag::ACK).bytes();
    [
        ("established, IPv4", bytes(false, one(false))),
        ("established, IPv6", bytes(true, one(true))),
        ("not ours, IPv4", bytes(false, other(false))),
        ("not ours, IPv6", bytes(true, other(true))),
    ]
}

/// A host and the times of each packet in each turn, with one service and with many. Both are measured with the same
/// program and maps: where another copy of them happens to lie makes a difference of some percent.
struct Host {
    kernel: Kernel,
    few: [Vec<f64>; PACKETS],
    many: [Vec<f64>; PACKETS],
}

impl Host {
    /// One service first in even turns, many first in odd ones.
    fn turn(&mut self, round: usize, extra: &[(FrontendKey, Frontend)], repeat: u32) -> anyhow::Result<()> {
        if round.is_multiple_of(2) {
            time(&mut self.kernel, &mut self.few, repeat)?;
            self.kernel.add_frontends(extra)?;
            time(&mut self.kernel, &mut self.many, repeat)
        } else {
            time(&mut self.kernel, &mut self.many, repeat)?;
            self.kernel.remove_frontends(extra)?;
            time(&mut self.kernel, &mut self.few, repeat)
        }
    }
}

/// A host with very many established flows.
struct Crowd {
    kernel: Kernel,
    packet: Vec<u8>,
    times: Vec<f64>,
}

impl Crowd {
    fn load(options: &Options, devices: Devices) -> anyhow::Result<Self> {
        let sizes = Sizes { flows: 2 * options.flows, ..Sizes::default() };
        let mut kernel = Kernel::load(sizes, devices, false)?;
        kernel.install(&world(1))?;
        let (start, flows) = circle::circle(options.flows);
        kernel.enter4(flows)?;
        let packet = Packet::tcp(client(false), start, flag::ACK).bytes();
        Ok(Self { kernel, packet, times: Vec::new() })
    }

    /// Each goes on where the flows are that no cache holds any more.
    fn turn(&mut self, repeat: u32) -> anyhow::Result<()> {
        let outcome = self.kernel.repeat(Hook::UplinkIngress, &self.packet, repeat)?;
        self.times.push(outcome.duration.as_nanos() as f64);
        self.packet = outcome.bytes;
        Ok(())
    }

    fn cost(&self, base: &[f64]) -> Cost {
        let times = self.times.get(2..).unwrap_or_default();
        Cost {
            program: self.kernel.name(),
            packet: "established, each run of another flow of many, IPv4",
            services: 1,
            nanoseconds: median(times),
            to_calibrator: ratio(times, base),
        }
    }
}

fn time(kernel: &mut Kernel, times: &mut [Vec<f64>; PACKETS], repeat: u32) -> anyhow::Result<()> {
    for ((_, bytes), times) in packets_to_and_fro().iter().zip(times) {
        let outcome = kernel.repeat(Hook::UplinkIngress, bytes, repeat)?;
        times.push(outcome.duration.as_nanos() as f64);
    }
    Ok(())
}

/// Series of one program on two CPUs would compare the CPUs.
fn ip(v6: bool, host: u32) -> IpAddr {
    if v6 {
        IpAddr::from(((0xfd00_0096_u128 << 96) + u128::from(host)).to_be_bytes())
    } else {
        IpAddr::from((0x0a60_0000 + host).to_be_bytes())
    }
}

fn client(v6: bool) -> SocketAddr {
    let text = if v6 { "fd00:244:1::5" } else { "10.244.1.5" };
    SocketAddr::new(text.parse().expect("an address"), CLIENT_PORT)
}

/// The two ends that an established flow goes to and fro between; they are no frontends.
fn one(v6: bool) -> SocketAddr {
    SocketAddr::new(ip(v6, 0xff01), PORT)
}

fn two(v6: bool) -> SocketAddr {
    SocketAddr::new(ip(v6, 0xff02), 8080)
}

fn other(v6: bool) -> SocketAddr {
    SocketAddr::new(ip(v6, 0xff03), PORT)
}

/// Entries of a flow table, and seats of flows that have not proved themselves: as on a node, more than are begun.
const FLOWS: u32 = 65_536;
const SEATS: u32 = 8_192;

fn world(services: u32) -> World {
    let mut empty = World::default();
    (empty.config.opening_seats4, empty.config.opening_seats6) = (SEATS, SEATS);
    (empty.config.proven_seats4, empty.config.proven_seats6) = (FLOWS, FLOWS);
    (1..=services).fold(empty, |world, id| {
        [false, true].into_iter().fold(world, |world, v6| {
            // Both families of the last service only, so that the table has as many elements as there are services.
            if v6 && id != services {
                return world;
            }
            let text = if v6 { "fd00:244:1::6" } else { "10.244.1.6" };
            let backend = SocketAddr::new(text.parse().expect("an address"), 8080);
            let id = if v6 { services + 1 } else { id };
            let service = Service { id, protocol: 6, backends: vec![(backend, true)], masquerades_pods: false };
            world.cluster_ip(SocketAddr::new(ip(v6, if v6 { services } else { id }), PORT), &service)
        })
    })
}

/// Entries that translate one end into the other.
fn flows(kernel: &mut Kernel) -> anyhow::Result<()> {
    kernel.enter4([pair4(one(false), two(false)), pair4(two(false), one(false))])?;
    kernel.enter6([pair6(one(true), two(true)), pair6(two(true), one(true))])
}

fn pair4(from: SocketAddr, to: SocketAddr) -> (FlowKey4, Flow4) {
    let word = |address: SocketAddr| Address::from(address.ip()).0[3];
    let source = word(client(false));
    let key = FlowKey4 {
        source,
        destination: word(from),
        source_port: CLIENT_PORT.to_be(),
        destination_port: from.port().to_be(),
        protocol: 6,
        side: Side::INGRESS,
        pad: [0; 2],
    };
    let flow = Flow4 {
        source,
        destination: word(to),
        source_port: CLIENT_PORT.to_be(),
        destination_port: to.port().to_be(),
        role: Role::CLIENT,
        flags: FlowFlags::PROVEN,
        ..Flow4::default()
    };
    (key, flow)
}

fn pair6(from: SocketAddr, to: SocketAddr) -> (FlowKey6, Flow6) {
    let words = |address: SocketAddr| Address::from(address.ip()).0;
    let source = words(client(true));
    let key = FlowKey6 {
        source,
        destination: words(from),
        source_port: CLIENT_PORT.to_be(),
        destination_port: from.port().to_be(),
        protocol: 6,
        side: Side::INGRESS,
        pad: [0; 2],
    };
    let flow = Flow6 {
        source,
        destination: words(to),
        source_port: CLIENT_PORT.to_be(),
        destination_port: to.port().to_be(),
        role: Role::CLIENT,
        flags: FlowFlags::PROVEN,
        ..Flow6::default()
    };
    (key, flow)
}

/// Times of the first packets of as many flows, each from another port. A new flow is new only once, so these are
/// single runs, with the clock's own time in each and colder caches.
fn new_flows(kernel: &mut Kernel, v6: bool, options: &Options) -> anyhow::Result<Vec<f64>> {
    let vip = SocketAddr::new(ip(v6, options.services), PORT);
    // XDP is for uplinks: there its own program would not be met by what pods send.
    let (hook, from) = if kernel.name() == "tc" {
        (Hook::PodIngress, client(v6).ip())
    } else {
        (Hook::UplinkIngress, Addresses::of(v6).outside)
    };
    let mut times = Vec::new();
    for port in 1024..1024 + options.new_flows {
        let packet = Packet::tcp(SocketAddr::new(from, port), vip, flag::SYN).bytes();
        let outcome = kernel.repeat(hook, &packet, 1)?;
        ensure!(outcome.bytes != packet, "the first packet of a flow was not translated");
        times.push(outcome.duration.as_nanos() as f64);
    }
    Ok(times)
}

/// The yardstick with a flow to and fro.
struct Calibrator {
    ebpf: aya::Ebpf,
    packet: Vec<u8>,
}

impl Calibrator {
    fn load() -> anyhow::Result<Self> {
        let mut ebpf = object::calibrator()?;
        let map = ebpf.map_mut("FLOWS").context("the calibrator has no flows")?;
        let mut map = HashMap::<&mut MapData, Bytes<16>, Bytes<32>>::try_from(map)?;
        for (key, flow) in [pair4(one(false), two(false)), pair4(two(false), one(false))] {
            map.insert(bytes(&key), bytes(&flow), 0)?;
        }
        Ok(Self { ebpf, packet: Packet::tcp(client(false), one(false), flag::ACK).bytes() })
    }

    fn time(&mut self, repeat: u32) -> anyhow::Result<f64> {
        let program = object::classifier(&mut self.ebpf, "calibrator")?;
        Ok(test_run::tc(program, 1, &self.packet, 0, repeat)?.duration.as_nanos() as f64)
    }
}

/// The median of the ratios turn by turn.
fn ratio(series: &[f64], base: &[f64]) -> f64 {
    median(&series.iter().zip(base).map(|(a, b)| a / b).collect::<Vec<_>>())
}

fn median(series: &[f64]) -> f64 {
    quantile(series, 0.5)
}

fn quantile(series: &[f64], share: f64) -> f64 {
    let mut sorted = series.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(((sorted.len().max(1) - 1) as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
}
