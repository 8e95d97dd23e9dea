use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::KernelError;
use super::pins::{self, Layout};
use super::raw::{self, link};

/// A pin directory that no other agent uses. The lock is an flock(2) on the directory itself: the BPF filesystem has no
/// regular files, but every filesystem takes this kind of lock, and it goes away with the process.
pub(super) struct PinDir {
    path: PathBuf,
    namespace: u64,
    _lock: Flock<File>,
}

impl PinDir {
    /// Makes the directory if need be and locks it.
    ///
    /// # Errors
    /// [`KernelError::InUse`] where an agent runs on it.
    pub fn lock(path: &Path) -> Result<Self, KernelError> {
        let namespace = raw::namespace_cookie().map_err(KernelError::path("reading the network namespace of", path))?;
        // A cleanup may remove the directory between our opening and locking it.
        for _ in 0..10 {
            std::fs::create_dir_all(path).map_err(KernelError::path("making pin directory", path))?;
            let directory = match File::open(path) {
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => continue,
                result => result.map_err(KernelError::path("opening pin directory", path))?,
            };
            let lock = match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => lock,
                Err((_, nix::Error::EWOULDBLOCK)) => return Err(KernelError::InUse { dir: path.to_owned() }),
                Err((_, cause)) => return Err(KernelError::path("locking pin directory", path)(cause.into())),
            };
            let locked = lock.metadata().map_err(KernelError::path("reading pin directory", path))?;
            let there = std::fs::metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == (locked.dev(), locked.ino()));
            if there {
                return Ok(Self { path: path.to_owned(), namespace, _lock: lock });
            }
        }
        Err(KernelError::InUse { dir: path.to_owned() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Cookie of the network namespace that the agent serves.
    pub fn namespace(&self) -> u64 {
        self.namespace
    }

    pub fn layout(&self) -> Layout {
        Layout::current(&self.path)
    }

    /// The directory must not hold links that still serve devices of another network namespace: its agent may only be
    /// restarting, and two agents would write each other's maps.
    pub fn refuse_other_namespaces(&self) -> Result<(), KernelError> {
        for layout in Layout::all(&self.path) {
            for (namespace, directory) in layout.all_links() {
                if namespace == self.namespace {
                    continue;
                }
                for (path, _) in pins::entries(&directory) {
                    let device = link::open_pin(&path).and_then(|pin| link::device(std::os::fd::AsFd::as_fd(&pin)));
                    if let Ok(Some(index)) = device
                        && index != 0
                    {
                        return Err(KernelError::OtherNamespace { dir: self.path.clone(), index });
                    }
                }
            }
        }
        Ok(())
    }
}
