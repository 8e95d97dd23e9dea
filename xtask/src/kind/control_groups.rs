//! The control group that a cluster lives in, one folder in every hierarchy: nothing of it lies beside, and what is left
//! of it can be told from what is others'.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

const NAME: &str = "sheave-kind";
/// For processes to end that were killed.
const LIMIT: Duration = Duration::from_secs(60);

/// Makes the folders. Whoever writes its process id into `cgroup.procs` of each is in the group.
///
/// # Errors
/// No hierarchy is mounted, or a folder cannot be made or prepared.
pub fn create() -> Result<Vec<PathBuf>> {
    let groups = all()?;
    if groups.is_empty() {
        bail!("no control groups are mounted: containers cannot be run");
    }
    for group in &groups {
        fs::create_dir_all(group).with_context(|| format!("cannot make the control group {}", group.display()))?;
        // Version 1: a group without processors and memory takes no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let parent = group.parent().unwrap_or(group).join(file);
            let own = group.join(file);
            if is_version_1(group) && parent.exists() && fs::read_to_string(&own)?.trim().is_empty() {
                fs::copy(&parent, &own).with_context(|| format!("cannot set {}", own.display()))?;
            }
        }
    }
    Ok(groups)
}

/// The folders, whether or not they are there.
///
/// # Errors
/// The mounts cannot be read.
pub fn all() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("the mounted control groups")?;
    Ok(hierarchies(&mounts).into_iter().map(|mount| mount.join(NAME)).collect())
}

/// Ends the processes that are left in the group (programs that were run beside the cluster are in no process namespace of
/// its own), and removes it with all groups in it.
///
/// # Errors
/// A group stays busy.
pub fn remove() -> Result<()> {
    let groups = all()?;
    end_members(&groups)?;
    for group in groups {
        // The last process has gone, but the kernel may not be done with its group.
        let mut tries = 0..50;
        while let Err(error) = remove_tree(&group) {
            if tries.next().is_none() {
                return Err(error).with_context(|| format!("cannot remove the control group {}", group.display()));
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
    Ok(())
}

fn end_members(groups: &[PathBuf]) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let members: BTreeSet<String> = groups.iter().flat_map(|group| members(group)).collect();
        if members.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("processes of the cluster's do not end: {}", members.into_iter().collect::<Vec<_>>().join(" "));
        }
        // One that has ended meanwhile is no failure.
        Command::new("kill").arg("-KILL").args(&members).stderr(Stdio::null()).status().context("start kill")?;
        thread::sleep(Duration::from_millis(100));
    }
}

/// The processes in a group and in those below it.
fn members(group: &Path) -> BTreeSet<String> {
    // A group may be removed meanwhile, or not be there at all.
    let own = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let mut found: BTreeSet<String> = own.lines().map(str::to_owned).collect();
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(members(&entry.path()));
        }
    }
    found
}

/// Where hierarchies are mounted: `DEVICE FOLDER TYPE ...` a line. A hierarchy that is mounted twice is in both.
fn hierarchies(mounts: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(at), Some("cgroup" | "cgroup2")) = (words.next(), words.next()) else { continue };
        if !found.iter().any(|known| known == Path::new(at)) {
            found.push(PathBuf::from(at));
        }
    }
    found
}

fn is_version_1(group: &Path) -> bool {
    !group.join("cgroup.controllers").exists()
}

/// Deepest first; its files are the kernel's and go with it.
fn remove_tree(group: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n\
                      bpf /sys/fs/bpf bpf rw 0 0\n";
        let found = hierarchies(mounts);
        assert_eq!(found, [Path::new("/sys/fs/cgroup/cpu,cpuacct"), Path::new("/sys/fs/cgroup/unified")]);
    }
}
