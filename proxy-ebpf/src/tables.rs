//! The maps. Sizes are placeholders: the loader sets them, and pins the maps by their names.

mod peers;

use core::{ffi::c_void, mem, ptr};

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_NOEXIST},
    btf_maps::{Array, HashMap, PerCpuArray},
    helpers::{
        bpf_get_prandom_u32, bpf_get_smp_processor_id, bpf_jiffies64,
        generated::{bpf_loop, bpf_map_lookup_percpu_elem},
    },
    macros::btf_map,
};
use proxy_common::{
    datapath::{Family, Inserted, Lookup, OpeningSeat, Packet, Parse, Record, Reject, Row, Seat, Seats, V4, V6},
    reason::{Hook, Reason},
    wire::{
        Address, Backend, COUNTERS as COUNTER_ROWS, Config, Device, Filter, Flow4, Flow6, FlowFlags, FlowKey4,
        FlowKey6, Frontend, FrontendKey, REJECT_ROWS, Seat4, Seat6, Service, ServiceName, Sets, counter_index,
    },
};

use proxy_ebpf::context::fetch_increment;

use crate::{log, parts};

/// Number of elements of a map that the loader sizes.
const SIZED_BY_LOADER: usize = 1;
const MMAPABLE: usize = BPF_F_MMAPABLE as usize;
const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;
const FRONTEND_WORDS: usize = Filter::words(Filter::FRONTENDS) as usize;
const TARGET_WORDS: usize = Filter::words(Filter::TARGETS) as usize;

#[btf_map]
static FRONTENDS: HashMap<FrontendKey, Frontend, SIZED_BY_LOADER> = HashMap::new();
#[btf_map]
static SERVICES: Array<Service, SIZED_BY_LOADER, MMAPABLE> = Array::new();
#[btf_map]
static SETS: Array<Sets, SIZED_BY_LOADER, MMAPABLE> = Array::new();
#[btf_map]
static SLOTS: Array<u32, SIZED_BY_LOADER, MMAPABLE> = Array::new();
#[btf_map]
static MAGLEV: Array<u32, SIZED_BY_LOADER, MMAPABLE> = Array::new();
#[btf_map]
static BACKENDS: Array<Backend, SIZED_BY_LOADER, MMAPABLE> = Array::new();
#[btf_map]
static FRONTEND_FILTER: Array<u32, FRONTEND_WORDS, MMAPABLE> = Array::new();
#[btf_map]
static TARGET_FILTER: Array<u32, TARGET_WORDS, MMAPABLE> = Array::new();
#[btf_map]
static FLOWS4: HashMap<FlowKey4, Flow4, SIZED_BY_LOADER> = HashMap::new();
#[btf_map]
static FLOWS6: HashMap<FlowKey6, Flow6, SIZED_BY_LOADER> = HashMap::new();
/// Keys of the client's packets of flows that have not proved themselves, by seat.
#[btf_map]
static OPENING4: PerCpuArray<Seat4, SIZED_BY_LOADER> = PerCpuArray::new();
#[btf_map]
static OPENING6: PerCpuArray<Seat6, SIZED_BY_LOADER> = PerCpuArray::new();
/// The same of those that have.
#[btf_map]
static PROVEN4: Array<FlowKey4, SIZED_BY_LOADER> = Array::new();
#[btf_map]
static PROVEN6: Array<FlowKey6, SIZED_BY_LOADER> = Array::new();
/// How many seats were taken so far, by family and then by kind; in 64 bits, since BPF adds no less at once.
#[btf_map]
static OPENING_HANDS: PerCpuArray<u32, 2> = PerCpuArray::new();
#[btf_map]
static PROVEN_HANDS: Array<u64, 4> = Array::new();
#[btf_map]
static LOCAL_ADDRESSES: HashMap<Address, u32, SIZED_BY_LOADER> = HashMap::new();
#[btf_map]
static DEVICES: HashMap<u32, Device, SIZED_BY_LOADER> = HashMap::new();
#[btf_map]
static CONFIG: Array<Config, 1, MMAPABLE> = Array::new();
/// Not read here: it is in the object so that the agent finds it beside the others.
#[btf_map]
static NAMES: HashMap<u32, ServiceName, SIZED_BY_LOADER, NO_PREALLOC> = HashMap::new();
#[btf_map]
static COUNTERS: PerCpuArray<u64, { COUNTER_ROWS as usize }> = PerCpuArray::new();
/// The tick in the upper half, the rejects sent in it in the lower.
#[btf_map]
static REJECTS: PerCpuArray<u64, { REJECT_ROWS as usize }> = PerCpuArray::new();
/// What a program works with. Neither pinned nor shared with other objects.
#[btf_map]
static ROWS4: PerCpuArray<Row<V4>, 1> = PerCpuArray::new();
#[btf_map]
static ROWS6: PerCpuArray<Row<V6>, 1> = PerCpuArray::new();

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

