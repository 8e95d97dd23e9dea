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

/// Tries at a free source port in a row. The first keeps the client's; the chance that all the others meet a used one is
/// the share of used ports to the power of their number.
const PORT_TRIES: u32 = 3;
/// How often, after a row in vain, the flow that holds the last port is looked at, whether it is over. The first time,
/// one that closed a moment ago counts as alive.
const SECOND_CHANCES: u32 = 3;

/// Writes the entries of a flow, replies first: whoever holds the reply key owns the tuple. `flow` is the entry of the
/// client's packets as it was chosen; its tuple becomes the one that was free.
#[inline(always)]
pub fn establish<F: Family, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    headers: &Headers<F>,
    flow: &mut F::Flow,
) -> Result<(), Reason> {
    // The two loops are alike, and are written out: with one function for both, given closures, the verifier of Linux 6.1
    // walks through 136,124 instructions and not 120,618.
    let mut owned = own_tuple::<F, T>(tables, headers, flow);
    for chance in 0..SECOND_CHANCES {
        if owned != Err(Reason::PortsExhausted) {
            break;
        }
        free_tuple::<F, T>(tables, headers, flow, chance > 0);
        owned = own_tuple::<F, T>(tables, headers, flow);
    }
    owned?;
    if F::state(flow).flags & FlowFlags::MASQUERADE != 0 {
        let mut mask = Mask { node: Address::ANY, port: 0 };
        find_node_address::<F, P, T>(packet, tables, headers, flow, &mut mask)?;
        let mut claimed = claim_mask::<F, T>(tables, headers, flow, &mut mask);
        for chance in 0..SECOND_CHANCES {
            if claimed != Err(Reason::PortsExhausted) {
                break;
            }
            free_mask::<F, T>(tables, headers, flow, &mask, chance > 0);
            claimed = claim_mask::<F, T>(tables, headers, flow, &mut mask);
        }
        claimed?;
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
/// another source address too. Where none was free, `flow` has the last that was tried.
#[inline(never)]
fn own_tuple<F: Family, T: Tables>(tables: &T, headers: &Headers<F>, flow: &mut F::Flow) -> Result<(), Reason> {
    let state = F::state(flow);
    let (mut tuple, side) = owned::<F>(headers, flow);
    let flags = state.flags & FlowFlags::HAIRPIN;
    let reply = F::flow(&headers.tuple().reversed(), State { flags, ..state });
    let claimed = claim_port::<F, T>(tables, &mut tuple, side, &reply, |attempt, port| {
        if attempt == 0 { port } else { (1024 + tables.random() % (65536 - 1024)) as u16 }
    });
    *flow = F::flow(&tuple, state);
    claimed
}

/// The tuple that the backend is to see, and the side on which its replies are met.
#[inline(always)]
fn owned<F: Family>(headers: &Headers<F>, flow: &F::Flow) -> (Tuple<F::Address>, u8) {
    let tuple = sent(headers, flow);
    if F::state(flow).flags & FlowFlags::HAIRPIN == 0 {
        return (tuple, Side::EGRESS);
    }
    // Its own address as source would never leave the pod; the address it dialled is one that it sends to its gateway.
    (Tuple { source: headers.tuple().destination, ..tuple }, Side::INGRESS)
}

/// Ends the flow that holds the tuple of `flow`, if it is over.
#[inline(never)]
fn free_tuple<F: Family, T: Tables>(tables: &T, headers: &Headers<F>, flow: &F::Flow, pressed: bool) {
    let (tuple, side) = owned::<F>(headers, flow);
    free::<F, T>(tables, &tuple, side, pressed);
}

/// Ends the flow that holds the masquerade `mask`, if it is over.
#[inline(never)]
fn free_mask<F: Family, T: Tables>(tables: &T, headers: &Headers<F>, flow: &F::Flow, mask: &Mask, pressed: bool) {
    free::<F, T>(tables, &mask.over::<F>(sent(headers, flow)), Side::INGRESS, pressed);
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

/// Enters the replies to the masquerade, under a port of the node that is free towards the backend, `mask`'s first if it
/// has one; `mask` gets it, or the last that was tried where none was free.
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
    // Never the client's own port: connections of the node itself use the kernel's range of local ports.
    let claimed = claim_port::<F, T>(tables, &mut masked, Side::INGRESS, &reply, |attempt, port| {
        if attempt == 0 && port != 0 { port } else { (low + tables.random() % ports) as u16 }
    });
    mask.port = masked.source_port;
    claimed
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
            Inserted::Exists if attempt == 0 => {
                // Left by an earlier flow of the same client through the same frontend: it is ours.
                let same = tables
                    .peek::<F>(&key)
                    .is_some_and(|held| F::tuple(&held, sent.protocol) == F::tuple(reply, sent.protocol));
                if same {
                    return enter::<F, T>(tables, &key, reply);
                }
            }
            Inserted::Exists => {}
        }
    }
    Err(Reason::PortsExhausted)
}

