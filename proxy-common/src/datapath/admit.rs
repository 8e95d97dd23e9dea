//! Packets that have no entry, or one that has to be looked at before it is believed.

use super::{
    Family, Lookup, Packet, Record, Row, SocketQuery,
    class::classify,
    decide::{Decision, Origin, Pick, decide},
    family::State,
    flow_hash,
    judge::{is_clients, life, make_reply_key},
    over::since,
    parse::{Headers, TCP},
    part::Code,
    stranger,
};
use crate::{
    reason::Reason,
    tcp::{self, Seen, TcpFlags},
    wire::{Address, BackendFlags, Config, FlowFlags, Frontend, FrontendKey, Role, Scope},
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

/// Decides what becomes of a packet that no entry speaks for. Where there is one that is right if its frontend is still
/// whose it was, `row.ask` says so.
#[inline(always)]
pub fn meet<F: Family, P: Packet, T: Record>(packet: &mut P, tables: &T, row: &mut Row<F>) -> u32 {
    let may_be_frontend = row.may_be_frontend != 0;
    let frontend = if may_be_frontend { find_frontend::<F, T>(tables, &row.headers) } else { None };
    if row.ask != 0 {
        let client = F::state(&row.flow);
        if is_owned(tables, frontend.as_ref(), &client) {
            tables.stamp::<F>(&row.client_key, tables.config().map_or(0, |config| config.epoch));
            return Code::DONE;
        }
    }
    if frontend.is_none() && row.looked == 0 && may_be_frontend && may_open(&row.headers) {
        // A lookup may pass by an element that is being replaced: the new one was put behind it, the old one is gone when it
        // gets there (htab_map_update_elem, kernel/bpf/hashtab.c). The next lookup finds the new one.
        row.looked = 1;
        return Code::AGAIN;
    }
    match frontend {
        Some(frontend) => choose::<F, P, T>(packet, tables, row, &frontend),
        None => stranger::direct::<F, T>(tables, row),
    }
}

/// Whether the entry of the packet, as it was before it, still speaks for its flow. Established TCP is never cut; what
/// opens a flow, and UDP, goes to a backend that still serves, of the service port that has the frontend now:
/// [`Code::ASK`].
#[inline(always)]
pub fn review<F: Family, T: Record>(tables: &T, row: &mut Row<F>) -> u32 {
    let Some(config) = tables.config() else { return Code::DONE };
    let client = F::state(&row.flow);
    let protocol = row.headers.protocol();
    row.client_key = row.headers.key;
    row.kept = u32::from(F::tuple(&row.flow, protocol).source_port);
    make_reply_key::<F>(&mut row.reply_key, &row.flow, protocol);
    if !tables.peek::<F>(&row.reply_key, &mut row.other.reply) || !F::is_reverse(&row.other.reply, &row.client_key) {
        return Code::ANEW;
    }
    let reply = F::state(&row.other.reply);
    let mut life = life(protocol, &client, &reply);
    let flags = row.headers.tcp_flags;
    if protocol == TCP && !tcp::opens(flags) {
        if flags & (TcpFlags::FIN | TcpFlags::RST) != 0 {
            // Whoever can write another's address ends none of his flows: not from another link.
            if row.is_at_pod_link() && row.device != reply.subject {
                return Code::DONE;
            }
            tables.note::<F>(&row.client_key, row.headers.seen());
        }
    } else if life.is_over(tables.now(), false, &config.timeouts)
        || (protocol == TCP && is_used_again(client.seen, reply.seen))
    {
        return Code::ANEW;
    } else if protocol == TCP || client.stamp != config.epoch {
        // An entry that is current again proves itself with the next packet.
        return Code::ASK;
    }
    life.client.seen |= row.headers.seen();
    if !life.proven && life.is_answered() { Code::PROVE } else { Code::DONE }
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
fn is_owned<T: Record>(tables: &T, frontend: Option<&Frontend>, client: &State) -> bool {
    let Some(frontend) = frontend else { return client.role == Role::DIRECT };
    if client.role == Role::DIRECT {
        return false;
    }
    tables.backend(client.subject).is_some_and(|backend| backend.still_serves(frontend.service, client.generation))
}

/// Whether a packet may be the first of a flow through a frontend.
#[inline(always)]
fn may_open<F: Family>(headers: &Headers<F>) -> bool {
    headers.protocol() != TCP || tcp::opens(headers.tcp_flags)
}

/// Chooses the backend of a frontend, and begins the entry of the client's packets: its tuple has the client's own
/// address and port yet.
#[inline(always)]
fn choose<F: Family, P: Packet, T: Record>(packet: &mut P, tables: &T, row: &mut Row<F>, frontend: &Frontend) -> u32 {
    if frontend.policy.is_node_address() && has_own_socket(packet, &row.headers) {
        tables.count(row.hook(), Reason::OwnSocket);
        return Code::PASS;
    }
    if !may_open(&row.headers) {
        return Code::MID_FLOW;
    }
    let Some(config) = tables.config() else { return Code::drop(Reason::StaleTables) };
    let by_pod_link = row.is_at_pod_link();
    let by_address = config.is_pod(&F::source(&row.headers.key));
    let class = classify(tables, config, by_address, row.device, by_pod_link);
    let dice = Dice { tables, headers: &row.headers };
    let origin = Origin { class, by_pod_link, pod_address: by_address == Some(true), v6: F::V6 };
    let (id, backend, masquerade) = match decide(tables, frontend, &origin, &dice) {
        Decision::To { id, backend, masquerade } => (id, backend, masquerade),
        Decision::Reject => return Code::REFUSED,
        Decision::NoLocalEndpoint => return Code::drop(Reason::NoLocalEndpoint),
        Decision::Stale => return Code::drop(Reason::StaleTables),
    };
    let fast = !by_pod_link && backend.flags & BackendFlags::LOCAL == 0;
    let flags = match () {
        () if backend.address == F::source(&row.headers.key) => FlowFlags::HAIRPIN,
        () if masquerade && fast => FlowFlags::MASQUERADE | FlowFlags::FAST,
        () if masquerade => FlowFlags::MASQUERADE,
        () => 0,
    };
    let state = State {
        subject: id,
        generation: backend.generation,
        stamp: config.epoch,
        last_seen: tables.now(),
        role: Role::CLIENT,
        flags,
        seen: row.headers.seen(),
    };
    F::set_tuple(&mut row.flow, &row.headers.key);
    F::aim(&mut row.flow, &backend.address, backend.port);
    F::set_state(&mut row.flow, state);
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

/// The frontend that a packet is for.
#[inline(always)]
fn find_frontend<F: Family, T: Lookup>(tables: &T, headers: &Headers<F>) -> Option<Frontend> {
    let key = &headers.key;
    find(tables, F::NODE_PORT, F::destination(key), F::destination_port(key), F::protocol(key))
}

/// The frontend at an address and port, which is in network order: ClusterIPs and other addresses first, NodePorts of
/// the scope last.
#[inline(always)]
pub fn find<T: Lookup>(tables: &T, node_ports: u8, address: Address, port: u16, protocol: u8) -> Option<Frontend> {
    let key = FrontendKey { address, port, protocol, scope: Scope::ADDRESS };
    match tables.frontend(&key) {
        Some(frontend) => Some(frontend),
        None => find_node_port(tables, node_ports, &key),
    }
}

/// The NodePort at the address and port of a key that is no frontend's.
#[inline(always)]
fn find_node_port<T: Lookup>(tables: &T, scope: u8, key: &FrontendKey) -> Option<Frontend> {
    let config = tables.config()?;
    let number = u16::from_be(key.port);
    if number < config.node_port_min || number > config.node_port_max || !tables.is_node_port_address(&key.address) {
        return None;
    }
    node_port(tables, scope, key.port, key.protocol)
}

/// The frontend of a NodePort, at whichever address.
#[inline(always)]
pub fn node_port<T: Lookup>(tables: &T, scope: u8, port: u16, protocol: u8) -> Option<Frontend> {
    tables.frontend(&FrontendKey { address: Address::ANY, port, protocol, scope })
}
