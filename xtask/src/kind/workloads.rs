//! Images for pods: a server and client that say who they are, iperf3, and a shell with tools. Small, since every node gets
//! its copy.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::cache::{self, Entry};
use super::{node_base, program};
use crate::oci::{Compression, Image, Layer};
use crate::{command, workspace};

/// `traffic` of the tests crate: `serve --name $(POD_NAME)` answers HTTP and UDP on port 8080, its other verbs ask.
pub const WEB: &str = "docker.io/library/sheave-web:dev";
pub const IPERF3: &str = "docker.io/library/sheave-iperf3:dev";
/// busybox (its `nslookup` among others), curl, ip, nc, ping. Without arguments it waits until it is told to end.
pub const SHELL: &str = "docker.io/library/sheave-shell:dev";

/// The first process of a container ends by no signal that it does not handle.
const WAIT: &str = "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done";

const APPLETS: [&str; 24] = [
    "sh", "cat", "cut", "date", "echo", "env", "grep", "head", "hostname", "id", "ls", "mkdir", "nslookup", "ps", "rm",
    "sed", "seq", "sleep", "sort", "tail", "timeout", "true", "uniq", "wc",
];
const TOOLS: [&str; 4] = ["curl", "ip", "nc.openbsd", "ping"];

/// Archives with all of them, ready for [`super::Cluster::load`]. What is in the cache already is not made again.
///
/// # Errors
/// The tests crate does not build, or a program is missing.
pub fn archives() -> Result<Vec<PathBuf>> {
    command::run(command::cargo().args(["build", "--package", "proxy-tests", "--bin", "traffic"]))?;
    let traffic = workspace::target_dir().join("debug/traffic");
    let content = fs::read(&traffic).with_context(|| format!("cannot read {}", traffic.display()))?;
    let recipe = cache::key([include_bytes!("workloads.rs").to_vec(), node_base::key().into_bytes(), content]);
    let images: [(&str, &str, Build, &str, &[&str]); 3] = [
        ("web", WEB, Build::Web(&traffic), "/usr/bin/traffic", &[]),
        ("iperf3", IPERF3, Build::Iperf3, "/usr/bin/iperf3", &["--server"]),
        ("shell", SHELL, Build::Shell, "/usr/bin/sh", &["-c", WAIT]),
    ];
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let mut archives = Vec::new();
    for (entry, name, build, entrypoint, command) in images {
        let entry = Entry::new(entry, &recipe);
        entry.make(|file| {
            let image = Image {
                name: name.parse().with_context(|| format!("{name} is no name of an image"))?,
                entrypoint: words(&[entrypoint]),
                command: words(command),
                labels: Default::default(),
                created: None,
                created_by: "cargo xtask kind up",
                compression: Compression::Best,
            };
            fs::write(file, image.archive(build.layer()?)?).with_context(|| format!("cannot write {}", file.display()))
        })?;
        archives.push(entry.path().to_owned());
    }
    Ok(archives)
}

enum Build<'a> {
    Web(&'a Path),
    Iperf3,
    Shell,
}

impl Build<'_> {
    fn layer(&self) -> Result<Layer> {
        let base = node_base::entry();
        let root = base.path();
        let mut layer = Layer::new();
        layer.folder("/tmp", 0o1777)?;
        match self {
            Self::Web(traffic) => program::add_own(&mut layer, traffic, "/usr/bin/traffic")?,
            Self::Iperf3 => program::add(&mut layer, root, "iperf3")?,
            Self::Shell => {
                program::add(&mut layer, root, "busybox")?;
                for applet in APPLETS {
                    layer.link(&format!("/usr/bin/{applet}"), "busybox")?;
                }
                TOOLS.into_iter().try_for_each(|tool| program::add(&mut layer, root, tool))?;
                layer.link("/usr/bin/nc", "nc.openbsd")?;
                layer.link("/bin", "usr/bin")?;
            }
        }
        Ok(layer)
    }
}
