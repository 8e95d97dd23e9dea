//! `cargo xtask demo`: builds the agent and the cluster, then hands over to the `demo` program of the tests crate.

use anyhow::Result;

use crate::{command, machine, setup, test, workspace};

#[derive(clap::Args)]
pub struct Options {
    /// Leave the cluster running, and say how to enter and how to remove it
    #[arg(long)]
    keep: bool,
    /// Only remove a cluster that was left running
    #[arg(long, conflicts_with = "keep")]
    remove: bool,
}

pub fn run(options: &Options) -> Result<()> {
    machine::require_root("demo")?;
    setup::build_tools()?;
    setup::cluster_tools()?;
    let sheave = test::build_agent(test::Profile::Dev)?;
    command::run(command::cargo().args(["build", "--package", "proxy-tests", "--bins"]))?;
    let mut demo = command::in_workspace(&workspace::target_dir().join("debug/demo").to_string_lossy());
    demo.env("SHEAVE_BIN", sheave).arg("--manifests").arg(workspace::root().join("deploy/demo"));
    if options.keep {
        demo.arg("--keep");
    }
    if options.remove {
        demo.arg("--remove");
    }
    match command::become_command(&mut demo)? {}
}
