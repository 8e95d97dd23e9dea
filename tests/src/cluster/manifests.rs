use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Addresses, Family, Node, Place, Pod, plan};
use crate::traffic::server;

/// A directory of objects, one file each, as `sheave agent --manifests` reads it.
pub struct Manifests {
    directory: PathBuf,
    /// Files are written here and then moved, so that nobody reads half of one.
    staging: PathBuf,
}

impl Manifests {
    pub(super) fn create(directory: PathBuf) -> Result<Self> {
        let staging = directory.with_extension("staging");
        for path in [&directory, &staging] {
            fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))?;
        }
        Ok(Self { directory, staging })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes or replaces a file.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let (from, to) = (self.staging.join(name), self.directory.join(name));
        fs::write(&from, text).with_context(|| format!("write {}", from.display()))?;
        fs::rename(&from, &to).with_context(|| format!("move {} to {}", from.display(), to.display()))
    }

    /// Removes a file; none that is missing.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.directory.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Writes or replaces objects as one file.
    pub fn objects(&self, name: &str, objects: &[Value]) -> Result<()> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.write(name, &serde_json::to_string_pretty(&list)?)
    }

    /// Writes a service and the EndpointSlices that hold `endpoints`, one for each family.
    pub fn apply(&self, service: &Service, endpoints: &[Endpoint]) -> Result<()> {
        // Endpoints first: a service must not be seen without those that it has.
        self.apply_endpoints(service, endpoints)?;
        self.write(&format!("{}.service.json", service.name), &serde_json::to_string_pretty(&service.object())?)
    }

    /// Only the EndpointSlices.
    pub fn apply_endpoints(&self, service: &Service, endpoints: &[Endpoint]) -> Result<()> {
        for family in Family::BOTH {
            let slice = service.slice(family, endpoints);
            self.write(&service.slice_file(family), &serde_json::to_string_pretty(&slice)?)?;
        }
        Ok(())
    }

    /// Removes a service and its EndpointSlices.
    pub fn delete(&self, service: &Service) -> Result<()> {
        self.remove(&format!("{}.service.json", service.name))?;
        Family::BOTH.iter().try_for_each(|&family| self.remove(&service.slice_file(family)))
    }

    /// Writes the Node objects.
    pub(super) fn nodes(&self, nodes: &[Node]) -> Result<()> {
        nodes.iter().try_for_each(|node| {
            let cidrs = node.pod_cidrs();
            let addresses = Family::BOTH.map(|family| json!({"type": "InternalIP", "address": node.ip(family)}));
            let object = json!({
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": node.name(),
                    "labels": {
                        "kubernetes.io/hostname": node.name(),
                        "topology.kubernetes.io/zone": format!("zone{}", node.number()),
                    },
                },
                "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs},
                "status": {"addresses": addresses},
            });
            self.write(&format!("{}.node.json", node.name()), &serde_json::to_string_pretty(&object)?)
        })
    }
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub name: String,
    /// `TCP` or `UDP`.
    pub protocol: String,
    pub port: u16,
    /// Where endpoints listen.
    pub target_port: u16,
    /// 0 = none.
    pub node_port: u16,
}

/// A service in namespace `default` with a ClusterIP of each family.
#[derive(Clone, Debug)]
pub struct Service {
    pub name: String,
    pub cluster_ips: Addresses,
    pub ports: Vec<ServicePort>,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    pub external_ips: Vec<IpAddr>,
    pub annotations: Vec<(String, String)>,
}

impl Service {
    /// Ports of [`Self::new`].
    pub const HTTP: u16 = 80;
    pub const STREAM: u16 = 81;

    /// What the traffic server serves: HTTP as TCP 80, datagrams as UDP 80, echoed streams as TCP 81. `number` decides
    /// the ClusterIPs; no two services have the same.
    pub fn new(name: &str, number: u16) -> Self {
        let port = |name: &str, protocol: &str, port, target_port| ServicePort {
            name: name.into(),
            protocol: protocol.into(),
            port,
            target_port,
            node_port: 0,
        };
        Self {
            name: name.to_owned(),
            cluster_ips: plan::service_addresses(number),
            ports: vec![
                port("http", "TCP", Self::HTTP, server::PORT),
                port("datagrams", "UDP", Self::HTTP, server::PORT),
                port("stream", "TCP", Self::STREAM, server::PORT + 1),
            ],
            external_local: false,
            internal_local: false,
            external_ips: Vec::new(),
            annotations: Vec::new(),
        }
    }

