use std::{net::IpAddr, path::Path};

use serde::Deserialize;
use serde_json::Value;

use super::{ConfigError, Shared, conntrack::Conntrack, detect_local::LocalText, unhonoured};
use crate::{model::parse_ip, yaml};

const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
const KIND: &str = "KubeProxyConfiguration";

/// A configuration file of kube-proxy.
#[derive(Debug)]
pub(super) struct KubeProxyFile {
    pub(super) shared: Shared,
    pub(super) warnings: Vec<String>,
}

/// The fields that have an effect. `null` stands for absent everywhere, as in the files that kubeadm writes.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Honoured {
    mode: Option<String>,
    hostname_override: Option<String>,
    bind_address: Option<String>,
    client_connection: Option<ClientConnection>,
    #[serde(rename = "clusterCIDR")]
    cluster_cidr: Option<String>,
    conntrack: Option<Conntrack>,
    detect_local_mode: Option<String>,
    detect_local: Option<DetectLocal>,
    node_port_addresses: Option<Vec<String>>,
    healthz_bind_address: Option<String>,
    iptables: Option<Masquerade>,
    nftables: Option<Masquerade>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ClientConnection {
    kubeconfig: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DetectLocal {
    bridge_interface: Option<String>,
    interface_name_prefix: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Masquerade {
    masquerade_all: Option<bool>,
}

impl KubeProxyFile {
    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        let bytes = std::fs::read(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let text = yaml::text(bytes).map_err(|message| ConfigError::Syntax { path: path.to_owned(), message })?;
        Self::parse(path, &text)
    }

    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let syntax = |error: serde_saphyr::Error| ConfigError::Syntax {
            path: path.to_owned(),
            message: error.without_snippet().to_string(),
        };
        let yaml::Read { value: tree, repeated } = yaml::read_first::<Value>(text).map_err(syntax)?;
        for (field, expected) in [("apiVersion", API_VERSION), ("kind", KIND)] {
            let found = tree.get(field).and_then(Value::as_str).unwrap_or_default();
            if found != expected {
                let found = found.to_owned();
                return Err(ConfigError::WrongType { path: path.to_owned(), field, found, expected });
            }
        }
        let honoured: Honoured = yaml::read_first(text).map_err(syntax)?.value;
        let mode = honoured.mode.as_deref().unwrap_or_default();
        if !matches!(mode, "" | "iptables" | "nftables" | "ipvs") {
            return Err(ConfigError::Mode { path: path.to_owned(), mode: mode.to_owned() });
        }
        let mut warnings: Vec<String> = yaml::about_repeated(&repeated).into_iter().collect();
        if yaml::documents(text).len() > 1 {
            warnings.push("only its first document is used".into());
        }
        warnings.extend(unhonoured::warnings(&tree, mode));
        let shared = honoured.shared(path, &mut warnings)?;
        Ok(Self { shared, warnings })
    }
}

impl Honoured {
    fn shared(self, path: &Path, warnings: &mut Vec<String>) -> Result<Shared, ConfigError> {
        let nftables = self.mode.as_deref() == Some("nftables");
        let masquerade = if nftables { self.nftables } else { self.iptables };
        let node_port_addresses = self.node_port_addresses.unwrap_or_default();
        if node_port_addresses.is_empty() && !nftables {
            warnings.push(
                "nodePortAddresses is not set: NodePorts answer on the addresses of the Node object, as with kube-proxy \
                 in nftables mode; set it to [\"all\"] to have them answer on every address of the node"
                    .into(),
            );
        }
        let kubeconfig = self.client_connection.and_then(|connection| connection.kubeconfig);
        let DetectLocal { bridge_interface, interface_name_prefix } = self.detect_local.unwrap_or_default();
        let local = LocalText {
            mode: self.detect_local_mode.unwrap_or_default(),
            cluster_cidrs: self.cluster_cidr.unwrap_or_default().split(',').map(str::to_owned).collect(),
            bridge: bridge_interface.unwrap_or_default(),
            prefix: interface_name_prefix.unwrap_or_default(),
        };
        Ok(Shared {
            kubeconfig: kubeconfig.filter(|path| !path.is_empty()).map(Into::into),
            servers: Vec::new(),
            node_port_addresses,
            local,
            conntrack: self.conntrack.unwrap_or_default().timeouts(path)?,
            hostname: self.hostname_override.filter(|name| !name.trim().is_empty()),
            // Empty in a file means the default, and only on the command line nowhere.
            healthz_address: self.healthz_bind_address.filter(|address| !address.is_empty()),
            bind_address: bind_address(path, self.bind_address.as_deref().unwrap_or_default())?,
            masquerade_all: masquerade.and_then(|section| section.masquerade_all).unwrap_or_default(),
        })
    }
}

/// An unspecified address says nothing about the node: kube-proxy takes it as "find out".
fn bind_address(path: &Path, text: &str) -> Result<Option<IpAddr>, ConfigError> {
    if text.is_empty() {
        return Ok(None);
    }
    let address = parse_ip(text).ok_or_else(|| ConfigError::NotAnAddress {
        path: path.to_owned(),
        field: "bindAddress",
        value: text.to_owned(),
    })?;
    Ok(Some(address).filter(|address| !address.is_unspecified()))
}
