//! Running other programs: said before, checked after.

use std::convert::Infallible;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::workspace;

/// `cargo` in the workspace.
pub fn cargo() -> Command {
    in_workspace("cargo")
}

/// A program run in the workspace's top folder, where rustup's proxies take the pinned toolchain, with cargo's own bin
/// folder (bpf-linker) in its path.
pub fn in_workspace(program: &str) -> Command {
    let mut command = Command::new(program);
    // What `cargo run` says of xtask itself. Build scripts that look at it (ring's does) would be run anew, and all that
    // depends on them, whenever cargo is called now by xtask and now by hand.
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
        {
            command.env_remove(name);
        }
    }
    // Go and others refuse to run without it.
    command.env("HOME", workspace::home_dir());
    command.current_dir(workspace::root()).env("PATH", workspace::search_path());
    command
}

/// Says what is run, runs it, and fails if it fails.
pub fn run(command: &mut Command) -> Result<()> {
    eprintln!("\x1b[2m$ {}\x1b[0m", line(command));
    let status = command.status().with_context(|| format!("`{}` does not start", line(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", line(command));
    }
    Ok(())
}

/// Replaces this process, so that signals from the terminal have one addressee, which then cleans up in peace.
pub fn become_command(command: &mut Command) -> Result<Infallible> {
    eprintln!("\x1b[2m$ {}\x1b[0m", line(command));
    let error = command.exec();
    Err(error).with_context(|| format!("`{}` does not start", line(command)))
}

/// What a program prints on its standard output; `None` if it cannot be run or fails.
pub fn output(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