/// The seats of the ring of proven flows are named from here on, those of the opening ones below, by CPU.
const PROVEN: u32 = 1 << 31;
const CPU_SHIFT: u32 = 16;
const SEAT: u32 = 0xffff;

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

/// Runs an edit on an entry, whichever family it is of.
macro_rules! edit {
    ($family:ty, $key:expr, |$flow:ident| $edit:expr) => {
        if let Some(entry) = Self::flow::<$family>($key) {
            // SAFETY: a live map value, of the type that the family has. Plain aligned stores of single fields.
            unsafe {
                if <$family>::V6 {
                    let $flow = entry.cast::<Flow6>();
                    $edit
                } else {
                    let $flow = entry.cast::<Flow4>();
                    $edit
                }
            }
        }
    };
}

impl Lookup for Maps {
    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        CONFIG.get(0)
    }

    #[inline(always)]
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        // SAFETY: a live map value; all bytes are valid. It may be given to another key while it is copied, which its
        // check tells (`a_reader_never_gets_anothers_frontend` in tests/tests/writer.rs).
        let frontend = unsafe { FRONTENDS.get_ptr(key)?.read() };
        frontend.is_of(key).then_some(frontend)
    }

    #[inline(always)]
    fn sets(&self, service: u32, v6: bool) -> Option<&Sets> {
        let row = SERVICES.get_ptr(service)?;
        // SAFETY: a live map value that user space may be writing: each word is read once.
        let index = unsafe {
            if v6 { (&raw const (*row).sets6).read_volatile() } else { (&raw const (*row).sets4).read_volatile() }
        };
        if index == 0 { None } else { SETS.get(index) }
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
    fn device(&self, index: u32) -> Option<&Device> {
        // SAFETY: the agent replaces a device's row only when its addresses change; a mix of two of them is a mix of
        // addresses of this node.
        unsafe { DEVICES.get(index) }
    }

    #[inline(always)]
    fn may_be_frontend(&self, number: u32) -> bool {
        let (word, bit) = Filter::place(number);
        // SAFETY: as in `slot`.
        FRONTEND_FILTER.get_ptr(word).is_some_and(|word| unsafe { word.read_volatile() } & bit != 0)
    }

    #[inline(always)]
    fn may_be_target(&self, number: u32) -> bool {
        let (word, bit) = Filter::place(number);
        // SAFETY: as in `slot`.
        TARGET_FILTER.get_ptr(word).is_some_and(|word| unsafe { word.read_volatile() } & bit != 0)
    }

    #[inline(always)]
    fn peek<F: Family>(&self, key: &F::Key, found: &mut F::Flow) -> bool {
        let Some(flow) = Self::flow::<F>(key) else { return false };
        // SAFETY: as in `find`.
        *found = unsafe { flow.read() };
        true
    }

    #[inline(always)]
    fn has<F: Family>(&self, key: &F::Key) -> bool {
        Self::flow::<F>(key).is_some()
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        // SAFETY: a helper without arguments.
        (unsafe { bpf_jiffies64() } >> Config::TICK_SHIFT) as u32
    }
}

