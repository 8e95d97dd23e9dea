mod socket;

use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::BTreeMap;

use proxy_common::{
    checksum,
    datapath::{
        ChecksumChange, Family, Inserted, Link, Lookup, OpeningSeat, Packet, Record, Route, RouteQuery, Row, Seat,
        Seats, SocketQuery, V4, V6, egress, ingress,
    },
    reason::{Hook, Reason},
    verdict::Verdict,
    wire::{Address, Backend, Config, Device, Flow4, Flow6, FlowFlags, FlowKey6, Frontend, FrontendKey, Sets},
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

pub use socket::Call;

use super::{Counters, Runner, Sent, is_ingress};
use crate::rows::world::{World, route};

/// The indexes that the devices have here.
const UPLINK: u32 = 7;
const POD: u32 = 8;
const ANOTHER_POD: u32 = 9;

/// The datapath in plain Rust, over a vector and hash maps.
pub struct Plain {
    maps: Maps,
    /// Index of the device that pods send by.
    pod_link: Cell<u32>,
}

struct Maps {
    world: World,
    rows: (UnsafeCell<Row<V4>>, UnsafeCell<Row<V6>>),
    seats: Rings,
    flows: RefCell<BTreeMap<Vec<u8>, Vec<u8>>>,
    counters: RefCell<Counters>,
    /// By row: the tick, and how many were sent in it.
    rejects: RefCell<BTreeMap<u32, (u32, u32)>>,
    sockets: RefCell<socket::Memory>,
    random: Cell<u32>,
    now: Cell<u32>,
}

/// The rings of flows, by family.
#[derive(Default)]
struct Rings {
    opening: [Ring; 2],
    proven: [Ring; 2],
}

/// As many places as are asked for, each in memory of its own.
#[derive(Default)]
struct Ring {
    taken: Cell<u32>,
    places: RefCell<BTreeMap<u32, Box<UnsafeCell<FlowKey6>>>>,
    /// Of the places of the opening ring: the turn that each was taken in last, and that which was left last.
    turns: RefCell<BTreeMap<u32, (u32, u32)>>,
}

impl Ring {
    fn next<K>(&self, kind: u32, index: impl FnOnce(u32) -> u32) -> Option<Seat<'_, K>> {
        let taken = self.taken.get();
        self.taken.set(taken.wrapping_add(1));
        let index = index(taken);
        let place = self.places.borrow_mut().entry(index).or_default().get();
        // SAFETY: the larger key, aligned like the other, of which any bytes are valid; it never moves or goes while the
        // ring is there, and the datapath has done with one seat before it asks for the next.
        Some(Seat { name: kind | index, index, key: unsafe { &mut *place.cast() } })
    }
}

/// Tells the seats of the proven from those of the opening.
const PROVEN: u32 = 1 << 31;

/// The golden ratio, as a share of 2³²: its multiples lie evenly.
const GOLDEN: u32 = 0x9e37_79b9;

impl Default for Plain {
    fn default() -> Self {
        Self::new(World::default(), 0)
    }
}

impl Plain {
    /// A host with these maps, and dice that fall as `seed` says.
    pub fn new(world: World, seed: u32) -> Self {
        let random = Cell::new(seed.wrapping_mul(GOLDEN));
        // Any tick but zero, whose distance from a fresh entry is none.
        let rows = (UnsafeCell::new(Row::empty()), UnsafeCell::new(Row::empty()));
        let maps = Maps {
            world,
            rows,
            seats: Rings::default(),
            flows: RefCell::default(),
            counters: RefCell::default(),
            rejects: RefCell::default(),
            sockets: RefCell::default(),
            random,
            now: Cell::new(1000),
        };
        Self { maps, pod_link: Cell::new(POD) }
    }

    /// Lets time pass, in ticks.
    pub fn wait(&self, ticks: u32) {
        self.maps.now.set(self.maps.now.get() + ticks);
    }

