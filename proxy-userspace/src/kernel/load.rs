use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use aya::programs::{ProgramError, SchedClassifier};
use aya::{Btf, Ebpf, EbpfLoader, Endianness};
use proxy_common::datapath::Link;
use proxy_common::programs;
use proxy_common::reason::Hook;
use tokio::time::MissedTickBehavior;

use super::lock::PinDir;
use super::specs::Spec;
use super::{KernelError, Options};
use crate::object::DATAPATH;

/// The programs, in the kernel as far as they are needed.
pub struct Programs {
    ebpf: Ebpf,
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
        let program = load_program(&mut self.ebpf, name)?;
        let fd = program.fd().map_err(|cause| KernelError::Program { name, cause: cause.to_string() })?;
        Ok((fd.as_fd(), name))
    }
}

/// Does nothing more to a program that is loaded.
fn load_program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a SchedClassifier, KernelError> {
    let program: &mut SchedClassifier =
        ebpf.program_mut(name).and_then(|program| program.try_into().ok()).ok_or(KernelError::NoProgram { name })?;
    match program.load() {
        Err(ProgramError::AlreadyLoaded) | Ok(()) => Ok(program),
        Err(cause) => Err(KernelError::Program { name, cause: explain(&cause) }),
    }
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

/// Makes the maps that are not pinned yet, pins them, and loads the programs.
pub(super) fn load(
    options: &Options,
    specs: &[Spec],
    pins: &Arc<PinDir>,
) -> Result<(Programs, Option<KernelLog>), KernelError> {
    if DATAPATH.is_empty() {
        return Err(KernelError::NoObject);
    }
    let failed = |cause| KernelError::Load(Box::new(cause));
    let btf = Btf::parse_file(&options.btf, Endianness::default()).map_err(|cause| failed(cause.into()))?;
    let directory = pins.layout().maps();
    let mut loader = EbpfLoader::new();
    loader.btf(Some(&btf)).override_global(aya_log::LEVEL, &options.log_level, false);
    for spec in specs {
        loader.map_max_entries(spec.name, spec.max_entries).map_pin_path(spec.name, directory.join(spec.name));
    }
    let mut ebpf = loader.load(DATAPATH).map_err(failed)?;
    for program in programs::TC.iter().filter(|program| program.link == Link::Ethernet) {
        load_program(&mut ebpf, program.name)?;
    }
    let log = (options.log_level > 0).then(|| kernel_log(&mut ebpf)).transpose()?;
    Ok((Programs { ebpf, pins: Arc::clone(pins) }, log))
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
