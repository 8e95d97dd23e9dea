//! Removal of what dead processes left behind: namespaces, mounts, directories, and processes inside them.
//!
//! A cluster removes itself when dropped; this is for those whose process was killed. Their names hold the process's
//! id, so that nothing of a living process is touched.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Namespace, bpffs::Bpffs, identity::Identity};

/// Removes every cluster whose process is gone.
pub fn sweep() -> Result<()> {
    remove_where(|name| Identity::of_process(name).is_some_and(|identity| identity.is_orphan()))
}

/// Removes the cluster that was built to be kept under `name` and left by [`super::Cluster::leave`], with all that
/// runs in it; nothing if there is none.
pub fn remove_kept(name: &str) -> Result<()> {
    let identity = Identity::Kept(name.to_owned());
    remove_where(|entry| identity.owns(entry))
}

fn remove_where(is_residue: impl Fn(&str) -> bool) -> Result<()> {
    let names = |directory: &str| -> Vec<String> {
        let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| is_residue(name)).collect()
    };
    let namespaces = names(Namespace::DIRECTORY);
    kill_inside(&namespaces);
    for directory in names("/run") {
        let path = Path::new("/run").join(directory);
        Bpffs::unmount(&path.join(BPF));
        let _ = fs::remove_dir_all(path);
    }
    Namespace::remove(&namespaces)
}

/// Where a cluster's directory has its BPF filesystem.
pub const BPF: &str = "bpf";

/// Kills the processes whose network namespace is one of these.
fn kill_inside(namespaces: &[String]) {
    let inodes: Vec<u64> = namespaces
        .iter()
        .filter_map(|name| fs::metadata(Path::new(Namespace::DIRECTORY).join(name)).ok())
        .map(|metadata| metadata.ino())
        .collect();
    if inodes.is_empty() {
        return;
    }
    let Ok(processes) = fs::read_dir("/proc") else { return };
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if fs::metadata(process.path().join("ns/net")).is_ok_and(|metadata| inodes.contains(&metadata.ino())) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}
