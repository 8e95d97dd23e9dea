use nix::net::if_::if_indextoname;
use proxy_common::tcp::Seen;
use proxy_common::wire::{FlowFlags, Role};
use serde::Serialize;

use super::Row;
use super::names::{Names, end, protocol};
use crate::kernel::KernelError;
use crate::kernel::read::{Flow, Reader};

/// An entry of a flow table: what a packet looks like, and what becomes of it.
#[derive(Serialize)]
pub(super) struct FlowRow {
    /// Empty for flows straight to an endpoint and for what the node itself asks.
    service: String,
    protocol: String,
    /// `client` and `reply`; `mask` and `mask-reply` of a flow that is masqueraded, behind and before the stack; `direct`
    /// from a client that dials an endpoint itself; `own` for answers to the node.
    role: &'static str,
    /// `ingress` before the node's stack, `egress` behind it.
    side: &'static str,
    source: String,
    destination: String,
    new_source: String,
    new_destination: String,
    backend: Option<u32>,
    /// `opening` until both ends have answered each other, then `proven`; `closing` once one of them has closed or reset.
    state: &'static str,
    /// `hairpin`, `fast` (past the stack) and `masquerade`.
    flags: Vec<&'static str>,
    /// The device that the client's packets come in by: its name, or its index where it has none here.
    device: String,
    idle_seconds: f64,
}

impl Row for FlowRow {
    const HEADER: &'static [&'static str] =
        &["SERVICE", "PROTOCOL", "ROLE", "SIDE", "PACKET", "BECOMES", "STATE", "FLAGS", "DEVICE", "IDLE"];

    fn cells(&self) -> Vec<String> {
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        vec![
            or_dash(&self.service),
            self.protocol.clone(),
            self.role.to_owned(),
            self.side.to_owned(),
            format!("{} > {}", self.source, self.destination),
            format!("{} > {}", self.new_source, self.new_destination),
            self.state.to_owned(),
            or_dash(&self.flags.join(",")),
            or_dash(&self.device),
            format!("{:.0}s", self.idle_seconds),
        ]
    }
}

/// The entries of a flow together.
pub(super) fn rows(reader: &Reader) -> Result<Vec<FlowRow>, KernelError> {
    let names = Names::read(reader)?;
    let mut flows = reader.flows()?;
    flows.sort_by_key(|flow| (flow.service, flow.protocol, flow.client, flow.role, flow.source));
    Ok(flows.iter().map(|flow| row(flow, &names)).collect())
}

fn row(flow: &Flow, names: &Names) -> FlowRow {
    let known = [(FlowFlags::HAIRPIN, "hairpin"), (FlowFlags::FAST, "fast"), (FlowFlags::MASQUERADE, "masquerade")];
    FlowRow {
        service: flow.service.map(|id| names.service_port(id)).unwrap_or_default(),
        protocol: protocol(flow.protocol),
        role: Role::word(flow.role),
        side: if flow.egress { "egress" } else { "ingress" },
        source: end(flow.source.0, flow.source.1),
        destination: end(flow.destination.0, flow.destination.1),
        new_source: end(flow.new_source.0, flow.new_source.1),
        new_destination: end(flow.new_destination.0, flow.new_destination.1),
        backend: flow.backend,
        state: match () {
            () if flow.seen & (Seen::FIN | Seen::RST) != 0 => "closing",
            () if flow.flags & FlowFlags::PROVEN != 0 => "proven",
            () => "opening",
        },
        flags: known.into_iter().filter(|(flag, _)| flow.flags & flag != 0).map(|(_, word)| word).collect(),
        device: flow.device.map(device).unwrap_or_default(),
        idle_seconds: flow.idle.as_secs_f64(),
    }
}

/// The device may be one of another network namespace, or gone.
fn device(index: u32) -> String {
    match if_indextoname(index) {
        Ok(name) => name.to_string_lossy().into_owned(),
        Err(_) => index.to_string(),
    }
}
