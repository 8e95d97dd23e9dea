//! The file system that nodes are made of: Debian 12, whose systemd still works on a machine with control groups of version
//! 1 (later ones refuse, systemd's NEWS of 256), with what a node and the workload images need.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::cache::{self, Entry};
use crate::{command, workspace};

const SUITE: &str = "bookworm";

/// As in kind's own base image (images/base/Dockerfile of its module), but for what storage plug-ins need.
const NODE: [&str; 19] = [
    "bash",
    "ca-certificates",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "curl",
    "e2fsprogs",
    "ethtool",
    "iproute2",
    "iptables",
    "jq",
    "kmod",
    "mount",
    "nftables",
    "pigz",
    "procps",
    "runc",
    "systemd",
    "util-linux",
];
/// What else is taken into images for pods.
const WORKLOADS: [&str; 4] = ["busybox", "iperf3", "iputils-ping", "netcat-openbsd"];

pub fn entry() -> Entry {
    Entry::new("node-base", &key())
}

/// Stands for the packages, not for their versions: those of the day on which it is made.
pub fn key() -> String {
    cache::key([SUITE].iter().chain(&NODE).chain(&WORKLOADS))
}

/// Makes the folder by mmdebstrap.
///
/// # Errors
/// It fails.
pub fn make() -> Result<()> {
    entry().make(|folder| command::run(&mut bootstrap(folder)))
}

fn bootstrap(folder: &Path) -> Command {
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap.env("HOME", workspace::home_dir());
    mmdebstrap.args(["--variant=minbase", "--format=directory"]);
    mmdebstrap.arg(format!("--include={}", [&NODE[..], &WORKLOADS[..]].concat().join(",")));
    for unneeded in ["doc", "info", "locale", "man"] {
        mmdebstrap.arg(format!("--dpkgopt=path-exclude=/usr/share/{unneeded}/*"));
    }
    mmdebstrap.arg(SUITE).arg(folder);
    mmdebstrap
}
