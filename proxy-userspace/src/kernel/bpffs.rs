use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::KernelError;
use super::mountinfo::{self, Mount};

/// Where the system mounts its BPF filesystem.
pub(super) const SYSTEM: &str = "/sys/fs/bpf";

/// The source of a mount that we made, as mountinfo shows it.
pub(super) const SOURCE: &str = "sheave";

/// What the kernel itself puts into every new BPF filesystem (kernel/bpf/preload, Linux 5.10).
const PRELOADED: [&str; 2] = ["maps.debug", "progs.debug"];

/// Sees to it that `directory` is, or can be made, on a BPF filesystem: mounts one on /sys/fs/bpf if it lies below,
/// otherwise on the directory itself. Returns where, if it had to.
pub(super) fn ensure(directory: &Path) -> Result<Option<PathBuf>, KernelError> {
    if is_bpffs(directory) {
        return Ok(None);
    }
    let target = if directory.starts_with(SYSTEM) { Path::new(SYSTEM) } else { directory };
    let failed = |cause: io::Error| KernelError::NoBpffs { path: target.to_owned(), cause };
    if target == directory {
        std::fs::create_dir_all(directory).map_err(KernelError::path("making pin directory", directory))?;
    }
    let mut entries = std::fs::read_dir(target).map_err(failed)?;
    if entries.next().is_some() {
        return Err(KernelError::MountWouldHide { path: target.to_owned() });
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(SOURCE), target, Some("bpf"), flags, Some("mode=0700")).map_err(|cause| failed(cause.into()))?;
    tracing::info!(path = %target.display(), "mounted a BPF filesystem");
    Ok(Some(target.to_owned()))
}

/// Whether the nearest directory that exists is on a BPF filesystem.
fn is_bpffs(directory: &Path) -> bool {
    directory
        .ancestors()
        .find(|ancestor| ancestor.exists())
        .and_then(|there| statfs(there).ok())
        .is_some_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

/// Unmounts the filesystem on `directory` if [`ensure`] mounted it there and nothing is left in it.
pub(super) fn release(directory: &Path) -> Result<bool, KernelError> {
    let Ok(directory) = directory.canonicalize() else { return Ok(false) };
    let is_ours = |mount: &Mount| mount.kind == "bpf" && mount.source == SOURCE && mount.point == directory;
    if directory == Path::new(SYSTEM) || !mountinfo::mounts().iter().any(is_ours) {
        return Ok(false);
    }
    let empty = std::fs::read_dir(&directory).is_ok_and(|mut entries| {
        entries.all(|entry| entry.is_ok_and(|entry| PRELOADED.iter().any(|name| entry.file_name() == *name)))
    });
    if empty {
        umount2(&directory, MntFlags::MNT_DETACH)
            .map_err(|cause| KernelError::path("unmounting", &directory)(cause.into()))?;
    }
    Ok(empty)
}
