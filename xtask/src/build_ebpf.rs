//! Builds the kernel object alone, the way `aya-build` does for the agent, and lists the programs in it.
//!
//! Always with the release profile: the verifier refuses what rustc makes without optimisation.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{command, setup, workspace};

const TARGET: &str = if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };

pub fn run() -> Result<()> {
    setup::build_tools()?;
    command::run(cargo("build").args(["--bins", "--release"]))?;
    let object = workspace::target_dir().join(TARGET).join("release").join("sheave-ebpf");
    println!("{}", object.display());
    for (section, programs) in programs(&object)? {
        println!("  {section}: {}", programs.join(" "));
    }
    Ok(())
}

/// A cargo verb for the kernel crate and its target.
pub fn cargo(verb: &str) -> Command {
    let mut cargo = command::cargo();
    cargo.args([verb, "--package", "proxy-ebpf", "--target", TARGET, "-Z", "build-std=core"]);
    // `-Z build-std` and the crate's own unstable features, on the stable compiler.
    cargo.env("RUSTC_BOOTSTRAP", "1");
    let arch = std::env::consts::ARCH;
    let flags = [&*format!("--cfg=bpf_target_arch=\"{arch}\""), "-Cdebuginfo=2", "-Clink-arg=--btf"];
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    cargo
}

/// The programs of an object by their section. A program is a global function outside `.text`.
fn programs(object: &Path) -> Result<BTreeMap<String, Vec<String>>> {
    let read = |what: &str| {
        command::output(Command::new("readelf").args(["--wide", what]).arg(object))
            .with_context(|| format!("readelf {what} {}", object.display()))
    };
    let sections: BTreeMap<String, String> = read("--section-headers")?.lines().filter_map(section).collect();
    let mut programs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (index, name) in read("--symbols")?.lines().filter_map(global_function) {
        if let Some(section) = sections.get(&index).filter(|section| *section != ".text") {
            programs.entry(section.clone()).or_default().push(name);
        }
    }
    Ok(programs)
}

/// `  [ 3] classifier        PROGBITS ...` to `("3", "classifier")`.
fn section(line: &str) -> Option<(String, String)> {
    let (index, rest) = line.trim_start().strip_prefix('[')?.split_once(']')?;
    Some((index.trim().to_owned(), rest.split_whitespace().next()?.to_owned()))
}

/// `  9: 0000000000000000   512 FUNC    GLOBAL DEFAULT    3 pod_ingress` to `("3", "pod_ingress")`.
fn global_function(line: &str) -> Option<(String, String)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, _, _, "FUNC", "GLOBAL", _, section, name] = fields[..] else { return None };
    Some((section.to_owned(), name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readelf_lines_are_understood() {
        let header = "  [ 3] classifier        PROGBITS        0000000000000000 000040 000010 00  AX  0   0  8";
        assert_eq!(section(header), Some(("3".to_owned(), "classifier".to_owned())));
        assert_eq!(section("Section Headers:"), None);
        let function = "     9: 0000000000000000   512 FUNC    GLOBAL DEFAULT    3 pod_ingress";
        assert_eq!(global_function(function), Some(("3".to_owned(), "pod_ingress".to_owned())));
        assert_eq!(global_function("     1: 0000000000000000     0 FILE    LOCAL  DEFAULT  ABS x.rs"), None);
    }
}
