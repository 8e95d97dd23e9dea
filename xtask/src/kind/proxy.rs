//! Who answers at the addresses of Services.

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use super::cluster::{Cluster, feed, output};
use super::state::CLUSTER;
use crate::{command, workspace};

/// How long a rollout may take. A node unpacks the image of a first pod, and the machine may be busy.
const LIMIT: &str = "--timeout=300s";

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Provider {
    /// This checkout's, by deploy/kind
    Sheave,
    /// Kubernetes' own, in nftables mode
    KubeProxy,
    /// Nobody: Services have addresses, and none answers
    None,
}

impl Provider {
    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sheave => "sheave",
            Self::KubeProxy => "kube-proxy",
            Self::None => "none",
        }
    }
}

/// Installs it, and waits until it runs on every node and the cluster's name service, which needs it, is ready. Sheave's
/// image must be in the nodes.
///
/// # Errors
/// It does not become ready in time.
pub fn install(cluster: &Cluster, proxy: Provider) -> Result<()> {
    match proxy {
        Provider::None => return Ok(()),
        Provider::Sheave => {
            let manifests = workspace::root().join("deploy/kind");
            command::run(&mut cluster.kubectl(["apply", "--kustomize", &manifests.to_string_lossy()]))?;
            rollout(cluster, "daemonset/sheave")?;
        }
        Provider::KubeProxy => kube_proxy(cluster)?,
    }
    rollout(cluster, "deployment/coredns")
}

/// Waits until a workload of kube-system is rolled out.
///
/// # Errors
/// It is not in time.
pub fn rollout(cluster: &Cluster, workload: &str) -> Result<()> {
    command::run(&mut cluster.kubectl(["rollout", "status", "--namespace", "kube-system", workload, LIMIT]))
}

/// kubeadm's own phase, which kind leaves out for `kubeProxyMode: none`, by the configuration that kind gave kubeadm.
fn kube_proxy(cluster: &Cluster) -> Result<()> {
    let node = format!("{CLUSTER}-control-plane");
    let given = output(&mut cluster.on_node(&node, ["cat", "/kind/kubeadm.conf"]))?;
    // The size of the table of connections cannot be written in a network namespace.
    let own = "---\napiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: nftables\n\
               conntrack:\n  maxPerCore: 0\n  min: 0\n";
    let script = "cat > /kind/kube-proxy.conf && kubeadm init phase addon kube-proxy --config /kind/kube-proxy.conf";
    let mut phase = cluster.on_node(&node, ["sh", "-c", script]);
    feed(&mut phase, &format!("{}\n{own}", given.trim_end())).context("kubeadm's phase for kube-proxy")?;
    rollout(cluster, "daemonset/kube-proxy")
}
