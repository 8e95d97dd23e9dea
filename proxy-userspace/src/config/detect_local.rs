use ipnet::IpNet;

use super::ConfigError;
use crate::model::{DetectLocal, parse_cidr};

/// What a file or the flags say about which clients are pods of this node.
#[derive(Clone, Debug, Default)]
pub(super) struct LocalText {
    /// Empty: `ClusterCIDR`.
    pub mode: String,
    pub cluster_cidrs: Vec<String>,
    pub bridge: String,
    pub prefix: String,
}

impl LocalText {
    pub fn parse(self) -> Result<DetectLocal, ConfigError> {
        let name = |mode: &'static str, field: &'static str, flag: &'static str, name: String| match name.trim() {
            "" => Err(ConfigError::DetectLocalName { mode, field, flag }),
            name => Ok(name.to_owned()),
        };
        Ok(match self.mode.as_str() {
            "" | "ClusterCIDR" => DetectLocal::ClusterCidr(cluster_cidrs(&self.cluster_cidrs)?),
            "NodeCIDR" => DetectLocal::NodeCidr,
            "BridgeInterface" => DetectLocal::BridgeInterface(name(
                "BridgeInterface",
                "detectLocal.bridgeInterface",
                "--pod-bridge-interface",
                self.bridge,
            )?),
            "InterfaceNamePrefix" => DetectLocal::InterfaceNamePrefix(name(
                "InterfaceNamePrefix",
                "detectLocal.interfaceNamePrefix",
                "--pod-interface-name-prefix",
                self.prefix,
            )?),
            _ => return Err(ConfigError::DetectLocalMode(self.mode)),
        })
    }
}

/// One prefix, or one of each family.
fn cluster_cidrs(entries: &[String]) -> Result<Vec<IpNet>, ConfigError> {
    let mut prefixes: Vec<IpNet> = Vec::new();
    for entry in entries.iter().map(|entry| entry.trim()).filter(|entry| !entry.is_empty()) {
        let net = parse_cidr(entry).ok_or_else(|| ConfigError::ClusterCidr(entry.to_owned()))?;
        if prefixes.iter().any(|other| other.addr().is_ipv4() == net.addr().is_ipv4()) {
            return Err(ConfigError::ClusterCidrFamily(entry.to_owned()));
        }
        prefixes.push(net);
    }
    Ok(prefixes)
}
