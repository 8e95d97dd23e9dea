//! What `cargo xtask kind test` and `kind bench` run, in a cluster that is up.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use proxy_tests::kind::{self, BenchOptions, Effort, Proxy};

#[derive(Parser)]
struct Options {
    /// The cluster's folder, with the scripts by which one gets in
    #[arg(long)]
    folder: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Try everything that a cluster's users rely on
    Test {
        /// Who answers at the addresses of Services
        #[arg(long, value_enum)]
        proxy: Proxy,
        /// The project's manifests
        #[arg(long)]
        deploy: PathBuf,
        #[command(flatten)]
        effort: Effort,
    },
    /// Measure pods by their own addresses and by those of Services
    Bench(BenchOptions),
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kind: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<()> {
    match options.verb {
        Verb::Test { proxy, deploy, effort } => kind::test(&options.folder, deploy, proxy, &effort),
        Verb::Bench(bench) => kind::bench(&options.folder, &bench),
    }
}
