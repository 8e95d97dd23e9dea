//! Debian packages, known by a program that each brings.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{command, machine, workspace};

/// A program and the Debian package it is in.
pub struct Package {
    pub program: &'static str,
    pub name: &'static str,
}

/// Installs the packages of the programs that are not there.
///
/// # Errors
/// As [`install`].
pub fn ensure(packages: &[Package]) -> Result<()> {
    let missing: Vec<&str> =
        packages.iter().filter(|it| workspace::find_program(it.program).is_none()).map(|it| it.name).collect();
    if missing.is_empty() { Ok(()) } else { install(&missing) }
}

/// Installs packages by name.
///
/// # Errors
/// This is not Debian (or a derivative), or not root, or apt-get fails.
pub fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    require_debian(&list)?;
    if !machine::is_root() {
        bail!("missing Debian packages: run, as root, `apt-get install {list}`");
    }
    eprintln!("setup: installing the Debian packages {list}");
    make_known(packages)?;
    command::run(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(packages))
}

/// The version that would be installed.
pub fn candidate(package: &str) -> Option<String> {
    let policy = command::output(Command::new("apt-cache").args(["policy", package]))?;
    let candidate = policy.lines().find_map(|line| line.trim_start().strip_prefix("Candidate: "))?;
    (candidate != "(none)").then(|| candidate.to_owned())
}

/// Unpacks a package below `dir` without installing it: a server package would also start its service.
///
/// # Errors
/// Not Debian, or apt-get or dpkg-deb fails.
pub fn download(package: &str, dir: &Path) -> Result<()> {
    require_debian(package)?;
    eprintln!("setup: unpacking the Debian package {package} into {}", dir.display());
    make_known(&[package])?;
    let archives = dir.join("archives");
    fs::create_dir_all(&archives).with_context(|| format!("cannot make {}", archives.display()))?;
    // The folder is the caller's, so apt's own user cannot write there.
    command::run(apt_get().args(["-o", "APT::Sandbox::User=root", "download", package]).current_dir(&archives))?;
    for entry in fs::read_dir(&archives)? {
        command::run(Command::new("dpkg-deb").arg("--extract").arg(entry?.path()).arg(dir))?;
    }
    fs::remove_dir_all(&archives).with_context(|| format!("cannot remove {}", archives.display()))
}

fn require_debian(packages: &str) -> Result<()> {
    if workspace::find_program("apt-get").is_none() {
        bail!("programs are missing, and this is not Debian: install what it calls {packages}");
    }
    Ok(())
}

/// Fetches the package lists, of which `wanted` is to be found in one.
///
/// # Errors
/// Not Debian, or apt-get fails.
pub(super) fn update_lists(wanted: &str) -> Result<()> {
    require_debian(wanted)?;
    command::run(apt_get().args(["update", "--quiet"]))
}

/// Container images and fresh machines come without package lists.
fn make_known(packages: &[&str]) -> Result<()> {
    let known = packages.iter().all(|package| candidate(package).is_some());
    if known { Ok(()) } else { update_lists(&packages.join(" ")) }
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    // CI runs without a terminal: a package that asks would wait for ever.
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=120"]);
    command
}
