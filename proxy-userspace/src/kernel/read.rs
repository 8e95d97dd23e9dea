//! What is in the kernel now, read from the pins alone: works beside a running agent and without one, and loads no
//! program.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proxy_common::datapath::{Family, V4, V6};
use proxy_common::reason::{Hook, Reason};
use proxy_common::wire::{
    Backend, Flow4, Flow6, FlowKey4, FlowKey6, Frontend, FrontendKey, LAYOUT, ServiceName, Side, Wire, counter_index,
    map,
};

use super::per_cpu::CpuCounters;
use super::pins::Layout;
use super::rows::Rows;
use super::specs::Spec;
use super::tick::Tick;
use super::{Capacities, KernelError, preconditions};

/// The pinned maps of one agent. Each method reads its map anew.
pub struct Reader {
    directory: PathBuf,
    specs: Vec<Spec>,
}

/// An entry of the flow tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    pub protocol: u8,
    /// The tuple of the packets that the entry applies to.
    pub source: (IpAddr, u16),
    pub destination: (IpAddr, u16),
    /// What takes its place.
    pub new_source: (IpAddr, u16),
    pub new_destination: (IpAddr, u16),
    /// Whether the entry applies behind the node's stack; otherwise before it.
    pub egress: bool,
    /// Bits of [`proxy_common::wire::FlowFlags`].
    pub flags: u8,
    /// Bits of [`proxy_common::tcp::Seen`].
    pub seen: u8,
    pub service: u32,
    pub backend: u32,
    pub generation: u32,
    /// Since the first packet.
    pub age: Duration,
    /// Since the last packet.
    pub idle: Duration,
}

/// How often a hook has counted a reason, over all CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub hook: Hook,
    pub reason: Reason,
    pub packets: u64,
}

impl Reader {
    /// # Errors
    /// [`KernelError::NotRunning`] where no agent has left maps in `pin_dir`, [`KernelError::OtherLayout`] where they
    /// are of another version, [`KernelError::Privileges`].
    pub fn open(pin_dir: &Path) -> Result<Self, KernelError> {
        preconditions::privileges()?;
        let current = Layout::current(pin_dir);
        let directory = current.maps();
        if !directory.is_dir() {
            let other = Layout::all(pin_dir).into_iter().find(|layout| layout.base() != current.base());
            let version =
                other.as_ref().and_then(|layout| layout.base().file_name()).map(|name| name.to_string_lossy());
            return Err(match version {
                Some(found) => KernelError::OtherLayout {
                    dir: pin_dir.to_owned(),
                    found: found.trim_start_matches('v').to_owned(),
                    wanted: LAYOUT,
                },
                None => KernelError::NotRunning { dir: pin_dir.to_owned() },
            });
        }
        Ok(Self { directory, specs: Spec::all(&Capacities::default()) })
    }

    /// Names by service id, sorted by id.
    pub fn services(&self) -> Result<Vec<(u32, ServiceName)>, KernelError> {
        let mut services = self.rows::<u32, ServiceName>(map::SERVICES)?;
        services.sort_by_key(|(id, _)| *id);
        Ok(services)
    }

    /// Sorted by key.
    pub fn frontends(&self) -> Result<Vec<(FrontendKey, Frontend)>, KernelError> {
        let mut frontends = self.rows::<FrontendKey, Frontend>(map::FRONTENDS)?;
        frontends.sort_by_key(|(key, _)| *key);
        Ok(frontends)
    }

    /// Backend ids by slot, the unused ones included.
    pub fn slots(&self) -> Result<Vec<u32>, KernelError> {
        self.array(map::SLOTS)
    }

    /// Backend ids by element of the Maglev tables, the unused ones included.
    pub fn maglev(&self) -> Result<Vec<u32>, KernelError> {
        self.array(map::MAGLEV)
    }

    /// Backends by id, the unused rows included.
    pub fn backends(&self) -> Result<Vec<Backend>, KernelError> {
        self.array(map::BACKENDS)
    }

    /// Both families, in no particular order. Entries that come or go meanwhile may be missed.
    pub fn flows(&self) -> Result<Vec<Flow>, KernelError> {
        let tick = Tick::detect()?;
        let now = tick.now()?;
        let v4 = self.rows::<FlowKey4, Flow4>(map::FLOWS4)?;
        let v6 = self.rows::<FlowKey6, Flow6>(map::FLOWS6)?;
        let time = |then| tick.since(then, now);
        let v4 = v4.iter().map(|(key, value)| flow::<V4>(key, key.side, value, &time));
        Ok(v4.chain(v6.iter().map(|(key, value)| flow::<V6>(key, key.side, value, &time))).collect())
    }

    /// Every hook and reason, those that were never counted included.
    pub fn counters(&self) -> Result<Vec<Count>, KernelError> {
        let spec = Spec::of(&self.specs, map::COUNTERS)?;
        let failed = |cause| KernelError::Map { name: spec.name, operation: "reading", cause };
        let sums = CpuCounters::open(&self.directory, spec)?.sums().map_err(failed)?;
        let all = Hook::ALL.iter().flat_map(|hook| Reason::ALL.iter().map(|reason| (*hook, *reason)));
        Ok(all
            .map(|(hook, reason)| {
                let packets = sums.get(counter_index(hook, reason) as usize).copied().unwrap_or(0);
                Count { hook, reason, packets }
            })
            .collect())
    }

    /// Names and sizes in elements of all maps.
    pub fn sizes(&self) -> Result<Vec<(&'static str, u32)>, KernelError> {
        self.specs
            .iter()
            .map(|spec| match spec.find(&self.directory)? {
                Some(pinned) => Ok((spec.name, pinned.max_entries)),
                None => Err(self.not_running()),
            })
            .collect()
    }

    fn rows<K: Wire, V: Wire>(&self, name: &'static str) -> Result<Vec<(K, V)>, KernelError> {
        let rows = Rows::<K, V>::open(&self.directory, Spec::of(&self.specs, name)?)?;
        rows.read().map_err(|cause| KernelError::Map { name, operation: "reading", cause })
    }

    fn array<V: Wire>(&self, name: &'static str) -> Result<Vec<V>, KernelError> {
        Ok(self.rows::<u32, V>(name)?.into_iter().map(|(_, value)| value).collect())
    }

    fn not_running(&self) -> KernelError {
        KernelError::NotRunning { dir: self.directory.clone() }
    }
}

fn flow<F: Family>(key: &F::Key, side: u8, value: &F::Flow, time: &impl Fn(u32) -> Duration) -> Flow {
    let tuple = F::parts(key);
    let new = F::tuple(value, tuple.protocol);
    let state = F::state(value);
    let end = |address: F::Address, port: u16| (F::wide(address).ip(), u16::from_be(port));
    Flow {
        protocol: tuple.protocol,
        source: end(tuple.source, tuple.source_port),
        destination: end(tuple.destination, tuple.destination_port),
        new_source: end(new.source, new.source_port),
        new_destination: end(new.destination, new.destination_port),
        egress: side == Side::EGRESS,
        flags: state.flags,
        seen: state.seen,
        service: state.service,
        backend: state.backend,
        generation: state.generation,
        age: time(state.created),
        idle: time(state.last_seen),
    }
}
