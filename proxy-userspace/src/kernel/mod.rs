//! Everything that talks to the kernel: maps, programs, links, netlink. The only module that imports aya.
//!
//! The order of a start: [`Runtime::open`] checks what it needs, adopts or makes the pinned maps and loads the
//! programs, touching no traffic; [`Links::start`] watches the devices of the node; once the maps hold the first
//! complete state, [`Links::attach`] puts the programs on the devices, replacing those that an earlier agent left.

mod adopt;
mod bpffs;
mod capacity;
mod cleanup;
mod error;
mod flows;
mod links;
mod load;
mod local_ports;
mod lock;
mod mapped;
pub mod memory;
mod mountinfo;
mod mounts;
pub mod netfilter;
mod netlink;
mod per_cpu;
mod pins;
mod preconditions;
mod raw;
pub mod read;
mod rows;
mod sockets;
mod specs;
mod tables;
pub mod tick;

pub use capacity::Capacities;
pub use cleanup::{Removed, cleanup};
pub use error::KernelError;
pub use flows::{Sweeper, Swept};
pub use links::{Attached, Attachments, Failed, LinkOptions, Links, Role};
pub use load::{KernelLog, Programs};
pub use local_ports::masquerade_ports;
pub use mounts::{Mounted, Mounts, mount_missing};
pub use netfilter::{FastPath, FastPathMode};
pub use sockets::{Redialler, SocketHooks, SocketLoad};
pub use tables::MapTables;

use std::path::PathBuf;
use std::sync::Arc;

use lock::PinDir;
use per_cpu::possible_cpus;
use specs::Spec;

/// How programs are put on devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// TCX from Linux 6.6 on, clsact filters before.
    #[default]
    Auto,
    Tcx,
    Clsact,
}

/// What [`Runtime::open`] is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of the pins, on a BPF filesystem; each agent of a kernel has its own.
    pub pin_dir: PathBuf,
    pub capacities: Capacities,
    /// Level of the programs' own log: 0 = off (costs nothing), 1 = error ... 5 = trace.
    pub log_level: u8,
    /// The kernel's type information; another path only for tests.
    pub btf: PathBuf,
    /// Whose sockets are served.
    pub sockets: SocketLoad,
}

impl Options {
    pub const PIN_DIR: &str = "/sys/fs/bpf/sheave";
    pub const BTF: &str = "/sys/kernel/btf/vmlinux";
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pin_dir: Self::PIN_DIR.into(),
            capacities: Capacities::default(),
            log_level: 0,
            btf: Self::BTF.into(),
            sockets: SocketLoad::default(),
        }
    }
}

/// Maps and programs in the kernel, not yet attached to anything by this process. The pin directory stays locked until
/// `tables`, `programs` (or the [`Links`] that took them), `sockets`, `redialler` and `sweeper` are dropped.
pub struct Runtime {
    pub tables: MapTables,
    pub programs: Programs,
    /// Programs at the sockets of the node's own processes; or what keeps them from being there, which keeps nothing else.
    pub sockets: Result<SocketHooks, KernelError>,
    /// To be started by somebody. `None`: nobody is served at his socket. Or what keeps it from working, as above.
    pub redialler: Result<Option<Redialler>, KernelError>,
    /// To be started by somebody.
    pub sweeper: Sweeper,
    /// Present where [`Options::log_level`] asks for it; somebody has to run it.
    pub log: Option<KernelLog>,
}

impl Runtime {
    /// Checks privileges, kernel and BPF filesystem; locks the pin directory; adopts the maps that are pinned there or
    /// makes them; loads the programs.
    ///
    /// Has to run in the network namespace whose devices are to be served.
    ///
    /// # Errors
    /// [`KernelError`] says what is missing and what to do about it. Nothing that carries traffic has been touched.
    pub fn open(options: &Options) -> Result<Self, KernelError> {
        preconditions::check(&options.btf)?;
        bpffs::ensure(&options.pin_dir)?;
        let pins = Arc::new(PinDir::lock(&options.pin_dir)?);
        pins.refuse_other_namespaces()?;
        let layout = pins.layout();
        let specs = adopt::adopt(&layout.maps(), Spec::all(&options.capacities, possible_cpus()? as u32))?;
        let load::Loaded { programs, sockets, lister, log } = load::load(options, specs.clone(), &pins)?;
        let tables = MapTables::open(&layout.maps(), &specs, &pins)?;
        let open = |lister| Redialler::open(lister, &layout.maps(), &specs, &pins);
        let redialler = lister.and_then(|lister| lister.map(open).transpose());
        let sweeper = Sweeper::open(&layout.maps(), &specs, &pins)?;
        Ok(Self { tables, programs, sockets, redialler, sweeper, log })
    }
}
