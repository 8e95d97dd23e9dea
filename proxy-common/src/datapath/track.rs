use super::{
    Family, Inserted, Packet, RouteQuery, Tables, Tuple,
    family::State,
    parse::Headers,
};
use crate::{
    reason::Reason,
    wire::{Address, Backend, FlowFlags, Side},
};

/// How a new flow is to be carried.
pub struct Admission {
    pub id: u32,
    pub backend: Backend,
    pub masquerade: bool,
    pub fast: bool,
}

/// Tries at a free source port. The first keeps the client's; the chance that all the others meet a used one is the
/// share of used ports to the power of their number.
const PORT_TRIES: u32 = 10;

/// Writes the entries of a flow, replies first: whoever holds the reply key owns the tuple. Returns the entry of the
/// client's packets.
#[inline(always)]
pub fn establish<F: Family, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    headers: &Headers<F::Address>,
    admission: &Admission,
) -> Result<F::Flow, Reason> {
    let dialled = headers.tuple;
    let now = tables.now();
    let backend = &admission.backend;
    let state = State {
        backend: admission.id,
        generation: backend.generation,
        service: backend.service,
        last_seen: now,
        created: now,
        flags: 0,
        seen: headers.seen(),
    };
    let mut sent = Tuple {
        source: dialled.source,
        destination: F::narrow(&backend.address),
        source_port: dialled.source_port,
        destination_port: backend.port,
        protocol: dialled.protocol,
    };
    let hairpin = sent.destination == dialled.source;
    let (reply_side, mut flags) = if hairpin {
        // Its own address as source would never leave the pod; the address it dialled is one that it sends to its
        // gateway.
        sent.source = dialled.destination;
        (Side::INGRESS, FlowFlags::HAIRPIN)
    } else {
        (Side::EGRESS, 0)
    };
    let reply = F::flow(&dialled.reversed(), State { flags, ..state });
    claim_port::<F, T>(tables, &mut sent, reply_side, &reply, |tables, attempt, port| {
        if attempt == 0 { port } else { (1024 + tables.random() % (65536 - 1024)) as u16 }.to_be()
    })?;
    if admission.masquerade && !hairpin {
        masquerade::<F, P, T>(packet, tables, &sent, state, admission.fast)?;
        flags |= FlowFlags::MASQUERADE | if admission.fast { FlowFlags::FAST } else { 0 };
    }
    let forward = F::flow(&sent, State { flags: flags | FlowFlags::FORWARD, ..state });
    match tables.insert::<F>(&F::key(&dialled, Side::INGRESS), &forward, false) {
        Inserted::Yes => Ok(forward),
        Inserted::Exists | Inserted::Full => Err(Reason::FlowTableFull),
    }
}

/// The second pair of entries: the node's address takes the client's place at egress.
#[inline(always)]
fn masquerade<F: Family, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    sent: &Tuple<F::Address>,
    state: State,
    fast: bool,
) -> Result<(), Reason> {
    let config = tables.config().ok_or(Reason::NoNodeAddress)?;
    let route = packet.route(&RouteQuery {
        source: F::wide(sent.source),
        destination: F::wide(sent.destination),
        source_port: sent.source_port,
        destination_port: sent.destination_port,
        protocol: sent.protocol,
        length: 0,
    });
    let device = tables.device(route.device).map(|device| if F::V6 { device.address6 } else { device.address4 });
    let node = match device {
        Some(address) if address != Address::ANY => address,
        _ if F::V6 => config.node6,
        _ => config.node4,
    };
    if node == Address::ANY {
        return Err(Reason::NoNodeAddress);
    }
    let mut masked = Tuple { source: F::narrow(&node), ..*sent };
    let (low, high) = (u32::from(config.masquerade_port_min), u32::from(config.masquerade_port_max));
    let ports = (high + 1).wrapping_sub(low).max(1);
    let flags = if fast { FlowFlags::FAST } else { 0 };
    let reply = F::flow(&sent.reversed(), State { flags, ..state });
    // Always another port than the client's: connections of the node itself use the kernel's range of local ports.
    claim_port::<F, T>(tables, &mut masked, Side::INGRESS, &reply, |tables, _, _| {
        ((low + tables.random() % ports) as u16).to_be()
    })?;
    let forward = F::flow(&masked, State { flags: FlowFlags::FORWARD, ..state });
    match tables.insert::<F>(&F::key(sent, Side::EGRESS), &forward, false) {
        Inserted::Yes => Ok(()),
        Inserted::Exists | Inserted::Full => Err(Reason::FlowTableFull),
    }
}

/// Finds a source port for `sent` whose reply tuple is free on `side` and takes it. `candidate` gets the number of the
/// attempt and the present port in host order, and answers in network order.
#[inline(always)]
fn claim_port<F: Family, T: Tables>(
    tables: &T,
    sent: &mut Tuple<F::Address>,
    side: u8,
    reply: &F::Flow,
    candidate: impl Fn(&T, u32, u16) -> u16,
) -> Result<(), Reason> {
    for attempt in 0..PORT_TRIES {
        sent.source_port = candidate(tables, attempt, u16::from_be(sent.source_port));
        let key = F::key(&sent.reversed(), side);
        match tables.insert::<F>(&key, reply, true) {
            Inserted::Yes => return Ok(()),
            Inserted::Full => return Err(Reason::FlowTableFull),
            Inserted::Exists => {
                // Left by an earlier flow of the same client through the same frontend: it is ours.
                let same = tables.peek::<F>(&key).is_some_and(|held| {
                    F::tuple(&held, sent.protocol) == F::tuple(reply, sent.protocol)
                });
                if same {
                    return match tables.insert::<F>(&key, reply, false) {
                        Inserted::Yes => Ok(()),
                        Inserted::Exists | Inserted::Full => Err(Reason::FlowTableFull),
                    };
                }
            }
        }
    }
    Err(Reason::PortsExhausted)
}

/// A client opens a connection straight to what is also a backend, from a port that an earlier flow to that backend
/// used: the replies are its own now. An entry whose flow was seen in this tick or the last is kept: this SYN may have
/// been translated by another hook a moment ago.
#[inline(always)]
pub fn forget_reuse<F: Family, T: Tables>(tables: &T, direct: &Tuple<F::Address>) {
    let key = F::key(&direct.reversed(), Side::EGRESS);
    let Some(reply) = tables.peek::<F>(&key) else { return };
    let dialled = F::tuple(&reply, direct.protocol).reversed();
    let fresh = tables
        .peek::<F>(&F::key(&dialled, Side::INGRESS))
        .is_some_and(|forward| tables.now().wrapping_sub(F::state(&forward).last_seen) <= 1);
    if !fresh {
        tables.remove::<F>(&key);
    }
}
