use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// The agent: `SHEAVE_BIN`, or beside the running executable.
pub fn sheave() -> Result<PathBuf> {
    find("sheave", "SHEAVE_BIN", "cargo build -p proxy-userspace")
}

/// The servers and clients that run in pods: `SHEAVE_TRAFFIC_BIN`, or beside the running executable.
pub fn traffic() -> Result<PathBuf> {
    find("traffic", "SHEAVE_TRAFFIC_BIN", "cargo build -p proxy-tests --bins")
}

fn find(name: &str, variable: &str, remedy: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        let path = PathBuf::from(path);
        if !path.is_file() {
            bail!("{variable} names {}, which is not there", path.display());
        }
        return Ok(path);
    }
    // Test executables lie in target/PROFILE/deps, programs one level above.
    let own = std::env::current_exe().context("path of the running executable")?;
    let found = own.ancestors().skip(1).take(2).map(|directory| directory.join(name)).find(|path| path.is_file());
    found.with_context(|| {
        format!("program {name} is not beside {}: build it ({remedy}) or name it by {variable}", own.display())
    })
}
