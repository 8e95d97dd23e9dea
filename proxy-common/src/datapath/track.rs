use super::{
    Family, Inserted, Packet, RouteQuery, Tables, Tuple,
    family::State,
    parse::{Headers, TCP},
};
use crate::{
    reason::Reason,
    tcp::Seen,
    wire::{Address, FlowFlags, Side},
};

/// Tries at a free source port. The first keeps the client's; the chance that all the others meet a used one is the
/// share of used ports to the power of their number.
const PORT_TRIES: u32 = 10;

/// Writes the entries of a flow, replies first: whoever holds the reply key owns the tuple. `flow` is the entry of the
/// client's packets as it was chosen; its tuple becomes the one that was free.
#[inline(always)]
pub fn establish<F: Family, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    headers: &Headers<F>,
    flow: &mut F::Flow,
) -> Result<(), Reason> {
    own_tuple::<F, T>(tables, headers, flow)?;
    if F::state(flow).flags & FlowFlags::MASQUERADE != 0 {
        let mut mask = Mask { node: Address::ANY, port: 0 };
        find_node_address::<F, P, T>(packet, tables, headers, flow, &mut mask)?;
        claim_mask::<F, T>(tables, headers, flow, &mut mask)?;
        enter_mask::<F, T>(tables, headers, flow, &mask)?;
    }
    enter::<F, T>(tables, &headers.key, flow)
}

#[inline(always)]
fn enter<F: Family, T: Tables>(tables: &T, key: &F::Key, flow: &F::Flow) -> Result<(), Reason> {
    match tables.insert::<F>(key, flow, false) {
        Inserted::Yes => Ok(()),
        Inserted::Exists | Inserted::Full => Err(Reason::FlowTableFull),
    }
}

/// The tuple of the client's packets between ingress and egress.
#[inline(always)]
fn sent<F: Family>(headers: &Headers<F>, flow: &F::Flow) -> Tuple<F::Address> {
    F::tuple(flow, headers.protocol())
}

/// Enters the replies, under a source port that is free towards the backend; `flow` gets it. A hairpin flow gets
/// another source address too.
#[inline(never)]
fn own_tuple<F: Family, T: Tables>(tables: &T, headers: &Headers<F>, flow: &mut F::Flow) -> Result<(), Reason> {
    let dialled = headers.tuple();
    let state = F::state(flow);
    let mut tuple = sent(headers, flow);
    let flags = state.flags & FlowFlags::HAIRPIN;
    let side = if flags != 0 {
        // Its own address as source would never leave the pod; the address it dialled is one that it sends to its
        // gateway.
        tuple.source = dialled.destination;
        Side::INGRESS
    } else {
        Side::EGRESS
    };
    let reply = F::flow(&dialled.reversed(), State { flags, ..state });
    claim_port::<F, T>(tables, &mut tuple, side, &reply, |attempt, port| {
        if attempt == 0 { port } else { (1024 + tables.random() % (65536 - 1024)) as u16 }
    })?;
    *flow = F::flow(&tuple, state);
    Ok(())
}

/// The address that takes the client's place: one of the device that the flow will leave by, so that replies come
/// back there.
#[inline(never)]
fn find_node_address<F: Family, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    headers: &Headers<F>,
    flow: &F::Flow,
    mask: &mut Mask,
) -> Result<(), Reason> {
    let tuple = sent(headers, flow);
    let route = packet.route(&RouteQuery {
        source: F::wide(tuple.source),
        destination: F::wide(tuple.destination),
        source_port: tuple.source_port,
        destination_port: tuple.destination_port,
        protocol: tuple.protocol,
        length: 0,
    });
    let device = tables.device(route.device).map(|device| if F::V6 { device.address6 } else { device.address4 });
    mask.node = match device {
        Some(address) if address != Address::ANY => address,
        _ => {
            let config = tables.config().ok_or(Reason::NoNodeAddress)?;
            if F::V6 { config.node6 } else { config.node4 }
        }
    };
    if mask.node == Address::ANY { Err(Reason::NoNodeAddress) } else { Ok(()) }
}

/// What takes the client's place at egress.
struct Mask {
    node: Address,
    /// Network order.
    port: u16,
}

impl Mask {
    #[inline(always)]
    fn over<F: Family>(&self, sent: Tuple<F::Address>) -> Tuple<F::Address> {
        Tuple { source: F::narrow(&self.node), source_port: self.port, ..sent }
    }
}

