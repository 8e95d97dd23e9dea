//! `cargo xtask kind down`: the machine as it was before `up`. What outlives a cluster is the cache.

use std::fs;

use anyhow::{Context as _, Result};

use super::cluster::Cluster;
use super::progress::{say, spoken};
use super::state::{self, Record};
use super::{cache, control_groups, engine, parameters};
use crate::{command, machine};

/// # Errors
/// Not root, or something cannot be removed.
pub fn run() -> Result<()> {
    machine::require_root("kind down")?;
    let _lock = state::lock()?;
    let began = std::time::Instant::now();
    let record = match Record::load() {
        Ok(Some(record)) => record,
        Ok(None) => {
            // Nor is anything left of one whose folder was removed by hand, or of a build.
            control_groups::remove()?;
            cache::remove_partial()?;
            say("no cluster is up");
            return Ok(());
        }
        Err(error) => {
            say(&format!("{error:#}: removing what can be found without it"));
            Record::default()
        }
    };
    remove(&record)?;
    cache::remove_partial()?;
    say(&format!("down, in {}; what was built stays in {}", spoken(began.elapsed()), cache::folder().display()));
    Ok(())
}

/// Ends a cluster, whole or not, and removes all of it. What fails does not keep the rest from being tried.
///
/// # Errors
/// The first thing that could not be removed.
pub fn remove(record: &Record) -> Result<()> {
    let nodes = match &record.machine_engine {
        Some(_) => delete_by_kind(record).context("the nodes"),
        None => Ok(()),
    };
    let engine = match record.engine {
        Some(first) => engine::stop(first),
        None => control_groups::remove(),
    };
    let parameters = parameters::put_back(&record.parameters);
    nodes.and(engine).and(parameters)?;
    // Last: as long as it is there, `down` can be tried again.
    let folder = state::folder();
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))
}

fn delete_by_kind(record: &Record) -> Result<()> {
    let kubeconfig = state::path(super::scripts::KUBECONFIG);
    let mut kind = Cluster::begun(record.clone()).kind(["delete", "cluster"])?;
    command::run(kind.arg("--kubeconfig").arg(kubeconfig))
}
