//! `cargo xtask kind bench`: pods that measure each other, with Sheave and with kube-proxy in turn.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::cluster::Cluster;
use super::on_kind;
use crate::{command, image, machine};

#[derive(clap::Args)]
pub struct Options {
    /// Rounds with each proxy, a minute each; every path is measured once in a round. Fewer than 6 are no evidence
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Also write all figures there
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also draw them there
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// # Errors
/// Not root, a build that fails, a proxy that does not come or go, or a path that does not carry what is measured.
pub fn run(options: &Options) -> Result<()> {
    machine::require_root("kind bench")?;
    let proxy = on_kind::proxy_of_cluster()?;
    // Once for all turns.
    Cluster::running()?.load(&image::build(&image::Options::default())?)?;
    let mut bench = on_kind::program()?;
    bench.args(["bench", "--rounds", &options.rounds.to_string(), "--restore", proxy.name()]);
    bench.arg("--xtask").arg(std::env::current_exe().context("where this program is")?);
    for (word, file) in [("--json", &options.json), ("--svg", &options.svg)] {
        if let Some(file) = file {
            // The program runs in the workspace's folder, which need not be the caller's.
            bench.arg(word).arg(std::path::absolute(file)?);
        }
    }
    match command::become_command(&mut bench)? {}
}
