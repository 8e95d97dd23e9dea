//! `cargo xtask test [SUITE...]`: `unit`, `kernels`, or the name of a file or folder in `tests/tests`.
//!
//! `kubernetes`, `kind` and `kernels` run only when they are named: the programs of the first two take minutes to build,
//! and the virtual machines of the third are slow.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{command, kernels, kubernetes, machine, setup, workspace};

const UNIT: &str = "unit";
/// Needs neither root nor a cluster, and so belongs to `unit` too.
const SEMANTICS: &str = "semantics";
const KUBERNETES: &str = "kubernetes";
/// Real nodes, by `cargo xtask kind`.
const KIND: &str = "kind";
/// Some of the suites, in virtual machines with other kernels.
const KERNELS: &str = "kernels";

#[derive(clap::Args)]
pub struct Options {
    /// `unit`, `kernels`, or a file of tests/tests without its suffix or a folder there; all but `kubernetes`, `kind`
    /// and `kernels` when none is given
    suites: Vec<String>,
    /// Let tests that say so do as much as their bars ask for: minutes each
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    kernels: kernels::Choice,
    /// What follows `--` goes to the test programs, for example a filter
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// How a program is optimised.
#[derive(Clone, Copy)]
pub enum Profile {
    /// For tests and the demo.
    Dev,
    /// For measurements.
    Release,
}

pub fn run(options: &Options) -> Result<()> {
    let known = suites()?;
    let is_known = |suite: &str| [UNIT, KERNELS].contains(&suite) || known.contains(suite);
    if let Some(unknown) = options.suites.iter().find(|suite| !is_known(suite)) {
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        bail!("no suite is called {unknown}: there are {UNIT} {KERNELS} {}", known.join(" "));
    }
    let wanted = |suite: &str| match &options.suites[..] {
        [] => ![KUBERNETES, KIND, KERNELS].contains(&suite),
        named => named.iter().any(|name| name == suite),
    };
    let integration: Vec<&str> =
        known.iter().map(String::as_str).filter(|&suite| suite != SEMANTICS && wanted(suite)).collect();
    if !integration.is_empty() {
        machine::require_root("test")?;
    }

    setup::build_tools()?;
    if wanted(UNIT) || !integration.is_empty() {
        // The kernel module's tests are among the units.
        setup::cluster_tools()?;
    }
    // Every suite runs, whatever became of the one before: a failure in one says nothing about the others.
    let mut failed = Vec::new();
    if wanted(UNIT) {
        let units = ["proxy-common", "proxy-userspace", "xtask"].into_iter().flat_map(|name| ["--package", name]);
        let mut cargo = cargo_test();
        record(UNIT, cargo.args(units).arg("--").args(&options.arguments), &mut failed);
    }
    if wanted(UNIT) || wanted(SEMANTICS) {
        let mut cargo = cargo_test();
        cargo.args(["--package", "proxy-tests", "--test", SEMANTICS]);
        if wanted(UNIT) {
            cargo.arg("--lib");
        }
        record(SEMANTICS, cargo.arg("--").args(&options.arguments), &mut failed);
    }
    if !integration.is_empty() {
        let control_plane = if wanted(KUBERNETES) { Some(kubernetes::control_plane()?) } else { None };
        let sheave = build_agent(Profile::Dev)?;
        let mut cargo = cargo_test();
        cargo.args(["--package", "proxy-tests", "--bins"]);
        cargo.args(integration.iter().flat_map(|suite| ["--test", suite])).env("SHEAVE_BIN", sheave);
        if wanted(KIND) {
            cargo.env("SHEAVE_XTASK", std::env::current_exe().context("where this program is")?);
        }
        if options.full {
            cargo.env("SHEAVE_TEST_FULL", "1");
        }
        if let Some(control_plane) = &control_plane {
            cargo.envs(control_plane.environment());
        }
        record(&integration.join(" "), cargo.arg("--").args(&options.arguments), &mut failed);
    }
    if wanted(KERNELS)
        && let Err(error) = kernels::run(&options.kernels)
    {
        eprintln!("xtask: {error:#}");
        failed.push(KERNELS.to_owned());
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Builds the agent and says where it is.
///
/// # Errors
/// The build fails.
pub fn build_agent(profile: Profile) -> Result<PathBuf> {
    let mut cargo = command::cargo();
    // Together with the tests crate: dependencies get the features that it asks for, and nothing is compiled again for
    // what is built next.
    cargo.args(["build", "--package", "proxy-userspace", "--package", "proxy-tests", "--bin", "sheave"]);
    let dir = match profile {
        Profile::Dev => "debug",
        Profile::Release => {
            cargo.arg("--release");
            "release"
        }
    };
    command::run(&mut cargo)?;
    Ok(workspace::target_dir().join(dir).join("sheave"))
}

fn cargo_test() -> Command {
    let mut cargo = command::cargo();
    cargo.args(["test", "--no-fail-fast"]);
    // A test that fails says why; where its error was made in the machinery of futures and test runners says nothing.
    cargo.env("RUST_LIB_BACKTRACE", "0");
    cargo
}

fn record(suites: &str, command: &mut Command, failed: &mut Vec<String>) {
    if let Err(error) = command::run(command) {
        eprintln!("xtask: {error}");
        failed.push(suites.to_owned());
    }
}

/// The files and folders of `tests/tests`: a new suite needs no list to be extended.
fn suites() -> Result<BTreeSet<String>> {
    let dir = workspace::root().join("tests/tests");
    let entries = fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut suites = BTreeSet::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") || path.join("main.rs").is_file() {
            suites.extend(path.file_stem().and_then(OsStr::to_str).map(str::to_owned));
        }
    }
    Ok(suites)
}
