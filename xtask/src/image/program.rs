use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{command, setup, workspace};

/// Stripped; see `[profile.image]` of the workspace's Cargo.toml.
const PROFILE: &str = "image";

/// Builds the agent as a static program for this machine's processor and says where it is.
///
/// # Errors
/// rustup has no standard library for the target, the C compiler of musl is missing, or the build fails.
pub fn build() -> Result<PathBuf> {
    setup::build_tools()?;
    let target = target();
    setup::static_tools(&target)?;
    let mut cargo = command::cargo();
    cargo.args(["build", "--locked", "--package", "proxy-userspace", "--bin", "sheave"]);
    cargo.args(["--profile", PROFILE, "--target", &target]);
    command::run(&mut cargo)?;
    let program = workspace::target_dir().join(target).join(PROFILE).join("sheave");
    // A program that does not start, say for want of a library, is found here and not on a node.
    command::output(Command::new(&program).arg("--version"))
        .with_context(|| format!("{} does not start", program.display()))?;
    Ok(program)
}

fn target() -> String {
    format!("{}-unknown-linux-musl", env::consts::ARCH)
}
