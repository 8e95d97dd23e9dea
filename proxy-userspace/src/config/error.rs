use std::path::PathBuf;

use crate::model::NodePortAddressError;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {message}", path.display())]
    Syntax { path: PathBuf, message: String },
    #[error("{}: {field} is {found:?}; expected {expected:?}", path.display())]
    WrongType { path: PathBuf, field: &'static str, found: String, expected: &'static str },
    #[error("{}: mode {mode:?} is not supported on Linux; leave it empty or name iptables, nftables or ipvs", path.display())]
    Mode { path: PathBuf, mode: String },
    #[error("{}: {field} {value:?} is not an IP address", path.display())]
    NotAnAddress { path: PathBuf, field: &'static str, value: String },
    #[error("{}: {field} {value:?} is not a duration such as 1h30m", path.display())]
    NotADuration { path: PathBuf, field: &'static str, value: String },
    #[error("detectLocalMode {0:?} is unknown; expected ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix")]
    DetectLocalMode(String),
    #[error("detectLocalMode {mode} needs a name: {field}, or {flag}")]
    DetectLocalName { mode: &'static str, field: &'static str, flag: &'static str },
    #[error("cluster CIDR {0:?} is not an address prefix")]
    ClusterCidr(String),
    #[error("cluster CIDR {0:?} is the second one of its family; at most one IPv4 and one IPv6 prefix can be given")]
    ClusterCidrFamily(String),
    #[error("node port addresses: {0}")]
    NodePortAddresses(#[from] NodePortAddressError),
    #[error("healthz bind address {0:?} is not IP:PORT or an IP address")]
    HealthzAddress(String),
    #[error("the name of this node is empty; give it with --hostname-override")]
    NodeName,
    #[error("cannot read the host name: {0}; give the name of this node with --hostname-override")]
    HostName(#[from] nix::errno::Errno),
}
