use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use proxy_common::datapath::Family;
use proxy_common::wire::{Backend, Role, Side};

use super::kin::{Find, client_of, reply_of};
use crate::kernel::tick::Tick;

/// An entry of the flow tables, with what the rest of its flow says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    pub protocol: u8,
    /// One of [`Role`].
    pub role: u8,
    /// Whether the entry applies behind the node's stack; otherwise before it.
    pub egress: bool,
    /// The tuple of the packets that the entry applies to.
    pub source: (IpAddr, u16),
    pub destination: (IpAddr, u16),
    /// What takes its place.
    pub new_source: (IpAddr, u16),
    pub new_destination: (IpAddr, u16),
    /// Bits of [`proxy_common::wire::FlowFlags`], of the client's entry.
    pub flags: u8,
    /// Bits of [`proxy_common::tcp::Seen`], of both directions.
    pub seen: u8,
    /// Id of the service port, where there is one and it is known.
    pub service: Option<u32>,
    pub backend: Option<u32>,
    /// Index of the device that the client's first packet came in by.
    pub device: Option<u32>,
    /// Since the last packet that the entry applied to.
    pub idle: Duration,
    /// The client and what it dialled: the same in all entries of a flow.
    pub client: Option<((IpAddr, u16), (IpAddr, u16))>,
}

struct Entries<F: Family>(HashMap<F::Key, F::Flow>);

impl<F: Family> Find<F> for Entries<F>
where
    F::Key: Hash + Eq,
{
    fn find(&self, key: &F::Key) -> io::Result<Option<F::Flow>> {
        Ok(self.0.get(key).copied())
    }
}

/// All entries of a table. `now`: the tick at which they were read.
pub fn list<F>(rows: Vec<(F::Key, F::Flow)>, backends: &[Backend], tick: Tick, now: u32) -> io::Result<Vec<Flow>>
where
    F: Family,
    F::Key: Hash + Eq,
{
    let entries = Entries::<F>(rows.into_iter().collect());
    entries.0.iter().map(|(key, value)| flow::<F>(key, value, &entries, backends, tick, now)).collect()
}

fn flow<F>(
    key: &F::Key,
    value: &F::Flow,
    entries: &Entries<F>,
    backends: &[Backend],
    tick: Tick,
    now: u32,
) -> io::Result<Flow>
where
    F: Family,
    F::Key: Hash + Eq,
{
    let tuple = F::parts(key);
    let new = F::tuple(value, tuple.protocol);
    let state = F::state(value);
    let end = |address: F::Address, port: u16| (F::wide(address).ip(), u16::from_be(port));
    let mut flow = Flow {
        protocol: tuple.protocol,
        role: state.role,
        egress: F::side(key) == Side::EGRESS,
        source: end(tuple.source, tuple.source_port),
        destination: end(tuple.destination, tuple.destination_port),
        new_source: end(new.source, new.source_port),
        new_destination: end(new.destination, new.destination_port),
        flags: state.flags,
        seen: state.seen,
        service: None,
        backend: None,
        device: None,
        idle: tick.since(state.last_seen, now),
        client: None,
    };
    let Some((client_key, client)) = client_of::<F>(key, value, entries)? else { return Ok(flow) };
    let dialled = F::parts(&client_key);
    flow.client = Some((end(dialled.source, dialled.source_port), end(dialled.destination, dialled.destination_port)));
    let of_client = F::state(&client);
    (flow.flags, flow.seen) = (of_client.flags, of_client.seen);
    if let Some((_, reply)) = reply_of::<F>(&client_key, &client, entries)? {
        let reply = F::state(&reply);
        flow.seen |= reply.seen;
        flow.device = Some(reply.subject);
    }
    if of_client.role == Role::CLIENT {
        flow.backend = Some(of_client.subject);
        let sent = F::tuple(&client, tuple.protocol);
        // The id may be another endpoint's by now.
        let is_its = |row: &&Backend| (row.address, row.port) == (F::wide(sent.destination), sent.destination_port);
        flow.service = backends.get(of_client.subject as usize).filter(is_its).map(|row| row.service);
    }
    Ok(flow)
}
