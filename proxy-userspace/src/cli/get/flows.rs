use proxy_common::tcp::Seen;
use proxy_common::wire::FlowFlags;
use serde::Serialize;

use super::Row;
use super::names::{Names, end, protocol};
use crate::kernel::KernelError;
use crate::kernel::read::{Flow, Reader};

/// An entry of a flow table: what a packet looks like, and what becomes of it.
#[derive(Serialize)]
pub(super) struct FlowRow {
    service: String,
    protocol: String,
    /// `forward` from client to backend, `reply` back; `direct` from a client that dials the pod itself, from a port that
    /// it also has a flow through the service from.
    direction: &'static str,
    /// `ingress` before the node's stack, `egress` behind it.
    side: &'static str,
    source: String,
    destination: String,
    new_source: String,
    new_destination: String,
    backend: u32,
    /// `opening`, `established` or `closing`, as far as packets of this direction have shown.
    state: &'static str,
    /// `hairpin`, `fast` (past the stack) and `masquerade`.
    flags: Vec<&'static str>,
    age_seconds: f64,
    idle_seconds: f64,
}

impl Row for FlowRow {
    const HEADER: &'static [&'static str] =
        &["SERVICE", "PROTOCOL", "DIRECTION", "SIDE", "PACKET", "BECOMES", "STATE", "FLAGS", "AGE", "IDLE"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.service.clone(),
            self.protocol.clone(),
            self.direction.to_owned(),
            self.side.to_owned(),
            format!("{} > {}", self.source, self.destination),
            format!("{} > {}", self.new_source, self.new_destination),
            self.state.to_owned(),
            if self.flags.is_empty() { "-".to_owned() } else { self.flags.join(",") },
            format!("{:.0}s", self.age_seconds),
            format!("{:.0}s", self.idle_seconds),
        ]
    }
}

pub(super) fn rows(reader: &Reader) -> Result<Vec<FlowRow>, KernelError> {
    let names = Names::read(reader)?;
    let mut flows = reader.flows()?;
    flows.sort_by_key(|flow| (flow.service, flow.source, flow.destination, flow.egress));
    Ok(flows.iter().map(|flow| row(flow, &names)).collect())
}

fn row(flow: &Flow, names: &Names) -> FlowRow {
    let known = [(FlowFlags::HAIRPIN, "hairpin"), (FlowFlags::FAST, "fast"), (FlowFlags::MASQUERADE, "masquerade")];
    FlowRow {
        service: names.service_port(flow.service),
        protocol: protocol(flow.protocol),
        direction: match () {
            () if flow.flags & FlowFlags::FORWARD != 0 => "forward",
            () if flow.flags & FlowFlags::DIRECT != 0 => "direct",
            () => "reply",
        },
        side: if flow.egress { "egress" } else { "ingress" },
        source: end(flow.source.0, flow.source.1),
        destination: end(flow.destination.0, flow.destination.1),
        new_source: end(flow.new_source.0, flow.new_source.1),
        new_destination: end(flow.new_destination.0, flow.new_destination.1),
        backend: flow.backend,
        state: if flow.seen & Seen::CLOSING != 0 {
            "closing"
        } else if flow.seen & Seen::ESTABLISHED != 0 {
            "established"
        } else {
            "opening"
        },
        flags: known.into_iter().filter(|(flag, _)| flow.flags & flag != 0).map(|(_, word)| word).collect(),
        age_seconds: flow.age.as_secs_f64(),
        idle_seconds: flow.idle.as_secs_f64(),
    }
}
