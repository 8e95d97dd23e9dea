use std::fmt;

use anyhow::{Context, Result, bail};

use super::{
    Addresses, Client, Cluster, Directory, Fabric, Manifests, Namespace, Node, Place, Pod, Site,
    bpffs::Bpffs,
    identity::Identity,
    node::Layout,
    plan,
    process::{self, Lifetime},
    residue,
};

/// How pods are linked to their node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cni {
    /// A veth to the node, whose host side has no address, with a route per pod and proxy ARP (as Calico).
    #[default]
    Routed,
    /// A port of a bridge that has the gateway's address (as the bridge CNI), without br_netfilter.
    Bridge,
}

impl Cni {
    pub const BOTH: [Self; 2] = [Self::Routed, Self::Bridge];
}

impl fmt::Display for Cni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Routed => "routed",
            Self::Bridge => "bridge",
        })
    }
}

/// How pod networks of different nodes are joined, if not by plain routes over the fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlay {
    Vxlan,
}

/// Says what a cluster is made of. By default two nodes without pods, routed, no overlay, no VLAN.
#[derive(Clone, Debug)]
pub struct ClusterBuilder {
    nodes: u8,
    cni: Cni,
    overlay: Option<Overlay>,
    vlan: Option<u16>,
    pods: Vec<(u8, String)>,
    keep: Option<String>,
}

impl Default for ClusterBuilder {
    fn default() -> Self {
        Self { nodes: 2, cni: Cni::default(), overlay: None, vlan: None, pods: Vec::new(), keep: None }
    }
}

impl ClusterBuilder {
    /// Number of nodes, at most 200; they are called `node1`, `node2` and so on.
    pub fn nodes(mut self, count: u8) -> Self {
        self.nodes = count;
        self
    }

    pub fn cni(mut self, cni: Cni) -> Self {
        self.cni = cni;
        self
    }

    pub fn overlay(mut self, overlay: Overlay) -> Self {
        self.overlay = Some(overlay);
        self
    }

    /// Nodes reach the fabric through this VLAN of `eth0`.
    pub fn vlan(mut self, id: u16) -> Self {
        self.vlan = Some(id);
        self
    }

    /// A pod on the node with this number. Names are unique, at most ten characters.
    pub fn pod(mut self, node: u8, name: &str) -> Self {
        self.pods.push((node, name.to_owned()));
        self
    }

    /// The cluster is to outlive the process ([`Cluster::leave`]) under this name, in which no digit comes first. One
    /// that was left before under the same name is removed.
    pub fn keep(mut self, name: &str) -> Self {
        self.keep = Some(name.to_owned());
        self
    }

    /// Makes it.
    ///
    /// # Errors
    /// Not root, a tool is missing, or the description contradicts itself. What was made until then is removed.
    pub fn build(self) -> Result<Cluster> {
        require_root()?;
        self.check()?;
        residue::sweep().context("remove what dead processes left")?;
        let (identity, lifetime) = match &self.keep {
            Some(name) => (Identity::Kept(name.clone()), Lifetime::Own),
            None => (Identity::unique(), Lifetime::Parent),
        };
        if let Some(name) = &self.keep {
            residue::remove_kept(name).context("remove the cluster of the same name")?;
        }
        let cluster = self.make(&identity, lifetime)?;
        cluster.configure()?;
        cluster.manifests.nodes(&cluster.nodes)?;
        Ok(cluster)
    }

    fn check(&self) -> Result<()> {
        if self.nodes == 0 || self.nodes > 200 {
            bail!("{} nodes: 1 to 200 are possible", self.nodes);
        }
        for (at, (node, name)) in self.pods.iter().enumerate() {
            if *node == 0 || *node > self.nodes {
                bail!("pod {name} is on node {node} of {}", self.nodes);
            }
            if name.is_empty() || name.len() > 10 {
                bail!("pod name {name:?}: 1 to 10 characters, since a device has 15");
            }
            if self.pods.iter().take(at).any(|(_, other)| other == name) {
                bail!("two pods {name}");
            }
        }
        if self.pods.len() > 200 {
            bail!("more than 200 pods");
        }
        Ok(())
    }

