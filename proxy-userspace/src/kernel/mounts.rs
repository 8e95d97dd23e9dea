use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::mountinfo;
use super::sockets::cgroup2_of;
use super::{KernelError, bpffs};

/// A filesystem of the kernel, and whether [`mount_missing`] had to mount it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    pub path: PathBuf,
    pub anew: bool,
}

/// What an agent finds in place afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounts {
    pub bpffs: Mounted,
    pub cgroup2: Mounted,
}

impl Mounts {
    pub const BPFFS: &str = bpffs::SYSTEM;
    /// Gone with a restart of the machine, as the mount on it is.
    pub const CGROUP2: &str = "/run/sheave/cgroup2";
}

/// Mounts a BPF filesystem on `bpffs`, and the hierarchy of control groups version 2 on `cgroup2`. The first is left
/// as it is where `bpffs` is on one; the second where it is mounted anywhere, as it is beside version 1 in hybrid
/// layouts: there is only one, whatever its mount points. What was mounted stays until somebody unmounts it or the
/// machine restarts.
///
/// # Errors
/// [`KernelError::MountWouldHide`] where a directory is not empty; what the kernel says otherwise, without CAP_SYS_ADMIN
/// among it.
pub fn mount_missing(bpffs: &Path, cgroup2: &Path) -> Result<Mounts, KernelError> {
    let mounted = bpffs::ensure(bpffs)?;
    let bpffs = Mounted { anew: mounted.is_some(), path: mounted.unwrap_or_else(|| bpffs.to_owned()) };
    if let Some(path) = cgroup2_of(mountinfo::mounts()) {
        return Ok(Mounts { bpffs, cgroup2: Mounted { path, anew: false } });
    }
    std::fs::create_dir_all(cgroup2).map_err(KernelError::path("making directory", cgroup2))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(bpffs::SOURCE), cgroup2, Some("cgroup2"), flags, None::<&str>)
        .map_err(|cause| KernelError::path("mounting control groups version 2 on", cgroup2)(cause.into()))?;
    Ok(Mounts { bpffs, cgroup2: Mounted { path: cgroup2.to_owned(), anew: true } })
}
