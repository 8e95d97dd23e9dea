//! bpf-linker makes one eBPF object of LLVM bitcode. It must speak the bitcode of the pinned rustc, so its version is
//! pinned along with the toolchain's.

use std::process::Command;

use anyhow::Result;

use crate::{command, workspace};

const VERSION: &str = "0.10.4";

/// Installs the pinned version, unless it is there.
pub fn ensure() -> Result<()> {
    let installed = workspace::find_program("bpf-linker")
        .and_then(|program| command::output(Command::new(program).arg("--version")))
        .and_then(|text| text.split_whitespace().nth(1).map(str::to_owned));
    if installed.as_deref() == Some(VERSION) {
        return Ok(());
    }
    match installed {
        Some(other) => eprintln!("setup: replacing bpf-linker {other} by {VERSION} (some minutes)"),
        None => eprintln!("setup: building bpf-linker {VERSION} (some minutes)"),
    }
    command::run(command::cargo().args(["install", "bpf-linker", "--locked", "--force", "--version", VERSION]))
}
