//! Pods that measure each other: by the pod's own address, by its ClusterIP and by a NodePort, with Sheave and with kube-proxy
//! in turn, on the same nodes with the same pods.

mod cell;
mod chart;
mod report;
mod stand;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::cluster::{Cluster, Proxy};
use super::interrupt;
use crate::comparison::Samples;
use cell::{Cell, Way};
use report::Row;
use stand::Stand;

/// What is measured, and where it goes.
#[derive(clap::Args, Clone, Debug)]
pub struct BenchOptions {
    /// Rounds with each proxy
    #[arg(long)]
    rounds: u32,
    /// Program whose verb `kind proxy` puts another proxy in place
    #[arg(long)]
    xtask: PathBuf,
    /// Proxy to be left in the cluster, by its name there
    #[arg(long)]
    restore: String,
    /// Where all figures go
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where they are drawn
    #[arg(long)]
    svg: Option<PathBuf>,
}

/// How often a visit is made that the hypervisor disturbs.
const TRIES: usize = 3;

/// # Errors
/// A proxy does not come or go, or a way does not carry what is measured.
pub fn run(folder: &Path, options: &BenchOptions) -> Result<()> {
    interrupt::watch()?;
    let proxies = Proxies { xtask: &options.xtask, restore: &options.restore };
    let stand = Stand::build(Cluster::enter(folder, "sheave-bench")?)?;
    let cells = Cell::all();
    let fresh = || cells.iter().map(|_| Samples::of(Way::COMPARED.len())).collect::<Vec<_>>();
    let mut measured = BTreeMap::from([(Proxy::Sheave, fresh()), (Proxy::KubeProxy, fresh())]);
    for (proxy, rounds) in turns(options.rounds) {
        proxies.install(proxy.name())?;
        stand.settle().with_context(|| format!("with {proxy}"))?;
        let samples = measured.entry(proxy).or_insert_with(fresh);
        for round in 1..=rounds {
            println!("{proxy}: round {round} of {rounds}");
            for (cell, samples) in cells.iter().zip(samples.iter_mut()) {
                let wanted = samples.rounds() + 1;
                for _ in 0..TRIES {
                    samples.add(|turn| stand.measure(*cell, Way::of(turn))).with_context(|| format!("with {proxy}"))?;
                    if samples.rounds() == wanted {
                        break;
                    }
                }
            }
        }
    }
    let rows: Vec<Row> = report::rows(&cells, &measured);
    println!("\n{}\n\n{}", report::table(&rows), report::summary(&rows));
    if let Some(file) = &options.json {
        let all = json!({"rounds": options.rounds, "rows": rows});
        fs::write(file, format!("{all:#}\n")).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if let Some(file) = &options.svg {
        fs::write(file, chart::draw(&rows)?).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Sheave before and after the other, so that what changes with time alone falls on both.
fn turns(rounds: u32) -> Vec<(Proxy, u32)> {
    let turns = [(Proxy::Sheave, rounds.div_ceil(2)), (Proxy::KubeProxy, rounds), (Proxy::Sheave, rounds / 2)];
    turns.into_iter().filter(|(_, rounds)| *rounds > 0).collect()
}

/// Dropped, it puts back the one that was there.
struct Proxies<'a> {
    xtask: &'a Path,
    restore: &'a str,
}

impl Proxies<'_> {
    fn install(&self, name: &str) -> Result<()> {
        let mut command = Command::new(self.xtask);
        command.args(["kind", "proxy", "--loaded", name]).stdin(Stdio::null()).stdout(Stdio::null());
        let status = command.status().with_context(|| format!("start {}", self.xtask.display()))?;
        ensure!(status.success(), "`kind proxy {name}` failed: {status}");
        Ok(())
    }
}

impl Drop for Proxies<'_> {
    fn drop(&mut self) {
        interrupt::begin_cleaning();
        if let Err(error) = self.install(self.restore) {
            eprintln!("kind: the proxy that was there is not back: {error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_proxies_get_every_round() {
        for rounds in 1..5 {
            for proxy in [Proxy::Sheave, Proxy::KubeProxy] {
                let all: u32 = turns(rounds).into_iter().filter(|(it, _)| *it == proxy).map(|(_, rounds)| rounds).sum();
                assert_eq!(all, rounds);
            }
        }
    }
}
