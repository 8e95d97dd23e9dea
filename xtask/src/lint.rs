//! Format and lints. The kernel crate has no std and another target, so clippy sees it apart from the host's crates.

use anyhow::Result;

use crate::{build_ebpf, command, setup};

pub fn run() -> Result<()> {
    setup::build_tools()?;
    command::run(command::cargo().args(["fmt", "--all", "--check"]))?;
    let host = ["clippy", "--workspace", "--exclude", "proxy-ebpf", "--all-targets", "--", "--deny", "warnings"];
    command::run(command::cargo().args(host))?;
    command::run(build_ebpf::cargo("clippy").args(["--bins", "--release", "--", "--deny", "warnings"]))
}
