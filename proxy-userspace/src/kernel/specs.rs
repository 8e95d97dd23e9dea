use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use aya::maps::{MapData, MapError, MapType};
use proxy_common::datapath::Seats;
use proxy_common::wire::{
    Address, Backend, COUNTERS, Config, Device, Filter, Flow4, Flow6, FlowKey4, FlowKey6, Frontend, FrontendKey, Peers,
    REJECT_ROWS, Seat4, Seat6, Service, ServiceName, Sets, map,
};

use super::raw::map::Shape;
use super::{Capacities, KernelError};

/// `BPF_F_NO_PREALLOC` of linux/bpf.h.
const NO_PREALLOC: u32 = 1;
/// `BPF_F_MMAPABLE` of linux/bpf.h (Linux 5.5).
const MMAPABLE: u32 = 1 << 10;

/// What is done with a pinned map that was made for another number of elements than is asked for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resize {
    /// Only the agent writes the map: a larger one is made and gets a copy of the elements.
    Copy,
    /// Programs write the map while we look: its size stays.
    Keep,
}

/// A map as the kernel object defines it and this process asks for it.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub name: &'static str,
    pub kind: MapType,
    pub key_size: u32,
    pub value_size: u32,
    pub flags: u32,
    pub max_entries: u32,
    pub resize: Resize,
}

impl Spec {
    /// Every pinned map, on a machine with so many possible CPUs.
    pub fn all(capacities: &Capacities, cpus: u32) -> Vec<Self> {
        let c = capacities;
        let [opening4, opening6] = [c.opening4, c.opening6].map(|seats| Capacities::seats_per_cpu(seats, cpus));
        vec![
            Self::hash::<u32, ServiceName>(map::NAMES, c.services).with(NO_PREALLOC),
            Self::hash::<FrontendKey, Frontend>(map::FRONTENDS, c.frontends),
            // One row more: ids begin with 1.
            Self::array::<Service>(map::SERVICES, c.services.saturating_add(1)).with(MMAPABLE),
            Self::array::<Sets>(map::SETS, c.sets).with(MMAPABLE),
            Self::array::<u32>(map::SLOTS, c.slots).with(MMAPABLE),
            Self::array::<u32>(map::MAGLEV, c.maglev).with(MMAPABLE),
            Self::array::<Backend>(map::BACKENDS, c.backends).with(MMAPABLE),
            Self::array::<u32>(map::FRONTEND_FILTER, Filter::words(Filter::FRONTENDS)).with(MMAPABLE),
            Self::array::<u32>(map::TARGET_FILTER, Filter::words(Filter::TARGETS)).with(MMAPABLE),
            Self::hash::<FlowKey4, Flow4>(map::FLOWS4, c.flows4).kept(),
            Self::hash::<FlowKey6, Flow6>(map::FLOWS6, c.flows6).kept(),
            Self::per_cpu::<Seat4>(map::OPENING4, opening4),
            Self::per_cpu::<Seat6>(map::OPENING6, opening6),
            Self::array::<FlowKey4>(map::PROVEN4, Seats::all(c.proven4)).kept(),
            Self::array::<FlowKey6>(map::PROVEN6, Seats::all(c.proven6)).kept(),
            Self::per_cpu::<u32>(map::OPENING_HANDS, 2),
            Self::array::<u64>(map::PROVEN_HANDS, 4).kept(),
            Self::hash::<Address, u32>(map::LOCAL_ADDRESSES, c.local_addresses),
            Self::hash::<u32, Device>(map::DEVICES, c.devices),
            Self::array::<Config>(map::CONFIG, 1).with(MMAPABLE),
            Self::per_cpu::<u64>(map::COUNTERS, COUNTERS),
            Self::per_cpu::<u64>(map::REJECTS, REJECT_ROWS),
            Self::new::<i32, Peers>(map::PEERS, MapType::SkStorage, 0, Resize::Keep).with(NO_PREALLOC),
        ]
    }

    fn new<K, V>(name: &'static str, kind: MapType, max_entries: u32, resize: Resize) -> Self {
        let (key_size, value_size) = (size_of::<K>() as u32, size_of::<V>() as u32);
        Self { name, kind, key_size, value_size, flags: 0, max_entries, resize }
    }

    fn hash<K, V>(name: &'static str, max_entries: u32) -> Self {
        Self::new::<K, V>(name, MapType::Hash, max_entries, Resize::Copy)
    }

    fn array<V>(name: &'static str, max_entries: u32) -> Self {
        Self::new::<u32, V>(name, MapType::Array, max_entries, Resize::Copy)
    }

    fn per_cpu<V>(name: &'static str, max_entries: u32) -> Self {
        Self::new::<u32, V>(name, MapType::PerCpuArray, max_entries, Resize::Keep)
    }

