use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues},
};
use proxy_common::{
    datapath::Link,
    programs,
    reason::{Hook, Reason},
    wire::{
        Config, Device, Filter, Flow4, Flow6, FlowKey4, FlowKey6, Frontend, FrontendKey, REJECT_ROWS, Wire,
        counter_index, map,
    },
};

use super::{
    Action, Counters, Runner, Sent,
    namespace::{self, Devices},
    object, test_run,
};
use crate::{
    packet::Mac,
    rows::world::{World, route},
};

/// The programs in the kernel, run by `BPF_PROG_TEST_RUN` with maps of their own.
pub struct Kernel {
    ebpf: Ebpf,
    /// The words of the filters.
    filters: BTreeMap<&'static str, Vec<u32>>,
    devices: Devices,
    /// What comes in by the uplink is run by the XDP program.
    xdp: bool,
}

/// A value of any size, as bytes: the types of the maps belong to another crate than the trait that aya asks for.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Bytes<const N: usize>([u8; N]);

// SAFETY: an array of bytes.
unsafe impl<const N: usize> aya::Pod for Bytes<N> {}

pub(crate) fn bytes<const N: usize, T: Wire>(value: &T) -> Bytes<N> {
    let mut bytes = [0; N];
    bytes.copy_from_slice(value.as_bytes());
    Bytes(bytes)
}

const TC_ACT_UNSPEC: i32 = -1;
const TC_ACT_SHOT: i32 = 2;
const TC_ACT_REDIRECT: i32 = 7;
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;
const XDP_TX: i32 = 3;
const XDP_REDIRECT: i32 = 4;

impl Kernel {
    /// Loads the object. The calling thread moves into a network namespace of its own and has to be the one that runs
    /// the packets.
    ///
    /// # Errors
    /// Without root, or where the kernel refuses an object.
    pub fn open(xdp: bool) -> anyhow::Result<Self> {
        let mut kernel = Self::load(object::Sizes::default(), namespace::enter()?, xdp)?;
        // All at once: one that is verified between two packets of a flow may take as long as flows are remembered.
        for program in programs::TC {
            object::classifier(&mut kernel.ebpf, program.name)?;
        }
        object::xdp(&mut kernel.ebpf)?;
        Ok(kernel)
    }

    /// Loads the object for a thread that is in a namespace with `devices` already.
    ///
    /// # Errors
    /// Without root, or where the kernel refuses an object.
    pub fn load(sizes: object::Sizes, devices: Devices, xdp: bool) -> anyhow::Result<Self> {
        Ok(Self { ebpf: object::open(sizes, 0)?, filters: BTreeMap::new(), devices, xdp })
    }

    /// Enters flows into `FLOWS4`.
    ///
    /// # Errors
    /// Of the system calls.
    pub fn enter4(&mut self, flows: impl IntoIterator<Item = (FlowKey4, Flow4)>) -> anyhow::Result<()> {
        let mut map = HashMap::<&mut MapData, Bytes<16>, Bytes<32>>::try_from(self.map(map::FLOWS4)?)?;
        flows.into_iter().try_for_each(|(key, flow)| map.insert(bytes(&key), bytes(&flow), 0)).map_err(Into::into)
    }

    /// Enters flows into `FLOWS6`.
    ///
    /// # Errors
    /// Of the system calls.
    pub fn enter6(&mut self, flows: impl IntoIterator<Item = (FlowKey6, Flow6)>) -> anyhow::Result<()> {
        let mut map = HashMap::<&mut MapData, Bytes<40>, Bytes<56>>::try_from(self.map(map::FLOWS6)?)?;
        flows.into_iter().try_for_each(|(key, flow)| map.insert(bytes(&key), bytes(&flow), 0)).map_err(Into::into)
    }

    /// Adds frontends to those that there are.
    ///
    /// # Errors
    /// Of the system calls.
    pub fn add_frontends(&mut self, rows: &[(FrontendKey, Frontend)]) -> anyhow::Result<()> {
        let mut map = HashMap::<&mut MapData, Bytes<20>, Bytes<12>>::try_from(self.map(map::FRONTENDS)?)?;
        rows.iter().try_for_each(|(key, row)| map.insert(bytes(key), bytes(row), 0)).map_err(Into::into)
    }

