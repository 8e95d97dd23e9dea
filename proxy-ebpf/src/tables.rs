//! The maps. Sizes are placeholders: the loader sets them, and pins the maps by their names.

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_NOEXIST},
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray},
    helpers::{bpf_get_prandom_u32, bpf_jiffies64},
    macros::btf_map,
};
use proxy_common::{
    datapath::{Family, Inserted, Tables},
    reason::{Hook, Reason},
    wire::{
        Address, Backend, COUNTERS as COUNTER_ROWS, Config, Device, Flow4, Flow6, FlowKey4, FlowKey6, Frontend,
        FrontendKey, ServiceName, counter_index,
    },
};

use crate::log;

/// Number of elements of a map that the loader sizes.
const SIZED_BY_LOADER: usize = 1;
const MMAPABLE: usize = BPF_F_MMAPABLE as usize;
const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
static FRONTENDS: HashMap<FrontendKey, Frontend, SIZED_BY_LOADER> = HashMap::new();
#[btf_map]
static SLOTS: Array<u32, SIZED_BY_LOADER, MMAPABLE> = Array::new();
#[btf_map]
static MAGLEV: Array<u32, SIZED_BY_LOADER, MMAPABLE> = Array::new();
#[btf_map]
static BACKENDS: Array<Backend, SIZED_BY_LOADER, MMAPABLE> = Array::new();
#[btf_map]
static FLOWS4: LruHashMap<FlowKey4, Flow4, SIZED_BY_LOADER> = LruHashMap::new();
#[btf_map]
static FLOWS6: LruHashMap<FlowKey6, Flow6, SIZED_BY_LOADER> = LruHashMap::new();
#[btf_map]
static LOCAL_ADDRESSES: HashMap<Address, u32, SIZED_BY_LOADER> = HashMap::new();
#[btf_map]
static DEVICES: HashMap<u32, Device, SIZED_BY_LOADER> = HashMap::new();
#[btf_map]
static CONFIG: Array<Config, 1> = Array::new();
/// Not read here: it is in the object so that the agent finds it beside the others.
#[btf_map]
static SERVICES: HashMap<u32, ServiceName, SIZED_BY_LOADER, NO_PREALLOC> = HashMap::new();
#[btf_map]
static COUNTERS: PerCpuArray<u64, { COUNTER_ROWS as usize }> = PerCpuArray::new();
/// The tick in the upper half, the rejects sent in it in the lower.
#[btf_map]
static REJECTS: PerCpuArray<u64, 1> = PerCpuArray::new();

/// The maps of this object, the kernel's jiffies and its random numbers.
pub struct Maps;

impl Maps {
    /// The entry itself, which other CPUs may be writing.
    #[inline(always)]
    fn flow<F: Family>(key: &F::Key) -> Option<*mut F::Flow> {
        let key = ptr::from_ref(key);
        // SAFETY: a family has one type of key, told by V6.
        unsafe {
            if F::V6 {
                FLOWS6.get_ptr_mut(&*key.cast::<FlowKey6>()).map(|flow| flow.cast())
            } else {
                FLOWS4.get_ptr_mut(&*key.cast::<FlowKey4>()).map(|flow| flow.cast())
            }
        }
    }
}

/// Marks an entry in place: an update by helper takes a lock and ten times as long. Fields are written only where they
/// change, since CPUs that share a flow would otherwise pass the cache line to and fro.
macro_rules! mark {
    ($flow:expr, $type:ty, $now:expr, $seen:expr) => {
        let flow = $flow.cast::<$type>();
        // SAFETY: `flow` is a live map value. Plain aligned stores of single fields: a race loses one of two marks.
        unsafe {
            let last_seen = &raw mut (*flow).last_seen;
            if last_seen.read_volatile() != $now {
                last_seen.write_volatile($now);
            }
            let seen = &raw mut (*flow).seen;
            let before = seen.read_volatile();
            if before & $seen != $seen {
                seen.write_volatile(before | $seen);
            }
        }
    };
}

