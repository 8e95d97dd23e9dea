use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use aya::programs::{CgroupSockAddr, Iter, Program, ProgramError, ProgramFd, SchedClassifier};
use aya::{Btf, Ebpf, EbpfLoader, Endianness};
use proxy_common::datapath::Link;
use proxy_common::programs::{self, Call};
use proxy_common::reason::Hook;
use tokio::time::MissedTickBehavior;

use super::lock::PinDir;
use super::memory;
use super::specs::Spec;
use super::{KernelError, Options, SocketHooks};
use crate::object::DATAPATH;

/// The programs, in the kernel as far as they are needed. Of the object that they come from nothing is kept: it takes
/// ten times as much memory as all else that an agent with few services knows.
pub struct Programs {
    loaded: BTreeMap<&'static str, ProgramFd>,
    specs: Vec<Spec>,
    pins: Arc<PinDir>,
}

impl Programs {
    pub(super) fn pins(&self) -> &Arc<PinDir> {
        &self.pins
    }

    /// The program for a hook on a kind of link, and its name. Those for devices without an Ethernet header are only
    /// loaded when there is such a device: most nodes have none, and the verifier takes its time.
    pub(super) fn get(&mut self, hook: Hook, link: Link) -> Result<(BorrowedFd<'_>, &'static str), KernelError> {
        let name = programs::tc_name(hook, link).ok_or(KernelError::NoProgram { name: hook.word() })?;
        if !self.loaded.contains_key(name) {
            // Not with a log: then all of them were loaded at the start.
            let mut ebpf = load_maps(&self.specs, &self.pins, 0)?;
            for program in programs::TC.iter().filter(|program| program.link == link) {
                if !self.loaded.contains_key(program.name) {
                    self.loaded.insert(program.name, load_classifier(&mut ebpf, program.name)?);
                }
            }
            drop(ebpf);
            memory::give_back();
        }
        let program = self.loaded.get(name).ok_or(KernelError::NoProgram { name })?;
        Ok((program.as_fd(), name))
    }
}

fn load_program(
    ebpf: &mut Ebpf,
    name: &'static str,
    load: impl FnOnce(&mut Program) -> Result<(), ProgramError>,
) -> Result<ProgramFd, KernelError> {
    let program = ebpf.program_mut(name).ok_or(KernelError::NoProgram { name })?;
    load(program).map_err(|cause| KernelError::Program { name, cause: explain(&cause) })?;
    let failed = |cause: String| KernelError::Program { name, cause };
    let fd = program.fd().map_err(|cause| failed(cause.to_string()))?;
    fd.try_clone().map_err(|cause| failed(cause.to_string()))
}

fn load_classifier(ebpf: &mut Ebpf, name: &'static str) -> Result<ProgramFd, KernelError> {
    load_program(ebpf, name, |program| <&mut SchedClassifier>::try_from(program)?.load())
}

/// Loads the programs at sockets, unless they are switched off.
fn load_sockets(ebpf: &mut Ebpf, options: &Options, pins: &Arc<PinDir>) -> Result<SocketHooks, KernelError> {
    let cgroup = options.sockets.cgroup()?;
    let calls = cgroup.iter().flat_map(|_| Call::ALL);
    let load = |call: Call| {
        let load = |program: &mut Program| <&mut CgroupSockAddr>::try_from(program)?.load();
        Ok((call, load_program(ebpf, call.program(), load)?))
    };
    let programs = calls.map(load).collect::<Result<_, KernelError>>()?;
    Ok(SocketHooks::new(programs, cgroup, pins))
}

/// Loads the iterator over what sockets have dialled. It is the only program that needs the kernel's own types: to say
/// what it iterates over. They are read on a thread that ends with them, whose part of the heap is empty then and goes back
/// to the kernel: among what stays they would leave holes of 6 MB.
fn load_lister(ebpf: &mut Ebpf, options: &Options) -> Result<ProgramFd, KernelError> {
    let name = programs::LIST_PEERS;
    let failed = |cause: String| KernelError::Program { name, cause };
    let load = || {
        let types = Btf::parse_file(&options.btf, Endianness::default()).map_err(|cause| failed(cause.to_string()))?;
        load_program(ebpf, name, |program| <&mut Iter>::try_from(program)?.load("bpf_sk_storage_map", &types))
    };
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().name("types".into()).spawn_scoped(scope, load);
        let loaded = reader.map_err(KernelError::Thread)?.join();
        loaded.unwrap_or_else(|_| Err(failed("the thread that reads the kernel's types panicked".into())))
    })
}

