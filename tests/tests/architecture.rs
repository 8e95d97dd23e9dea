//! The rules of ARCHITECTURE.md and CONTRIBUTING.md that a machine can check.

use std::fs;
use std::path::{Path, PathBuf};

const CRATES: [&str; 5] = ["proxy-common", "proxy-ebpf", "proxy-userspace", "tests", "xtask"];

/// A Rust file of the workspace: its path from the root, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Code lines with their numbers, without comments.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().filter_map(|(at, line)| {
            let code = line.split("//").next().unwrap_or_default();
            (!code.trim().is_empty()).then_some((at + 1, code))
        })
    }

    /// The lines before the unit tests of the file, which may use what the code may not; none of a file of such tests.
    fn untested_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_code = !self.path.ends_with("_tests.rs");
        self.lines().take_while(move |(_, line)| is_code && line.trim() != "#[cfg(test)]")
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(below: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(below)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|cause| panic!("{}: {cause}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root()).unwrap().display().to_string();
                found.push(Source { path, text });
            }
        }
    }
    assert!(!found.is_empty(), "no Rust file below {below}");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Whether a line of code names `word` as a whole path: `aya` is in `use aya::maps`, but not in `aya_log` or `playa`.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let is_part = |character: Option<char>| character.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !is_part(line[..at].chars().next_back()) && !is_part(line[at + word.len()..].chars().next())
    })
}

/// Fails with every line of `below` outside of `except` that names one of `words`.
fn forbid(below: &str, except: &[&str], words: &[&str]) {
    let mut found = Vec::new();
    for source in sources(below).iter().filter(|source| !except.iter().any(|prefix| source.path.starts_with(prefix))) {
        for (number, line) in source.untested_lines() {
            for word in words.iter().filter(|word| names(line, word)) {
                found.push(format!("{}:{number}: {word}", source.path));
            }
        }
    }
    assert!(found.is_empty(), "not allowed in {below}:\n{}", found.join("\n"));
}

#[test]
fn the_datapath_knows_neither_aya_nor_kubernetes_nor_the_standard_library() {
    forbid("proxy-common/src", &[], &["aya", "aya_ebpf", "kube", "k8s_openapi", "std", "unsafe"]);
    let lib = fs::read_to_string(root().join("proxy-common/src/lib.rs")).unwrap();
    assert!(lib.contains("#![no_std]") && lib.contains("#![forbid(unsafe_code)]"));
}

#[test]
fn only_the_kernel_module_imports_aya() {
    forbid("proxy-userspace/src", &["proxy-userspace/src/kernel/"], &["aya", "aya_log", "aya_obj"]);
}

#[test]
fn model_desired_and_reconcile_are_pure() {
    let outside =
        ["tokio", "kube", "rtnetlink", "nix", "libc", "tracing", "std::fs", "std::env", "Instant", "SystemTime"];
    let sockets = ["TcpStream", "TcpListener", "UdpSocket", "UnixStream", "unsafe"];
    for module in ["model", "desired", "reconcile"] {
        forbid(&format!("proxy-userspace/src/{module}"), &[], &[&outside[..], &sockets[..]].concat());
    }
    for module in ["desired", "reconcile"] {
        forbid(&format!("proxy-userspace/src/{module}"), &[], &["k8s_openapi"]);
    }
}

#[test]
fn imports_point_inward() {
    for (module, outer) in [
        ("model", &["source", "desired", "reconcile", "kernel", "config", "health", "cli", "agent"][..]),
        ("desired", &["source", "reconcile", "kernel", "config", "health", "cli", "agent"]),
        ("reconcile", &["source", "kernel", "config", "health", "cli", "agent"]),
        ("kernel", &["source", "config", "health", "cli", "agent"]),
        ("source", &["desired", "reconcile", "kernel", "health", "cli", "agent"]),
        ("config", &["desired", "reconcile", "kernel", "health", "cli", "agent"]),
        ("health", &["source", "model", "desired", "reconcile", "kernel", "config", "cli", "agent"]),
    ] {
        let paths: Vec<String> = outer.iter().map(|outer| format!("crate::{outer}")).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        forbid(&format!("proxy-userspace/src/{module}"), &[], &paths);
    }
}

#[test]
fn unsafe_code_has_its_places() {
    // The calibrator is a yardstick of its own, not a host of the datapath.
    let hosts = ["proxy-ebpf/src/context/", "proxy-ebpf/src/tables", "proxy-ebpf/src/bin/calibrator.rs"];
    forbid("proxy-ebpf/src", &hosts, &["unsafe {"]);
    forbid("proxy-userspace/src", &["proxy-userspace/src/kernel/"], &["unsafe"]);
}

#[test]
fn files_have_one_idea() {
    let mut lengths = Vec::new();
    for source in CRATES.iter().flat_map(|below| sources(below)) {
        let stem = Path::new(&source.path).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        assert!(
            !["util", "utils", "type", "types", "common", "helper", "helpers", "misc"].contains(&stem),
            "{} is named for a container, not an idea",
            source.path
        );
        let length = source.text.lines().count();
        assert!(length <= 500, "{} has {length} lines: is there a second idea in it?", source.path);
        lengths.push(length);
    }
    lengths.sort_unstable();
    let ninth = lengths[lengths.len() * 9 / 10];
    assert!(ninth <= 350, "nine files in ten have at most {ninth} lines; 350 is the aim");
}
