use std::fs::File;
use std::io::Read;
use std::path::Path;

use aya::util::KernelVersion;

use super::KernelError;

/// The oldest kernel on which everything was seen to work (docs/kernels.md). 5.15 has what we call as well: batches
/// (5.6), `bpf_redirect_neigh` to a given next hop (5.11), the cookie of a network namespace (5.14); but nobody has
/// tried whether its verifier takes the programs.
const MINIMUM: (u8, u8) = (6, 1);

/// TCX came with Linux 6.6.
pub(super) fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

/// Fails with the first thing that the machine or the process lacks.
pub(super) fn check(btf: &Path) -> Result<(), KernelError> {
    privileges()?;
    kernel_version()?;
    if !is_btf(btf) {
        return Err(KernelError::NoBtf { path: btf.to_owned() });
    }
    Ok(())
}

/// `BTF_MAGIC` of linux/btf.h.
const BTF_MAGIC: u16 = 0xeb9f;

/// The verifier needs the kernel's types, to check what a function is given that it verifies on its own; we do not, so
/// that they are not read any further than this.
fn is_btf(path: &Path) -> bool {
    let mut magic = [0; 2];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && u16::from_ne_bytes(magic) == BTF_MAGIC
}

/// Numbers of linux/capability.h.
const NET_ADMIN: u32 = 12;
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

/// What reading and writing maps and putting programs on devices needs.
pub(super) fn privileges() -> Result<(), KernelError> {
    let path = Path::new("/proc/thread-self/status");
    let status = std::fs::read_to_string(path).map_err(KernelError::path("reading", path))?;
    let missing = missing_capabilities(&status);
    if missing.is_empty() { Ok(()) } else { Err(KernelError::Privileges { missing: missing.join(", ") }) }
}

fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    let has = |bit: u32| effective & (1 << bit) != 0;
    // CAP_SYS_ADMIN still implies the two that were split from it in Linux 5.8.
    [
        ("CAP_BPF", has(BPF) || has(SYS_ADMIN)),
        ("CAP_NET_ADMIN", has(NET_ADMIN)),
        ("CAP_PERFMON", has(PERFMON) || has(SYS_ADMIN)),
    ]
    .into_iter()
    .filter_map(|(name, present)| (!present).then_some(name))
    .collect()
}

fn kernel_version() -> Result<(), KernelError> {
    let path = Path::new("/proc/sys/kernel/osrelease");
    let release = std::fs::read_to_string(path).map_err(KernelError::path("reading", path))?;
    let release = release.trim();
    if parse_release(release).is_some_and(|version| version >= MINIMUM) {
        return Ok(());
    }
    Err(KernelError::KernelTooOld { found: release.to_owned(), minimum: format!("{}.{}", MINIMUM.0, MINIMUM.1) })
}

fn parse_release(release: &str) -> Option<(u8, u8)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_capabilities_that_are_missing() {
        let status = |mask: u64| format!("Name:\tsheave\nCapEff:\t{mask:016x}\nCapBnd:\tffffffffffffffff\n");
        let all = 1 << NET_ADMIN | 1 << PERFMON | 1 << BPF;
        assert!(missing_capabilities(&status(all)).is_empty());
        assert!(missing_capabilities(&status(1 << NET_ADMIN | 1 << SYS_ADMIN)).is_empty());
        assert_eq!(missing_capabilities(&status(1 << SYS_ADMIN)), ["CAP_NET_ADMIN"]);
        assert_eq!(missing_capabilities(&status(0)), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
        assert_eq!(missing_capabilities("").len(), 3);
    }

    #[test]
    fn reads_the_releases_of_distributions() {
        for (release, version) in [
            ("6.18.0", Some((6, 18))),
            ("5.15.0-91-generic", Some((5, 15))),
            ("6.1-rc3+", Some((6, 1))),
            ("5", None),
            ("", None),
        ] {
            assert_eq!(parse_release(release), version, "{release}");
        }
    }
}
