//! `cargo xtask bench`: release builds, then the `bench` program of the tests crate, which runs every measurement.

use std::path::PathBuf;

use anyhow::Result;

use crate::{command, machine, revision, setup, test, workspace};

#[derive(clap::Args)]
pub struct Options {
    /// Also write the results there
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fewer and shorter rounds: shows that it runs, judges nothing
    #[arg(long)]
    quick: bool,
    /// Only compare what packets cost with the programs of another revision of this project
    #[arg(long, value_name = "REVISION", conflicts_with = "quick")]
    against: Option<String>,
}

pub fn run(options: &Options) -> Result<()> {
    machine::require_root("bench")?;
    setup::build_tools()?;
    setup::cluster_tools()?;
    let before = options.against.as_ref().map(|revision| revision::build(revision, "bench-packets")).transpose()?;
    let sheave = test::build_agent(test::Profile::Release)?;
    let release = workspace::target_dir().join("release");
    for build in [["proxy-tests", "--bins"], ["proxy-userspace", "--example=control_plane"]] {
        command::run(command::cargo().args(["build", "--release", "--package"]).args(build))?;
    }
    let mut bench = command::in_workspace(&release.join("bench").to_string_lossy());
    bench.env("SHEAVE_BIN", sheave);
    bench.arg("--packets").arg(release.join("bench-packets"));
    bench.arg("--control-plane").arg(release.join("examples/control_plane"));
    if let Some(before) = before {
        bench.arg("--against").arg(before);
    }
    if let Some(file) = &options.json {
        // The program runs in the workspace's folder, which need not be the caller's.
        bench.arg("--json").arg(std::path::absolute(file)?);
    }
    if options.quick {
        bench.arg("--quick");
    }
    match command::become_command(&mut bench)? {}
}
