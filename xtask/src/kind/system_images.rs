//! The images that kubeadm wants on a node, named as it names them: each a program of ours and what it needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{node_base, program};
use crate::oci::{Compression, Image, Layer};
use crate::{command, go_programs};

/// Those of Kubernetes that run in pods.
const IN_PODS: [&str; 4] = ["kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler"];

/// Every program that a cluster is made of.
pub const PROGRAMS: [&str; 10] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubeadm",
    "kubectl",
    "kubelet",
    "etcd",
    "coredns",
    "kind",
];

/// The names, as kubeadm has them for this version of Kubernetes.
///
/// # Errors
/// kubeadm cannot be run.
pub fn names() -> Result<Vec<String>> {
    let mut kubeadm = Command::new(go_programs::path("kubeadm")?);
    kubeadm.args(["config", "images", "list", "--kubernetes-version", &go_programs::kubernetes_version()?]);
    let list = command::output(&mut kubeadm).context("kubeadm does not say which images it wants")?;
    Ok(list.lines().map(str::to_owned).collect())
}

/// That of the container which holds a pod's namespaces.
///
/// # Errors
/// As [`names`], or there is none.
pub fn pause() -> Result<String> {
    names()?.into_iter().find(|name| stem(name) == "pause").context("kubeadm wants no pause image")
}

/// Writes an archive per image into a folder.
///
/// # Errors
/// A program is missing, or the folder cannot be written.
pub fn write(folder: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut archives = Vec::new();
    for name in names()? {
        let program = stem(&name);
        let archive = folder.join(format!("{program}.tar"));
        fs::write(&archive, image(&name, program, folder)?)
            .with_context(|| format!("cannot write {}", archive.display()))?;
        archives.push(archive);
    }
    Ok(archives)
}

fn image(name: &str, program: &str, folder: &Path) -> Result<Vec<u8>> {
    let mut layer = Layer::new();
    layer.folder("/tmp", 0o1777)?;
    // The static pods of kubeadm name their programs without a path, the Deployment of CoreDNS its arguments alone.
    let path = format!("/usr/local/bin/{program}");
    let entrypoint = match program {
        "pause" => {
            layer.program(&path, &build_pause(folder)?)?;
            vec![path]
        }
        "coredns" => {
            layer.program(&path, &go_programs::path(program)?)?;
            vec![path]
        }
        "etcd" => {
            layer.program(&path, &go_programs::path(program)?)?;
            Vec::new()
        }
        known if IN_PODS.contains(&known) => {
            layer.program(&path, &go_programs::path(program)?)?;
            if program == "kube-proxy" {
                // What it writes rules with, in the mode that is used here.
                program::add(&mut layer, node_base::entry().path(), "nft")?;
            }
            Vec::new()
        }
        _ => bail!("kubeadm wants an image {name}, and nothing says how it is made"),
    };
    let name = name.parse().with_context(|| format!("{name} is no name of an image"))?;
    let image = Image {
        name,
        entrypoint,
        command: Vec::new(),
        labels: Default::default(),
        created: None,
        created_by: "cargo xtask kind up",
        compression: Compression::None,
    };
    image.archive(layer)
}

/// From Kubernetes' own source, in Go's module cache.
fn build_pause(folder: &Path) -> Result<PathBuf> {
    let source = go_programs::module_source("k8s.io/kubernetes")?.join("build/pause/linux/pause.c");
    let program = folder.join("pause");
    let mut cc = Command::new("cc");
    cc.args(["-Os", "-static", "-s", "-DVERSION=kind", "-o"]).arg(&program).arg(source);
    command::run(&mut cc)?;
    Ok(program)
}

/// `registry.k8s.io/coredns/coredns:v1.14.2` to `coredns`.
fn stem(name: &str) -> &str {
    let last = name.rsplit('/').next().unwrap_or(name);
    last.split(':').next().unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_known_by_the_last_part_of_their_name() {
        assert_eq!(stem("registry.k8s.io/coredns/coredns:v1.14.2"), "coredns");
        assert_eq!(stem("localhost:5000/pause"), "pause");
    }
}
