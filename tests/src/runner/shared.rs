//! The programs, run by `BPF_PROG_TEST_RUN`, on maps that an agent's reconciler writes meanwhile: a writer at full speed
//! beside packets.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, PerCpuArray},
};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use proxy_common::{
    datapath::Link,
    programs,
    reason::{Hook, Reason},
    wire::{LAYOUT, counter_index, map},
};
use proxy_userspace::{
    kernel::{MapTables, Options, Programs, Runtime, Sweeper},
    object::DATAPATH,
};

use super::{
    namespace::{self, Devices},
    object, test_run,
};

/// What runs packets.
pub struct Shared {
    ebpf: Ebpf,
    devices: Devices,
    /// The maps stay pinned for as long as these live.
    _held: (Programs, Sweeper),
}

impl Shared {
    /// Makes maps as an agent does, and loads the programs for them. The calling thread moves into network and mount
    /// namespaces of its own, which end with it, and has to be the one that runs the packets; who writes the maps may be
    /// another.
    ///
    /// # Errors
    /// Without root, or where the kernel refuses something.
    pub fn open() -> anyhow::Result<(Self, MapTables)> {
        let devices = namespace::enter()?;
        let directory = Path::new("/run");
        unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace needs root")?;
        let no_one = None::<&str>;
        mount(no_one, "/", no_one, MsFlags::MS_REC | MsFlags::MS_PRIVATE, no_one)
            .context("keep mounts to ourselves")?;
        mount(Some("bpf"), directory, Some("bpf"), MsFlags::empty(), no_one).context("mount a BPF filesystem")?;
        let pin_dir = directory.join("sheave");
        let Runtime { tables, programs, sweeper, .. } =
            Runtime::open(&Options { pin_dir: pin_dir.clone(), ..Options::default() })?;
        let mut loader = EbpfLoader::new();
        loader.override_global(aya_log::LEVEL, &0_u8, true);
        let maps = std::fs::read_dir(pin_dir.join(format!("v{LAYOUT}/maps"))).context("list the maps")?;
        let maps: Vec<PathBuf> = maps.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
        for path in &maps {
            if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
                loader.map_pin_path(name, path);
            }
        }
        let mut ebpf = loader.load(DATAPATH).context("load the kernel object")?;
        for program in programs::TC.iter().filter(|program| program.link == Link::Ethernet) {
            object::classifier(&mut ebpf, program.name)?;
        }
        Ok((Self { ebpf, devices, _held: (programs, sweeper) }, tables))
    }

    /// Runs a packet at `hook` and what becomes of it again, `repeat` times in all.
    ///
    /// # Errors
    /// Of the system call.
    pub fn repeat(&mut self, hook: Hook, bytes: &[u8], repeat: u32) -> anyhow::Result<Vec<u8>> {
        let Some(name) = programs::tc_name(hook, Link::Ethernet) else { bail!("no program for {hook:?}") };
        let device = match hook {
            Hook::PodIngress | Hook::PodEgress => self.devices.pod,
            _ => self.devices.uplink,
        };
        let program = object::classifier(&mut self.ebpf, name)?;
        Ok(test_run::tc(program, device, bytes, 0, repeat)?.bytes)
    }

    /// How often `hook` has counted `reason`.
    ///
    /// # Errors
    /// Of the system call.
    pub fn count(&self, hook: Hook, reason: Reason) -> anyhow::Result<u64> {
        let map = self.ebpf.map(map::COUNTERS).context("no counters")?;
        let map = PerCpuArray::<&MapData, u64>::try_from(map)?;
        Ok(map.get(&counter_index(hook, reason), 0)?.iter().sum())
    }
}
