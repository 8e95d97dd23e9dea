use std::net::IpAddr;

use super::{ObjectName, Protocol};

/// A Service that has addresses of its own: not headless, not an alias of a DNS name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: ObjectName,
    /// Creation time in seconds since 1970; `i64::MAX` where the source does not know. Decides which of two services
    /// gets an address and port that both claim.
    pub created: i64,
    /// At most one per family. A family without one is not served, whatever other addresses of it the service has.
    pub cluster_ips: Vec<IpAddr>,
    pub external_ips: Vec<IpAddr>,
    /// Ingress addresses of the load balancer that this node answers on itself.
    pub load_balancer_ips: Vec<IpAddr>,
    pub ports: Vec<Port>,
    pub internal_policy: Policy,
    pub external_policy: Policy,
    /// `None`: as configured for the cluster.
    pub algorithm: Option<Algorithm>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Empty for the only port of a service.
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    /// 0 = none.
    pub node_port: u16,
}

/// A traffic policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    #[default]
    Cluster,
    /// Only endpoints on this node.
    Local,
}

/// How a new flow gets its backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    #[default]
    Random,
    /// Consistent hashing of client and ports: every node answers alike, and a change of the set moves few flows.
    Maglev,
}

impl Service {
    /// Whether a client outside the cluster has an address to dial (KEP-2086 calls this externally accessible).
    pub fn has_external_frontends(&self) -> bool {
        !self.external_ips.is_empty()
            || !self.load_balancer_ips.is_empty()
            || self.ports.iter().any(|port| port.node_port != 0)
    }
}
