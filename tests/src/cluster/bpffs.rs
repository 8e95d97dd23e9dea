use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A BPF filesystem of our own, so that the pins of one cluster never meet those of another run on this kernel.
/// Unmounted when dropped, which detaches what only its pins held.
pub struct Bpffs(PathBuf);

impl Bpffs {
    pub fn mount(at: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&at).with_context(|| format!("make {}", at.display()))?;
        mount(Some("bpf"), &at, Some("bpf"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mount a BPF filesystem at {}", at.display()))?;
        Ok(Self(at))
    }

    /// Unmounts what an earlier process left at `at`; nothing if there is nothing.
    pub fn unmount(at: &Path) {
        let _ = umount2(at, MntFlags::MNT_DETACH);
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        Self::unmount(&self.0);
    }
}
