//! What a verb needs of the machine that cannot be installed.

use std::fs;

use anyhow::{Result, bail};

/// Whether this process has effective user id 0.
pub fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective =
        status.lines().find_map(|line| line.strip_prefix("Uid:")).and_then(|ids| ids.split_whitespace().nth(1));
    effective == Some("0")
}

/// Fails, before anything is built, where network namespaces and eBPF programs cannot be made.
///
/// # Errors
/// Not root, or a kernel without its type information (BTF).
pub fn require_root(verb: &str) -> Result<()> {
    if !is_root() {
        bail!("`cargo xtask {verb}` makes network namespaces and loads eBPF programs: run it as root");
    }
    if fs::metadata("/sys/kernel/btf/vmlinux").is_err() {
        bail!(
            "`cargo xtask {verb}`: this kernel has no /sys/kernel/btf/vmlinux (CONFIG_DEBUG_INFO_BTF): Sheave needs it"
        );
    }
    Ok(())
}
