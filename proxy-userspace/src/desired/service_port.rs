use std::{fmt, net::IpAddr};

use proxy_common::wire::{FrontendKey, Policy};

use crate::model::{Algorithm, ObjectName, Protocol};

/// The name of a service port, which has one id in the maps.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePortName {
    pub namespace: String,
    pub name: String,
    /// Empty for the only port of a service.
    pub port: String,
    pub protocol: Protocol,
}

impl ServicePortName {
    pub fn service(&self) -> ObjectName {
        ObjectName::new(self.namespace.clone(), self.name.clone())
    }
}

impl fmt::Display for ServicePortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, name, port, protocol } = self;
        let colon = if port.is_empty() { "" } else { ":" };
        write!(f, "{namespace}/{name}{colon}{port}/{protocol}")
    }
}

/// All that the maps are to hold for one service port, in both families.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub name: ServicePortName,
    /// Creation time of the service in seconds since 1970. The oldest service gets a frontend that several claim.
    pub created: i64,
    pub algorithm: Algorithm,
    /// Every endpoint that may carry flows, old ones included. Sorted by address and port, without duplicates.
    pub backends: Vec<Endpoint>,
    /// The sets that new flows are spread over, by family; `None`: the service has no address of the family.
    pub sets: [Option<Sets>; 2],
    /// No key occurs twice.
    pub frontends: Vec<Frontend>,
}

/// An endpoint that may keep its flows: ready, or still serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    pub address: IpAddr,
    /// Host order.
    pub port: u16,
    /// Runs on this node.
    pub local: bool,
}

/// What new flows of one family are spread over. Members are indexes into [`ServicePort::backends`], sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    /// For policy `Cluster`.
    pub cluster: Vec<u32>,
    /// For policy `Local`.
    pub local: Vec<u32>,
    /// Some endpoint somewhere could serve.
    pub has_endpoints: bool,
}

/// An address that a service port answers on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frontend {
    pub key: FrontendKey,
    /// What each class of clients gets.
    pub policy: Policy,
}
