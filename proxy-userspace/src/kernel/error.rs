use std::io;
use std::path::{Path, PathBuf};

/// What keeps an agent from running, or a command from reading what one left in the kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error(
        "not enough privileges: {missing} missing; run as root, or give the process CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    )]
    Privileges { missing: String },

    #[error("Linux {found} is too old: {minimum} or newer is needed")]
    KernelTooOld { found: String, minimum: String },

    #[error("no BTF at {}: the kernel has to be built with CONFIG_DEBUG_INFO_BTF=y", path.display())]
    NoBtf { path: PathBuf },

    #[error(
        "{path} is not on a BPF filesystem, and mounting one failed: {cause}; mount it with: mount -t bpf bpf {path}",
        path = path.display()
    )]
    NoBpffs { path: PathBuf, cause: io::Error },

    #[error("{path} is not on a BPF filesystem and is not empty; choose a --pin-dir below /sys/fs/bpf", path = path.display())]
    MountWouldHide { path: PathBuf },

    #[error("pin directory {} is in use by a running agent; every agent needs a --pin-dir of its own", dir.display())]
    InUse { dir: PathBuf },

    #[error(
        "pin directory {} serves the live device with index {index} of another network namespace; \
         every agent needs a --pin-dir of its own",
        dir.display()
    )]
    OtherNamespace { dir: PathBuf, index: u32 },

    #[error(
        "pinned map {path} is not ours or is damaged: expected {expected}, found {found}; \
         if nothing else needs it, remove it with: rm {path}",
        path = path.display()
    )]
    ForeignMap { path: PathBuf, expected: String, found: String },

    #[error("nothing is pinned at {}: no agent has run with this --pin-dir since the machine booted", dir.display())]
    NotRunning { dir: PathBuf },

    #[error("{} holds maps of layout {found}, this program reads layout {wanted}", dir.display())]
    OtherLayout { dir: PathBuf, found: String, wanted: u32 },

    #[error("this binary was built without the kernel programs (AYA_BUILD_SKIP was set)")]
    NoObject,

    #[error("loading the maps and programs into the kernel: {0}")]
    Load(#[source] Box<aya::EbpfError>),

    #[error("the kernel object has no tc program {name}")]
    NoProgram { name: &'static str },

    #[error("the kernel refused program {name}: {cause}")]
    Program { name: &'static str, cause: String },

    #[error("kernel log of the programs: {0}")]
    Log(String),

    #[error("map {name}: {operation}: {cause}")]
    Map { name: &'static str, operation: &'static str, cause: io::Error },

    #[error("{operation} {}: {cause}", path.display())]
    Path { operation: &'static str, path: PathBuf, cause: io::Error },

    #[error("netlink: {operation}: {cause}")]
    Netlink { operation: &'static str, cause: String },

    #[error("reading the kernel's clock: {0}")]
    Clock(#[source] io::Error),

    #[error("starting a thread: {0}")]
    Thread(#[source] io::Error),

    #[error(
        "control groups version 2 are mounted nowhere; mount them with: sheave mount, or name a group with --cgroup"
    )]
    NoCgroup2,

    #[error("the task that watches the devices has ended")]
    WatcherGone,
}

impl KernelError {
    /// For `map_err` on a file operation.
    pub(super) fn path(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::Path { operation, path, cause }
    }

    /// For `map_err` on a netlink request.
    pub(super) fn netlink(operation: &'static str) -> impl FnOnce(rtnetlink::Error) -> Self {
        move |cause| Self::Netlink { operation, cause: cause.to_string() }
    }
}
