//! Where things lie.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The version that `rust-toolchain.toml` pins.
pub const TOOLCHAIN: &str = "1.95.0";

/// The checkout's top folder.
pub fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Cargo's output folder.
pub fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// What was downloaded or built for tests and must outlive a checkout: `$XDG_CACHE_HOME/sheave` or `~/.cache/sheave`.
pub fn cache_dir() -> PathBuf {
    let base = match env::var_os("XDG_CACHE_HOME").map(PathBuf::from) {
        Some(dir) if dir.is_absolute() => dir,
        _ => home_dir().join(".cache"),
    };
    base.join("sheave")
}

/// The user's home; from the password database where `HOME` is not set, as under some CI systems and service managers.
pub fn home_dir() -> PathBuf {
    env::home_dir().filter(|home| !home.as_os_str().is_empty()).unwrap_or_else(|| PathBuf::from("/root"))
}

/// `PATH`, with the folder that `cargo install` fills before it and those of system programs behind it, which a plain
/// user's `PATH` lacks on Debian.
pub fn search_path() -> OsString {
    let cargo_home = env::var_os("CARGO_HOME").map_or_else(|| home_dir().join(".cargo"), PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = std::iter::once(cargo_home.join("bin"))
        .chain(env::split_paths(&path))
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    env::join_paths(dirs).unwrap_or(path)
}

/// The file that a program's name stands for, looked up in [`search_path`].
pub fn find_program(name: &str) -> Option<PathBuf> {
    env::split_paths(&search_path()).map(|dir| dir.join(name)).find(|file| file.is_file())
}