    /// Turns the clock back: that of another processor may be a tick behind.
    pub fn turn_back(&self, ticks: u32) {
        self.maps.now.set(self.maps.now.get() - ticks);
    }

    /// Does something while pods send by another link than usual.
    pub fn elsewhere<T>(&self, what: impl FnOnce() -> T) -> T {
        self.pod_link.set(ANOTHER_POD);
        let result = what();
        self.pod_link.set(POD);
        result
    }

    /// Runs the datapath and returns its own verdict.
    pub fn verdict(&self, hook: Hook, bytes: &mut Vec<u8>, link: Link, segment: usize) -> Verdict {
        let at_pod = matches!(hook, Hook::PodIngress | Hook::PodEgress);
        let mut packet = Bytes { bytes, link, segment, device: if at_pod { self.pod_link.get() } else { UPLINK } };
        if is_ingress(hook) {
            ingress(&mut packet, &self.maps, hook, link)
        } else {
            egress(&mut packet, &self.maps, hook, link)
        }
    }
}

impl Runner for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn install(&mut self, world: &World) -> anyhow::Result<()> {
        *self = Self::new(world.clone(), 0);
        Ok(())
    }

    fn update(&mut self, world: &World) -> anyhow::Result<()> {
        self.maps.world = world.clone();
        Ok(())
    }

    fn run(&mut self, hook: Hook, link: Link, bytes: &[u8], segment: usize) -> anyhow::Result<Sent> {
        let mut bytes = bytes.to_vec();
        let verdict = self.verdict(hook, &mut bytes, link, segment);
        Ok(Sent { bytes, action: verdict.into(), verdict: Some(verdict) })
    }

    fn counters(&mut self) -> anyhow::Result<Counters> {
        Ok(self.maps.counters.borrow().clone())
    }
}

struct Bytes<'a> {
    bytes: &'a mut Vec<u8>,
    link: Link,
    segment: usize,
    device: u32,
}

impl Packet for Bytes<'_> {
    fn load<T: FromBytes>(&self, offset: usize) -> Option<T> {
        T::read_from_bytes(self.bytes.get(offset..offset.checked_add(size_of::<T>())?)?).ok()
    }

    fn store<T: IntoBytes + Immutable>(&mut self, offset: usize, value: &T) -> Option<()> {
        let bytes = value.as_bytes();
        self.bytes.get_mut(offset..offset.checked_add(bytes.len())?)?.copy_from_slice(bytes);
        Some(())
    }

    fn fix_checksum(&mut self, offset: usize, change: ChecksumChange) -> Option<()> {
        let old: u16 = self.load(offset)?;
        if change.udp && old == 0 {
            return Some(());
        }
        let new = checksum::update(old, checksum::add(change.addresses, change.ports));
        self.store(offset, &if change.udp { checksum::udp(new) } else { new })
    }

    fn resize(&mut self, len: usize) -> Option<()> {
        self.bytes.resize(len, 0);
        Some(())
    }

    fn route(&self, query: &RouteQuery) -> Route {
        let gateway = if query.destination.is_v4() {
            Address::from(std::net::IpAddr::from(route::GATEWAY4))
        } else {
            Address::from(std::net::IpAddr::from(route::GATEWAY6))
        };
        let device = if query.by == 0 { UPLINK } else { query.by };
        Route { device, usable: u32::from(query.length <= route::MTU), next_hop: gateway, hardware: [0; 6] }
    }

    fn send_by(&mut self, route: &Route) {
        self.device = route.device;
    }

    fn segment(&self) -> usize {
        self.segment
    }

    fn device(&self) -> u32 {
        self.device
    }

    fn is_to_us(&self) -> bool {
        self.link == Link::Ip || self.load::<[u8; 6]>(0) == Some(route::MAC)
    }

    fn is_forwarded(&self) -> bool {
        true
    }

    fn is_of_vlan(&self) -> bool {
        false
    }

    fn has_own_socket(&self, _: &SocketQuery) -> bool {
        false
    }
}

