use proxy_common::wire::{FrontendFlags, Scope, Set};
use serde::Serialize;

use super::Row;
use super::names::{Names, end, protocol};
use crate::kernel::KernelError;
use crate::kernel::read::Reader;

/// A frontend.
#[derive(Serialize)]
pub(super) struct ServiceRow {
    service: String,
    protocol: String,
    /// `NodePort` is any address of the node that NodePorts are open on.
    frontend: String,
    algorithm: &'static str,
    /// Backends that clients inside of the cluster are spread over.
    inside: u32,
    /// Backends that all other clients are spread over.
    outside: u32,
    /// What becomes of clients without a backend.
    otherwise: &'static str,
}

impl Row for ServiceRow {
    const HEADER: &'static [&'static str] =
        &["SERVICE", "PROTOCOL", "FRONTEND", "ALGORITHM", "INSIDE", "OUTSIDE", "OTHERWISE"];

    fn cells(&self) -> Vec<String> {
        let Self { service, protocol, frontend, algorithm, inside, outside, otherwise } = self;
        vec![
            service.clone(),
            protocol.clone(),
            frontend.clone(),
            (*algorithm).to_owned(),
            inside.to_string(),
            outside.to_string(),
            (*otherwise).to_owned(),
        ]
    }
}

pub(super) fn rows(reader: &Reader) -> Result<Vec<ServiceRow>, KernelError> {
    let names = Names::read(reader)?;
    let mut rows: Vec<ServiceRow> = reader
        .frontends()?
        .into_iter()
        .map(|(key, value)| {
            let port = u16::from_be(key.port);
            let hashed = |set: &Set| set.maglev_size != 0;
            ServiceRow {
                service: names.service_port(value.service),
                protocol: protocol(key.protocol),
                frontend: match key.scope {
                    Scope::NODE_PORT4 => format!("NodePort(IPv4):{port}"),
                    Scope::NODE_PORT6 => format!("NodePort(IPv6):{port}"),
                    _ => end(key.address.ip(), port),
                },
                algorithm: if hashed(&value.inside) || hashed(&value.outside) { "maglev" } else { "random" },
                inside: value.inside.count,
                outside: value.outside.count,
                otherwise: if value.flags & FrontendFlags::HAS_ENDPOINTS != 0 { "drop" } else { "reject" },
            }
        })
        .collect();
    rows.sort_by(|a, b| (&a.service, &a.protocol).cmp(&(&b.service, &b.protocol)));
    Ok(rows)
}
