//! The program of the tests crate that tries and measures the cluster that is up.

use std::process::Command;

use anyhow::Result;

use super::cluster::Cluster;
use super::progress::say;
use super::proxy::Provider;
use super::state::{self, Record};
use super::{engine, up, workloads};
use crate::{command, workspace};

/// The cluster's proxy. If no cluster is up, one is made.
///
/// # Errors
/// It cannot be made.
pub fn proxy_of_cluster() -> Result<Provider> {
    let is_up = |record: &Record| record.complete && record.engine.is_none_or(engine::is_running);
    if !Record::load()?.as_ref().is_some_and(is_up) {
        say("no cluster is up: making one");
        up::run(&up::Options::default())?;
    }
    Ok(Record::of_running()?.proxy)
}

/// The program, built, and told about the cluster, whose nodes get the images of this checkout for its pods.
///
/// # Errors
/// It does not build, or the images cannot be loaded.
pub fn program() -> Result<Command> {
    command::run(command::cargo().args(["build", "--package", "proxy-tests", "--bin", "on-kind"]))?;
    let cluster = Cluster::running()?;
    workloads::archives()?.iter().try_for_each(|archive| cluster.load(archive))?;
    let mut program = command::in_workspace(&workspace::target_dir().join("debug/on-kind").to_string_lossy());
    program.arg("--folder").arg(state::folder());
    Ok(program)
}
