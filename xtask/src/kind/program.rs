//! Programs taken into images with their libraries: those of the node's base, and those of this machine.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::libraries;
use crate::oci::Layer;

const FOLDERS: [&str; 4] = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];

/// Adds a program that the system below `root` has, by its name, with the libraries that it is linked with.
///
/// # Errors
/// It is not there, or cannot be read.
pub fn add(layer: &mut Layer, root: &Path, name: &str) -> Result<()> {
    for folder in FOLDERS {
        let path = format!("{folder}/{name}");
        if let Ok(content) = read(root, Path::new(&path)) {
            // One folder for all: the links that lead there stay behind.
            layer.file(&format!("/usr/bin/{name}"), 0o755, &content)?;
            return add_libraries(layer, root, Path::new(&path));
        }
    }
    bail!("there is no {name} below {}", root.display())
}

/// Adds a program of this machine's, with its libraries.
///
/// # Errors
/// It cannot be read.
pub fn add_own(layer: &mut Layer, file: &Path, to: &str) -> Result<()> {
    layer.program(to, file)?;
    add_libraries(layer, Path::new("/"), file)
}

fn add_libraries(layer: &mut Layer, root: &Path, program: &Path) -> Result<()> {
    libraries::of(root, program)
        .iter()
        .try_for_each(|library| layer.file(&library.to_string_lossy(), 0o755, &read(root, library)?))
}

/// What a program whose root folder is `root` finds by this path: links of Debian's systems are absolute, and lead
/// elsewhere from outside.
fn read(root: &Path, path: &Path) -> Result<Vec<u8>> {
    let output = Command::new("chroot").arg(root).arg("cat").arg(path).output().context("start chroot")?;
    if !output.status.success() {
        bail!("cannot read {} below {}", path.display(), root.display());
    }
    Ok(output.stdout)
}
