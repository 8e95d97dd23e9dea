//! What a kind cluster is made of and outlives it: one entry of the cache per name and key. The key stands for all that the
//! entry is made from, so that a change makes it anew.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::workspace;

/// What is not finished, by its name.
const PARTIAL: &str = "partial-";

/// A file or folder that is made once.
pub struct Entry {
    name: &'static str,
    path: PathBuf,
}

impl Entry {
    pub fn new(name: &'static str, key: &str) -> Self {
        Self { name, path: folder().join(format!("{name}-{key}")) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn is_ready(&self) -> bool {
        self.path.exists()
    }

    /// Makes it unless it is there, beside its place and moved at the end: what was interrupted must not look finished.
    /// Entries of the same name with other keys are removed then.
    ///
    /// # Errors
    /// `build` fails, or the cache cannot be written.
    pub fn make(&self, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        if self.is_ready() {
            return Ok(());
        }
        fs::create_dir_all(folder()).with_context(|| format!("cannot make {}", folder().display()))?;
        let partial = folder().join(format!("{PARTIAL}{}", self.name));
        remove(&partial)?;
        if let Err(error) = build(&partial) {
            // Its parts are of no use, and some are large.
            let _ = remove(&partial);
            return Err(error);
        }
        fs::rename(&partial, &self.path).with_context(|| format!("cannot move {}", partial.display()))?;
        self.remove_older()
    }

    fn remove_older(&self) -> Result<()> {
        for entry in fs::read_dir(folder())? {
            let path = entry?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            // Keys have no dash, names may.
            if path != self.path && name.rsplit_once('-').is_some_and(|(name, _)| name == self.name) {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

/// Removes what an interrupted build left behind. None may be under way.
///
/// # Errors
/// It cannot be removed.
pub fn remove_partial() -> Result<()> {
    for entry in fs::read_dir(folder()).into_iter().flatten() {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PARTIAL)) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// `kind` in the project's cache.
pub fn folder() -> PathBuf {
    workspace::cache_dir().join("kind")
}

/// Twelve digits that stand for the parts.
pub fn key<Part: AsRef<[u8]>>(parts: impl IntoIterator<Item = Part>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        let part = part.as_ref();
        // With its length, so that a boundary that moves is seen.
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Removes a file or a folder with all that is in it; nothing if there is none.
///
/// # Errors
/// It is there and cannot be removed.
pub fn remove(path: &Path) -> Result<()> {
    let done = match fs::symlink_metadata(path) {
        Err(_) => return Ok(()),
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    done.with_context(|| format!("cannot remove {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_where_any_part_does() {
        assert_eq!(key(["ab", "c"]), key(["ab", "c"]));
        assert_ne!(key(["ab", "c"]), key(["a", "bc"]));
        assert_ne!(key(["ab"]), key(["ab", ""]));
        assert_eq!(key(["x"]).len(), 12);
    }
}
