//! Parameters of the kernel that the machine shares with the cluster: raised while it is up, and put back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::progress::say;

/// Below `/proc/sys`, and at least so high. systemd, containerd and kubelet of each node watch files, and 128 watchers for
/// all of root's are the kernel's default.
const RAISED: [(&str, u64); 1] = [("fs/inotify/max_user_instances", 1024)];

/// What is to be raised, as it is now.
///
/// # Errors
/// A parameter cannot be read.
pub fn found() -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for (name, wanted) in RAISED {
        let value = read(name)?;
        if value.parse::<u64>().is_ok_and(|value| value < wanted) {
            found.insert(name.to_owned(), value);
        }
    }
    Ok(found)
}

/// Raises what [`found`] names.
///
/// # Errors
/// A parameter cannot be written.
pub fn raise(found: &BTreeMap<String, String>) -> Result<()> {
    for (name, wanted) in RAISED.iter().filter(|(name, _)| found.contains_key(*name)) {
        write(name, &wanted.to_string())?;
    }
    Ok(())
}

/// Puts back what was found, unless somebody else has changed it since.
///
/// # Errors
/// A parameter cannot be written.
pub fn put_back(found: &BTreeMap<String, String>) -> Result<()> {
    for (name, wanted) in RAISED {
        let Some(before) = found.get(name) else { continue };
        let now = read(name)?;
        if now == wanted.to_string() {
            write(name, before)?;
        } else if now != *before {
            say(&format!("{name} is {now}, which is none of ours: left as it is (it was {before})"));
        }
    }
    Ok(())
}

fn read(name: &str) -> Result<String> {
    let path = path(name);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

fn write(name: &str, value: &str) -> Result<()> {
    let path = path(name);
    fs::write(&path, value).with_context(|| format!("cannot set {} to {value}", path.display()))
}

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}
