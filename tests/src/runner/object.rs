use anyhow::{Context as _, ensure};
use aya::{
    Ebpf, EbpfLoader,
    programs::{CgroupSockAddr, SchedClassifier, Xdp},
};
use proxy_common::{
    datapath::Seats,
    programs::{self, Call},
    wire::map,
};
use proxy_userspace::object;

use crate::rows::world::SEATS;

/// Elements of each map that the loader sizes.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub frontends: u32,
    /// Service ids, and rows of their sets.
    pub services: u32,
    pub slots: u32,
    pub maglev: u32,
    pub backends: u32,
    pub flows: u32,
    /// Of each ring of flows that have not proved themselves, on each CPU.
    pub seats: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { frontends: 64, services: 64, slots: 256, maglev: 4096, backends: 256, flows: 4096, seats: SEATS }
    }
}

/// Makes private maps, pinned nowhere, and hands the programs to the kernel's loader; none is verified yet.
///
/// # Errors
/// Says what is missing where the kernel or the privileges of the process do not allow it.
pub fn open(sizes: Sizes, log_level: u8) -> anyhow::Result<Ebpf> {
    ensure!(nix::unistd::geteuid().is_root(), "kernel programs need root: run this as root");
    ensure!(!object::DATAPATH.is_empty(), "built with AYA_BUILD_SKIP: there are no kernel programs to run");
    EbpfLoader::new()
        .map_max_entries(map::FRONTENDS, sizes.frontends)
        .map_max_entries(map::SLOTS, sizes.slots)
        .map_max_entries(map::MAGLEV, sizes.maglev)
        .map_max_entries(map::BACKENDS, sizes.backends)
        .map_max_entries(map::FLOWS4, sizes.flows)
        .map_max_entries(map::FLOWS6, sizes.flows)
        .map_max_entries(map::LOCAL_ADDRESSES, 64)
        .map_max_entries(map::DEVICES, 64)
        .map_max_entries(map::NAMES, 64)
        .map_max_entries(map::SERVICES, sizes.services)
        .map_max_entries(map::SETS, sizes.services)
        .map_max_entries(map::OPENING4, sizes.seats)
        .map_max_entries(map::OPENING6, sizes.seats)
        .map_max_entries(map::PROVEN4, Seats::all(sizes.flows))
        .map_max_entries(map::PROVEN6, Seats::all(sizes.flows))
        .override_global(aya_log::LEVEL, &log_level, true)
        .load(object::DATAPATH)
        .context("loading the kernel object")
}

/// Verifies a tc program.
///
/// # Errors
/// With the verifier's log.
pub fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut SchedClassifier> {
    let program = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
    let program: &mut SchedClassifier = program.try_into()?;
    if program.fd().is_err() {
        program.load().with_context(|| format!("the verifier refused {name}"))?;
    }
    Ok(program)
}

/// Verifies the XDP program.
///
/// # Errors
/// With the verifier's log.
pub fn xdp(ebpf: &mut Ebpf) -> anyhow::Result<&mut Xdp> {
    let program: &mut Xdp = ebpf.program_mut(programs::XDP).context("no XDP program")?.try_into()?;
    if program.fd().is_err() {
        program.load().context("the verifier refused the XDP program")?;
    }
    Ok(program)
}

/// Verifies a program at sockets.
///
/// # Errors
/// With the verifier's log.
pub fn socket(ebpf: &mut Ebpf, call: Call) -> anyhow::Result<&mut CgroupSockAddr> {
    let name = call.program();
    let program: &mut CgroupSockAddr =
        ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?;
    program.load().with_context(|| format!("the verifier refused {name}"))?;
    Ok(program)
}

/// Loads the benchmark's yardstick, the least that destination translation can do.
///
/// # Errors
/// Without root, or where the kernel refuses it.
pub fn calibrator() -> anyhow::Result<Ebpf> {
    ensure!(!object::CALIBRATOR.is_empty(), "built with AYA_BUILD_SKIP: there are no kernel programs to run");
    let mut ebpf = EbpfLoader::new().load(object::CALIBRATOR).context("loading the calibrator")?;
    classifier(&mut ebpf, "calibrator")?;
    Ok(ebpf)
}
