//! Ctrl-C and termination: what is under way fails, and what was made is removed as after any failure.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::cluster;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static CLEANING: AtomicBool = AtomicBool::new(false);

/// From now on [`check`] fails after such a signal. A terminal tells the programs that are waited for, too.
///
/// # Errors
/// The signals have another handler.
pub fn watch() -> Result<()> {
    let handler = || {
        if !INTERRUPTED.swap(true, Ordering::SeqCst) {
            eprintln!("interrupted: removing what was made in the cluster");
        }
    };
    ctrlc::set_handler(handler).context("cannot watch for signals")
}

/// Whoever cleans up is not kept from it.
pub fn begin_cleaning() {
    CLEANING.store(true, Ordering::SeqCst);
}

/// # Errors
/// There was a signal, and what is under way is not the cleaning up after it.
pub fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::SeqCst) && !CLEANING.load(Ordering::SeqCst) {
        bail!("interrupted");
    }
    Ok(())
}

/// As [`cluster::eventually`], but for a signal.
///
/// # Errors
/// The last failure, or the signal.
pub fn eventually<T>(timeout: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    cluster::eventually(timeout, || match check() {
        Ok(()) => attempt().map(Ok),
        Err(error) => Ok(Err(error)),
    })?
}
