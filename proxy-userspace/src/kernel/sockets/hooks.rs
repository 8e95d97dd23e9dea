use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aya::programs::ProgramFd;
use proxy_common::programs::Call;

use super::root::cgroup2_of;
use crate::kernel::lock::PinDir;
use crate::kernel::pins::{self, Layout};
use crate::kernel::raw::link;
use crate::kernel::{KernelError, mountinfo};

/// Whose sockets programs are put at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SocketLoad {
    /// Of all control groups that this process sees.
    #[default]
    Found,
    /// Of the control group at this directory and of those below.
    At(PathBuf),
    /// Nobody's.
    Off,
}

/// The programs at sockets, loaded and not yet attached by this process.
pub struct SocketHooks {
    programs: BTreeMap<Call, ProgramFd>,
    /// Where they belong; `None`: they are switched off, and there are none.
    cgroup: Option<PathBuf>,
    pins: Arc<PinDir>,
}

impl SocketLoad {
    /// The control group to attach to.
    ///
    /// # Errors
    /// [`KernelError::NoCgroup2`] where none is mounted.
    pub(in crate::kernel) fn cgroup(&self) -> Result<Option<PathBuf>, KernelError> {
        match self {
            Self::Off => Ok(None),
            Self::At(path) => Ok(Some(path.clone())),
            Self::Found => cgroup2_of(mountinfo::mounts()).map(Some).ok_or(KernelError::NoCgroup2),
        }
    }
}

impl SocketHooks {
    pub(in crate::kernel) fn new(
        programs: BTreeMap<Call, ProgramFd>,
        cgroup: Option<PathBuf>,
        pins: &Arc<PinDir>,
    ) -> Self {
        Self { programs, cgroup, pins: Arc::clone(pins) }
    }

    /// Whether sockets are served.
    pub(in crate::kernel) const fn are_on(&self) -> bool {
        self.cgroup.is_some()
    }

    /// Sees to it that every call of a process is met by its program, and by one of ours only. A link that is there gets
    /// the new program: every call meets the old one or the new one. Programs of others are not touched. Where programs
    /// are switched off, those of an earlier agent are taken away.
    ///
    /// # Errors
    /// The first link that cannot be made; those that are there go on working.
    pub fn attach(&self) -> Result<(), KernelError> {
        let (layout, namespace) = (self.pins.layout(), self.pins.namespace());
        let Some(cgroup) = &self.cgroup else { return detach_all(&layout, Some(namespace)).map(drop) };
        let failed = |operation| KernelError::path(operation, cgroup);
        let group = fs::File::open(cgroup).map_err(failed("opening control group"))?;
        let id = group.metadata().map_err(failed("reading control group"))?.ino();
        let directory = layout.sockets(namespace);
        fs::create_dir_all(&directory).map_err(KernelError::path("making", &directory))?;
        for (&call, program) in &self.programs {
            let path = directory.join(call.program());
            let there = open(&path).map_err(KernelError::path("opening pinned link", &path))?;
            // A group that is gone takes its programs with it, and leaves the link.
            let on_it = there.filter(|there| matches!(link::cgroup(there.as_fd()), Ok(Some(found)) if found == id));
            let put = match on_it {
                Some(there) => link::replace(there.as_fd(), program.as_fd()),
                None => remove(&path)
                    .and_then(|()| link::attach_to_cgroup(program.as_fd(), group.as_fd(), attach_type(call)))
                    .and_then(|link| link::pin(link.as_fd(), &path)),
            };
            put.map_err(failed("putting a program at the sockets of control group"))?;
        }
        Ok(())
    }
}

/// Takes our programs off the sockets of a network namespace; of all, if none is named. How many links there were.
pub fn detach_all(layout: &Layout, namespace: Option<u64>) -> Result<usize, KernelError> {
    let mut removed = 0;
    for (of, directory) in layout.all_sockets() {
        if namespace.is_some_and(|namespace| namespace != of) {
            continue;
        }
        for (path, _) in pins::entries(&directory) {
            remove(&path).map_err(KernelError::path("detaching the link pinned at", &path))?;
            removed += 1;
        }
        fs::remove_dir(&directory).map_err(KernelError::path("removing", &directory))?;
    }
    Ok(removed)
}

fn open(path: &Path) -> io::Result<Option<OwnedFd>> {
    match link::open_pin(path) {
        Ok(link) => Ok(Some(link)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(cause),
    }
}

/// Detaches what is pinned, if anything is.
fn remove(path: &Path) -> io::Result<()> {
    let Some(link) = open(path)? else { return Ok(()) };
    pins::detach(link.as_fd(), path)
}

/// Numbers of `enum bpf_attach_type` (linux/bpf.h).
const fn attach_type(call: Call) -> u32 {
    match call {
        Call::Connect4 => 10,
        Call::Connect6 => 11,
        Call::SendMsg4 => 14,
        Call::SendMsg6 => 15,
        Call::RecvMsg4 => 19,
        Call::RecvMsg6 => 20,
        Call::GetPeerName4 => 29,
        Call::GetPeerName6 => 30,
    }
}
