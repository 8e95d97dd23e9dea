use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Namespace;

/// Writes kernel parameters inside a namespace: `/proc/sys/net` shows those of the thread that looks.
pub fn set(namespace: &Namespace, values: &[(&str, &str)]) -> Result<()> {
    namespace.enter(|| {
        values.iter().try_for_each(|(name, value)| {
            let path = path(name);
            // What a kernel without the feature does not have needs no setting.
            if !path.exists() && name.starts_with("net/bridge/") {
                return Ok(());
            }
            fs::write(&path, value).with_context(|| format!("set {name} = {value} in {}", namespace.name()))
        })
    })?
}

/// All that can be read of `/proc/sys/net` inside, but for counters that move on their own.
pub fn snapshot(namespace: &Namespace) -> Result<BTreeMap<String, String>> {
    namespace.enter(|| {
        let mut values = BTreeMap::new();
        collect(Path::new("/proc/sys/net"), &mut values);
        values
    })
}

/// All that can be read below a directory of `/proc/sys`, but for counters that move on their own.
pub(crate) fn collect(directory: &Path, values: &mut BTreeMap<String, String>) {
    const MOVING: [&str; 3] = ["nf_conntrack_count", "random", "stable_secret"];
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() {
            collect(&path, values);
        } else if !MOVING.iter().any(|moving| name.to_string_lossy().contains(moving))
            && let Ok(value) = fs::read_to_string(&path)
        {
            values.insert(path.display().to_string(), value.trim().to_owned());
        }
    }
}

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}
