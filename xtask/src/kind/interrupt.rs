//! Ctrl-C and termination while a cluster comes up: what runs is ended, and the way back is that of any error.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};

use super::progress::say;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on such a signal ends the programs that this one waits for, and [`check`] fails.
///
/// # Errors
/// The signals have another handler.
pub fn watch() -> Result<()> {
    let handler = || {
        if !INTERRUPTED.swap(true, Ordering::SeqCst) {
            say("interrupted: removing what was made of the cluster");
            end_children();
        }
    };
    ctrlc::set_handler(handler).context("cannot watch for signals")
}

/// # Errors
/// There was a signal.
pub fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::SeqCst) {
        bail!("interrupted");
    }
    Ok(())
}

/// Of those programs a terminal has told only the ones in its foreground, and `kill` none.
fn end_children() {
    let own = std::process::id().to_string();
    let is_child = |pid: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().find_map(|line| line.strip_prefix("PPid:")).is_some_and(|parent| parent.trim() == own)
    };
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids: Vec<String> = pids.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let children: Vec<&String> = pids.iter().filter(|pid| is_child(pid)).collect();
    if !children.is_empty() {
        let _ = Command::new("kill").arg("-TERM").args(children).status();
    }
}