    /// All namespaces and files, empty.
    fn make(&self, identity: &Identity, lifetime: Lifetime) -> Result<Cluster> {
        let roles = ["fabric".to_owned(), "client".to_owned()]
            .into_iter()
            .chain((1..=self.nodes).map(|number| format!("node{number}")))
            .chain(self.pods.iter().map(|(_, name)| format!("pod-{name}")));
        let names: Vec<String> = roles.map(|role| identity.namespace(&role)).collect();
        let directory = Directory::create(identity)?;
        let path = directory.0.clone();
        let manifests = Manifests::create(path.join("manifests"))?;
        let bpf = path.join(residue::BPF);
        let bpffs = Bpffs::mount(bpf.clone())?;
        let mut namespaces = Namespace::create(&names)?.into_iter();
        // In the order of the names above.
        let mut site = |name: &str, addresses| -> Result<Site> {
            let namespace = namespaces.next().context("as many namespaces as names")?;
            Ok(Site { name: name.to_owned(), namespace, addresses, directory: path.clone(), lifetime })
        };

        let fabric = Fabric { site: site("fabric", plan::FABRIC)? };
        let client = Client { site: site("client", plan::CLIENT)? };
        let mut nodes = Vec::with_capacity(self.nodes.into());
        for number in 1..=self.nodes {
            let name = format!("node{number}");
            nodes.push(Node { site: site(&name, plan::node(number))?, number, pin_dir: bpf.join(&name) });
        }
        let mut pods = Vec::with_capacity(self.pods.len());
        for (at, (node, name)) in self.pods.iter().enumerate() {
            let site = site(name, plan::in_pod_network(*node, 10 + at as u8))?;
            pods.push(Pod { site, node: format!("node{node}"), node_number: *node });
        }
        Ok(Cluster {
            pods,
            nodes,
            client,
            fabric,
            manifests,
            bpffs,
            directory,
            identity: identity.clone(),
            description: self.clone(),
        })
    }
}

impl Cluster {
    /// Adds a pod while everything runs, as a CNI does.
    ///
    /// # Errors
    /// As [`ClusterBuilder::build`].
    pub fn add_pod(&mut self, node: u8, name: &str) -> Result<&Pod> {
        self.add(node, name, plan::in_pod_network(node, 10 + self.pods.len() as u8))
    }

    /// Adds what is linked like a pod and is none, with addresses outside of the cluster's: a virtual machine or a
    /// container of another kind.
    ///
    /// # Errors
    /// As [`ClusterBuilder::build`].
    pub fn add_machine(&mut self, node: u8, name: &str, addresses: Addresses) -> Result<&Pod> {
        self.add(node, name, addresses)
    }

    fn add(&mut self, node: u8, name: &str, addresses: Addresses) -> Result<&Pod> {
        self.description.pods.push((node, name.to_owned()));
        self.description.check()?;
        let mut made = Namespace::create(&[self.identity.namespace(&format!("pod-{name}"))])?;
        let owner = self.node(node.into());
        let site = Site {
            name: name.to_owned(),
            namespace: made.pop().context("the namespace asked for")?,
            addresses,
            directory: self.directory.0.clone(),
            lifetime: owner.lifetime(),
        };
        let pod = Pod { site, node: owner.name().to_owned(), node_number: node };
        pod.configure(owner, &self.layout())?;
        self.pods.push(pod);
        Ok(self.pod(name))
    }

    fn layout(&self) -> Layout {
        let ClusterBuilder { cni, overlay, vlan, nodes, .. } = self.description;
        Layout { cni, overlay, vlan, nodes }
    }

    fn configure(&self) -> Result<()> {
        let layout = self.layout();
        self.nodes.iter().try_for_each(Node::set_defaults)?;
        self.fabric.configure(&self.nodes, self.client.namespace(), layout.vlan)?;
        self.client.configure()?;
        for node in &self.nodes {
            node.configure(&layout)?;
            let entries = node.forwarding_entries(&layout);
            for entry in entries.lines() {
                let mut command = node.command("bridge");
                command.args(entry.split_whitespace());
                process::output(command)?;
            }
        }
        for pod in &self.pods {
            pod.configure(self.node(pod.node_number.into()), &layout)?;
        }
        Ok(())
    }
}

/// # Errors
/// Not root.
pub fn require_root() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("network namespaces and BPF programs need root: run this as root, for example with sudo -E");
    }
    Ok(())
}
