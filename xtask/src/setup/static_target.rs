//! Static programs are built for musl: glibc loads parts of itself at run time, name resolution among them.

use std::process::Command;

use anyhow::{Context as _, Result};

use super::packages::{self, Package};
use super::rust_src;
use crate::command;
use crate::workspace::TOOLCHAIN;

/// Adds the standard library for `target` to the pinned toolchain, and musl's C compiler, unless they are there.
///
/// # Errors
/// rustup is missing or cannot; the package is missing and this is not Debian.
pub fn ensure(target: &str) -> Result<()> {
    // For the C code of crates (ring, mimalloc).
    packages::ensure(&[Package { program: "musl-gcc", name: "musl-tools" }])?;
    if rust_src::sysroot()?.join("lib/rustlib").join(target).join("lib").exists() {
        return Ok(());
    }
    eprintln!("setup: adding the target {target} to the Rust toolchain {TOOLCHAIN}");
    command::run(Command::new("rustup").args(["target", "add", target, "--toolchain", TOOLCHAIN]))
        .with_context(|| format!("the Rust standard library for {target}"))
}
