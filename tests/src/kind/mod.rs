//! A real cluster that `cargo xtask kind up` made: what `cargo xtask kind test` looks at in it, and what `cargo xtask kind
//! bench` measures there. kubectl's own verbs make the changes.

mod bench;
mod client;
mod cluster;
mod connections;
mod interrupt;
mod residue;
mod service;
mod stage;
mod steps;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

pub use bench::{BenchOptions, run as bench};
pub use cluster::Proxy;
pub use steps::Effort;

use cluster::Cluster;
use stage::Stage;

/// Looks at one thing after the other, and says of each what was seen.
///
/// # Errors
/// The first thing that is not as it should be, after what could explain it was printed.
pub fn test(folder: &Path, deploy: PathBuf, proxy: Proxy, effort: &Effort) -> Result<()> {
    interrupt::watch()?;
    let began = Instant::now();
    let cluster = Cluster::enter(folder, "sheave-test")?;
    ensure!(cluster.nodes()?.len() > 1, "pods need a node beside the control plane's: `cargo xtask kind up --nodes 2`");
    let stage = Stage::set(cluster, proxy, deploy)?;
    println!("{} nodes, proxy {proxy}; ready for tests after {:.0} s", stage.pods.len(), began.elapsed().as_secs_f64());
    for step in &steps::ALL {
        if let Some(reason) = step.why_not(proxy, effort) {
            println!("-     {:<22}         {reason}", step.name);
            continue;
        }
        let began = Instant::now();
        let looked = step.look(&stage, effort);
        let (word, said) = match &looked {
            Ok(seen) => ("ok", seen.clone()),
            Err(error) => ("FAIL", format!("{error:#}")),
        };
        println!("{word:<4}  {:<22} {:>4.0} s  {said}", step.name, began.elapsed().as_secs_f64());
        if looked.is_err() {
            if interrupt::check().is_ok() {
                println!("{}", stage.evidence());
            }
            stage.mend().context("the agents could not be put back")?;
            bail!("{:?} is not as it should be", step.name);
        }
    }
    println!("all as it should be, in {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}