/// Enters the replies to the masquerade, under a port of the node that is free towards the backend.
#[inline(never)]
fn claim_mask<F: Family, T: Tables>(
    tables: &T,
    headers: &Headers<F>,
    flow: &F::Flow,
    mask: &mut Mask,
) -> Result<(), Reason> {
    let config = tables.config().ok_or(Reason::NoNodeAddress)?;
    let (low, high) = (u32::from(config.masquerade_port_min), u32::from(config.masquerade_port_max));
    let ports = (high + 1).saturating_sub(low).max(1);
    let state = F::state(flow);
    let reply = F::flow(&sent(headers, flow).reversed(), State { flags: state.flags & FlowFlags::FAST, ..state });
    let mut masked = mask.over::<F>(sent(headers, flow));
    // Always another port than the client's: connections of the node itself use the kernel's range of local ports.
    claim_port::<F, T>(tables, &mut masked, Side::INGRESS, &reply, |_, _| (low + tables.random() % ports) as u16)?;
    mask.port = masked.source_port;
    Ok(())
}

/// Enters the client's packets at egress.
#[inline(never)]
fn enter_mask<F: Family, T: Tables>(
    tables: &T,
    headers: &Headers<F>,
    flow: &F::Flow,
    mask: &Mask,
) -> Result<(), Reason> {
    let masked = mask.over::<F>(sent(headers, flow));
    let forward = F::flow(&masked, State { flags: FlowFlags::FORWARD, ..F::state(flow) });
    enter::<F, T>(tables, &F::key(&sent(headers, flow), Side::EGRESS), &forward)
}

/// Finds a source port for `sent` whose reply tuple is free on `side` and takes it. `candidate` gets the number of the
/// attempt and the present port, and answers with the next one, both in host order.
#[inline(always)]
fn claim_port<F: Family, T: Tables>(
    tables: &T,
    sent: &mut Tuple<F::Address>,
    side: u8,
    reply: &F::Flow,
    candidate: impl Fn(u32, u16) -> u16,
) -> Result<(), Reason> {
    for attempt in 0..PORT_TRIES {
        sent.source_port = candidate(attempt, u16::from_be(sent.source_port)).to_be();
        let key = F::key(&sent.reversed(), side);
        match tables.insert::<F>(&key, reply, true) {
            Inserted::Yes => return Ok(()),
            Inserted::Full => return Err(Reason::FlowTableFull),
            Inserted::Exists => {
                // Left by an earlier flow of the same client through the same frontend: it is ours.
                let same = tables
                    .peek::<F>(&key)
                    .is_some_and(|held| F::tuple(&held, sent.protocol) == F::tuple(reply, sent.protocol));
                if same {
                    return enter::<F, T>(tables, &key, reply);
                }
            }
        }
    }
    Err(Reason::PortsExhausted)
}

/// A client talks straight to what is also a backend, from a port that it reached that backend through a frontend with:
/// the replies would be taken for those of the frontend. A packet from the client itself (`from_pod`) gets entries of
/// its own, under another source port, as conntrack would give it: `flow` is begun and the answer is true. Where a TCP
/// flow is over, its reply entry goes instead.
///
/// At other hooks the packet may be one of that very flow, translated a moment ago: an entry that was seen in this tick
/// or the last is kept.
#[inline(always)]
pub fn makes_way<F: Family, T: Tables>(tables: &T, direct: &Headers<F>, from_pod: bool, flow: &mut F::Flow) -> bool {
    let tuple = direct.tuple();
    let key = F::key(&tuple.reversed(), Side::EGRESS);
    let Some(reply) = tables.peek::<F>(&key) else { return false };
    let state = F::state(&reply);
    if state.flags & FlowFlags::FORWARD != 0 {
        // The masquerade of a flow the other way round.
        return false;
    }
    let now = tables.now();
    let dialled = F::tuple(&reply, direct.protocol()).reversed();
    let forward = tables.peek::<F>(&F::key(&dialled, Side::INGRESS)).map(|forward| F::state(&forward));
    let is_fresh = forward.as_ref().is_some_and(|forward| now.wrapping_sub(forward.last_seen) <= 1);
    let is_over = forward.is_none_or(|forward| forward.seen & Seen::CLOSING != 0);
    if direct.protocol() == TCP && !is_fresh && (is_over || !from_pod) {
        tables.remove::<F>(&key);
        return false;
    }
    if from_pod {
        // Not `FORWARD`: it has no backend that could stop serving.
        *flow = F::flow(&tuple, State { last_seen: now, created: now, flags: 0, seen: direct.seen(), ..state });
    }
    from_pod
}
