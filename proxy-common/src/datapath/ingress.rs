use zerocopy::FromZeros as _;

use super::{
    Family, Link, Packet, RouteQuery, Tables, V4, V6,
    admit::{Admitted, admit},
    family::State,
    parse::{Headers, Parse, Parsed, TCP, locate},
    reject::{Reject, reject},
    rewrite::{set_ttl, swap_hardware_addresses, translate},
};
use crate::{
    header::{Tcp, Udp},
    reason::{Hook, Reason},
    tcp::{self, Seen},
    verdict::Verdict,
    wire::{BackendFlags, FlowFlags, Side},
};

/// The way of a packet that comes in through `hook`.
#[inline(always)]
pub fn ingress<P: Packet, T: Tables>(packet: &mut P, tables: &T, hook: Hook, link: Link) -> Verdict {
    let verdict = match locate(packet, link) {
        Some((false, l3)) => family::<V4, P, T>(packet, tables, At { hook, link, l3 }),
        Some((true, l3)) => family::<V6, P, T>(packet, tables, At { hook, link, l3 }),
        None => Verdict::Pass,
    };
    count_drop(tables, hook, verdict)
}

#[inline(always)]
pub fn count_drop<T: Tables>(tables: &T, hook: Hook, verdict: Verdict) -> Verdict {
    if let Verdict::Drop(reason) = verdict {
        tables.count(hook, reason);
    }
    verdict
}

/// Where a packet is met.
#[derive(Clone, Copy)]
pub struct At {
    pub hook: Hook,
    pub link: Link,
    /// Offset of the IP header.
    pub l3: usize,
}

/// A function of its own for each family: inlined, the variables of both would lie on the stack side by side.
#[inline(never)]
fn family<F: Parse + Reject, P: Packet, T: Tables>(packet: &mut P, tables: &T, at: At) -> Verdict {
    let mut headers = Headers::<F>::empty();
    match F::parse(packet, at.l3, Side::INGRESS, &mut headers) {
        Parsed::Ports => {}
        Parsed::Other => return Verdict::Pass,
        Parsed::LeftAlone(reason) => {
            tables.count(at.hook, reason);
            return Verdict::Pass;
        }
    }
    let now = tables.now();
    let mut flow = F::Flow::new_zeroed();
    let known = tables.find::<F>(&headers.key, now, headers.seen(), &mut flow)
        && is_valid(tables, &headers, &F::state(&flow), now);
    if !known {
        match admit::<F, P, T>(packet, tables, at.hook, &headers, &mut flow) {
            Admitted::Flow => {}
            Admitted::Pass => return Verdict::Pass,
            Admitted::MidFlow => {
                tables.count(at.hook, Reason::MidFlow);
                return Verdict::Pass;
            }
            Admitted::Refused => return refuse::<F, P, T>(packet, tables, at, &headers),
            Admitted::Drop(reason) => return Verdict::Drop(reason),
        }
    }
    carry::<F, P, T>(packet, tables, at.link, &headers, &mut flow)
}

/// Answers for a frontend without endpoints.
#[inline(always)]
fn refuse<F: Reject, P: Packet, T: Tables>(packet: &mut P, tables: &T, at: At, headers: &Headers<F>) -> Verdict {
    if let Err(reason) = reject::<F, P, T>(packet, tables, headers) {
        return Verdict::Drop(reason);
    }
    if swap_hardware_addresses(packet, at.link).is_none() {
        return Verdict::Drop(Reason::RejectFailed);
    }
    tables.count(at.hook, Reason::NoEndpoint);
    Verdict::Reply
}

/// Whether an entry still speaks for its flow. Established TCP is never cut; what opens a flow, and UDP, goes to a
/// backend that still serves.
#[inline(always)]
fn is_valid<F: Family, T: Tables>(tables: &T, headers: &Headers<F>, state: &State, now: u32) -> bool {
    if state.flags & FlowFlags::FORWARD == 0 {
        return true;
    }
    const OVER: u8 = Seen::ESTABLISHED | Seen::CLOSING;
    if headers.protocol() == TCP {
        if !tcp::opens(headers.tcp_flags) {
            return true;
        }
        // The port is used again: a new connection. A client that has sent nothing but a reset since its SYN is still at
        // the first: a server that remembers an earlier connection answered with an ACK (RFC 5961, 4.2), and makes room
        // by that reset.
        if state.seen & OVER == OVER {
            return false;
        }
    } else if now.wrapping_sub(state.last_seen) > tables.config().map_or(u32::MAX, |config| config.udp_timeout) {
        return false;
    }
    tables
        .backend(state.backend)
        .is_some_and(|backend| backend.generation == state.generation && backend.flags & BackendFlags::SERVING != 0)
}

/// Applies an ingress entry.
#[inline(always)]
fn carry<F: Parse, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    link: Link,
    headers: &Headers<F>,
    flow: &mut F::Flow,
) -> Verdict {
    let flags = F::state(flow).flags;
    let forward = flags & FlowFlags::FAST != 0 && shortcut::<F, P, T>(packet, tables, headers, flow);
    if !translate::<F, P>(packet, headers, flow) {
        return Verdict::Drop(Reason::RewriteFailed);
    }
    let (done, verdict) = if forward {
        (set_ttl::<F, P>(packet, headers.l3, headers.ttl - 1), Verdict::Forward)
    } else if flags & FlowFlags::HAIRPIN != 0 {
        (swap_hardware_addresses(packet, link), Verdict::Back)
    } else {
        (Some(()), Verdict::Translate)
    };
    if done.is_some() { verdict } else { Verdict::Drop(Reason::RewriteFailed) }
}

/// Whether the packet may skip the stack: routing table, MTU and TTL allow it. `flow` is then the egress entry, whose
/// tuple is the one behind both halves of the translation.
#[inline(never)]
fn shortcut<F: Parse, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    headers: &Headers<F>,
    flow: &mut F::Flow,
) -> bool {
    if headers.ttl <= 1 {
        return false;
    }
    let ingress = *flow;
    let egress = F::key(&F::tuple(flow, headers.protocol()), Side::EGRESS);
    if !tables.find::<F>(&egress, tables.now(), headers.seen(), flow) {
        return false;
    }
    let new = F::tuple(flow, headers.protocol());
    let route = packet.route(&RouteQuery {
        source: F::wide(new.source),
        destination: F::wide(new.destination),
        source_port: new.source_port,
        destination_port: new.destination_port,
        protocol: new.protocol,
        length: on_the_wire(packet, headers),
    });
    if !route.usable {
        *flow = ingress;
    }
    route.usable
}

/// Length of the largest IP packet that this one becomes on the wire, in bytes.
#[inline(always)]
fn on_the_wire<F: Family, P: Packet>(packet: &P, headers: &Headers<F>) -> u16 {
    let segment = packet.segment();
    if segment == 0 {
        return headers.length;
    }
    let transport = if headers.protocol() == TCP { Tcp::WITH_TIMESTAMPS } else { Udp::LEN };
    (headers.l4 - headers.l3 + transport + segment) as u16
}
