//! The folder of the cluster that is up, and the record of what `down` must remove and put back.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::cache;
use super::proxy::Provider;

/// Name of the cluster, with which those of its nodes begin: the one that `deploy/kind` is written for.
pub const CLUSTER: &str = "kind";

/// What is known of a cluster, from its first moment on.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Record {
    /// Whether `up` came to its end.
    pub complete: bool,
    /// The first process of the engine's namespaces, for the engine that is ours.
    pub engine: Option<First>,
    /// The machine's engine, docker or podman, where that one is used.
    pub machine_engine: Option<String>,
    /// Parameters of the kernel as they were found, by their path below `/proc/sys`.
    pub parameters: BTreeMap<String, String>,
    pub proxy: Provider,
    pub image: String,
}

/// A process, and the network namespace by which it is told from a later one with the same number.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct First {
    pub pid: u32,
    pub network: u64,
}

const RECORD: &str = "record.json";

pub fn folder() -> PathBuf {
    cache::folder().join("cluster")
}

/// Held by whoever makes or removes a cluster, until the value is dropped.
///
/// # Errors
/// Somebody else does at this moment, or the cache cannot be written.
pub fn lock() -> Result<File> {
    let folder = cache::folder();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let file = File::create(folder.join("lock")).context("cannot make the lock of the cluster")?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("another `cargo xtask kind` makes or removes the cluster at this moment")
        }
        Err(TryLockError::Error(error)) => Err(error).context("cannot lock the cluster"),
    }
}

pub fn path(name: &str) -> PathBuf {
    folder().join(name)
}

impl Record {
    /// Of the cluster that is there, whole or not; `None` if there is none.
    ///
    /// # Errors
    /// There is a folder, and no record that can be read in it.
    pub fn load() -> Result<Option<Self>> {
        if !folder().exists() {
            return Ok(None);
        }
        let file = path(RECORD);
        let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_slice(&text).map(Some).with_context(|| format!("{} is no record of a cluster", file.display()))
    }

    /// Of the cluster that is up.
    ///
    /// # Errors
    /// None is, or not wholly.
    pub fn of_running() -> Result<Self> {
        match Self::load()? {
            None => bail!("no cluster is up: `cargo xtask kind up` makes one"),
            Some(record) if !record.complete => bail!("a cluster was begun and not finished: `cargo xtask kind down`"),
            Some(record) => Ok(record),
        }
    }

    /// # Errors
    /// The folder cannot be written.
    pub fn save(&self) -> Result<()> {
        fs::create_dir_all(folder()).with_context(|| format!("cannot make {}", folder().display()))?;
        // Renamed, so that a reader finds a whole one.
        let partial = path("record.partial");
        fs::write(&partial, serde_json::to_vec_pretty(self)?).context("cannot write the cluster's record")?;
        fs::rename(&partial, path(RECORD)).context("cannot write the cluster's record")
    }
}
