//! `core` for the BPF target is built from source (there is no prebuilt one), so the toolchain needs rust-src.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command;
use crate::setup::packages;
use crate::workspace::TOOLCHAIN;

/// Below the sysroot: what `-Z build-std` looks for first.
const MARKER: &str = "lib/rustlib/src/rust/library/Cargo.lock";

/// Adds the component to the pinned toolchain, unless it is there.
///
/// # Errors
/// Neither rustup nor the distribution has the source of exactly this version.
pub fn ensure() -> Result<()> {
    let sysroot = sysroot()?;
    if sysroot.join(MARKER).exists() {
        return Ok(());
    }
    eprintln!("setup: adding rust-src to the Rust toolchain {TOOLCHAIN}");
    let rustup = ["component", "add", "rust-src", "--toolchain", TOOLCHAIN];
    let Err(refused) = command::run(Command::new("rustup").args(rustup)) else {
        return Ok(());
    };
    eprintln!("setup: rustup cannot ({refused}); trying the distribution's package");
    from_distribution(&sysroot)
}

pub(super) fn sysroot() -> Result<PathBuf> {
    let Some(printed) = command::output(command::in_workspace("rustc").args(["--print", "sysroot"])) else {
        bail!("the Rust toolchain {TOOLCHAIN} is missing: run `rustup toolchain install {TOOLCHAIN}`");
    };
    Ok(PathBuf::from(printed.trim()))
}

/// Debian's rust-src puts the source below /usr/src; it fits only if it is of the same version.
fn from_distribution(sysroot: &Path) -> Result<()> {
    let candidate = packages::candidate("rust-src").unwrap_or_else(|| "none".to_owned());
    if !candidate.starts_with(TOOLCHAIN) {
        bail!("the distribution's rust-src is of version {candidate}, the toolchain of {TOOLCHAIN}");
    }
    packages::install(&["rust-src"])?;
    let source = PathBuf::from(format!("/usr/src/rustc-{TOOLCHAIN}"));
    let link = sysroot.join("lib/rustlib/src/rust");
    let parent = link.parent().unwrap_or(sysroot);
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    symlink(&source, &link).with_context(|| format!("cannot link {} to {}", link.display(), source.display()))
}