/// Passes the log records of the programs on to the process's own log.
pub struct KernelLog {
    flush: Box<dyn FnMut() + Send>,
}

impl KernelLog {
    /// How long a record may wait. Looking again and again costs less than being woken for every record.
    const PERIOD: Duration = Duration::from_millis(50);

    /// Runs until it is dropped.
    pub async fn run(mut self) {
        let mut interval = tokio::time::interval(Self::PERIOD);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            (self.flush)();
        }
    }
}

/// See [`super::Runtime`].
pub(super) struct Loaded {
    pub programs: Programs,
    pub sockets: Result<SocketHooks, KernelError>,
    pub lister: Result<Option<ProgramFd>, KernelError>,
    pub log: Option<KernelLog>,
}

/// Makes the maps that are not pinned yet, pins them, and loads the programs.
pub(super) fn load(options: &Options, specs: Vec<Spec>, pins: &Arc<PinDir>) -> Result<Loaded, KernelError> {
    let mut ebpf = load_maps(&specs, pins, options.log_level)?;
    let mut programs = Programs { loaded: BTreeMap::new(), specs, pins: Arc::clone(pins) };
    let has_log = options.log_level > 0;
    // Programs that are loaded together write one log.
    for program in programs::TC.iter().filter(|program| has_log || program.link == Link::Ethernet) {
        programs.loaded.insert(program.name, load_classifier(&mut ebpf, program.name)?);
    }
    let sockets = load_sockets(&mut ebpf, options, pins);
    let lister = match &sockets {
        Ok(hooks) if hooks.are_on() => load_lister(&mut ebpf, options).map(Some),
        _ => Ok(None),
    };
    let log = has_log.then(|| kernel_log(&mut ebpf)).transpose()?;
    Ok(Loaded { programs, sockets, lister, log })
}

/// Reads the object, and makes and pins its maps where they are not yet.
fn load_maps(specs: &[Spec], pins: &PinDir, log_level: u8) -> Result<Ebpf, KernelError> {
    if DATAPATH.is_empty() {
        return Err(KernelError::NoObject);
    }
    let directory = pins.layout().maps();
    let namespace = pins.namespace();
    let mut loader = EbpfLoader::new();
    // Without the kernel's own types, to which nothing in the object refers: they would take 16 MB while they are read.
    loader.btf(None).override_global(aya_log::LEVEL, &log_level, false);
    loader.override_global("NAMESPACE", &namespace, true);
    for spec in specs {
        loader.map_max_entries(spec.name, spec.max_entries).map_pin_path(spec.name, directory.join(spec.name));
    }
    loader.load(DATAPATH).map_err(|cause| KernelError::Load(Box::new(cause)))
}

/// The verifier's log is long, and its last lines say what it did not like.
fn explain(cause: &ProgramError) -> String {
    let ProgramError::LoadError { io_error, verifier_log } = cause else { return cause.to_string() };
    let log = verifier_log.to_string();
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines.get(lines.len().saturating_sub(20)..).unwrap_or_default();
    format!("{io_error}; the verifier's last words:\n{}", tail.join("\n"))
}

fn kernel_log(ebpf: &mut Ebpf) -> Result<KernelLog, KernelError> {
    let mut logger = aya_log::EbpfLogger::init(ebpf).map_err(|cause| KernelError::Log(cause.to_string()))?;
    Ok(KernelLog { flush: Box::new(move || logger.flush()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_needs_no_types_of_the_kernel() {
        let object = aya_obj::Object::parse(DATAPATH).unwrap();
        assert!(!object.programs.is_empty());
        assert!(!object.has_btf_relocations(), "it has to be loaded with the kernel's BTF now");
    }
}
