//! Programs as they were at another revision of the project, to compare with.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::{command, workspace};

/// Builds a program of the tests crate with the release profile, in a folder of the revision's own below `target`, and
/// says where it is.
///
/// # Errors
/// git knows no such revision, or what it had does not build.
pub fn build(revision: &str, program: &str) -> Result<PathBuf> {
    let name = format!("{revision}^{{commit}}");
    let mut git = command::in_workspace("git");
    let commit = command::output(git.args(["rev-parse", "--verify", "--quiet", &name]))
        .with_context(|| format!("git knows no revision {revision}"))?;
    let folder = workspace::target_dir().join("revisions").join(commit.trim());
    if !folder.exists() {
        let unpacked = folder.with_extension("partial");
        fs::create_dir_all(&unpacked).with_context(|| format!("make {}", unpacked.display()))?;
        let archive = unpacked.with_extension("tar");
        let mut git = command::in_workspace("git");
        command::run(git.args(["archive", "--output"]).arg(&archive).arg(commit.trim()))?;
        command::run(command::in_workspace("tar").arg("-xf").arg(&archive).arg("-C").arg(&unpacked))?;
        fs::remove_file(&archive)?;
        fs::rename(&unpacked, &folder)?;
    }
    let target = folder.join("target");
    let mut cargo = command::cargo();
    cargo.current_dir(&folder).env("CARGO_TARGET_DIR", &target);
    command::run(cargo.args(["build", "--release", "--package", "proxy-tests", "--bin", program]))?;
    Ok(target.join("release").join(program))
}
