//! What is in the kernel now, read from the pins alone: works beside a running agent and without one, and loads no
//! program.

use std::path::{Path, PathBuf};

use proxy_common::datapath::{V4, V6};
use proxy_common::reason::{Hook, Reason};
use proxy_common::wire::{
    Backend, Frontend, FrontendKey, LAYOUT, Service, ServiceName, Sets, Wire, counter_index, map,
};

pub use super::flows::Flow;
use super::flows::list;
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
        Ok(Self { directory, specs: Spec::all(&Capacities::default(), 1) })
    }

    /// Names by service id, sorted by id.
    pub fn names(&self) -> Result<Vec<(u32, ServiceName)>, KernelError> {
        let mut names = self.rows::<u32, ServiceName>(map::NAMES)?;
        names.sort_by_key(|(id, _)| *id);
        Ok(names)
    }

    /// Where the sets of a service port are, by service id, the unused rows included.
    pub fn services(&self) -> Result<Vec<Service>, KernelError> {
        self.array(map::SERVICES)
    }

    /// Sets by index, the unused rows included.
    pub fn sets(&self) -> Result<Vec<Sets>, KernelError> {
        self.array(map::SETS)
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
        let backends = self.backends()?;
        let failed = |name| move |cause| KernelError::Map { name, operation: "reading", cause };
        let mut flows = list::<V4>(self.rows(map::FLOWS4)?, &backends, tick, now).map_err(failed(map::FLOWS4))?;
        flows.extend(list::<V6>(self.rows(map::FLOWS6)?, &backends, tick, now).map_err(failed(map::FLOWS6))?);
        Ok(flows)
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
