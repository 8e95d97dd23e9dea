use super::{
    Family, Packet, Tables,
    ingress::{At, carry},
    parse::{Headers, Parse, TCP},
    reject::{Reject, reject},
    select::{flow_hash, select},
    track::{Admission, establish, forget_reuse},
};
use crate::{
    reason::{Hook, Reason},
    tcp,
    verdict::Verdict,
    wire::{Address, BackendFlags, Frontend, FrontendFlags, FrontendKey, Scope},
};

/// A packet that no flow knows: is it for a frontend, and to whom does it go? Out of the way of established packets,
/// and a function of its own, since a kernel stack holds 512 bytes.
#[inline(never)]
pub fn admit<F: Parse + Reject, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    at: At,
    headers: &Headers<F::Address>,
) -> Result<Verdict, Reason> {
    let tuple = &headers.tuple;
    let opens = tuple.protocol != TCP || tcp::opens(headers.tcp_flags);
    let Some(frontend) = find_frontend::<F, T>(tables, headers) else {
        if opens && tuple.protocol == TCP {
            forget_reuse::<F, T>(tables, tuple);
        }
        return Ok(Verdict::Pass);
    };
    if !opens {
        tables.count(at.hook, Reason::MidFlow);
        return Ok(Verdict::Pass);
    }
    let client = F::wide(tuple.source);
    let inside = is_pod_hook(at.hook) || is_in_cluster(tables, &client);
    let set = if inside { &frontend.inside } else { &frontend.outside };
    if set.count == 0 {
        if frontend.flags & FrontendFlags::HAS_ENDPOINTS != 0 {
            return Err(Reason::NoLocalEndpoint);
        }
        return reject::<F, P, T>(packet, tables, at, headers);
    }
    let hash = || flow_hash(&client, tuple.source_port, tuple.destination_port, tuple.protocol);
    let (id, backend) = select(tables, frontend.service, set, hash).ok_or(Reason::StaleTables)?;
    let local = backend.flags & BackendFlags::LOCAL != 0;
    // From outside the replies must come back through this node: they do for a local backend, which so gets to see
    // the client's address.
    let masquerade = if is_pod_hook(at.hook) {
        frontend.flags & FrontendFlags::MASQUERADE_INSIDE != 0
    } else {
        !local || (inside && frontend.flags & FrontendFlags::MASQUERADE_INSIDE != 0)
    };
    let admission = Admission {
        id,
        backend,
        masquerade,
        fast: !is_pod_hook(at.hook) && !local,
    };
    let flow = establish::<F, P, T>(packet, tables, headers, &admission)?;
    tables.count(at.hook, Reason::NewFlow);
    carry::<F, P, T>(packet, tables, at.link, headers, &flow)
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
fn find_frontend<F: Family, T: Tables>(tables: &T, headers: &Headers<F::Address>) -> Option<Frontend> {
    let tuple = &headers.tuple;
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