    /// Programs write it.
    fn kept(self) -> Self {
        Self { resize: Resize::Keep, ..self }
    }

    fn with(self, flags: u32) -> Self {
        Self { flags, ..self }
    }

    /// For making the map; the kernel keeps 15 bytes of its name.
    pub fn shape_to_create(&self) -> Shape {
        let mut name = [0; 16];
        for (to, from) in name.iter_mut().take(15).zip(self.name.bytes()) {
            *to = from;
        }
        Shape {
            kind: self.kind as u32,
            key_size: self.key_size,
            value_size: self.value_size,
            max_entries: self.max_entries,
            flags: self.flags,
            inner_map_and_numa_node: [0; 2],
            name,
        }
    }

    /// Bytes of kernel memory when full: `htab_elem` has 48 bytes before its key, a bucket 16 (kernel/bpf/hashtab.c,
    /// Linux 6.18), an array rounds its values up to 8.
    pub fn footprint(&self, cpus: u64) -> u64 {
        let (entries, key, value) = (
            u64::from(self.max_entries),
            u64::from(self.key_size).next_multiple_of(8),
            u64::from(self.value_size).next_multiple_of(8),
        );
        match self.kind {
            MapType::Hash => entries * (48 + key + value) + entries.next_power_of_two() * 16,
            MapType::PerCpuArray => entries * value * cpus,
            _ => entries * value,
        }
    }
}

/// A map that was found pinned and has the shape of its [`Spec`].
pub(super) struct Pinned {
    pub map: MapData,
    /// May differ from what the spec asks for.
    pub max_entries: u32,
}

impl Spec {
    /// The map's pin in `directory`, if there is one. aya would take a pin of any shape, and the kernel would then
    /// copy by the map's sizes into buffers of ours.
    pub fn find(&self, directory: &Path) -> Result<Option<Pinned>, KernelError> {
        let path = directory.join(self.name);
        let foreign = |found: String| KernelError::ForeignMap { path: path.clone(), expected: self.to_string(), found };
        let map = match MapData::from_pin(&path) {
            Ok(map) => map,
            Err(MapError::SyscallError(cause)) if cause.io_error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(cause) => return Err(foreign(format!("something that does not open as a map ({cause})"))),
        };
        // Programs and links can be pinned too, and describe themselves through the same command.
        let object = std::fs::read_link(format!("/proc/self/fd/{}", map.fd().as_fd().as_raw_fd()));
        match object.map_err(KernelError::path("reading what is pinned at", &path))?.to_str() {
            Some("anon_inode:bpf-map") => {}
            object => return Err(foreign(object.unwrap_or("another object").to_owned())),
        }
        let info = map.info().map_err(|cause| foreign(cause.to_string()))?;
        let kind = info.map_type().map_err(|cause| foreign(cause.to_string()))?;
        let found = Self {
            name: self.name,
            kind,
            key_size: info.key_size(),
            value_size: info.value_size(),
            flags: info.map_flags(),
            max_entries: info.max_entries(),
            resize: self.resize,
        };
        if found.shape() != self.shape() {
            return Err(foreign(found.to_string()));
        }
        Ok(Some(Pinned { map, max_entries: info.max_entries() }))
    }

    /// As [`Self::find`], for a map that has to be there, with one value of type `V` for each key of type `K`.
    pub fn pinned<K, V>(&self, directory: &Path) -> Result<Pinned, KernelError> {
        let path = directory.join(self.name);
        let types = Self::new::<K, V>(self.name, self.kind, self.max_entries, self.resize).with(self.flags);
        if types.shape() != self.shape() {
            let (expected, found) = (types.to_string(), self.to_string());
            return Err(KernelError::ForeignMap { path, expected, found });
        }
        self.find(directory)?.ok_or_else(|| KernelError::NotRunning { dir: directory.to_owned() })
    }

    /// The spec with this name in `specs`.
    pub fn of<'a>(specs: &'a [Self], name: &'static str) -> Result<&'a Self, KernelError> {
        let unknown = || io::Error::from(io::ErrorKind::NotFound);
        specs.iter().find(|spec| spec.name == name).ok_or_else(|| KernelError::Map {
            name,
            operation: "looking for its definition",
            cause: unknown(),
        })
    }

    /// What two maps must have in common for one to be read as the other.
    fn shape(&self) -> (u32, u32, u32, u32) {
        (self.kind as u32, self.key_size, self.value_size, self.flags)
    }
}

impl std::fmt::Display for Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, key_size, value_size, flags, .. } = self;
        write!(f, "{kind:?} with keys of {key_size} and values of {value_size} bytes, flags {flags:#x}")
    }
}