impl Maps {
    fn flow_key<F: Family>(key: &F::Key) -> Vec<u8> {
        let mut bytes = vec![u8::from(F::V6)];
        bytes.extend(key.as_bytes());
        bytes
    }
}

impl Maps {
    /// Edits an entry, if there is one.
    fn edit<F: Family>(&self, key: &F::Key, edit: impl FnOnce(&mut Mark<'_>)) -> bool {
        let mut flows = self.flows.borrow_mut();
        let Some(bytes) = flows.get_mut(&Self::flow_key::<F>(key)) else { return false };
        if F::V6 {
            let Flow6 { generation, stamp, last_seen, flags, seen, .. } =
                Flow6::mut_from_bytes(bytes).expect("aligned");
            edit(&mut Mark { generation: *generation, stamp, last_seen, flags, seen });
        } else {
            let Flow4 { generation, stamp, last_seen, flags, seen, .. } =
                Flow4::mut_from_bytes(bytes).expect("aligned");
            edit(&mut Mark { generation: *generation, stamp, last_seen, flags, seen });
        }
        true
    }
}

/// The fields of an entry that change, and what is read with them.
struct Mark<'a> {
    generation: u32,
    stamp: &'a mut u32,
    last_seen: &'a mut u32,
    flags: &'a mut u8,
    seen: &'a mut u8,
}

impl Lookup for Maps {
    fn config(&self) -> Option<&Config> {
        Some(&self.world.config)
    }

    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        self.world.frontends.get(key).copied().filter(|frontend| frontend.is_of(key))
    }

    fn sets(&self, service: u32, v6: bool) -> Option<&Sets> {
        let row = self.world.services.get(&service)?;
        self.world.sets.get(if v6 { &row.sets6 } else { &row.sets4 })
    }

    fn slot(&self, index: u32) -> Option<u32> {
        self.world.slots.get(&index).copied()
    }

    fn maglev(&self, index: u32) -> Option<u32> {
        self.world.maglev.get(&index).copied()
    }

    fn backend(&self, id: u32) -> Option<Backend> {
        self.world.backends.get(&id).copied()
    }

    fn is_node_port_address(&self, address: &Address) -> bool {
        self.world.local_addresses.contains(address)
    }

    fn device(&self, index: u32) -> Option<&Device> {
        (index == UPLINK).then_some(&self.world.uplink)
    }

    fn may_be_frontend(&self, number: u32) -> bool {
        self.world.frontend_numbers().any(|other| other == number)
    }

    fn may_be_target(&self, number: u32) -> bool {
        self.world.target_numbers().any(|other| other == number)
    }

    fn peek<F: Family>(&self, key: &F::Key, flow: &mut F::Flow) -> bool {
        let flows = self.flows.borrow();
        let Some(bytes) = flows.get(&Self::flow_key::<F>(key)) else { return false };
        *flow = F::Flow::read_from_bytes(bytes).expect("written as one");
        true
    }

    fn has<F: Family>(&self, key: &F::Key) -> bool {
        self.flows.borrow().contains_key(&Self::flow_key::<F>(key))
    }

    fn now(&self) -> u32 {
        self.now.get()
    }
}

impl Record for Maps {
    fn find<F: Family>(&self, key: &F::Key, now: u32, seen: u8, flow: &mut F::Flow) -> bool {
        self.peek::<F>(key, flow)
            && self.edit::<F>(key, |mark| {
                *mark.last_seen = now;
                *mark.seen |= seen;
            })
    }

    fn note<F: Family>(&self, key: &F::Key, seen: u8) {
        self.edit::<F>(key, |mark| {
            *mark.last_seen = self.now.get();
            *mark.seen |= seen;
        });
    }

