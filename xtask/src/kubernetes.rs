//! The control plane that the Kubernetes suite runs: real etcd, kube-apiserver, kube-controller-manager and kubectl.
//!
//! A ready program is taken from where envtest's users have it (`KUBEBUILDER_ASSETS`), then from the cache. What is still
//! missing is built there from `tests/kubernetes/go.mod`.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::go_programs;

const PROGRAMS: [&str; 4] = ["kube-apiserver", "kube-controller-manager", "kubectl", "etcd"];

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
/// Go is missing or a build fails.
pub fn control_plane() -> Result<ControlPlane> {
    let assets = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let ready = |name: &str| assets.as_ref().map(|assets| assets.join(name)).filter(|file| file.is_file());
    let missing: Vec<&str> = PROGRAMS.into_iter().filter(|name| ready(name).is_none()).collect();
    let to_build = go_programs::missing(&missing)?;
    if !to_build.is_empty() {
        eprintln!("setup: building {} (about 6 minutes)", to_build.join(", "));
        go_programs::ensure(&to_build).context("the control plane (or set KUBEBUILDER_ASSETS)")?;
    }
    let mut programs = Vec::new();
    for name in PROGRAMS {
        programs.push((name, ready(name).map_or_else(|| go_programs::path(name), Ok)?));
    }
    Ok(ControlPlane(programs))
}
