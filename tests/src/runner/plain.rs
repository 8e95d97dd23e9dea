use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use proxy_common::{
    checksum,
    datapath::{ChecksumChange, Family, Inserted, Link, Packet, Route, RouteQuery, Tables, egress, ingress},
    reason::{Hook, Reason},
    verdict::Verdict,
    wire::{Address, Backend, Config, Device, Flow4, Flow6, Frontend, FrontendKey},
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Counters, Runner, Sent, is_ingress};
use crate::rows::world::{World, route};

/// The index that the uplink has here.
const UPLINK: u32 = 7;

/// The datapath in plain Rust, over a vector and hash maps.
pub struct Plain {
    maps: Maps,
}

#[derive(Default)]
struct Maps {
    world: World,
    flows: RefCell<BTreeMap<Vec<u8>, Vec<u8>>>,
    counters: RefCell<Counters>,
    rejects: Cell<(u32, u32)>,
    random: Cell<u32>,
    now: Cell<u32>,
}

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
        Self { maps: Maps { world, random, now: Cell::new(1000), ..Maps::default() } }
    }

    /// Lets time pass, in ticks.
    pub fn wait(&self, ticks: u32) {
        self.maps.now.set(self.maps.now.get() + ticks);
    }

    /// Runs the datapath and returns its own verdict.
    pub fn verdict(&self, hook: Hook, bytes: &mut Vec<u8>, link: Link, segment: usize) -> Verdict {
        let mut packet = Bytes { bytes, link, segment };
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

    fn route(&mut self, query: &RouteQuery) -> Route {
        let gateway = if query.destination.is_v4() {
            Address::from(std::net::IpAddr::from(route::GATEWAY4))
        } else {
            Address::from(std::net::IpAddr::from(route::GATEWAY6))
        };
        let kind: Option<[u8; 2]> = self.load(12);
        let tagged = self.link == Link::Ethernet && kind != Some([0x08, 0x00]) && kind != Some([0x86, 0xdd]);
        Route { device: UPLINK, usable: query.length <= route::MTU && !tagged, next_hop: gateway }
    }

    fn segment(&self) -> usize {
        self.segment
    }
}

impl Maps {
    fn flow_key<F: Family>(key: &F::Key) -> Vec<u8> {
        let mut bytes = vec![u8::from(F::V6)];
        bytes.extend(key.as_bytes());
        bytes
    }
}

impl Tables for Maps {
    fn find<F: Family>(&self, key: &F::Key, now: u32, seen: u8, flow: &mut F::Flow) -> bool {
        let mut flows = self.flows.borrow_mut();
        let Some(bytes) = flows.get_mut(&Self::flow_key::<F>(key)) else { return false };
        *flow = F::Flow::read_from_bytes(bytes).expect("written as one");
        if F::V6 {
            let entry = Flow6::mut_from_bytes(bytes).expect("aligned by the allocator");
            (entry.last_seen, entry.seen) = (now, entry.seen | seen);
        } else {
            let entry = Flow4::mut_from_bytes(bytes).expect("aligned by the allocator");
            (entry.last_seen, entry.seen) = (now, entry.seen | seen);
        }
        true
    }

    fn peek<F: Family>(&self, key: &F::Key) -> Option<F::Flow> {
        let flows = self.flows.borrow();
        flows.get(&Self::flow_key::<F>(key)).map(|bytes| F::Flow::read_from_bytes(bytes).expect("written as one"))
    }

    fn insert<F: Family>(&self, key: &F::Key, flow: &F::Flow, only_new: bool) -> Inserted {
        let key = Self::flow_key::<F>(key);
        let mut flows = self.flows.borrow_mut();
        if only_new && flows.contains_key(&key) {
            return Inserted::Exists;
        }
        flows.insert(key, flow.as_bytes().to_vec());
        Inserted::Yes
    }

    fn remove<F: Family>(&self, key: &F::Key) {
        self.flows.borrow_mut().remove(&Self::flow_key::<F>(key));
    }

    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        self.world.frontends.get(key).copied()
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

    fn device(&self, index: u32) -> Option<Device> {
        (index == UPLINK).then_some(self.world.uplink)
    }

    fn config(&self) -> Option<&Config> {
        Some(&self.world.config)
    }

    fn count(&self, hook: Hook, reason: Reason) {
        *self.counters.borrow_mut().entry((hook, reason)).or_default() += 1;
    }

    fn take_reject(&self, now: u32, per_tick: u32) -> bool {
        let (tick, taken) = self.rejects.get();
        let taken = if tick == now { taken } else { 0 };
        self.rejects.set((now, taken + u32::from(taken < per_tick)));
        taken < per_tick
    }

    fn random(&self) -> u32 {
        // Numerical Recipes' generator: any sequence will do.
        self.random.set(self.random.get().wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        self.random.get()
    }

    fn now(&self) -> u32 {
        self.now.get()
    }
}
