use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::patience::patience;

/// A program that runs in the background with its output in a file. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it; standard output and error go to `log`, standard input is a pipe that closes with this value.
    pub fn start(name: &str, mut command: Command, log: PathBuf, lifetime: Lifetime) -> Result<Self> {
        let file = File::create(&log).with_context(|| format!("make {}", log.display()))?;
        let error = file.try_clone().context("duplicate the log file")?;
        lifetime.apply(&mut command);
        let stdin = match lifetime {
            Lifetime::Parent => Stdio::piped(),
            Lifetime::Own => Stdio::null(),
        };
        let child = command
            .stdin(stdin)
            .stdout(file)
            .stderr(error)
            .spawn()
            .with_context(|| format!("start {name} ({})", command.get_program().display()))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Waits until a line of the log satisfies `is_it`.
    ///
    /// # Errors
    /// It ended before, or time is over; the log is in the message.
    pub fn wait_for_line(&mut self, timeout: Duration, is_it: impl Fn(&str) -> bool) -> Result<()> {
        let timeout = patience(timeout);
        let deadline = Instant::now() + timeout;
        loop {
            // Asked before the log is read, so that nothing it wrote at its end is missed.
            let ended = self.child.try_wait().context("wait")?;
            if self.log().lines().any(&is_it) {
                return Ok(());
            }
            if let Some(status) = ended {
                bail!("{} ended ({status}):\n{}", self.name, self.log());
            }
            if Instant::now() > deadline {
                bail!("{} did not get ready in {timeout:?}:\n{}", self.name, self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.child.id() as i32), signal).with_context(|| format!("{signal} to {}", self.name))
    }

    /// Closes its standard input, which tells clients of ours to stop and report.
    pub fn close_stdin(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Time is over; the log is in the message.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let timeout = patience(timeout);
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait().context("wait")? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} did not end in {timeout:?}:\n{}", self.name, self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Lets it live on, if it was started to ([`Lifetime::Own`]).
    pub fn leave(self) {
        std::mem::forget(self);
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            eprintln!("--- last lines of {} ({}):\n{}", self.name, self.log.display(), tail.join("\n"));
        }
    }
}

/// How long a program may live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Not longer than the thread that started it, even if that is killed.
    Parent,
    /// Until somebody ends it.
    Own,
}

impl Lifetime {
    fn apply(self, command: &mut Command) {
        let prepare = move || match self {
            Self::Parent => set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from),
            // Out of reach of the terminal's Ctrl-C.
            Self::Own => nix::unistd::setsid().map(drop).map_err(io::Error::from),
        };
        // SAFETY: between fork and exec only async-signal-safe calls are allowed; the closure makes one system call and
        // allocates nothing.
        unsafe { command.pre_exec(prepare) };
    }
}

/// Runs a command to its end and gives back its output.
///
/// # Errors
/// It could not be started or did not end well; its standard error is in the message.
pub fn output(mut command: Command) -> Result<Output> {
    Lifetime::Parent.apply(&mut command);
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {shown}"))?;
    if !output.status.success() {
        bail!(
            "{shown}: {}: {}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim(),
            String::from_utf8_lossy(&output.stdout).trim()
        );
    }
    Ok(output)
}