impl Tables for Maps {
    #[inline(always)]
    fn find<F: Family>(&self, key: &F::Key, now: u32, seen: u8, found: &mut F::Flow) -> bool {
        let Some(flow) = Self::flow::<F>(key) else { return false };
        // SAFETY: a live map value; all bytes are valid.
        *found = unsafe { flow.read() };
        if F::V6 {
            mark!(flow, Flow6, now, seen);
        } else {
            mark!(flow, Flow4, now, seen);
        }
        true
    }

    #[inline(always)]
    fn peek<F: Family>(&self, key: &F::Key) -> Option<F::Flow> {
        // SAFETY: as in `find`.
        Self::flow::<F>(key).map(|flow| unsafe { flow.read() })
    }

    #[inline(always)]
    fn insert<F: Family>(&self, key: &F::Key, flow: &F::Flow, only_new: bool) -> Inserted {
        let (key, flow) = (ptr::from_ref(key), ptr::from_ref(flow));
        let flags = u64::from(if only_new { BPF_NOEXIST } else { BPF_ANY });
        // SAFETY: a family has one type of key and one of value, told by V6.
        let result = unsafe {
            if F::V6 {
                FLOWS6.insert(&*key.cast::<FlowKey6>(), &*flow.cast::<Flow6>(), flags)
            } else {
                FLOWS4.insert(&*key.cast::<FlowKey4>(), &*flow.cast::<Flow4>(), flags)
            }
        };
        const EEXIST: i32 = -17;
        match result {
            Ok(()) => Inserted::Yes,
            Err(EEXIST) => Inserted::Exists,
            Err(_) => Inserted::Full,
        }
    }

    #[inline(always)]
    fn remove<F: Family>(&self, key: &F::Key) {
        let key = ptr::from_ref(key);
        // An entry that is gone already is as good.
        // SAFETY: a family has one type of key, told by V6.
        let _ = unsafe {
            if F::V6 { FLOWS6.remove(&*key.cast::<FlowKey6>()) } else { FLOWS4.remove(&*key.cast::<FlowKey4>()) }
        };
    }

    #[inline(always)]
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        // SAFETY: copied at once; the agent replaces values whole, so that a reader has the old or the new element.
        FRONTENDS.get_ptr(key).map(|frontend| unsafe { frontend.read() })
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<u32> {
        // SAFETY: a live map value that user space may be writing: read once.
        SLOTS.get_ptr(index).map(|id| unsafe { id.read_volatile() })
    }

    #[inline(always)]
    fn maglev(&self, index: u32) -> Option<u32> {
        // SAFETY: as in `slot`.
        MAGLEV.get_ptr(index).map(|id| unsafe { id.read_volatile() })
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<Backend> {
        // SAFETY: a live map value; all bytes are valid.
        BACKENDS.get_ptr(id).map(|backend| unsafe { backend.read() })
    }

    #[inline(always)]
    fn is_node_port_address(&self, address: &Address) -> bool {
        LOCAL_ADDRESSES.get_ptr(address).is_some()
    }

    #[inline(always)]
    fn device(&self, index: u32) -> Option<Device> {
        // SAFETY: as in `frontend`.
        DEVICES.get_ptr(index).map(|device| unsafe { device.read() })
    }

    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        CONFIG.get(0)
    }

    #[inline(always)]
    fn count(&self, hook: Hook, reason: Reason) {
        if let Some(counter) = COUNTERS.get_ptr_mut(counter_index(hook, reason)) {
            // SAFETY: a live value of this CPU, and programs are not preempted by others at the same hook.
            unsafe { counter.write(counter.read().wrapping_add(1)) };
        }
        log::note(hook, reason);
    }

    #[inline(always)]
    fn take_reject(&self, now: u32, per_tick: u32) -> bool {
        let Some(taken) = REJECTS.get_ptr_mut(0) else { return false };
        // SAFETY: a live value of this CPU.
        let before = unsafe { taken.read() };
        let sent = if before >> 32 == u64::from(now) { before as u32 } else { 0 };
        if sent >= per_tick {
            return false;
        }
        // SAFETY: as above.
        unsafe { taken.write(u64::from(now) << 32 | u64::from(sent + 1)) };
        true
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        // SAFETY: a helper without arguments.
        (unsafe { bpf_jiffies64() } >> Config::TICK_SHIFT) as u32
    }
}
