//! Packets that have no entry, or one that has to be looked at before it is believed.

use super::{
    Family, Packet, Record, Row, SocketQuery,
    class::classify,
    decide::{Decision, Origin, Pick, decide},
    family::State,
    flow_hash,
    judge::{client_key, is_clients, life, prove, reply_key},
    over::since,
    parse::{Headers, TCP},
    part::Code,
    stranger,
};
use crate::{
    reason::Reason,
    tcp::{self, Seen, TcpFlags},
    wire::{
        Address, BackendFlags, Config, Filter, FlowFlags, Frontend, FrontendKey, Role, Scope,
    },
};

/// Segments that change what a flow is.
const TURNING: u8 = TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST;

/// Whether an entry can be believed without a further look: all that an established flow costs.
#[inline(always)]
pub fn is_current<F: Family>(headers: &Headers<F>, state: &State, config: &Config, now: u32) -> bool {
    if !is_clients(state.role) {
        return true;
    }
    if state.flags & FlowFlags::PROVEN == 0 {
        return false;
    }
    if headers.protocol() == TCP {
        return headers.tcp_flags & TURNING == 0;
    }
    state.stamp == config.epoch && since(state.last_seen, now) <= config.timeouts.udp
}

/// What a packet shows of its flow before it has been looked at. What ends a flow is noted only after that.
#[inline(always)]
pub fn harmless<F: Family>(headers: &Headers<F>) -> u8 {
    headers.seen() & !(Seen::FIN | Seen::RST)
}

/// Looks at the entry of a packet, if there is one, or decides what becomes of its flow.
#[inline(always)]
pub fn meet<F: Family, P: Packet, T: Record>(packet: &mut P, tables: &T, row: &mut Row<F>) -> u32 {
    let known = row.known != 0;
    if known && review::<F, T>(tables, row) {
        return Code::DONE;
    }
    match choose::<F, P, T>(packet, tables, row) {
        Code::NEW if known => Code::ANEW,
        code => code,
    }
}

/// Whether the entry of the packet, as it was before it, still speaks for its flow. Established TCP is never cut; what
/// opens a flow, and UDP, goes to a backend that still serves, of the service port that has the frontend now.
#[inline(always)]
fn review<F: Family, T: Record>(tables: &T, row: &mut Row<F>) -> bool {
    let Some(config) = tables.config() else { return true };
    let client = F::state(&row.flow);
    let tuple = row.headers.tuple();
    row.client_key = row.headers.key;
    row.reply_key = reply_key::<F>(&row.flow, tuple.protocol);
    let Some(reply) = tables.peek::<F>(&row.reply_key) else { return false };
    if F::tuple(&reply, tuple.protocol).reversed() != tuple {
        return false;
    }
    let reply = F::state(&reply);
    let mut life = life(tuple.protocol, &client, &reply);
    let flags = row.headers.tcp_flags;
    if tuple.protocol == TCP && !tcp::opens(flags) {
        if flags & (TcpFlags::FIN | TcpFlags::RST) != 0 {
            // Whoever can write another's address ends none of his flows: not from another link.
            if row.is_at_pod_link() && row.device != reply.subject {
                return true;
            }
            tables.note::<F>(&row.client_key, row.headers.seen());
        }
    } else if life.is_over(tables.now(), false, &config.timeouts)
        || (tuple.protocol == TCP && is_used_again(client.seen, reply.seen))
    {
        return false;
    } else if tuple.protocol == TCP || client.stamp != config.epoch {
        if !is_owned::<F, T>(tables, row, &client) {
            return false;
        }
        tables.stamp::<F>(&row.client_key, config.epoch);
    }
    life.client.seen |= row.headers.seen();
    if !life.proven && life.is_answered() {
        prove::<F, T>(tables, row);
    }
    true
}

/// Whether a SYN opens a new connection from the port of an earlier one. A client that has sent nothing but a reset
/// since its SYN is still at the first: a server that remembers an earlier connection answered with an ACK (RFC 5961,
/// 4.2), and makes room by that reset.
#[inline(always)]
fn is_used_again(client: u8, reply: u8) -> bool {
    reply & Seen::RST != 0 || (client & Seen::ACK != 0 && client & (Seen::FIN | Seen::RST) != 0)
}

/// Whether the frontend that the client dialled still leads to the backend of its flow; for a flow straight to an
/// endpoint, whether no frontend has taken that address.
#[inline(always)]
fn is_owned<F: Family, T: Record>(tables: &T, row: &Row<F>, client: &State) -> bool {
    let frontend = find_frontend::<F, T>(tables, &row.headers);
    if client.role == Role::DIRECT {
        return frontend.is_none();
    }
    let (Some((_, frontend)), Some(backend)) = (frontend, tables.backend(client.subject)) else { return false };
    frontend.service == backend.service
        && backend.generation == client.generation
        && backend.flags & BackendFlags::SERVING != 0
}

