//! `cargo xtask kind up` makes a cluster that works, and `down`, an error or Ctrl-C leave the machine as it was. Needs root;
//! without a cache the first run builds for minutes. No cluster may be up.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use proxy_tests::machine::{Machine, Members};
use proxy_tests::patience::patience;

/// The control group that all of the cluster is in.
const GROUP: &str = "sheave-kind";
/// A node image takes this long to build on a busy machine, and the programs more.
const UP: Duration = Duration::from_secs(60 * 60);
/// For what ends by itself.
const SETTLE: Duration = Duration::from_secs(60);

struct Kind {
    xtask: PathBuf,
}

impl Kind {
    fn find() -> Result<Self> {
        let xtask = std::env::var_os("SHEAVE_XTASK").context("run this suite by `cargo xtask test kind`")?;
        Ok(Self { xtask: xtask.into() })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.xtask);
        command.arg("kind").args(arguments).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        let status = self.command(arguments).status()?;
        ensure!(status.success(), "kind {}: {status}", arguments.join(" "));
        Ok(())
    }

    fn says(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).output()?;
        ensure!(output.status.success(), "kind {}: {}", arguments.join(" "), output.status);
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// Whatever became of the test.
impl Drop for Kind {
    fn drop(&mut self) {
        let _ = self.run(&["down"]);
    }
}

/// One after the other: there is one cluster.
#[test]
fn kind() -> Result<()> {
    let kind = Kind::find()?;
    ensure!(kind.says(&["status"])?.starts_with("no cluster is up"), "a cluster is up: `cargo xtask kind down`");
    comes_up_and_goes(&kind)?;
    an_interrupted_start_is_undone(&kind)
}

fn comes_up_and_goes(kind: &Kind) -> Result<()> {
    // Once before, so that the look finds the cache filled and the kernel's modules loaded.
    kind.run(&["up", "--nodes", "2", "--proxy", "kube-proxy"])?;
    let second = kind.command(&["up"]).output()?;
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    ensure!(!second.status.success() && said.contains("is up already"), "a second `up` should be refused: {said}");
    kind.run(&["down"])?;

    let before = Machine::look()?;
    kind.run(&["up", "--nodes", "2", "--proxy", "kube-proxy"])?;
    let status = kind.says(&["status"])?;
    for part in ["kind-control-plane", "kind-worker", "coredns", "proxy:  kube-proxy"] {
        ensure!(status.contains(part), "no {part} in:\n{status}");
    }
    // While it is up, the machine's own namespaces show one parameter of it and its control group.
    // The parameter has two names (kernel, fs/notify/inotify/inotify_user.c and kernel/ucount.c).
    let parameters = ["fs/inotify/max_user_instances", "user/max_inotify_instances"];
    let ours = |line: &str| line.contains("/sheave-kind") || parameters.iter().any(|name| line.contains(name));
    before.expect_but(patience(SETTLE), ours)?;
    let members = Members::of(GROUP)?;
    ensure!(members.processes.len() > 10, "a cluster of {} processes", members.processes.len());
    kind.run(&["down"])?;
    before.expect_again(patience(SETTLE))?;
    expect_none(&members)
}

fn an_interrupted_start_is_undone(kind: &Kind) -> Result<()> {
    let before = Machine::look()?;
    let mut up = kind.command(&["up", "--nodes", "2"]).spawn()?;
    let members = wait_for_members(&mut up)?;
    let pid = up.id().to_string();
    ensure!(Command::new("kill").args(["-INT", &pid]).status()?.success(), "kill -INT {pid}");
    let status = wait(&mut up, patience(SETTLE))?;
    ensure!(!status, "an interrupted `up` should fail");
    before.expect_again(patience(SETTLE))?;
    expect_none(&members)?;
    ensure!(kind.says(&["status"])?.starts_with("no cluster is up"), "the interrupted cluster is still known");
    Ok(())
}

/// Until the nodes' own processes run.
fn wait_for_members(up: &mut Child) -> Result<Members> {
    let deadline = Instant::now() + UP;
    loop {
        let members = Members::of(GROUP)?;
        if members.processes.len() > 10 {
            return Ok(members);
        }
        ensure!(up.try_wait()?.is_none(), "`up` ended before it was interrupted");
        ensure!(Instant::now() < deadline, "no node's processes after {UP:?}");
        thread::sleep(Duration::from_millis(200));
    }
}

fn wait(child: &mut Child, limit: Duration) -> Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        ensure!(Instant::now() < deadline, "it does not end within {limit:?}");
        thread::sleep(Duration::from_millis(100));
    }
}

fn expect_none(members: &Members) -> Result<()> {
    let left = members.left()?;
    ensure!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    Ok(())
}
