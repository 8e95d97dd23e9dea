use proxy_common::wire::{Backend, BackendFlags};
use serde::Serialize;

use super::Row;
use super::names::{Names, end, protocol};
use crate::kernel::KernelError;
use crate::kernel::read::Reader;

/// An endpoint of a service port.
#[derive(Serialize)]
pub(super) struct BackendRow {
    id: u32,
    service: String,
    protocol: String,
    endpoint: String,
    /// Runs on this node.
    local: bool,
    /// Gets new flows of some client, or keeps its own: ready, or terminating and still serving.
    serving: bool,
    generation: u32,
}

impl Row for BackendRow {
    const HEADER: &'static [&'static str] = &["ID", "SERVICE", "PROTOCOL", "ENDPOINT", "NODE", "STATE", "GENERATION"];

    fn cells(&self) -> Vec<String> {
        let Self { id, service, protocol, endpoint, local, serving, generation } = self;
        vec![
            id.to_string(),
            service.clone(),
            protocol.clone(),
            endpoint.clone(),
            if *local { "this" } else { "other" }.to_owned(),
            if *serving { "serving" } else { "gone" }.to_owned(),
            generation.to_string(),
        ]
    }
}

/// The rows that belong to a service port. One that is gone keeps its row, for the flows that it still has, until its
/// id is given to another endpoint; it is shown as long as its service port exists.
pub(super) fn rows(reader: &Reader) -> Result<Vec<BackendRow>, KernelError> {
    let names = Names::read(reader)?;
    let mut rows: Vec<BackendRow> = (0..)
        .zip(reader.backends()?)
        .filter(|(_, backend)| backend.service != 0 && names.has(backend.service))
        .map(|(id, backend)| row(id, &backend, &names))
        .collect();
    rows.sort_by(|a, b| (&a.service, &a.protocol, a.id).cmp(&(&b.service, &b.protocol, b.id)));
    Ok(rows)
}

fn row(id: u32, backend: &Backend, names: &Names) -> BackendRow {
    BackendRow {
        id,
        service: names.service_port(backend.service),
        protocol: protocol(backend.protocol),
        endpoint: end(backend.address.ip(), u16::from_be(backend.port)),
        local: backend.flags & BackendFlags::LOCAL != 0,
        serving: backend.flags & BackendFlags::SERVING != 0,
        generation: backend.generation,
    }
}