/// The part for a second answer of a UDP flow, whose reply entry is the packet's: a server that goes on sending is as
/// good as a client that asks again.
#[inline(always)]
pub fn proved<F: Family, T: Record>(tables: &T, row: &mut Row<F>) -> u32 {
    row.reply_key = row.headers.key;
    row.client_key = client_key::<F>(&row.flow, row.headers.protocol());
    if tables.peek::<F>(&row.client_key).is_some_and(|client| is_clients(F::state(&client).role)) {
        prove::<F, T>(tables, row);
    }
    Code::DONE
}

/// Finds the frontend and its backend, and begins the entry of the client's packets: its tuple has the client's own
/// address and port yet.
#[inline(always)]
fn choose<F: Family, P: Packet, T: Record>(packet: &mut P, tables: &T, row: &mut Row<F>) -> u32 {
    let tuple = row.headers.tuple();
    let dialled = F::wide(tuple.destination);
    let frontend = if tables.may_be_frontend(Filter::frontend(&dialled)) {
        find_frontend::<F, T>(tables, &row.headers)
    } else {
        None
    };
    let Some((_, frontend)) = frontend else { return stranger::direct::<F, T>(tables, row) };
    let client = F::wide(tuple.source);
    if frontend.policy.is_node_address() && has_own_socket(packet, &row.headers) {
        tables.count(row.hook(), Reason::OwnSocket);
        return Code::PASS;
    }
    if tuple.protocol == TCP && !tcp::opens(row.headers.tcp_flags) {
        return Code::MID_FLOW;
    }
    let by_pod_link = row.is_at_pod_link();
    let class = classify(tables, &client, row.device, by_pod_link);
    let dice = Dice { tables, headers: &row.headers };
    let (id, backend, masquerade) = match decide(tables, &frontend, &Origin { class, by_pod_link, v6: F::V6 }, &dice) {
        Decision::To { id, backend, masquerade } => (id, backend, masquerade),
        Decision::Reject => return Code::REFUSED,
        Decision::NoLocalEndpoint => return Code::drop(Reason::NoLocalEndpoint),
        Decision::Stale => return Code::drop(Reason::StaleTables),
    };
    let sent = super::Tuple { destination: F::narrow(&backend.address), destination_port: backend.port, ..tuple };
    let fast = !by_pod_link && backend.flags & BackendFlags::LOCAL == 0;
    let flags = match () {
        () if sent.destination == sent.source => FlowFlags::HAIRPIN,
        () if masquerade && fast => FlowFlags::MASQUERADE | FlowFlags::FAST,
        () if masquerade => FlowFlags::MASQUERADE,
        () => 0,
    };
    let state = State {
        subject: id,
        generation: backend.generation,
        stamp: tables.config().map_or(0, |config| config.epoch),
        last_seen: tables.now(),
        role: Role::CLIENT,
        flags,
        seen: row.headers.seen(),
    };
    row.flow = F::flow(&sent, state);
    Code::NEW
}

/// Chooses by chance, or by what the packet is.
struct Dice<'a, F: Family, T> {
    tables: &'a T,
    headers: &'a Headers<F>,
}

impl<F: Family, T: Record> Pick for Dice<'_, F, T> {
    #[inline(always)]
    fn random(&self) -> u32 {
        self.tables.random()
    }

    #[inline(always)]
    fn hash(&self) -> u32 {
        let tuple = self.headers.tuple();
        flow_hash(&F::wide(tuple.source), tuple.source_port, tuple.destination_port, tuple.protocol)
    }
}

#[inline(always)]
fn has_own_socket<F: Family, P: Packet>(packet: &P, headers: &Headers<F>) -> bool {
    let tuple = headers.tuple();
    packet.has_own_socket(&SocketQuery {
        source: F::wide(tuple.source),
        destination: F::wide(tuple.destination),
        source_port: tuple.source_port,
        destination_port: tuple.destination_port,
        tcp: tuple.protocol == TCP,
    })
}

/// The frontend that a packet is for. ClusterIPs and other addresses first, NodePorts last.
#[inline(always)]
pub fn find_frontend<F: Family, T: Record>(tables: &T, headers: &Headers<F>) -> Option<(FrontendKey, Frontend)> {
    let tuple = headers.tuple();
    find::<F, T>(tables, F::wide(tuple.destination), tuple.destination_port, tuple.protocol)
}

/// The frontend at an address and port.
#[inline(always)]
pub fn find<F: Family, T: Record>(
    tables: &T,
    address: Address,
    port: u16,
    protocol: u8,
) -> Option<(FrontendKey, Frontend)> {
    let mut key = FrontendKey { address, port, protocol, scope: Scope::ADDRESS };
    if let Some(frontend) = tables.frontend(&key) {
        return Some((key, frontend));
    }
    let config = tables.config()?;
    let number = u16::from_be(port);
    if number < config.node_port_min || number > config.node_port_max || !tables.is_node_port_address(&key.address) {
        return None;
    }
    key.address = Address::ANY;
    key.scope = F::NODE_PORT;
    tables.frontend(&key).map(|frontend| (key, frontend))
}
