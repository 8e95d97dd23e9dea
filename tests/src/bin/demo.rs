//! What `cargo xtask demo` shows: a cluster of namespaces, the agents, and real traffic through them.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use proxy_tests::demo;

#[derive(Parser)]
struct Options {
    /// Directory of objects for the agents; they know the pods' addresses
    #[arg(long)]
    manifests: PathBuf,
    /// Leave the cluster running
    #[arg(long)]
    keep: bool,
    /// Only remove the cluster that an earlier run left
    #[arg(long)]
    remove: bool,
}

fn main() -> std::process::ExitCode {
    let options = Options::parse();
    let done: Result<()> = if options.remove { demo::remove() } else { demo::run(&options.manifests, options.keep) };
    match done {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