impl Record for Maps {
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
    fn note<F: Family>(&self, key: &F::Key, seen: u8) {
        let now = self.now();
        edit!(F, key, |flow| {
            (&raw mut (*flow).last_seen).write_volatile(now);
            let place = &raw mut (*flow).seen;
            place.write_volatile(place.read_volatile() | seen);
        });
    }

    #[inline(always)]
    fn add_flags<F: Family>(&self, key: &F::Key, flags: u8) {
        edit!(F, key, |flow| {
            let place = &raw mut (*flow).flags;
            place.write_volatile(place.read_volatile() | flags);
        });
    }

    #[inline(always)]
    fn stamp<F: Family>(&self, key: &F::Key, stamp: u32) {
        edit!(F, key, |flow| (&raw mut (*flow).stamp).write_volatile(stamp));
    }

    #[inline(always)]
    fn settle<F: Family>(&self, key: &F::Key, seat: u32) -> (u32, u32) {
        let mut before = (PROVEN, 0);
        edit!(F, key, |flow| {
            before = ((*flow).stamp, (*flow).generation);
            (&raw mut (*flow).stamp).write_volatile(seat);
            let flags = &raw mut (*flow).flags;
            flags.write_volatile(flags.read_volatile() | FlowFlags::PROVEN);
        });
        before
    }

    #[inline(always)]
    fn insert<F: Family>(&self, key: &F::Key, flow: &F::Flow) -> Inserted {
        let (key, flow) = (ptr::from_ref(key), ptr::from_ref(flow));
        let flags = u64::from(BPF_NOEXIST);
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
    fn opening_seat<F: Family>(&self) -> Option<OpeningSeat<'_, F::Key>> {
        let config = self.config()?;
        let (seats, family) = if F::V6 { (config.opening_seats6, 1) } else { (config.opening_seats4, 0) };
        let hand = OPENING_HANDS.get_ptr_mut(family)?;
        // SAFETY: a live value of this CPU.
        let taken = unsafe { hand.read() };
        // SAFETY: as above.
        unsafe { hand.write(taken.wrapping_add(1)) };
        let index = taken & seats.wrapping_sub(1);
        // SAFETY: a helper without arguments.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        let name = (cpu << CPU_SHIFT | index & SEAT) & !PROVEN;
        // Never that of a seat that nobody has taken yet.
        let turn = taken.wrapping_add(1);
        macro_rules! take {
            ($ring:expr) => {{
                let seat = $ring.get_ptr_mut(index)?;
                // SAFETY: a live value of this CPU, of which others write `left` alone.
                unsafe {
                    let is_free = (&raw const (*seat).left).read_volatile() == (*seat).turn;
                    (*seat).turn = turn;
                    // A family has one type of key, told by V6.
                    OpeningSeat { name, turn, is_free, key: &mut *(&raw mut (*seat).key).cast() }
                }
            }};
        }
        Some(if F::V6 { take!(OPENING6) } else { take!(OPENING4) })
    }

    #[inline(always)]
    fn leave<F: Family>(&self, seat: u32, turn: u32) {
        if seat & PROVEN != 0 {
            return;
        }
        let (index, cpu) = (seat & SEAT, seat >> CPU_SHIFT);
        macro_rules! leave {
            ($ring:expr, $seat:ty) => {{
                let ring = (&raw const $ring).cast_mut().cast();
                // SAFETY: the address of a map. That of another CPU may give the seat to another meanwhile: then it is
                // not the turn that it has.
                unsafe {
                    let seat = bpf_map_lookup_percpu_elem(ring, (&raw const index).cast(), cpu).cast::<$seat>();
                    if !seat.is_null() {
                        (&raw mut (*seat).left).write_volatile(turn);
                    }
                }
            }};
        }
        if F::V6 {
            leave!(OPENING6, Seat6);
        } else {
            leave!(OPENING4, Seat4);
        }
    }

