use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::kernel::KernelError;
use crate::kernel::pins::{self, Direction, Layout, detach, remove_if_there};
use crate::kernel::raw::link::{self, Place};

/// TCX links, each pinned so that it outlives the agent (Linux 6.6).
pub struct Tcx {
    layout: Layout,
    namespace: u64,
    links: BTreeMap<(u32, Direction), Pinned>,
}

struct Pinned {
    path: PathBuf,
    link: OwnedFd,
}

impl Tcx {
    /// Takes over the links that an earlier agent pinned; those whose device is gone are unpinned.
    pub fn open(layout: Layout, namespace: u64) -> Result<Self, KernelError> {
        let directory = layout.links(namespace);
        let mut links = BTreeMap::new();
        for (path, name) in pins::entries(&directory) {
            let Some((_, index, direction)) = pins::parse_link(&name) else {
                tracing::warn!(path = %path.display(), "a pin that is not ours is left alone");
                continue;
            };
            let link = link::open_pin(&path).map_err(KernelError::path("opening pinned link", &path))?;
            if is_on(link.as_fd(), index) {
                links.insert((index, direction), Pinned { path, link });
            } else {
                unpin(&path)?;
            }
        }
        Ok(Self { layout, namespace, links })
    }

    /// Sees to it that `program` runs on the device. A link that is there keeps its place among those of others, and
    /// every packet meets its old program or the new one.
    ///
    /// # Errors
    /// `ENODEV` where the device has vanished.
    pub fn ensure(&mut self, index: u32, name: &str, direction: Direction, program: BorrowedFd<'_>) -> io::Result<()> {
        if let Some(pinned) = self.links.get(&(index, direction)) {
            if is_on(pinned.link.as_fd(), index) {
                return link::replace(pinned.link.as_fd(), program);
            }
            // The index has passed on to another device.
            remove_if_there(&pinned.path)?;
            self.links.remove(&(index, direction));
        }
        let place = match direction {
            Direction::Ingress => Place::FirstAtIngress,
            Direction::Egress => Place::LastAtEgress,
        };
        let link = link::attach(program, index, place)?;
        let path = self.layout.link(self.namespace, name, index, direction);
        fs::create_dir_all(self.layout.links(self.namespace))?;
        remove_if_there(&path)?;
        link::pin(link.as_fd(), &path)?;
        self.links.insert((index, direction), Pinned { path, link });
        Ok(())
    }

    /// Whether a link of ours is on the device at this moment.
    pub fn holds(&self, index: u32, direction: Direction) -> bool {
        self.links.get(&(index, direction)).is_some_and(|pinned| is_on(pinned.link.as_fd(), index))
    }

    /// Takes our programs off a device, which may be gone.
    pub fn leave(&mut self, index: u32) -> io::Result<()> {
        for direction in Direction::ALL {
            if let Some(pinned) = self.links.get(&(index, direction)) {
                detach(pinned.link.as_fd(), &pinned.path)?;
                self.links.remove(&(index, direction));
            }
        }
        Ok(())
    }

    /// Takes our programs off all devices but those that `keep` names.
    pub fn retain(&mut self, keep: impl Fn(u32) -> bool) -> io::Result<()> {
        let leaving: BTreeSet<u32> = self.links.keys().map(|(index, _)| *index).filter(|index| !keep(*index)).collect();
        leaving.into_iter().try_for_each(|index| self.leave(index))
    }
}

fn is_on(link: BorrowedFd<'_>, index: u32) -> bool {
    matches!(link::device(link), Ok(Some(found)) if found == index)
}

fn unpin(path: &Path) -> Result<(), KernelError> {
    remove_if_there(path).map_err(KernelError::path("removing the pin of a device that is gone", path))
}
