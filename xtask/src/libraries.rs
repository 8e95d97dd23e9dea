//! Shared libraries of programs, for file systems that hold programs and no distribution.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command;

/// The libraries, and the loader, that a program is linked with; their paths, and the program's, are those below `root`.
/// None for static programs.
pub fn of(root: &Path, program: &Path) -> Vec<PathBuf> {
    let mut ldd = Command::new("chroot");
    if root == Path::new("/") {
        ldd = Command::new("ldd");
    } else {
        ldd.arg(root).arg("ldd");
    }
    ldd.arg(program);
    // It fails for static programs.
    let found = command::output(&mut ldd).unwrap_or_default();
    found.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}
