use std::io;

use proxy_common::datapath::over::since;
use proxy_common::datapath::{Family, client_key, is_clients, life, reply_key};
use proxy_common::wire::{FlowFlags, Role, Side, Timeouts};

/// Finds an entry in a flow table, or in a copy of one.
pub trait Find<F: Family> {
    fn find(&self, key: &F::Key) -> io::Result<Option<F::Flow>>;
}

/// When a flow table is judged, and by what.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    pub now: u32,
    pub timeouts: Timeouts,
}

/// What is to become of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Stays, or goes with the client's entry of its flow.
    Stays,
    /// Its flow has ended.
    Over,
    /// It belongs to no flow.
    Stray,
}

/// Ticks for which the rest of a flow may be on its way into the table, or out of it.
const FRESH: u32 = 3;

/// Judges an entry just as the programs do ([`proxy_common::datapath::over`]).
pub fn fate<F: Family>(key: &F::Key, flow: &F::Flow, table: &impl Find<F>, clock: &Clock) -> io::Result<Fate> {
    let state = F::state(flow);
    let quiet = since(state.last_seen, clock.now);
    if state.role == Role::OWN {
        return Ok(if quiet > clock.timeouts.udp { Fate::Over } else { Fate::Stays });
    }
    let has_kin = if is_clients(state.role) {
        match reply_of::<F>(key, flow, table)? {
            Some((_, reply)) => {
                let life = life(F::parts(key).protocol, &state, &F::state(&reply));
                let is_over = life.is_over(clock.now, false, &clock.timeouts);
                return Ok(if is_over { Fate::Over } else { Fate::Stays });
            }
            None => false,
        }
    } else {
        client_of::<F>(key, flow, table)?.is_some()
    };
    Ok(if has_kin || quiet <= FRESH { Fate::Stays } else { Fate::Stray })
}

/// What the replies of a flow are found by, and their entry, unless it is another flow's. `flow` is the client's.
pub fn reply_of<F: Family>(
    key: &F::Key,
    flow: &F::Flow,
    table: &impl Find<F>,
) -> io::Result<Option<(F::Key, F::Flow)>> {
    let tuple = F::parts(key);
    let reply_key = reply_key::<F>(flow, tuple.protocol);
    let reply = table
        .find(&reply_key)?
        .filter(|reply| F::state(reply).role == Role::REPLY && F::tuple(reply, tuple.protocol).reversed() == tuple);
    Ok(reply.map(|reply| (reply_key, reply)))
}

/// The client's entry of the flow that an entry belongs to; of what the node itself has asked, the entry itself. `None`:
/// it belongs to none.
pub fn client_of<F: Family>(
    key: &F::Key,
    flow: &F::Flow,
    table: &impl Find<F>,
) -> io::Result<Option<(F::Key, F::Flow)>> {
    let tuple = F::parts(key);
    match F::state(flow).role {
        Role::CLIENT | Role::DIRECT | Role::OWN => Ok(Some((*key, *flow))),
        Role::REPLY => {
            let client_key = client_key::<F>(flow, tuple.protocol);
            let client = table.find(&client_key)?.filter(|client| {
                let of_client = reply_key::<F>(client, tuple.protocol);
                is_clients(F::state(client).role)
                    && (F::parts(&of_client), F::side(&of_client)) == (tuple, F::side(key))
            });
            Ok(client.map(|client| (client_key, client)))
        }
        Role::MASK => {
            let reply_key = F::key(&tuple.reversed(), Side::EGRESS);
            let Some(reply) = table.find(&reply_key)?.filter(|reply| F::state(reply).role == Role::REPLY) else {
                return Ok(None);
            };
            let client = client_of::<F>(&reply_key, &reply, table)?;
            Ok(client.filter(|(_, client)| F::state(client).flags & FlowFlags::MASQUERADE != 0))
        }
        Role::MASK_REPLY => {
            let mask_key = F::key(&F::tuple(flow, tuple.protocol).reversed(), Side::EGRESS);
            let mask = table
                .find(&mask_key)?
                .filter(|mask| F::state(mask).role == Role::MASK && F::tuple(mask, tuple.protocol).reversed() == tuple);
            mask.map_or(Ok(None), |mask| client_of::<F>(&mask_key, &mask, table))
        }
        _ => Ok(None),
    }
}

/// The keys of a flow's entries but the client's, in the order in which they may go: whoever holds the one for replies
/// owns the tuple, so that one is last. Some may not be there.
pub fn rest_of<F: Family>(key: &F::Key, flow: &F::Flow, table: &impl Find<F>) -> io::Result<Vec<(F::Key, F::Flow)>> {
    let protocol = F::parts(key).protocol;
    let state = F::state(flow);
    let mut rest = Vec::with_capacity(3);
    if !is_clients(state.role) {
        return Ok(rest);
    }
    if state.flags & FlowFlags::MASQUERADE != 0 {
        let mask_key = F::key(&F::tuple(flow, protocol), Side::EGRESS);
        if let Some(mask) = table.find(&mask_key)?.filter(|mask| F::state(mask).role == Role::MASK) {
            let mask_reply_key = F::key(&F::tuple(&mask, protocol).reversed(), Side::INGRESS);
            let mask_reply = table.find(&mask_reply_key)?.filter(|held| {
                F::state(held).role == Role::MASK_REPLY && F::tuple(held, protocol).reversed() == F::parts(&mask_key)
            });
            rest.push((mask_key, mask));
            rest.extend(mask_reply.map(|held| (mask_reply_key, held)));
        }
    }
    rest.extend(reply_of::<F>(key, flow, table)?);
    Ok(rest)
}

#[cfg(test)]
#[path = "kin_tests.rs"]
mod tests;
