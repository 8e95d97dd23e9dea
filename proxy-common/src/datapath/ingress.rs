use super::{
    Family, Link, Lookup, Packet, Record, RouteQuery, Row, V4, V6,
    admit::{harmless, is_current},
    enter::establish,
    family::State,
    parse::{Headers, Parse, Parsed, TCP, locate},
    part::{Code, Part, Work},
    reject::Reject,
    rewrite::{set_ttl, swap_hardware_addresses},
};
use crate::{
    header::{Tcp, Udp},
    reason::{Hook, Reason},
    verdict::Verdict,
    wire::{ConfigFlags, Filter, FlowFlags, Role, Side},
};

/// The way of a packet that comes in through `hook`.
#[inline(always)]
pub fn ingress<P: Packet, T: Record>(packet: &mut P, tables: &T, hook: Hook, link: Link) -> Verdict {
    // A pod's frame is its bridge's or its gateway's; on other links no stack would take one that is not for us.
    if packet.is_of_vlan() || (hook != Hook::PodIngress && link == Link::Ethernet && !packet.is_to_us()) {
        return Verdict::Pass;
    }
    let verdict = match locate(packet, link) {
        Some((false, l3)) => family::<V4, P, T>(packet, tables, At { hook, link, l3 }),
        Some((true, l3)) => family::<V6, P, T>(packet, tables, At { hook, link, l3 }),
        None => Verdict::Pass,
    };
    count_drop(tables, hook, verdict)
}

#[inline(always)]
pub fn count_drop<T: Record>(tables: &T, hook: Hook, verdict: Verdict) -> Verdict {
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

/// Inlined for both families: their variables lie in rows, and a call costs an established packet a tenth.
#[inline(always)]
fn family<F: Parse + Reject, P: Packet, T: Record>(packet: &mut P, tables: &T, at: At) -> Verdict {
    let (Some(row), Some(config)) = (tables.row::<F>(), tables.config()) else { return Verdict::Pass };
    match F::parse(packet, at.l3, Side::INGRESS, &mut row.headers) {
        Parsed::Ports => {}
        Parsed::Other => return Verdict::Pass,
        Parsed::LeftAlone(reason) => {
            tables.count(at.hook, reason);
            return Verdict::Pass;
        }
    }
    let now = tables.now();
    let known = tables.find::<F>(&row.headers.key, now, harmless(&row.headers), &mut row.flow);
    if known && is_current(&row.headers, &F::state(&row.flow), config, now) {
        return carry::<F, P, T>(packet, tables, at, row);
    }
    let may_be_frontend = tables.may_be_frontend(Filter::frontend(&F::destination(&row.headers.key)));
    if !known && !may_be_frontend && !may_be_target(tables, &row.headers) {
        return Verdict::Pass;
    }
    row.may_be_frontend = u32::from(may_be_frontend);
    row.known = u32::from(known);
    row.at(at.hook, at.link, packet.device());
    let mut code = if known { tables.work::<{ Work::REVIEW }, F>() } else { Code::NEW };
    if code == Code::PROVE {
        code = tables.work::<{ Work::PROVE }, F>();
    } else if code != Code::DONE {
        let Some(row) = tables.row::<F>() else { return Verdict::Pass };
        row.ask = u32::from(code == Code::ASK);
        code = tables.apart::<{ Part::MEET }, F, P>(packet);
        if code == Code::AGAIN {
            code = tables.apart::<{ Part::MEET }, F, P>(packet);
        }
    }
    let new = matches!(code, Code::ENTERED | Code::CLAIM | Code::CLAIMED | Code::ANEW);
    if new {
        code = establish::<F, P, T>(packet, tables, code);
    }
    // The parts have had it meanwhile.
    let Some(row) = tables.row::<F>() else { return Verdict::Pass };
    if new && code == Code::DONE {
        let direct = F::state(&row.flow).role == Role::DIRECT;
        tables.count(at.hook, if direct { Reason::DirectFlow } else { Reason::NewFlow });
    }
    if code == Code::ANEW && tables.find::<F>(&row.headers.key, now, harmless(&row.headers), &mut row.flow) {
        code = Code::DONE;
    }
    match code {
        Code::DONE => {
            let verdict = carry::<F, P, T>(packet, tables, at, row);
            if new && verdict == Verdict::Forward {
                tables.count(at.hook, Reason::FastPath);
            }
            verdict
        }
        Code::PASS => Verdict::Pass,
        Code::MID_FLOW => {
            tables.count(at.hook, Reason::MidFlow);
            Verdict::Pass
        }
        Code::REFUSED => match tables.apart::<{ Part::REJECT }, F, P>(packet) {
            Code::REPLY => Verdict::Reply,
            code => Verdict::Drop(Code::reason(code)),
        },
        code => Verdict::Drop(Code::reason(code)),
    }
}

/// Whether a packet that no entry knows may be for what is a backend.
#[inline(always)]
fn may_be_target<F: Family, T: Lookup>(tables: &T, headers: &Headers<F>) -> bool {
    let key = &headers.key;
    tables.may_be_target(Filter::target(&F::destination(key), F::destination_port(key), F::protocol(key)))
}

/// Applies an ingress entry.
#[inline(always)]
fn carry<'a, F: Parse + Reject, P: Packet, T: Record>(
    packet: &mut P,
    tables: &'a T,
    at: At,
    mut row: &'a mut Row<F>,
) -> Verdict {
    let flags = F::state(&row.flow).flags;
    let mut forward = false;
    if flags & FlowFlags::FAST != 0 {
        forward = tables.apart::<{ Part::SHORTCUT }, F, P>(packet) == Code::DONE;
        // Linux 6.1 prunes by a number that it knows and that a branch behind a call depends on, and removes what it
        // then takes for dead: it must not know it.
        forward = packet.conceal(usize::from(forward)) != 0;
        match tables.row::<F>() {
            Some(again) => row = again,
            None => return Verdict::Pass,
        }
    }
    let headers = &row.headers;
    if !tables.rewrite::<F, P>(packet, row) {
        return Verdict::Drop(Reason::RewriteFailed);
    }
    let (done, verdict) = if forward {
        packet.send_by(&row.route);
        (set_ttl::<F, P>(packet, headers.l3, headers.ttl - 1), Verdict::Forward)
    } else if flags & FlowFlags::HAIRPIN != 0 {
        (swap_hardware_addresses(packet, at.link), Verdict::Back)
    } else {
        (Some(()), Verdict::Translate)
    };
    if done.is_some() { verdict } else { Verdict::Drop(Reason::RewriteFailed) }
}

