//! The demonstration: every step is said, timed and checked; what does not work ends it with an error.

mod screen;
mod steps;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result};

use crate::cluster::residue;

/// Its namespaces are called `sheave-demo-...`.
const NAME: &str = "demo";

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes the cluster, shows it, and removes it, unless told to `keep` it. Ctrl-C removes it too.
///
/// # Errors
/// The first step that does not work; the cluster is removed then, too.
pub fn run(manifests: &Path, keep: bool) -> Result<()> {
    remove_on_interrupt()?;
    let shown = match steps::all(manifests) {
        // The step failed for the interrupt, which takes down what it needs: whoever removes the cluster ends us.
        Err(_) if INTERRUPTED.load(Ordering::Relaxed) => loop {
            thread::park();
        },
        shown => shown?,
    };
    if keep {
        shown.leave();
        steps::say_how_to_enter();
        return Ok(());
    }
    screen::step("removing the cluster", || {
        drop(shown);
        Ok(())
    })
}

/// Removes what an earlier run left; nothing if there is nothing.
pub fn remove() -> Result<()> {
    residue::remove_kept(NAME)
}

fn remove_on_interrupt() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start tokio")?;
    thread::spawn(move || {
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            if let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                INTERRUPTED.store(true, Ordering::Relaxed);
                eprintln!("\ninterrupted: removing the cluster");
                let _ = remove();
                // As a shell has it for SIGINT.
                std::process::exit(130);
            }
        });
    });
    Ok(())
}
