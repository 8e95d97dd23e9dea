//! The files of an image. All belong to root and are from the epoch, so that equal files make an equal layer.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use tar::{EntryType, Header};

/// A tar archive that grows. Folders are made where files need them.
pub struct Layer {
    tar: tar::Builder<Vec<u8>>,
    folders: BTreeSet<String>,
    files: BTreeSet<String>,
}

impl Layer {
    pub fn new() -> Self {
        Self { tar: tar::Builder::new(Vec::new()), folders: BTreeSet::new(), files: BTreeSet::new() }
    }

    /// Adds a file, unless one is there by this path.
    ///
    /// # Errors
    /// The path is none for a tar archive.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        if self.is_new(path)? {
            add(&mut self.tar, EntryType::Regular, relative(path), mode, content)?;
        }
        Ok(())
    }

    /// Adds a program of this machine's.
    ///
    /// # Errors
    /// As [`Layer::file`], or it cannot be read.
    pub fn program(&mut self, path: &str, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.file(path, 0o755, &content)
    }

    /// Adds a symbolic link, unless something is there by this path.
    ///
    /// # Errors
    /// As [`Layer::file`].
    pub fn link(&mut self, path: &str, target: &str) -> Result<()> {
        if self.is_new(path)? {
            let mut header = header(EntryType::Symlink, 0o777, 0);
            self.tar.append_link(&mut header, relative(path), target).with_context(|| format!("cannot add {path}"))?;
        }
        Ok(())
    }

    /// Adds a folder and those above it.
    ///
    /// # Errors
    /// As [`Layer::file`].
    pub fn folder(&mut self, path: &str, mode: u32) -> Result<()> {
        let path = relative(path);
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            if end > 0 && self.folders.insert(path[..end].to_owned()) {
                let mode = if end == path.len() { mode } else { 0o755 };
                add(&mut self.tar, EntryType::Directory, &format!("{}/", &path[..end]), mode, &[])?;
            }
        }
        Ok(())
    }

    /// The uncompressed archive.
    ///
    /// # Errors
    /// None that is known of: it is in memory.
    pub fn finish(self) -> Result<Vec<u8>> {
        self.tar.into_inner().context("end of the layer")
    }

    fn is_new(&mut self, path: &str) -> Result<bool> {
        if let Some((folder, _)) = relative(path).rsplit_once('/') {
            self.folder(folder, 0o755)?;
        }
        Ok(self.files.insert(relative(path).to_owned()))
    }
}

/// Adds one entry to an archive.
pub(super) fn add(
    tar: &mut tar::Builder<Vec<u8>>,
    kind: EntryType,
    path: &str,
    mode: u32,
    content: &[u8],
) -> Result<()> {
    let mut header = header(kind, mode, content.len() as u64);
    tar.append_data(&mut header, path, content).with_context(|| format!("cannot add {path}"))
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

fn relative(path: &str) -> &str {
    path.trim_start_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_once_and_before_their_files() {
        let mut layer = Layer::new();
        layer.file("/usr/bin/a", 0o755, b"a").unwrap();
        layer.file("/usr/bin/b", 0o755, b"b").unwrap();
        layer.file("/usr/bin/b", 0o755, b"ignored").unwrap();
        layer.link("/usr/bin/c", "b").unwrap();
        layer.folder("/tmp", 0o1777).unwrap();
        let bytes = layer.finish().unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let paths: Vec<String> =
            archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(paths, ["usr/", "usr/bin/", "usr/bin/a", "usr/bin/b", "usr/bin/c", "tmp/"]);
    }
}