    #[inline(always)]
    fn proven_seat<F: Family>(&self, datagrams: bool) -> Option<Seat<'_, F::Key>> {
        let config = self.config()?;
        let (seats, family) = if F::V6 { (config.proven_seats6, 2) } else { (config.proven_seats4, 0) };
        let hand = PROVEN_HANDS.get_ptr_mut(family + u32::from(datagrams))?;
        // SAFETY: a live, aligned map value.
        let taken = unsafe { fetch_increment(hand) };
        let index = Seats::index(seats, datagrams, taken as u32);
        let place: *mut F::Key =
            if F::V6 { PROVEN6.get_ptr_mut(index)?.cast() } else { PROVEN4.get_ptr_mut(index)?.cast() };
        // SAFETY: a live value of the type that the family has. Another CPU gets this seat only when the hand has gone
        // round, and who reads a key that is being written finds no flow or another's, whose seat has another name.
        Some(Seat { name: PROVEN | index, index, key: unsafe { &mut *place } })
    }

    #[inline(always)]
    fn seat<F: Family>(&self, index: u32, key: &F::Key) {
        let place: Option<*mut F::Key> = if F::V6 {
            PROVEN6.get_ptr_mut(index).map(|place| place.cast())
        } else {
            PROVEN4.get_ptr_mut(index).map(|place| place.cast())
        };
        if let Some(place) = place {
            // SAFETY: as in `proven_seat`.
            unsafe { *place = *key };
        }
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
    fn take_reject(&self, row: u32, now: u32, per_tick: u32) -> bool {
        let Some(taken) = REJECTS.get_ptr_mut(row) else { return false };
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
    fn row<F: Family>(&self) -> Option<&mut Row<F>> {
        // SAFETY: a family has one type of row, told by V6, and one program runs at a time on a CPU.
        unsafe {
            if F::V6 {
                ROWS6.get_ptr_mut(0).map(|row| &mut *row.cast())
            } else {
                ROWS4.get_ptr_mut(0).map(|row| &mut *row.cast())
            }
        }
    }

    #[inline(always)]
    fn apart<const PART: u8, F: Parse + Reject, P: Packet>(&self, packet: &mut P) -> u32 {
        parts::on_packet::<PART, F, P>(packet.context())
    }

    #[inline(always)]
    fn work<const WORK: u8, F: Family>(&self) -> u32 {
        parts::on_tables::<WORK, F>()
    }

    #[inline(always)]
    fn rewrite<F: Parse + Reject, P: Packet>(&self, packet: &mut P, row: &Row<F>) -> bool {
        parts::rewrite::<F, P>(packet.context(), row)
    }

    /// By `bpf_loop` (Linux 5.17).
    #[inline(always)]
    fn repeat<S: Fn(&Self, u32) -> bool>(&self, turns: u32, _: S) {
        const { assert!(size_of::<S>() == 0, "a step captures nothing") };
        let callback = turn::<S> as unsafe extern "C" fn(u32, *mut c_void) -> i64;
        // SAFETY: the callback takes what it is given here.
        unsafe { bpf_loop(turns, callback as *mut c_void, ptr::null_mut(), 0) };
    }
}

/// The row that a part was given a pointer to; the verifier takes it for one that may be null.
#[inline(always)]
pub fn given<'a, F: Family>(row: *mut Row<F>) -> Option<&'a Row<F>> {
    // SAFETY: the row of this CPU, or null.
    unsafe { row.as_ref() }
}

/// One turn of [`Maps::repeat`].
unsafe extern "C" fn turn<S: Fn(&Maps, u32) -> bool>(turn: u32, _: *mut c_void) -> i64 {
    // SAFETY: a value without a size.
    let step: S = unsafe { mem::zeroed() };
    i64::from(step(&Maps, turn))
}
