use super::{
    Link, Packet, RouteQuery, Tables, V4, V6,
    admit::admit,
    family::State,
    parse::{Headers, Parse, TCP, Unparsed, locate},
    reject::Reject,
    rewrite::{rewrite, set_ttl, swap_hardware_addresses},
};
use crate::{
    header::{Tcp, Udp},
    reason::{Hook, Reason},
    tcp::{self, Seen},
    verdict::{Redirect, Verdict},
    wire::{BackendFlags, FlowFlags, Side},
};

/// The way of a packet that comes in through `hook`.
#[inline(always)]
pub fn ingress<P: Packet, T: Tables>(packet: &mut P, tables: &T, hook: Hook, link: Link) -> Verdict {
    let verdict = match locate(packet, link) {
        Some((false, l3)) => family::<V4, P, T>(packet, tables, At { hook, link, l3 }),
        Some((true, l3)) => family::<V6, P, T>(packet, tables, At { hook, link, l3 }),
        None => Ok(Verdict::Pass),
    };
    settle(tables, hook, verdict)
}

/// Counts a drop.
#[inline(always)]
pub fn settle<T: Tables>(tables: &T, hook: Hook, verdict: Result<Verdict, Reason>) -> Verdict {
    match verdict {
        Ok(verdict) => verdict,
        Err(reason) => {
            tables.count(hook, reason);
            Verdict::Drop(reason)
        }
    }
}

/// Where a packet is met.
#[derive(Clone, Copy)]
pub struct At {
    pub hook: Hook,
    pub link: Link,
    /// Offset of the IP header.
    pub l3: usize,
}

#[inline(always)]
fn family<F: Parse + Reject, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    at: At,
) -> Result<Verdict, Reason> {
    let headers = match F::parse(packet, at.l3) {
        Ok(headers) => headers,
        Err(Unparsed::Other(..)) => return Ok(Verdict::Pass),
        Err(Unparsed::LeftAlone(reason)) => {
            tables.count(at.hook, reason);
            return Ok(Verdict::Pass);
        }
    };
    let now = tables.now();
    if let Some(flow) = tables.find::<F>(&F::key(&headers.tuple, Side::INGRESS), now, headers.seen())
        && is_valid(tables, &headers, &F::state(&flow), now)
    {
        return carry::<F, P, T>(packet, tables, at.link, &headers, &flow);
    }
    admit::<F, P, T>(packet, tables, at, &headers)
}

/// Whether an entry still speaks for its flow. Established TCP is never cut; what opens a flow, and UDP, goes to a
/// backend that still serves.
#[inline(always)]
fn is_valid<A, T: Tables>(tables: &T, headers: &Headers<A>, state: &State, now: u32) -> bool {
    if state.flags & FlowFlags::FORWARD == 0 {
        return true;
    }
    if headers.tuple.protocol == TCP {
        if !tcp::opens(headers.tcp_flags) {
            return true;
        }
        // The port is used again: a new connection.
        if state.seen & Seen::CLOSING != 0 {
            return false;
        }
    } else if now.wrapping_sub(state.last_seen) > tables.config().map_or(u32::MAX, |config| config.udp_timeout) {
        return false;
    }
    tables.backend(state.backend).is_some_and(|backend| {
        backend.generation == state.generation && backend.flags & BackendFlags::SERVING != 0
    })
}

/// Applies an ingress entry.
#[inline(always)]
pub fn carry<F: Parse, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    link: Link,
    headers: &Headers<F::Address>,
    flow: &F::Flow,
) -> Result<Verdict, Reason> {
    let flags = F::state(flow).flags;
    let new = F::tuple(flow, headers.tuple.protocol);
    if flags & FlowFlags::FAST != 0
        && let Some(verdict) = fast_path::<F, P, T>(packet, tables, headers, &F::key(&new, Side::EGRESS))?
    {
        return Ok(verdict);
    }
    rewrite::<F, P>(packet, headers, &new)?;
    if flags & FlowFlags::HAIRPIN != 0 {
        swap_hardware_addresses(packet, link).ok_or(Reason::RewriteFailed)?;
        return Ok(Verdict::Redirect(Redirect::Back));
    }
    Ok(Verdict::Translate)
}

/// Both halves of the translation at once and past the stack, where routing table, MTU and TTL allow.
#[inline(always)]
fn fast_path<F: Parse, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    headers: &Headers<F::Address>,
    egress: &F::Key,
) -> Result<Option<Verdict>, Reason> {
    if headers.ttl <= 1 {
        return Ok(None);
    }
    let Some(flow) = tables.find::<F>(egress, tables.now(), headers.seen()) else { return Ok(None) };
    let new = F::tuple(&flow, headers.tuple.protocol);
    let route = packet.route(&RouteQuery {
        source: F::wide(new.source),
        destination: F::wide(new.destination),
        source_port: new.source_port,
        destination_port: new.destination_port,
        protocol: new.protocol,
        length: on_the_wire(packet, headers),
    });
    if !route.usable {
        return Ok(None);
    }
    rewrite::<F, P>(packet, headers, &new)?;
    set_ttl::<F, P>(packet, headers.l3, headers.ttl - 1).ok_or(Reason::RewriteFailed)?;
    Ok(Some(Verdict::Redirect(Redirect::Forward { device: route.device, next_hop: route.next_hop })))
}

/// Length of the largest IP packet that this one becomes on the wire, in bytes.
#[inline(always)]
fn on_the_wire<A, P: Packet>(packet: &P, headers: &Headers<A>) -> u16 {
    let segment = packet.segment();
    if segment == 0 {
        return headers.length;
    }
    let transport = if headers.tuple.protocol == TCP { Tcp::WITH_TIMESTAMPS } else { Udp::LEN };
    (headers.l4 - headers.l3 + transport + segment) as u16
}
