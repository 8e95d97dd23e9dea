use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};

use super::cluster::{Cluster, Node, of_family};
use crate::cluster::Family;

/// A dual-stack Service with one port, as `kubectl expose` made it.
#[derive(Clone, Debug)]
pub struct Service {
    pub name: String,
    pub cluster_ips: Vec<IpAddr>,
    port: u16,
    node_port: u16,
}

impl Service {
    /// Exposes a deployment's port at port 80 of ClusterIPs and at a port of every node. `words` are further ones for
    /// kubectl.
    ///
    /// # Errors
    /// kubectl refuses, or the Service is not as it was asked for.
    pub fn expose(cluster: &Cluster, deployment: &str, name: &str, target_port: u16, words: &str) -> Result<Self> {
        cluster.kubectl(&format!(
            "expose deployment {deployment} --name {name} --port 80 --target-port {target_port} --type NodePort \
             --overrides {{\"spec\":{{\"ipFamilyPolicy\":\"RequireDualStack\"}}}} {words}"
        ))?;
        Self::read(cluster, name)
    }

    /// One that was exposed.
    ///
    /// # Errors
    /// It is not there, or not as it was asked for.
    pub fn read(cluster: &Cluster, name: &str) -> Result<Self> {
        let object = cluster.json(&format!("get service {name}"))?;
        let ips = object["spec"]["clusterIPs"].as_array().into_iter().flatten();
        let number = |field: &str| {
            let value = object["spec"]["ports"][0][field].as_u64().and_then(|value| u16::try_from(value).ok());
            value.with_context(|| format!("service {name} has no {field}"))
        };
        Ok(Self {
            name: name.to_owned(),
            cluster_ips: ips.filter_map(|ip| ip.as_str()?.parse().ok()).collect(),
            port: number("port")?,
            node_port: number("nodePort")?,
        })
    }

    /// # Errors
    /// It has no ClusterIP of this family.
    pub fn at_cluster_ip(&self, family: Family) -> Result<SocketAddr> {
        let ip = of_family(&self.cluster_ips, family).with_context(|| format!("ClusterIPs of {}", self.name))?;
        Ok((ip, self.port).into())
    }

    /// # Errors
    /// The node has no address of this family.
    pub fn at_node(&self, node: &Node, family: Family) -> Result<SocketAddr> {
        Ok((node.ip(family)?, self.node_port).into())
    }
}
