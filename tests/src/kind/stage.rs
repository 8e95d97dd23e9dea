use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::client::{Client, WEB};
use super::cluster::{Cluster, Node, Proxy};
use super::interrupt;
use super::service::Service;
use crate::cluster::Family;
use crate::traffic::server;

/// How many pods stand behind the Service `web`.
pub const REPLICAS: usize = 3;

/// A client on every node and one outside, and a deployment that they ask.
pub struct Stage {
    pub cluster: Cluster,
    pub proxy: Proxy,
    /// The project's manifests.
    pub deploy: PathBuf,
    /// One on each node, in their order.
    pub pods: Vec<Client>,
    /// Of deployment `web`, over TCP.
    pub web: Service,
    /// The same over UDP.
    pub datagrams: Service,
}

impl Stage {
    /// # Errors
    /// Something does not become ready.
    pub fn set(cluster: Cluster, proxy: Proxy, deploy: PathBuf) -> Result<Self> {
        deployment(&cluster, "web", REPLICAS)?;
        let web = Service::expose(&cluster, "web", "web", server::PORT, "")?;
        let datagrams = Service::expose(&cluster, "web", "datagrams", server::PORT, "--protocol UDP")?;
        let pods = cluster.nodes()?.iter().map(|node| Client::on(&cluster, node)).collect::<Result<_>>()?;
        cluster.rollout("deployment/web")?;
        Ok(Self { cluster, proxy, deploy, pods, web, datagrams })
    }

    /// Those in pods, and the one outside.
    pub fn clients(&self) -> impl Iterator<Item = Client> + '_ {
        self.pods.iter().cloned().chain([Client::Outside])
    }

    /// The addresses of a Service that a client can reach: those of `nodes`, and its ClusterIPs, to which only pods have a
    /// way.
    ///
    /// # Errors
    /// One of them lacks a family.
    pub fn addresses(&self, client: &Client, service: &Service, nodes: &[Node]) -> Result<Vec<SocketAddr>> {
        let mut addresses = Vec::new();
        for family in Family::BOTH {
            if matches!(client, Client::Pod(_)) {
                addresses.push(service.at_cluster_ip(family)?);
            }
            for node in nodes {
                addresses.push(service.at_node(node, family)?);
            }
        }
        Ok(addresses)
    }

    /// The node that is neither the control plane's nor, if there are more of them, the first of the others.
    ///
    /// # Errors
    /// The control plane's is the only one.
    pub fn last_worker(&self) -> Result<Node> {
        self.nodes()?.into_iter().skip(1).last().context("the cluster has no node beside its control plane's")
    }

    /// The nodes by name, with the addresses that they have now: those of one that restarts may be others.
    ///
    /// # Errors
    /// As [`Cluster::nodes`].
    pub fn nodes(&self) -> Result<Vec<Node>> {
        self.cluster.nodes()
    }

    /// `ARGUMENTS` of kubectl in the namespace of the proxy.
    ///
    /// # Errors
    /// As [`Cluster::kubectl`].
    pub fn system(&self, line: &str) -> Result<String> {
        self.cluster.kubectl(&format!("--namespace kube-system {line}"))
    }

    /// Installs Sheave as a user does.
    ///
    /// # Errors
    /// kubectl refuses.
    pub fn apply(&self) -> Result<()> {
        self.cluster.kubectl_with("--namespace kube-system apply --kustomize", [self.deploy.join("kind")]).map(drop)
    }

    /// Waits until the proxy is rolled out.
    ///
    /// # Errors
    /// It is not in time.
    pub fn rollout_proxy(&self) -> Result<()> {
        self.system(&format!("rollout status daemonset/{} --timeout=300s", self.proxy)).map(drop)
    }

    /// Takes away the limit of processor time that a test gave the agents.
    ///
    /// # Errors
    /// They have none.
    pub fn unlimit(&self) -> Result<()> {
        let patch = r#"[{"op":"remove","path":"/spec/template/spec/containers/0/resources/limits"}]"#;
        self.system(&format!("patch daemonset sheave --type json --patch {patch}")).map(drop)
    }

    /// After a failure: the agents as they were before a test changed them.
    ///
    /// # Errors
    /// kubectl refuses.
    pub fn mend(&self) -> Result<()> {
        interrupt::begin_cleaning();
        if self.proxy == Proxy::Sheave {
            let _ = self.unlimit();
            self.apply()?;
        }
        Ok(())
    }

    /// What could explain a failure.
    pub fn evidence(&self) -> String {
        let lines = [
            "get pods --all-namespaces --output wide".to_owned(),
            "get endpointslices --output wide".to_owned(),
            "get events --sort-by .lastTimestamp".to_owned(),
            format!("--namespace kube-system describe daemonset {}", self.proxy),
            format!("--namespace kube-system logs daemonset/{} --all-pods --prefix --tail 30", self.proxy),
        ];
        let said = lines.map(|line| {
            let said = self.cluster.kubectl(&line).unwrap_or_else(|error| format!("{error:#}\n"));
            let from = said.lines().count().saturating_sub(60);
            format!("--- kubectl {line}\n{}\n", said.lines().skip(from).collect::<Vec<_>>().join("\n"))
        });
        said.concat()
    }
}

/// A deployment of servers whose pods say their own name, are ready when they answer, and go on for a second after they were
/// told to end: until then proxies may send to them (Kubernetes' documentation of Pod termination).
///
/// # Errors
/// kubectl refuses.
pub fn deployment(cluster: &Cluster, name: &str, replicas: usize) -> Result<()> {
    cluster
        .kubectl(&format!("create deployment {name} --image {WEB} --replicas 0 -- traffic serve --name $(POD_NAME)"))?;
    let container = json!({
        "name": "sheave-web",
        "imagePullPolicy": "Never",
        "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "readinessProbe": {"httpGet": {"path": "/", "port": server::PORT}, "periodSeconds": 1, "timeoutSeconds": 10},
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP.as_secs()}}},
    });
    let patch = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
    cluster.kubectl(&format!("patch deployment {name} --patch {patch}"))?;
    cluster.kubectl(&format!("scale deployment {name} --replicas {replicas}")).map(drop)
}

const PRE_STOP: Duration = Duration::from_secs(1);
