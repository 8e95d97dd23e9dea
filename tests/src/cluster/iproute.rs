use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs lines of iproute2 (`link add ...`) in one `ip` process, so that a cluster of ten namespaces costs a dozen
/// processes and not a hundred. Stops at the first line that fails.
pub fn batch(lines: &str) -> Result<()> {
    run(Command::new("ip"), lines, false)
}

/// The same inside the named network namespace.
pub fn batch_in(namespace: &str, lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["-n", namespace]);
    run(command, lines, false).with_context(|| format!("in namespace {namespace}"))
}

/// Runs every line, whatever the others came to.
pub fn batch_all(lines: &str) -> Result<()> {
    run(Command::new("ip"), lines, true)
}

fn run(mut command: Command, lines: &str, force: bool) -> Result<()> {
    if force {
        command.arg("-force");
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("start ip (package iproute2)")?;
    // The lines fit the pipe or are read as they come; stderr is a few lines at most.
    child.stdin.take().context("pipe to ip")?.write_all(lines.as_bytes()).context("write to ip")?;
    let output = child.wait_with_output().context("wait for ip")?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    let line = message
        .rsplit_once("-:")
        .and_then(|(_, number)| number.trim().parse::<usize>().ok())
        .and_then(|number| lines.lines().nth(number - 1))
        .unwrap_or_default();
    bail!("ip: {}: {}", message.trim(), line.trim())
}