    /// Removes frontends.
    ///
    /// # Errors
    /// Of the system calls.
    pub fn remove_frontends(&mut self, rows: &[(FrontendKey, Frontend)]) -> anyhow::Result<()> {
        let mut map = HashMap::<&mut MapData, Bytes<20>, Bytes<12>>::try_from(self.map(map::FRONTENDS)?)?;
        rows.iter().try_for_each(|(key, _)| map.remove(&bytes(key))).map_err(Into::into)
    }

    /// Runs a packet at `hook` and what becomes of it again, `repeat` times in all.
    ///
    /// # Errors
    /// Of the system call.
    pub fn repeat(&mut self, hook: Hook, bytes: &[u8], repeat: u32) -> anyhow::Result<test_run::Outcome> {
        if self.hook(hook) == Hook::Xdp {
            return Ok(test_run::xdp(object::xdp(&mut self.ebpf)?, bytes, repeat)?);
        }
        let name = programs::tc_name(hook, Link::Ethernet).with_context(|| format!("no program for {hook:?}"))?;
        let device = self.devices.uplink;
        Ok(test_run::tc(object::classifier(&mut self.ebpf, name)?, device, bytes, 0, repeat)?)
    }

    fn map(&mut self, name: &str) -> anyhow::Result<&mut aya::maps::Map> {
        self.ebpf.map_mut(name).with_context(|| format!("no map {name}"))
    }

    fn clear<const K: usize, const V: usize>(&mut self, name: &str) -> anyhow::Result<()> {
        let mut map = HashMap::<&mut MapData, Bytes<K>, Bytes<V>>::try_from(self.map(name)?)?;
        let keys = map.keys().collect::<Result<Vec<_>, _>>()?;
        keys.iter().try_for_each(|key| map.remove(key)).map_err(Into::into)
    }

    fn fill<const K: usize, const V: usize, A: Wire, B: Wire>(
        &mut self,
        name: &str,
        rows: impl IntoIterator<Item = (A, B)>,
    ) -> anyhow::Result<()> {
        self.clear::<K, V>(name)?;
        let mut map = HashMap::<&mut MapData, Bytes<K>, Bytes<V>>::try_from(self.map(name)?)?;
        rows.into_iter().try_for_each(|(key, value)| map.insert(bytes::<K, A>(&key), bytes::<V, B>(&value), 0))?;
        Ok(())
    }

    fn set<const V: usize, B: Wire>(
        &mut self,
        name: &str,
        rows: impl IntoIterator<Item = (u32, B)>,
    ) -> anyhow::Result<()> {
        let mut map = Array::<&mut MapData, Bytes<V>>::try_from(self.map(name)?)?;
        rows.into_iter().try_for_each(|(index, value)| map.set(index, bytes::<V, B>(&value), 0))?;
        Ok(())
    }

    /// Sets the bits of `numbers` and clears those that were set before.
    fn filter(&mut self, name: &'static str, bits: u32, numbers: impl Iterator<Item = u32>) -> anyhow::Result<()> {
        let mut words = vec![0_u32; Filter::words(bits) as usize];
        for (word, bit) in numbers.map(Filter::place) {
            words[word as usize] |= bit;
        }
        let before = self.filters.insert(name, words.clone()).unwrap_or_else(|| vec![0; words.len()]);
        let changed = (0..).zip(words.into_iter().zip(before)).filter(|(_, (now, before))| now != before);
        self.set::<4, u32>(name, changed.map(|(index, (now, _))| (index, now)))
    }

    fn zero(&mut self, name: &str, rows: u32) -> anyhow::Result<()> {
        let cpus = aya::util::nr_cpus().map_err(|(what, cause)| anyhow::anyhow!("{what}: {cause}"))?;
        let mut map = PerCpuArray::<&mut MapData, u64>::try_from(self.map(name)?)?;
        for index in 0..rows {
            map.set(index, PerCpuValues::try_from(vec![0; cpus])?, 0)?;
        }
        Ok(())
    }
}

