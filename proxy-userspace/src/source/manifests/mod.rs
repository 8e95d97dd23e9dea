//! Objects from the YAML and JSON files of a directory.
//!
//! A file counts when it has been left alone for [`SETTLE`]: a program that writes it in place is then most likely done. One
//! that is replaced whole, over and over without such a pause, is read once a second; one that is written in place
//! without a pause is reported, since half of it may be valid.
//!
//! The directory may be a mounted ConfigMap, whose files all change when one link is swapped; links are followed.

mod catalog;
mod directory;
mod document;
mod shelf;

#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use self::{
    catalog::Catalog,
    directory::{Directory, Scan},
};
use super::{Closed, Message, Outlet, SourceError};
use crate::model::Problem;

/// How long a file must be unchanged, or absent, before that is acted on.
const SETTLE: Duration = Duration::from_millis(50);

/// How often the directory is looked at without being told to: it may not be there to be watched, may be replaced by
/// another of its name, or lie on a file system that does not report changes.
const LOOK: Duration = Duration::from_secs(1);

/// Runs until the receiver is gone.
pub(super) async fn run(path: &Path, sender: mpsc::Sender<Message>) -> Result<(), SourceError> {
    let (wake, mut woken) = mpsc::channel(1);
    let mut wakeup = Wakeup::new(path, wake);
    let mut files = Files::new(path, Outlet(sender));
    loop {
        wakeup.watch_directory();
        let again = match files.look().await {
            Err(Closed) => return Ok(()),
            Ok(again) => again,
        };
        tokio::select! {
            // A full channel says as much as one message.
            _ = woken.recv(), if again == LOOK => {}
            () = tokio::time::sleep(again) => {}
            () = files.outlet.closed() => return Ok(()),
        }
    }
}

/// Wakes the loop when something in the directory changes.
struct Wakeup {
    path: PathBuf,
    /// `None`: the kernel gives none, as where other programs have them all; the directory is looked at all the same.
    watcher: Option<RecommendedWatcher>,
    /// The directory that is watched, which is not the one of that name for ever.
    watched: Option<directory::Identity>,
}

impl Wakeup {
    fn new(path: &Path, wake: mpsc::Sender<()>) -> Self {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Our own reading is reported too.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _ = wake.try_send(());
            }
        });
        let watcher = watcher.map_err(|error| tracing::warn!("changes of files are not reported here: {error}")).ok();
        Self { path: path.to_owned(), watcher, watched: None }
    }

    fn watch_directory(&mut self) {
        let there = directory::Identity::of(&self.path);
        let Some(watcher) = self.watcher.as_mut().filter(|_| there != self.watched) else { return };
        // It fails if the old one is gone, which ended the watch.
        let _ = watcher.unwatch(&self.path);
        self.watched = match watcher.watch(&self.path, RecursiveMode::NonRecursive) {
            Ok(()) => there,
            Err(error) => {
                tracing::debug!("cannot watch {}: {error}", self.path.display());
                None
            }
        };
    }
}

/// What was read and what was told.
struct Files {
    directory: Directory,
    catalog: Catalog,
    outlet: Outlet,
    /// Whether the first complete lists were sent.
    is_complete: bool,
    is_gone: bool,
}

impl Files {
    fn new(path: &Path, outlet: Outlet) -> Self {
        Self {
            directory: Directory::new(path),
            catalog: Catalog::default(),
            outlet,
            is_complete: false,
            is_gone: false,
        }
    }

    /// Takes in what changed. Returns after which time to look again at the latest.
    async fn look(&mut self) -> Result<Duration, Closed> {
        let Scan { changed, removed, unsettled } = match self.directory.scan() {
            Ok(scan) => scan,
            Err(error) => {
                if !std::mem::replace(&mut self.is_gone, true) {
                    let message = format!("cannot be read: {error}; the last state stays in force");
                    self.outlet.problems([self.problem(message)]).await?;
                }
                return Ok(LOOK);
            }
        };
        if std::mem::take(&mut self.is_gone) {
            let problem = self.problem("can be read again".into());
            self.outlet.send(Message::Recovered(problem)).await?;
        }
        for name in removed {
            self.catalog.remove(&name);
        }
        for (name, text) in changed {
            let mended = self.catalog.replace(&name, text);
            if let Some(problem) = mended {
                self.outlet.send(Message::Recovered(problem)).await?;
            }
        }
        let at = Instant::now();
        if self.is_complete {
            for event in self.catalog.changes() {
                self.outlet.arrival(event, at).await?;
            }
        } else if !unsettled {
            self.is_complete = true;
            for event in self.catalog.lists() {
                self.outlet.arrival(event, at).await?;
            }
        }
        let problems = self.catalog.new_problems();
        self.outlet.problems(problems).await?;
        Ok(if unsettled { SETTLE } else { LOOK })
    }

    fn problem(&self, message: String) -> Problem {
        Problem { object: format!("directory {}", self.directory.path().display()), message }
    }
}
