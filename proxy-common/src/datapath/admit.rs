use super::{
    Family, Packet, Tables, Tuple,
    family::State,
    parse::{Headers, TCP},
    select::{flow_hash, select},
    track,
};
use crate::{
    reason::{Hook, Reason},
    tcp,
    wire::{Address, BackendFlags, FlowFlags, Frontend, FrontendFlags, FrontendKey, Scope},
};

/// What a packet is that no flow knew. One number to the BPF back end, which returns no more.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// The first of a flow that is entered now.
    Flow,
    Pass,
    /// For a frontend, in the middle of a flow.
    MidFlow,
    /// For a frontend without any endpoint.
    Refused,
    Drop(Reason),
}

/// A packet that no flow knows: is it for a frontend, and to whom does it go? On [`Admitted::Flow`] its entry is in
/// `flow`.
///
/// A row of functions side by side, since all frames of a chain of calls share a kernel stack of 512 bytes.
#[inline(always)]
pub fn admit<F: Family, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    headers: &Headers<F>,
    flow: &mut F::Flow,
) -> Admitted {
    match choose::<F, T>(tables, hook, headers, flow) {
        Admitted::Flow => {}
        other => return other,
    }
    match track::establish::<F, P, T>(packet, tables, headers, flow) {
        Ok(()) => {
            tables.count(hook, Reason::NewFlow);
            Admitted::Flow
        }
        Err(reason) => Admitted::Drop(reason),
    }
}

/// Finds the frontend and its backend, and begins the entry of the client's packets: its tuple has the client's own
/// address and port yet.
#[inline(never)]
fn choose<F: Family, T: Tables>(tables: &T, hook: Hook, headers: &Headers<F>, flow: &mut F::Flow) -> Admitted {
    let tuple = headers.tuple();
    let opens = tuple.protocol != TCP || tcp::opens(headers.tcp_flags);
    let Some(frontend) = find_frontend::<F, T>(tables, headers) else {
        let makes_way = opens && track::makes_way::<F, T>(tables, headers, is_pod_hook(hook), flow);
        return if makes_way { Admitted::Flow } else { Admitted::Pass };
    };
    if !opens {
        return Admitted::MidFlow;
    }
    let client = F::wide(tuple.source);
    let inside = is_pod_hook(hook) || is_in_cluster(tables, &client);
    let set = if inside { &frontend.inside } else { &frontend.outside };
    if set.count == 0 {
        return if frontend.flags & FrontendFlags::HAS_ENDPOINTS != 0 {
            Admitted::Drop(Reason::NoLocalEndpoint)
        } else {
            Admitted::Refused
        };
    }
    let hash = || flow_hash(&client, tuple.source_port, tuple.destination_port, tuple.protocol);
    let Some((id, backend)) = select(tables, frontend.service, set, hash) else {
        return Admitted::Drop(Reason::StaleTables);
    };
    let local = backend.flags & BackendFlags::LOCAL != 0;
    // From outside the replies must come back through this node: they do for a local backend, which so gets to see
    // the client's address.
    let masquerade = if is_pod_hook(hook) {
        frontend.flags & FrontendFlags::MASQUERADE_INSIDE != 0
    } else {
        !local || (inside && frontend.flags & FrontendFlags::MASQUERADE_INSIDE != 0)
    };
    let mut flags = FlowFlags::FORWARD;
    let sent = Tuple { destination: F::narrow(&backend.address), destination_port: backend.port, ..tuple };
    if sent.destination == sent.source {
        flags |= FlowFlags::HAIRPIN;
    } else if masquerade {
        let fast = !is_pod_hook(hook) && !local;
        flags |= FlowFlags::MASQUERADE | if fast { FlowFlags::FAST } else { 0 };
    }
    let now = tables.now();
    let state = State {
        backend: id,
        generation: backend.generation,
        service: backend.service,
        last_seen: now,
        created: now,
        flags,
        seen: headers.seen(),
    };
    *flow = F::flow(&sent, state);
    Admitted::Flow
}

#[inline(always)]
fn is_pod_hook(hook: Hook) -> bool {
    matches!(hook, Hook::PodIngress | Hook::PodEgress)
}

#[inline(always)]
fn is_in_cluster<T: Tables>(tables: &T, client: &Address) -> bool {
    tables.config().is_some_and(|config| config.cluster.iter().any(|cidr| cidr.contains(client)))
}

/// ClusterIPs and other addresses first, NodePorts last.
#[inline(always)]
fn find_frontend<F: Family, T: Tables>(tables: &T, headers: &Headers<F>) -> Option<Frontend> {
    let tuple = headers.tuple();
    let mut key = FrontendKey {
        address: F::wide(tuple.destination),
        port: tuple.destination_port,
        protocol: tuple.protocol,
        scope: Scope::ADDRESS,
    };
    if let Some(frontend) = tables.frontend(&key) {
        return Some(frontend);
    }
    let config = tables.config()?;
    let port = u16::from_be(tuple.destination_port);
    if port < config.node_port_min || port > config.node_port_max || !tables.is_node_port_address(&key.address) {
        return None;
    }
    key.address = Address::ANY;
    key.scope = F::NODE_PORT;
    tables.frontend(&key)
}
