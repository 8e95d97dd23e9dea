//! Who answers at the addresses of Services, and `cargo xtask kind proxy`: another one in its place.

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::cluster::{Cluster, feed, output};
use super::progress::say;
use super::state::{self, CLUSTER, Record};
use crate::{command, image, machine, workspace};

/// How long a rollout may take. A node unpacks the image of a first pod, and the machine may be busy.
const LIMIT: &str = "--timeout=300s";

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provider {
    /// This checkout's, by deploy/kind
    Sheave,
    /// Kubernetes' own, in nftables mode
    KubeProxy,
    /// Nobody: Services have addresses, and none answers
    #[default]
    None,
}

#[derive(clap::Args)]
pub struct Options {
    /// Who is to answer
    #[arg(value_enum)]
    proxy: Provider,
    /// Sheave's image is in the nodes already: take that one
    #[arg(long)]
    loaded: bool,
}

/// Puts another proxy in the place of the one that the cluster has.
///
/// # Errors
/// No cluster is up, the one does not go, or the other does not come.
pub fn switch(options: &Options) -> Result<()> {
    machine::require_root("kind proxy")?;
    let _lock = state::lock()?;
    let cluster = Cluster::running()?;
    let mut record = Record::of_running()?;
    if options.proxy == Provider::Sheave && !options.loaded {
        cluster.load(&image::build(&image::Options::default())?)?;
    }
    if record.proxy != options.proxy {
        remove(&cluster, record.proxy).with_context(|| format!("remove {}", record.proxy.name()))?;
        record.proxy = Provider::None;
        record.save()?;
    }
    install(&cluster, options.proxy)?;
    record.proxy = options.proxy;
    record.save()?;
    say(&format!("proxy {}", options.proxy.name()));
    Ok(())
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
            command::run(&mut cluster.kubectl(["apply", "--kustomize", &manifests("kind")]))?;
            rollout(cluster, "daemonset/sheave")?;
        }
        Provider::KubeProxy => kube_proxy(cluster)?,
    }
    rollout(cluster, "deployment/coredns")
}

/// So that nothing of it is in any node. What it translated before is forgotten, and pods' connections with it.
fn remove(cluster: &Cluster, proxy: Provider) -> Result<()> {
    let system = ["--namespace", "kube-system"];
    match proxy {
        Provider::None => Ok(()),
        // As deploy/README.md says.
        Provider::Sheave => {
            let patch = manifests("remove.yaml");
            let words = ["patch", "daemonset", "sheave", "--patch-file", &patch];
            command::run(cluster.kubectl(system).args(words))?;
            rollout(cluster, "daemonset/sheave")?;
            command::run(&mut cluster.kubectl(["delete", "--kustomize", &manifests("kind")]))
        }
        Provider::KubeProxy => {
            let words = ["delete", "daemonset/kube-proxy", "configmap/kube-proxy", "--cascade=foreground"];
            command::run(cluster.kubectl(system).args(words))?;
            // Its mode has tables of its own, one for each family (kubernetes, pkg/proxy/nftables).
            let tables = "nft delete table ip kube-proxy && nft delete table ip6 kube-proxy";
            let clean =
                |node: &super::cluster::Node| command::run(&mut cluster.on_node(&node.name, ["sh", "-c", tables]));
            cluster.nodes()?.iter().try_for_each(clean)
        }
    }
}

fn manifests(name: &str) -> String {
    workspace::root().join("deploy").join(name).to_string_lossy().into_owned()
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