impl Runner for Kernel {
    fn name(&self) -> &'static str {
        if self.xdp { "xdp" } else { "tc" }
    }

    fn install(&mut self, world: &World) -> anyhow::Result<()> {
        self.clear::<16, 32>(map::FLOWS4)?;
        self.clear::<40, 56>(map::FLOWS6)?;
        self.zero(map::COUNTERS, proxy_common::wire::COUNTERS)?;
        self.zero(map::REJECTS, REJECT_ROWS)?;
        self.update(world)
    }

    fn update(&mut self, world: &World) -> anyhow::Result<()> {
        self.fill::<20, 12, _, _>(map::FRONTENDS, world.frontends.clone())?;
        self.fill::<16, 4, _, _>(map::LOCAL_ADDRESSES, world.local_addresses.iter().map(|&address| (address, 1_u32)))?;
        let uplink = self.devices.uplink;
        self.fill::<4, { size_of::<Device>() }, _, _>(map::DEVICES, [(uplink, world.uplink)])?;
        self.set::<8, _>(map::SERVICES, world.services.clone())?;
        self.set::<48, _>(map::SETS, world.sets.clone())?;
        self.set::<4, u32>(map::SLOTS, world.slots.clone())?;
        self.set::<4, u32>(map::MAGLEV, world.maglev.clone())?;
        self.set::<32, _>(map::BACKENDS, world.backends.clone())?;
        self.filter(map::FRONTEND_FILTER, Filter::FRONTENDS, world.frontend_numbers())?;
        self.filter(map::TARGET_FILTER, Filter::TARGETS, world.target_numbers())?;
        self.set::<{ size_of::<Config>() }, _>(map::CONFIG, [(0, world.config)])
    }

    fn run(&mut self, hook: Hook, link: Link, bytes: &[u8], segment: usize) -> anyhow::Result<Sent> {
        let (outcome, action) = if self.hook(hook) == Hook::Xdp {
            let outcome = test_run::xdp(object::xdp(&mut self.ebpf)?, bytes, 1).context("running the XDP program")?;
            let action = match outcome.action {
                XDP_PASS => Action::Next,
                XDP_TX | XDP_REDIRECT => Action::Redirect,
                XDP_DROP => Action::Drop,
                other => bail!("the XDP program returned {other}"),
            };
            (outcome, action)
        } else {
            let name = programs::tc_name(hook, link).with_context(|| format!("no program for {hook:?}"))?;
            let device = match hook {
                Hook::PodIngress | Hook::PodEgress => self.devices.pod,
                _ => self.devices.uplink,
            };
            let program = object::classifier(&mut self.ebpf, name)?;
            let outcome =
                test_run::tc(program, device, bytes, segment, 1).with_context(|| format!("running {name}"))?;
            let action = match outcome.action {
                TC_ACT_UNSPEC => Action::Next,
                TC_ACT_REDIRECT => Action::Redirect,
                TC_ACT_SHOT => Action::Drop,
                other => bail!("{name} returned {other}"),
            };
            (outcome, action)
        };
        Ok(Sent { bytes: outcome.bytes, action, verdict: None })
    }

    fn counters(&mut self) -> anyhow::Result<Counters> {
        let map = PerCpuArray::<&mut MapData, u64>::try_from(self.map(map::COUNTERS)?)?;
        let mut counters = Counters::new();
        for &hook in Hook::ALL {
            for &reason in Reason::ALL {
                let count = map.get(&counter_index(hook, reason), 0)?.iter().sum();
                if count != 0 {
                    counters.insert((hook, reason), count);
                }
            }
        }
        Ok(counters)
    }

    fn hook(&self, hook: Hook) -> Hook {
        if self.xdp && hook == Hook::UplinkIngress { Hook::Xdp } else { hook }
    }

    fn forwarded(&self) -> Option<(Mac, Mac)> {
        self.xdp.then_some((route::MAC, route::GATEWAY_MAC))
    }
}
