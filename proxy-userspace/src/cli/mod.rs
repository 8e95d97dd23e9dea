//! The command line.

mod cleanup;
mod get;
mod log;
mod mount;
mod pause;
mod target;

use std::io;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::runtime::Builder;

use crate::agent;
use crate::config::AgentArgs;

/// Kubernetes Services by eBPF: a replacement for kube-proxy.
#[derive(Debug, Parser)]
#[command(name = "sheave", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Carry the traffic of Services on this node, until told to stop; what is in the kernel then goes on working
    Agent(Box<AgentArgs>),
    /// Show what is in the kernel now
    Get(get::Args),
    /// Remove every program, link, map, pin and qdisc that agents have made
    Cleanup(target::PinDir),
    /// Mount what an agent needs and does not find: the BPF filesystem, and control groups version 2. It takes
    /// CAP_SYS_ADMIN, which the agent itself then does without
    Mount(mount::Args),
    /// Do nothing until told to stop: for a pod whose work is done
    Pause,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // `sheave get flows | head` has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sheave: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Agent(args) => {
            log::start(args.verbose, args.log_format)?;
            block_on(agent::run(*args))
        }
        Command::Get(args) => get::run(&args),
        Command::Cleanup(target) => block_on(cleanup::run(&target)),
        Command::Mount(args) => mount::run(&args),
        Command::Pause => block_on(pause::run()),
    }
}

/// On this thread alone: the work of a node is small, and programs and devices are those of its network namespace.
fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build().context("starting the tokio runtime")?;
    let result = runtime.block_on(work);
    // A task that is stuck in a system call must not keep the process.
    runtime.shutdown_background();
    result
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
