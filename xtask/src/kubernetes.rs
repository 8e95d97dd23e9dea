//! The control plane that the Kubernetes suite runs: real etcd, kube-apiserver, kube-controller-manager and kubectl.
//!
//! A ready program is taken from where envtest's users have it (`KUBEBUILDER_ASSETS`), then from the cache. What is still
//! missing is built there from `tests/kubernetes/go.mod`; etcd is unpacked from Debian's package.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::{command, setup, workspace};

/// The release that `tests/kubernetes/go.mod` requires.
const VERSION: &str = "v1.36.3";
const COMMANDS: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kubectl"];

/// Programs by their name.
pub struct ControlPlane(Vec<(&'static str, PathBuf)>);

impl ControlPlane {
    /// How the test program is told: variables of envtest's form, `TEST_ASSET_KUBE_APISERVER` and so on.
    pub fn environment(&self) -> impl Iterator<Item = (String, &Path)> {
        let variable = |name: &str| format!("TEST_ASSET_{}", name.to_uppercase().replace('-', "_"));
        self.0.iter().map(move |(name, path)| (variable(name), path.as_path()))
    }
}

/// Finds, or makes, every program.
///
/// # Errors
/// Go is missing or a build fails; etcd is missing and this is not Debian.
pub fn control_plane() -> Result<ControlPlane> {
    let built = workspace::cache_dir().join("kubernetes").join(VERSION);
    let missing: Vec<&str> = COMMANDS.into_iter().filter(|name| find(name, &built).is_none()).collect();
    if !missing.is_empty() {
        build(&missing, &built)?;
    }
    let mut programs = Vec::new();
    for name in COMMANDS {
        programs.push((name, find(name, &built).with_context(|| format!("{name} was built, and is not there"))?));
    }
    programs.push(("etcd", etcd()?));
    Ok(ControlPlane(programs))
}

fn find(name: &str, cached: &Path) -> Option<PathBuf> {
    let assets = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    assets.iter().map(PathBuf::as_path).chain([cached]).map(|dir| dir.join(name)).find(|file| file.is_file())
}

fn build(missing: &[&str], into: &Path) -> Result<()> {
    if workspace::find_program("go").is_none() {
        bail!("building {} {VERSION} needs Go 1.26 or later (or set KUBEBUILDER_ASSETS)", missing.join(", "));
    }
    eprintln!("setup: building {} {VERSION} into {} (about 6 minutes)", missing.join(", "), into.display());
    // Built beside and moved at the end: an interrupted build must not look like a finished one.
    let partial = into.with_file_name(format!("{VERSION}.partial"));
    fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    let (major, minor) = VERSION.trim_start_matches('v').split_once('.').unwrap_or_default();
    let minor = minor.split('.').next().unwrap_or_default();
    let package = "k8s.io/component-base/version";
    let stamp =
        format!("-s -w -X {package}.gitVersion={VERSION} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}");
    let mut go = command::in_workspace("go");
    go.current_dir(workspace::root().join("tests/kubernetes"));
    go.args(["build", "-mod=readonly", "-buildvcs=false", "-ldflags", &stamp, "-o"]).arg(partial.join(""));
    command::run(go.args(missing.iter().map(|name| format!("k8s.io/kubernetes/cmd/{name}"))))?;
    fs::create_dir_all(into).with_context(|| format!("cannot make {}", into.display()))?;
    for name in missing {
        fs::rename(partial.join(name), into.join(name)).with_context(|| format!("cannot move {name}"))?;
    }
    fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))
}

/// From the assets, the path, or Debian's package, unpacked and not installed: that would start etcd as a service.
fn etcd() -> Result<PathBuf> {
    let cache = workspace::cache_dir().join("etcd");
    let unpacked = cache.join("usr/bin");
    if let Some(found) = find("etcd", &unpacked).or_else(|| workspace::find_program("etcd")) {
        return Ok(found);
    }
    setup::download("etcd-server", &cache)?;
    find("etcd", &unpacked).context("Debian's etcd-server has no usr/bin/etcd")
}
