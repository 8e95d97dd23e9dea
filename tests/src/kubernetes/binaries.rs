use std::env;
use std::path::PathBuf;

use anyhow::{Result, bail};

/// The program that `TEST_ASSET_name` stands for, where `name` is the program's in upper case.
///
/// # Errors
/// The variable is not set, or names no file.
pub fn asset(name: &str) -> Result<PathBuf> {
    let variable = format!("TEST_ASSET_{}", name.to_uppercase().replace('-', "_"));
    let Some(path) = env::var_os(&variable).map(PathBuf::from) else {
        bail!("{variable} does not say where {name} is: run `cargo xtask test kubernetes`, which finds or builds it");
    };
    if !path.is_file() {
        bail!("{variable} names {}, which is not there", path.display());
    }
    Ok(path)
}