    /// NodePorts: `first` for port 80 of both protocols, the next for port 81.
    pub fn node_port(mut self, first: u16) -> Self {
        for port in &mut self.ports {
            port.node_port = first + (port.port - Self::HTTP);
        }
        self
    }

    pub fn external_local(mut self) -> Self {
        self.external_local = true;
        self
    }

    pub fn internal_local(mut self) -> Self {
        self.internal_local = true;
        self
    }

    pub fn external_ip(mut self, ip: IpAddr) -> Self {
        self.external_ips.push(ip);
        self
    }

    pub fn annotate(mut self, key: &str, value: &str) -> Self {
        self.annotations.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Its ClusterIP with [`Self::HTTP`].
    pub fn http(&self, family: Family) -> SocketAddr {
        (self.cluster_ips.of(family), Self::HTTP).into()
    }

    /// Its ClusterIP with [`Self::STREAM`].
    pub fn stream(&self, family: Family) -> SocketAddr {
        (self.cluster_ips.of(family), Self::STREAM).into()
    }

    pub fn object(&self) -> Value {
        let node_ports = self.ports.iter().any(|port| port.node_port != 0);
        let ports: Vec<Value> = self
            .ports
            .iter()
            .map(|port| {
                let mut value = json!({
                    "name": port.name, "protocol": port.protocol, "port": port.port, "targetPort": port.target_port,
                });
                if port.node_port != 0 {
                    value["nodePort"] = port.node_port.into();
                }
                value
            })
            .collect();
        let mut spec = json!({
            "type": if node_ports { "NodePort" } else { "ClusterIP" },
            "clusterIP": self.cluster_ips.v4,
            "clusterIPs": [self.cluster_ips.v4.to_string(), self.cluster_ips.v6.to_string()],
            "ipFamilies": ["IPv4", "IPv6"],
            "ipFamilyPolicy": "RequireDualStack",
            "internalTrafficPolicy": policy(self.internal_local),
            "ports": ports,
        });
        if node_ports || !self.external_ips.is_empty() {
            spec["externalTrafficPolicy"] = policy(self.external_local).into();
        }
        if !self.external_ips.is_empty() {
            spec["externalIPs"] = json!(self.external_ips);
        }
        let annotations: serde_json::Map<String, Value> =
            self.annotations.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": self.name, "namespace": "default", "annotations": annotations},
            "spec": spec,
        })
    }

    /// The EndpointSlice of one family.
    pub fn slice(&self, family: Family, endpoints: &[Endpoint]) -> Value {
        let endpoints: Vec<Value> = endpoints.iter().map(|endpoint| endpoint.object(family)).collect();
        let ports: Vec<Value> = self
            .ports
            .iter()
            .map(|port| json!({"name": port.name, "protocol": port.protocol, "port": port.target_port}))
            .collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": self.slice_name(family),
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": self.name},
            },
            "addressType": if family == Family::V4 { "IPv4" } else { "IPv6" },
            "endpoints": endpoints,
            "ports": ports,
        })
    }

    fn slice_name(&self, family: Family) -> String {
        format!("{}-{}", self.name, if family == Family::V4 { "ipv4" } else { "ipv6" })
    }

    fn slice_file(&self, family: Family) -> String {
        format!("{}.slice.json", self.slice_name(family))
    }
}

fn policy(local: bool) -> &'static str {
    if local { "Local" } else { "Cluster" }
}

/// One endpoint, in both families.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub addresses: Addresses,
    /// Name of its node.
    pub node: String,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
}

impl Endpoint {
    /// Ready.
    pub fn of(pod: &Pod) -> Self {
        Self::at(*pod.addresses(), pod.node())
    }

    /// A pod in the network namespace of its node.
    pub fn on_host(node: &Node) -> Self {
        Self::at(*node.addresses(), node.name())
    }

    fn at(addresses: Addresses, node: &str) -> Self {
        Self { addresses, node: node.to_owned(), ready: true, serving: true, terminating: false }
    }

    pub fn not_ready(mut self) -> Self {
        (self.ready, self.serving) = (false, false);
        self
    }

    /// Ends, and still serves.
    pub fn terminating(mut self) -> Self {
        (self.ready, self.terminating) = (false, true);
        self
    }

    fn object(&self, family: Family) -> Value {
        json!({
            "addresses": [self.addresses.of(family)],
            "nodeName": self.node,
            "conditions": {"ready": self.ready, "serving": self.serving, "terminating": self.terminating},
        })
    }
}
