use std::collections::{BTreeMap, HashMap, HashSet};

use proxy_common::wire::{Frontend, FrontendKey, Scope};

use super::{batch::Batch, port::Port};
use crate::{desired, model::Problem};

/// Who wants which frontend, and what the map holds for it.
#[derive(Debug, Default)]
pub(super) struct Claims {
    frontends: HashMap<FrontendKey, Claim>,
    /// Keys of NodePorts by port in host order: how many there are.
    node_ports: BTreeMap<u16, u32>,
    /// Key, loser and winner of conflicts that have been reported.
    reported: HashSet<(FrontendKey, u32, u32)>,
}

#[derive(Debug, Default)]
struct Claim {
    /// Service ids.
    claimants: Vec<u32>,
    written: Option<Frontend>,
}

impl Claims {
    /// Takes in what the map was found to hold. `owner`: the service port it is for, if that is known.
    pub fn adopt(&mut self, key: FrontendKey, value: Frontend, owner: Option<u32>) {
        if owner.is_some() {
            self.count_node_port(&key, true);
        }
        self.frontends.insert(key, Claim { claimants: owner.into_iter().collect(), written: Some(value) });
    }

    /// Takes over what `old` has reported, so that it is not reported again.
    pub fn inherit(&mut self, old: &mut Self) {
        self.reported = std::mem::take(&mut old.reported);
    }

    /// How many elements the map will hold at most while `new` keys are added.
    pub fn peak_with<'a>(&self, new: impl Iterator<Item = &'a FrontendKey>) -> usize {
        self.frontends.len() + new.filter(|key| !self.frontends.contains_key(key)).count()
    }

    /// Replaces what service port `id` claims. Keys that may need a write are added to `touched`.
    pub fn replace(
        &mut self,
        id: u32,
        old: &[desired::Frontend],
        new: &[desired::Frontend],
        touched: &mut Vec<FrontendKey>,
    ) {
        for &desired::Frontend { key, .. } in old.iter().filter(|old| !new.iter().any(|new| new.key == old.key)) {
            touched.push(key);
            if let Some(claim) = self.frontends.get_mut(&key) {
                claim.claimants.retain(|&claimant| claimant != id);
                if claim.claimants.is_empty() {
                    self.count_node_port(&key, false);
                }
            }
        }
        for &desired::Frontend { key, .. } in new.iter().filter(|frontend| !old.contains(frontend)) {
            touched.push(key);
            let claim = self.frontends.entry(key).or_default();
            let is_first = claim.claimants.is_empty();
            if !claim.claimants.contains(&id) {
                claim.claimants.push(id);
            }
            if is_first {
                self.count_node_port(&key, true);
            }
        }
    }

    /// Decides every key in `batch.touched`: the oldest claimant's value is put, a key that nobody claims is deleted.
    pub fn settle(&mut self, ports: &HashMap<u32, Port>, batch: &mut Batch, problems: &mut Vec<Problem>) {
        for key in std::mem::take(&mut batch.touched) {
            let Some(claim) = self.frontends.get_mut(&key) else { continue };
            let age = |id: &u32| ports.get(id).map(|port| (port.created, &port.name));
            claim.claimants.sort_by(|a, b| age(a).cmp(&age(b)));
            let winner = claim.claimants.first().and_then(|id| ports.get(id));
            let value = winner.and_then(|port| Some(Frontend::new(&key, port.id, port.policy(&key)?)));
            match value {
                Some(value) if claim.written != Some(value) => batch.puts.push((key, value)),
                None if claim.written.is_some() => batch.deletes.push(key),
                _ => {}
            }
            if value.is_some() && claim.written.is_none() {
                batch.new.push(key);
            }
            let owner = |frontend: Option<Frontend>| frontend.map(|frontend| frontend.service);
            batch.moves_frontends |= owner(value) != owner(claim.written);
            claim.written = value;
            if !self.reported.is_empty() || claim.claimants.len() > 1 {
                let losers: Vec<&Port> = claim.claimants.iter().skip(1).filter_map(|id| ports.get(id)).collect();
                report(&mut self.reported, key, winner, &losers, problems);
            }
            if value.is_none() {
                self.frontends.remove(&key);
            }
        }
    }

    /// Lowest and highest NodePort in use. Packets to other ports are spared the lookup of their address. A constant
    /// range could not do that: the one of the API server is configurable.
    pub fn node_port_range(&self) -> Option<(u16, u16)> {
        let (&low, _) = self.node_ports.first_key_value()?;
        let (&high, _) = self.node_ports.last_key_value()?;
        Some((low, high))
    }

    fn count_node_port(&mut self, key: &FrontendKey, added: bool) {
        if key.scope == Scope::ADDRESS {
            return;
        }
        let port = u16::from_be(key.port);
        let count = self.node_ports.entry(port).or_default();
        *count = if added { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            self.node_ports.remove(&port);
        }
    }
}

fn report(
    reported: &mut HashSet<(FrontendKey, u32, u32)>,
    key: FrontendKey,
    winner: Option<&Port>,
    losers: &[&Port],
    problems: &mut Vec<Problem>,
) {
    let pair = |loser: &Port| winner.map(|winner| (key, loser.id, winner.id));
    reported.retain(|known| known.0 != key || losers.iter().any(|loser| pair(loser) == Some(*known)));
    for loser in losers {
        if let (Some(pair), Some(winner)) = (pair(loser), winner)
            && reported.insert(pair)
        {
            let message = format!("{} belongs to {}, which is older", shown(&key), winner.name);
            problems.push(Problem { object: format!("Service {}", loser.name), message });
        }
    }
}

fn shown(key: &FrontendKey) -> String {
    let port = u16::from_be(key.port);
    match key.scope {
        Scope::ADDRESS => std::net::SocketAddr::new(key.address.ip(), port).to_string(),
        Scope::NODE_PORT4 => format!("IPv4 nodePort {port}"),
        _ => format!("IPv6 nodePort {port}"),
    }
}
