use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use super::SETTLE;
use crate::yaml;

/// Suffixes of the files that are read.
const SUFFIXES: [&str; 3] = ["yaml", "yml", "json"];

/// How long files may be absent from a directory that has just come (back): whoever made it is filling it.
const RETURN_GRACE: Duration = Duration::from_secs(1);

/// How long a file may go without a pause of [`SETTLE`] before one that is replaced whole is read all the same, and one
/// that is written in place is reported.
const PATIENCE: Duration = Duration::from_secs(1);

/// A directory, and the state that each of its files was read in.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    identity: Option<Identity>,
    /// When a directory of this name was last found to be another one.
    since: Instant,
    files: BTreeMap<String, File>,
}

/// Which directory a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

#[derive(Debug, Default)]
struct File {
    /// As it was when it was read.
    read: Option<Stamp>,
    /// As it was when it was last looked at, and since when it is.
    seen: Option<(Stamp, Instant)>,
    /// Whether it was seen to change, and not only to be another one.
    is_written: bool,
    /// Since when it is not as it was read.
    unread_since: Option<Instant>,
    absent_since: Option<Instant>,
}

/// What changes when the content of a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    /// Tells a file from the next one that gets its inode, where the file system knows.
    born: Option<SystemTime>,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What a look at the directory found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Files with new content, in the order of their names; a text that could not be read, as the reason.
    pub(super) changed: Vec<(String, Result<String, String>)>,
    pub(super) removed: Vec<String>,
    /// Something is being written or may be about to come back: look again soon.
    pub(super) unsettled: bool,
}

impl Identity {
    pub(super) fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::from(&metadata))
    }
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            born: metadata.created().ok(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Directory {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), identity: None, since: Instant::now(), files: BTreeMap::new() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Looks for new, changed and removed files.
    ///
    /// # Errors
    /// The directory cannot be listed; nothing is known to have changed then.
    pub(super) fn scan(&mut self) -> io::Result<Scan> {
        let now = Instant::now();
        let identity = Identity::from(&fs::metadata(&self.path)?);
        let mut present = BTreeSet::new();
        for entry in fs::read_dir(&self.path)? {
            present.extend(entry?.file_name().into_string().ok().filter(|name| is_manifest(name)));
        }
        if self.identity.replace(identity) != Some(identity) {
            self.since = now;
        }
        let mut scan = Scan::default();
        for name in &present {
            let path = self.path.join(name);
            let Ok(metadata) = fs::metadata(&path) else {
                // Removed since it was listed, or a link to nothing: absent, see below.
                continue;
            };
            if metadata.is_file() {
                self.files.entry(name.clone()).or_default().look(name, &path, &metadata, now, &mut scan);
            }
        }
        let grace = if now.saturating_duration_since(self.since) < RETURN_GRACE { RETURN_GRACE } else { SETTLE };
        let directory = &self.path;
        self.files.retain(|name, file| {
            if present.contains(name) && directory.join(name).is_file() {
                file.absent_since = None;
                return true;
            }
            let absent = now.saturating_duration_since(*file.absent_since.get_or_insert(now));
            if absent < grace {
                scan.unsettled = true;
                return true;
            }
            scan.removed.push(name.clone());
            false
        });
        Ok(scan)
    }
}

impl File {
    /// Reads the file if it is new or changed, and settled.
    fn look(&mut self, name: &str, path: &Path, metadata: &Metadata, now: Instant, scan: &mut Scan) {
        let stamp = Stamp::from(metadata);
        if self.read == Some(stamp) {
            self.unread_since = None;
            return;
        }
        let since = match self.seen {
            Some((seen, since)) if seen == stamp => since,
            Some((seen, _)) => {
                self.is_written = (seen.inode, seen.born) == (stamp.inode, stamp.born);
                now
            }
            None => now,
        };
        self.seen = Some((stamp, since));
        let age = metadata.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
        let is_settled = age.is_some_and(|age| age >= SETTLE) || now.saturating_duration_since(since) >= SETTLE;
        let is_overdue = now.saturating_duration_since(*self.unread_since.get_or_insert(now)) >= PATIENCE;
        if !(is_settled || is_overdue && !self.is_written) {
            if is_overdue {
                // Half of a file may be valid, so it is not read; nor is anything else to wait for it.
                let reason = format!("is written to without a pause of {} ms", SETTLE.as_millis());
                scan.changed.push((name.to_owned(), Err(reason)));
            } else {
                scan.unsettled = true;
            }
            return;
        }
        let text = fs::read(path).map_err(|error| format!("cannot be read: {error}")).and_then(yaml::text);
        // Written to while it was read: what was read is half of it.
        if fs::metadata(path).map(|after| Stamp::from(&after)).ok() == Some(stamp) {
            self.read = Some(stamp);
            self.unread_since = None;
            scan.changed.push((name.to_owned(), text));
        } else {
            scan.unsettled = true;
        }
    }
}

/// Hidden files are somebody's temporary ones, or the inside of a mounted ConfigMap.
fn is_manifest(name: &str) -> bool {
    let suffix = name.rsplit_once('.').map(|(_, suffix)| suffix);
    !name.starts_with('.') && suffix.is_some_and(|suffix| SUFFIXES.contains(&suffix))
}