/// Ends the flow whose client's packets become `sent` and whose replies are met on `side`, if it is over. Were finished
/// flows kept, a node could make no more connections to a backend than it has ports.
#[inline(always)]
fn free<F: Family, T: Tables>(tables: &T, sent: &Tuple<F::Address>, side: u8, pressed: bool) {
    let key = F::key(&sent.reversed(), side);
    let Some(reply) = tables.peek::<F>(&key) else { return };
    if F::state(&reply).flags & FlowFlags::FORWARD != 0 {
        // Packets of a client that happens to have this tuple.
        return;
    }
    let key_of_client = client_key::<F>(&reply, sent.protocol, side);
    let client = client_state::<F, T>(tables, &key_of_client, &key);
    if is_over(tables, sent.protocol, &F::state(&reply), client.as_ref(), pressed) {
        tables.remove::<F>(&key);
        if client.is_some() {
            tables.remove::<F>(&key_of_client);
        }
    }
}

/// The key of the client's packets, whose replies are entered on `side` as `reply`.
#[inline(always)]
fn client_key<F: Family>(reply: &F::Flow, protocol: u8, side: u8) -> F::Key {
    let masks = side == Side::INGRESS && F::state(reply).flags & FlowFlags::HAIRPIN == 0;
    F::key(&F::tuple(reply, protocol).reversed(), if masks { Side::EGRESS } else { Side::INGRESS })
}

/// What is known of the client's packets entered as `key`, if they still become those that `reply` answers.
#[inline(always)]
fn client_state<F: Family, T: Tables>(tables: &T, key: &F::Key, reply: &F::Key) -> Option<State> {
    let flow = tables.peek::<F>(key)?;
    let replies = F::parts(reply);
    (F::tuple(&flow, replies.protocol).reversed() == replies).then(|| F::state(&flow))
}

/// Whether a flow has no more use for its port. `client` is what is known of its client's packets, without which none of
/// them would find its way. `pressed`: no other port is free, so that one that both ends closed, or that had no more than
/// a question and an answer, rests for less long.
#[inline(always)]
fn is_over<T: Tables>(tables: &T, protocol: u8, reply: &State, client: Option<&State>, pressed: bool) -> bool {
    let Some(client) = client else { return true };
    let Some(config) = tables.config() else { return false };
    let now = tables.now();
    let quiet = now.wrapping_sub(client.last_seen).min(now.wrapping_sub(reply.last_seen));
    if protocol != TCP {
        // As conntrack, which forgets a query and its answer in a quarter of the time that a longer exchange gets.
        let is_brief = client.last_seen.wrapping_sub(client.created) <= 1;
        return quiet > if pressed && is_brief { config.udp_timeout / 4 } else { config.udp_timeout };
    }
    let closing = (client.seen | reply.seen) & Seen::CLOSING != 0;
    let closed = client.seen & reply.seen & Seen::CLOSING != 0;
    let answered = reply.seen & Seen::ESTABLISHED != 0;
    (closing || !answered) && quiet > if pressed && closed { 1 } else { config.tcp_timeout }
}

/// A client talks straight to what is also a backend, from a port that it reached that backend through a frontend with:
/// the replies would be taken for those of the frontend. A packet from the client itself (`from_pod`) gets entries of
/// its own, under another source port, as conntrack would give it: `flow` is begun and the answer is true. Where the
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
    let client = client_state::<F, T>(tables, &client_key::<F>(&reply, direct.protocol(), Side::EGRESS), &key);
    let now = tables.now();
    let is_fresh = client.as_ref().is_some_and(|client| now.wrapping_sub(client.last_seen) <= 1);
    let is_over = is_over(tables, direct.protocol(), &state, client.as_ref(), true);
    if is_over || (direct.protocol() == TCP && !is_fresh && !from_pod) {
        tables.remove::<F>(&key);
        return false;
    }
    if from_pod {
        // Not `FORWARD`: it has no backend that could stop serving.
        let flags = FlowFlags::DIRECT;
        *flow = F::flow(&tuple, State { last_seen: now, created: now, flags, seen: direct.seen(), ..state });
    }
    from_pod
}