    fn add_flags<F: Family>(&self, key: &F::Key, flags: u8) {
        self.edit::<F>(key, |mark| *mark.flags |= flags);
    }

    fn stamp<F: Family>(&self, key: &F::Key, stamp: u32) {
        self.edit::<F>(key, |mark| *mark.stamp = stamp);
    }

    fn settle<F: Family>(&self, key: &F::Key, seat: u32) -> (u32, u32) {
        let mut before = (PROVEN, 0);
        self.edit::<F>(key, |mark| {
            before = (*mark.stamp, mark.generation);
            *mark.stamp = seat;
            *mark.flags |= FlowFlags::PROVEN;
        });
        before
    }

    fn insert<F: Family>(&self, key: &F::Key, flow: &F::Flow) -> Inserted {
        let key = Self::flow_key::<F>(key);
        let mut flows = self.flows.borrow_mut();
        if flows.contains_key(&key) {
            return Inserted::Exists;
        }
        if flows.len() >= self.world.flows {
            return Inserted::Full;
        }
        flows.insert(key, flow.as_bytes().to_vec());
        Inserted::Yes
    }

    fn remove<F: Family>(&self, key: &F::Key) {
        self.flows.borrow_mut().remove(&Self::flow_key::<F>(key));
    }

    fn opening_seat<F: Family>(&self) -> Option<OpeningSeat<'_, F::Key>> {
        let config = &self.world.config;
        let seats = if F::V6 { config.opening_seats6 } else { config.opening_seats4 };
        let ring = &self.seats.opening[usize::from(F::V6)];
        let turn = ring.taken.get().wrapping_add(1);
        let Seat { name, index, key } = ring.next(0, |taken| taken & seats.wrapping_sub(1))?;
        let mut turns = ring.turns.borrow_mut();
        let (taken, left) = turns.entry(index).or_default();
        let is_free = taken == left;
        *taken = turn;
        Some(OpeningSeat { name, turn, is_free, key })
    }

    fn leave<F: Family>(&self, seat: u32, turn: u32) {
        let mut turns = self.seats.opening[usize::from(F::V6)].turns.borrow_mut();
        if let Some((_, left)) = turns.get_mut(&seat) {
            *left = turn;
        }
    }

    fn proven_seat<F: Family>(&self, datagrams: bool) -> Option<Seat<'_, F::Key>> {
        let config = &self.world.config;
        let seats = if F::V6 { config.proven_seats6 } else { config.proven_seats4 };
        let ring = &self.seats.proven[usize::from(F::V6)];
        ring.next(PROVEN, |taken| Seats::index(seats, datagrams, taken))
    }

    fn seat<F: Family>(&self, index: u32, key: &F::Key) {
        let places = self.seats.proven[usize::from(F::V6)].places.borrow();
        if let Some(place) = places.get(&index) {
            // SAFETY: as in `Ring::next`.
            unsafe { *place.get().cast() = *key };
        }
    }

    fn count(&self, hook: Hook, reason: Reason) {
        *self.counters.borrow_mut().entry((hook, reason)).or_default() += 1;
    }

    fn take_reject(&self, row: u32, now: u32, per_tick: u32) -> bool {
        let mut rejects = self.rejects.borrow_mut();
        let (tick, sent) = rejects.entry(row).or_default();
        if *tick != now {
            (*tick, *sent) = (now, 0);
        }
        let left = *sent < per_tick;
        *sent += u32::from(left);
        left
    }

    fn random(&self) -> u32 {
        // Numerical Recipes' generator: any sequence will do.
        self.random.set(self.random.get().wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        self.random.get()
    }

    fn row<F: Family>(&self) -> Option<&mut Row<F>> {
        // SAFETY: a family has one type of row, told by V6; the datapath asks anew whenever a part may have had it.
        Some(unsafe { if F::V6 { &mut *self.rows.1.get().cast() } else { &mut *self.rows.0.get().cast() } })
    }
}