/// Whether the packet may skip the stack: nobody there looks, and routing table, MTU and TTL allow it. `row.flow` is then
/// the egress entry, whose tuple is the one behind both halves of the translation.
#[inline(always)]
pub fn shortcut<F: Family, P: Packet, T: Record>(packet: &mut P, tables: &T, row: &mut Row<F>) -> u32 {
    if row.headers.ttl <= 1 || !is_fast(tables, F::V6) {
        return Code::PASS;
    }
    let protocol = row.headers.protocol();
    F::make_key(&mut row.other.key, &row.flow, protocol, Side::EGRESS);
    if !tables.find::<F>(&row.other.key, tables.now(), row.headers.seen(), &mut row.other.flow) {
        return Code::PASS;
    }
    let new = F::tuple(&row.other.flow, protocol);
    row.route = packet.route(&RouteQuery {
        source: F::wide(new.source),
        destination: F::wide(new.destination),
        source_port: new.source_port,
        destination_port: new.destination_port,
        protocol: new.protocol,
        length: on_the_wire(packet, &row.headers),
        by: 0,
    });
    if row.route.usable == 0 {
        return Code::PASS;
    }
    row.flow = row.other.flow;
    Code::DONE
}

#[inline(always)]
fn is_fast<T: Lookup>(tables: &T, v6: bool) -> bool {
    let flag = if v6 { ConfigFlags::FAST6 } else { ConfigFlags::FAST4 };
    tables.config().is_some_and(|config| config.flags & flag != 0)
}

/// Length of the largest IP packet that this one becomes on the wire, in bytes.
#[inline(always)]
pub fn on_the_wire<F: Family, P: Packet>(packet: &P, headers: &Headers<F>) -> u16 {
    let segment = packet.segment();
    if segment == 0 {
        return headers.length;
    }
    let transport = if headers.protocol() == TCP { Tcp::WITH_TIMESTAMPS } else { Udp::LEN };
    (headers.l4 - headers.l3 + transport + segment) as u16
}

/// Whether a state is that of a flow's replies.
#[inline(always)]
pub fn is_reply(state: &State) -> bool {
    state.role == Role::REPLY
}
