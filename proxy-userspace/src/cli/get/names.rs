use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use proxy_common::wire::ServiceName;

use crate::kernel::KernelError;
use crate::kernel::read::Reader;
use crate::model::Protocol;

/// Names of service ports by their ids.
pub(super) struct Names(HashMap<u32, ServiceName>);

impl Names {
    pub fn read(reader: &Reader) -> Result<Self, KernelError> {
        Ok(Self(reader.names()?.into_iter().collect()))
    }

    pub fn has(&self, id: u32) -> bool {
        self.0.contains_key(&id)
    }

    /// `namespace/name`, with the port's name behind a colon if it has one. An id without a name is shown by its number:
    /// the service may have gone while the maps were read.
    pub fn service_port(&self, id: u32) -> String {
        let Some(name) = self.0.get(&id) else { return format!("#{id}") };
        let ServiceName { namespace, name, port, .. } = name;
        let (namespace, name, port) = (ServiceName::text(namespace), ServiceName::text(name), ServiceName::text(port));
        let colon = if port.is_empty() { "" } else { ":" };
        format!("{namespace}/{name}{colon}{port}")
    }
}

pub(super) fn protocol(number: u8) -> String {
    Protocol::from_number(number).map_or_else(|| number.to_string(), |protocol| protocol.to_string())
}

/// `address:port`, with brackets round an IPv6 address.
pub(super) fn end(ip: IpAddr, port: u16) -> String {
    SocketAddr::new(ip, port).to_string()
}
