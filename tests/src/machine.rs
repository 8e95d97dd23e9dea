//! What a cluster of real nodes could leave on the machine, looked at before and after. The machine may be busy with other
//! things meanwhile: what others do passes, or is told from the cluster's by its control group.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cluster::sysctl;

/// Counters and the like of `/proc/sys`, which move on their own.
const MOVING: [&str; 8] = [
    "fs/dentry-state",
    "fs/file-nr",
    "fs/inode-nr",
    "fs/inode-state",
    "fs/quota",
    "kernel/ns_last_pid",
    "kernel/pty/nr",
    "kernel/random",
];

/// The machine, seen from its own namespaces: everything by the place where it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine(BTreeMap<&'static str, BTreeMap<String, String>>);

impl Machine {
    /// Looks at mounts, devices, addresses, routes, netfilter rules, empty control groups and kernel parameters.
    ///
    /// # Errors
    /// iproute2 or nftables is missing, or something cannot be read.
    pub fn look() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("the mounts")?;
        let shown = |program: &str, arguments: &[&str]| -> Result<BTreeMap<String, String>> {
            Ok(lines(&output(program, arguments)?))
        };
        Ok(Self(BTreeMap::from([
            ("mounts", lines(&mounts)),
            ("devices", shown("ip", &["-oneline", "link", "show"])?),
            ("named network namespaces", shown("ip", &["netns", "list"])?),
            ("routes", shown("ip", &["route", "show", "table", "all"])?),
            ("routes of IPv6", shown("ip", &["-6", "route", "show", "table", "all"])?),
            ("netfilter rules", shown("nft", &["--stateless", "list", "ruleset"])?),
            ("empty control groups", empty_groups()?),
            ("kernel parameters", parameters()),
        ])))
    }

    /// What `later` has otherwise, a line each.
    pub fn differences(&self, later: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (kind, before) in &self.0 {
            let after = later.0.get(kind).cloned().unwrap_or_default();
            for name in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
                match (before.get(name), after.get(name)) {
                    (Some(old), Some(new)) if old != new => found.push(format!("{kind}: {name} was {old}, is {new}")),
                    (Some(_), None) => found.push(format!("{kind}: {name} is gone")),
                    (None, Some(_)) => found.push(format!("{kind}: {name} is new")),
                    _ => {}
                }
            }
        }
        found
    }

    /// Looks again until all is as it was here: what other programs do passes, what was left behind stays.
    ///
    /// # Errors
    /// Something is otherwise after `limit`, and stays so.
    pub fn expect_again(&self, limit: Duration) -> Result<()> {
        self.expect_but(limit, |_| false)
    }

    /// The same, but for differences that are `allowed`.
    ///
    /// # Errors
    /// As [`Machine::expect_again`].
    pub fn expect_but(&self, limit: Duration, allowed: impl Fn(&str) -> bool) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let mut differences = self.differences(&Self::look()?);
            differences.retain(|difference| !allowed(difference));
            if differences.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the machine is not as it was:\n{}", differences.join("\n"));
            }
            thread::sleep(Duration::from_millis(500));
        }
    }
}

/// The processes in a control group and below, and all namespaces that they are in and this process is not.
#[derive(Clone, Debug, Default)]
pub struct Members {
    /// With the time of their start: numbers are given again.
    pub processes: BTreeSet<(u32, u64)>,
    pub namespaces: BTreeSet<String>,
}

impl Members {
    /// Of the groups called `name` at the top of any hierarchy.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn of(name: &str) -> Result<Self> {
        let own = namespaces(Path::new("/proc/self"));
        let mut members = Self::default();
        for (pid, folder) in processes()? {
            let groups = fs::read_to_string(folder.join("cgroup")).unwrap_or_default();
            let is_member = groups
                .lines()
                .filter_map(|line| line.splitn(3, ':').nth(2))
                .any(|group| group.trim_start_matches('/').split('/').next() == Some(name));
            // One that has ended meanwhile is none any more.
            if let (true, Some(start)) = (is_member, start(&folder)) {
                members.processes.insert((pid, start));
                members.namespaces.extend(namespaces(&folder).difference(&own).cloned());
            }
        }
        Ok(members)
    }

    /// What is left: processes that run, and namespaces that any process is in, or a mount holds.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn left(&self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        for (pid, folder) in processes()? {
            let command = || fs::read_to_string(folder.join("cmdline")).unwrap_or_default().replace('\0', " ");
            if start(&folder).is_some_and(|start| self.processes.contains(&(pid, start))) {
                left.push(format!("process {pid}: {}", command()));
            }
            for namespace in namespaces(&folder).intersection(&self.namespaces) {
                left.push(format!("namespace {namespace} of process {pid}: {}", command()));
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("the mounts")?;
        for namespace in &self.namespaces {
            if mounts.lines().any(|line| line.split(' ').nth(3) == Some(namespace)) {
                left.push(format!("namespace {namespace} is held by a mount"));
            }
        }
        Ok(left)
    }
}

fn processes() -> Result<Vec<(u32, PathBuf)>> {
    let entries = fs::read_dir("/proc").context("the processes")?.flatten();
    let pid = |path: &Path| path.file_name()?.to_str()?.parse().ok();
    Ok(entries.filter_map(|entry| Some((pid(&entry.path())?, entry.path()))).collect())
}

/// Such as `net:[4026531840]`.
fn namespaces(process: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(process.join("ns")).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.display().to_string())).collect()
}

/// In ticks since the machine's start: field 22 of `stat`, behind the name in brackets. `None` for one that has ended and
/// waits for its parent.
fn start(process: &Path) -> Option<u64> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Control groups without processes: those of running programs come and go with them.
fn empty_groups() -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        // Another program may remove its own meanwhile.
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
        let is_empty = fs::read_to_string(folder.join("cgroup.procs")).is_ok_and(|list| list.trim().is_empty());
        if is_empty {
            found.insert(folder.display().to_string(), String::new());
        }
    }
    Ok(found)
}

fn parameters() -> BTreeMap<String, String> {
    let root = Path::new("/proc/sys");
    let mut values = BTreeMap::new();
    sysctl::collect(root, &mut values);
    let moves = |path: &str| {
        Path::new(path).strip_prefix(root).is_ok_and(|name| MOVING.iter().any(|moving| name.starts_with(moving)))
    };
    values.retain(|path, _| !moves(path));
    values
}

fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("start {program}"))?;
    if !output.status.success() {
        bail!("{program} {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// By themselves: which there are is all that is compared. Equal ones are counted.
fn lines(text: &str) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, u32> = BTreeMap::new();
    for line in text.lines() {
        *found.entry(line.trim().to_owned()).or_default() += 1;
    }
    found.into_iter().map(|(line, times)| (line, times.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(mounts: &str) -> Machine {
        Machine(BTreeMap::from([("mounts", lines(mounts))]))
    }

    #[test]
    fn what_came_went_and_changed_is_named() {
        let differences = machine("a\nb\nb").differences(&machine("b\nc"));
        assert_eq!(differences, ["mounts: a is gone", "mounts: b was 2, is 1", "mounts: c is new"]);
        assert_eq!(machine("a").differences(&machine("a")), [""; 0]);
    }

    #[test]
    fn this_process_has_a_start_and_namespaces() {
        let own = Path::new("/proc/self");
        assert!(start(own).is_some_and(|start| start > 0));
        assert!(namespaces(own).iter().any(|namespace| namespace.starts_with("net:[")));
    }
}
