//! A Kubernetes cluster's network made of network namespaces.
//!
//! ```text
//!                 fabric (router and switch)
//!   client ──────── 198.51.100.1 │ 172.18.0.1 ──┬────────────┐
//!   198.51.100.10                          172.18.0.11  172.18.0.12
//!                                            node1        node2      uplink: eth0, or eth0.VLAN
//!                                           ┌──┴──┐      ┌──┴──┐
//!                                           a     b      c     d     pods: routed veth, or a bridge
//!                                       10.244.1.0/24   10.244.2.0/24
//! ```
//!
//! Everything has IPv6 beside IPv4. Pods reach those of other nodes by routes over the fabric, or through vxlan.
//!
//! Namespaces are registered by name, so `ip netns exec sheave-PID-N-node1 bash` lets a human in. Whatever happens to
//! the process, nothing stays: [`Cluster`] removes itself when dropped, and the next cluster to be made first removes
//! those of processes that died ([`residue`]). `SHEAVE_TEST_LOGS=DIR` keeps copies of the logs.

mod agent;
pub mod binary;
mod bpffs;
mod builder;
mod client;
mod fabric;
mod identity;
mod iproute;
mod line;
mod manifests;
mod namespace;
mod node;
mod place;
mod plan;
mod pod;
mod probe;
mod process;
pub mod residue;
mod stage;
pub(crate) mod sysctl;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub use agent::{Agent, AgentOptions};
pub use builder::{ClusterBuilder, Cni, Overlay, require_root};
pub use client::Client;
pub use fabric::{Fabric, why_no_vlans};
pub use line::Line;
pub use manifests::{Endpoint, Manifests, Service, ServicePort};
pub use namespace::Namespace;
pub use node::Node;
pub use place::{Load, Place, Site, log_file};
pub use plan::{Addresses, CLUSTER_CIDRS, Family, SERVICE_CIDRS, service_addresses};
pub use pod::Pod;
pub use probe::Probe;
pub use process::{Lifetime, Process, output};
pub use stage::{Stage, eventually};

use bpffs::Bpffs;
use identity::Identity;

/// The whole of it. Dropping it removes every process, mount, namespace and file of it, unless it was built to be
/// kept.
pub struct Cluster {
    // Namespaces go before the directory that holds the logs; the BPF filesystem goes when nothing uses it.
    pods: Vec<Pod>,
    nodes: Vec<Node>,
    client: Client,
    fabric: Fabric,
    manifests: Manifests,
    #[expect(dead_code, reason = "held for its Drop")]
    bpffs: Bpffs,
    directory: Directory,
    identity: Identity,
    /// What it was built from, with the pods that came later.
    description: ClusterBuilder,
}

impl Cluster {
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// By its number, from 1 on as in its name.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn node(&self, number: usize) -> &Node {
        number.checked_sub(1).and_then(|at| self.nodes.get(at)).unwrap_or_else(|| panic!("no node {number}"))
    }

    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// # Panics
    /// If there is no such pod.
    pub fn pod(&self, name: &str) -> &Pod {
        self.pods.iter().find(|pod| pod.name() == name).unwrap_or_else(|| panic!("no pod {name}"))
    }

    /// The machine outside of the cluster, which knows its nodes only.
    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// The directory of objects that the agents read.
    pub fn manifests(&self) -> &Manifests {
        &self.manifests
    }

    /// Writes the Node objects anew, as they were at first.
    pub fn write_node_objects(&self) -> Result<()> {
        self.manifests.nodes(&self.nodes)
    }

    /// Logs and other files of this cluster; gone with it.
    pub fn directory(&self) -> &Path {
        &self.directory.0
    }

    /// Starts the agent of every node and waits until each says that it is ready.
    pub fn start_agents(&self, options: &AgentOptions) -> Result<Vec<Agent>> {
        let mut agents: Vec<Agent> =
            self.nodes.iter().map(|node| Agent::start(self, node, options)).collect::<Result<_>>()?;
        agents.iter_mut().try_for_each(Agent::wait_ready)?;
        Ok(agents)
    }

    /// Starts the traffic server (see [`crate::traffic::server`]) in every pod.
    pub fn start_servers(&self) -> Result<Vec<Process>> {
        self.pods.iter().map(Place::serve).collect()
    }

    /// Lets everything live on after this process; only for clusters built with [`ClusterBuilder::keep`].
    pub fn leave(self) {
        std::mem::forget(self);
    }
}

/// The files of a cluster.
struct Directory(PathBuf);

impl Directory {
    fn create(identity: &Identity) -> Result<Self> {
        let path = identity.directory();
        std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }
}

/// Where logs are copied to before they go.
const LOGS: &str = "SHEAVE_TEST_LOGS";

impl Drop for Directory {
    fn drop(&mut self) {
        if let (Some(to), Some(name)) = (std::env::var_os(LOGS), self.0.file_name()) {
            let _ = copy_logs(&self.0, &Path::new(&to).join(name));
        }
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn copy_logs(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        if let Some(name) = path.file_name().filter(|_| path.extension().is_some_and(|extension| extension == "log")) {
            std::fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}
