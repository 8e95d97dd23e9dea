use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use proxy_common::wire::Address;

use super::{
    adopt::{Adopted, adopt},
    batch::Batch,
    claims::Claims,
    filters::{Filters, FlowNeeds},
    node::NodeRows,
    plan::refusal,
    port::Port,
    report::{Report, Writes},
    space::{Shortage, Space},
    tables::{Capacity, Snapshot, TableError, Tables},
};
use crate::{
    desired::{NodeState, ServicePort},
    model::{ObjectName, Problem},
};

/// What the reconciler is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most services that are carried; the map of services counts service ports. Services that are in the maps already
    /// when the maximum is lowered stay there.
    pub services: usize,
    /// How long places in maps that nobody names any more stay as they are, for programs that read their name just
    /// before. A program runs within one RCU read-side critical section: microseconds, with a preempted CPU
    /// milliseconds. Rapid changes of large services need room for all sets of this time.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { services: 10_000, grace: Duration::from_secs(1) }
    }
}

/// How long after a failed write the next attempt is made.
const RETRY: Duration = Duration::from_secs(1);

/// Keeps the maps at what services and node are to have there. The only writer of the maps of the control plane.
///
/// Every time that is passed in comes from one clock that never goes back.
#[derive(Debug)]
pub struct Reconciler {
    pub(super) limits: Limits,
    pub(super) services: HashMap<ObjectName, Entry>,
    pub(super) ports: HashMap<u32, Port>,
    pub(super) claims: Claims,
    pub(super) space: Space,
    filters: Filters,
    node: NodeRows,
    /// To be cleared away with the first full sync.
    leftovers: Option<Batch>,
    /// Services that have a place in the maps.
    pub(super) placed: usize,
    pub(super) refused: BTreeMap<ObjectName, Shortage>,
    /// A write failed: what the maps hold is not known. The time of the next attempt.
    failed: Option<Duration>,
}

#[derive(Debug, Default)]
pub(super) struct Entry {
    pub wanted: Vec<ServicePort>,
    /// Of its service ports in the maps.
    pub ids: Vec<u32>,
    /// The maps hold what is wanted, as far as no other service has the frontends.
    pub in_force: bool,
}

impl Reconciler {
    /// Starts from what the maps hold. Nothing is written; what nobody wants goes with the first [`Self::sync`].
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn adopt(tables: &impl Tables, limits: Limits) -> Result<Self, TableError> {
        let snapshot = tables.snapshot()?;
        let Adopted { space, ports, claims, mut filters, leftovers } = adopt(&snapshot, tables.capacity());
        let mut node = NodeRows::default();
        node.adopt(&snapshot, &mut filters.frontends);
        filters.settle(Duration::ZERO);
        let mut reconciler = Self {
            limits,
            services: HashMap::new(),
            ports,
            claims,
            space,
            filters,
            node,
            leftovers: Some(leftovers),
            placed: 0,
            refused: BTreeMap::new(),
            failed: None,
        };
        reconciler.enter_ports();
        Ok(reconciler)
    }

    /// Addresses on which NodePorts answer, as the maps hold them.
    pub fn local_addresses(&self) -> impl Iterator<Item = &Address> {
        self.node.local_addresses()
    }

    /// The epoch that the maps are in: [`proxy_common::wire::Config::epoch`].
    pub fn epoch(&self) -> u32 {
        self.node.epoch()
    }

    /// A full sync: `services` are all there are. Only differences are written.
    pub fn sync(
        &mut self,
        tables: &mut impl Tables,
        services: impl IntoIterator<Item = (ObjectName, Vec<ServicePort>)>,
        now: Duration,
    ) -> Report {
        let mut changes: Vec<_> = services.into_iter().collect();
        let listed: HashSet<&ObjectName> = changes.iter().map(|(name, _)| name).collect();
        let gone: Vec<_> =
            self.services.keys().filter(|name| !listed.contains(name)).map(|name| (name.clone(), Vec::new())).collect();
        changes.extend(gone);
        let leftovers = self.leftovers.take().unwrap_or_default();
        self.run(tables, changes, leftovers, now)
    }

    /// Takes in the services that changed, each with all of its service ports; none: the service is gone.
    pub fn apply(
        &mut self,
        tables: &mut impl Tables,
        services: impl IntoIterator<Item = (ObjectName, Vec<ServicePort>)>,
        now: Duration,
    ) -> Report {
        self.run(tables, services.into_iter().collect(), Batch::default(), now)
    }

    /// Writes the differences of the node's addresses, devices and configuration.
    pub fn set_node(&mut self, tables: &mut impl Tables, node: &NodeState, now: Duration) -> Report {
        self.node.want(node.clone());
        self.run(tables, Vec::new(), Batch::default(), now)
    }

    /// Tries again what failed or was refused. To be called at [`Self::retry_at`].
    pub fn retry(&mut self, tables: &mut impl Tables, now: Duration) -> Report {
        self.run(tables, Vec::new(), Batch::default(), now)
    }

    /// Reads the maps anew and repairs whatever somebody else has changed in them. Meant for once in an hour: it takes
    /// as long as a start.
    pub fn repair(&mut self, tables: &mut impl Tables, now: Duration) -> Report {
        self.failed = Some(now);
        self.run(tables, Vec::new(), Batch::default(), now)
    }

    /// Clears the bits of the filters that neither the maps nor the flows want any more. `needs`: what the flows needed that
    /// were there at `as_of` or later.
    pub fn forget(&mut self, tables: &mut impl Tables, needs: &FlowNeeds, as_of: Duration) -> Report {
        let mut report = Report::default();
        // After a failed write it is not known what the maps want.
        if self.failed.is_none() {
            self.filters.forget(tables, needs, as_of, self.limits.grace, &mut report.writes);
        }
        report
    }

    /// When there is work to try again; `None`: the maps hold all that is wanted. After a failed write that is so for
    /// every change until then: the maps are read again first.
    pub fn retry_at(&self) -> Option<Duration> {
        self.failed.or_else(|| self.space.release_at().filter(|_| !self.refused.is_empty()))
    }

    /// Whether a write failed, so that the maps do not hold all that is wanted until [`Self::retry`].
    pub fn is_behind(&self) -> bool {
        self.failed.is_some()
    }

    /// Services that are refused as a whole. What an earlier version of one has in the maps is still in force.
    pub fn refused(&self) -> impl Iterator<Item = Problem> {
        self.refused.iter().map(|(name, shortage)| refusal(name, shortage))
    }

    fn run(
        &mut self,
        tables: &mut impl Tables,
        changes: Vec<(ObjectName, Vec<ServicePort>)>,
        leftovers: Batch,
        now: Duration,
    ) -> Report {
        let mut report = Report::default();
        if let Some(at) = self.failed {
            for (name, wanted) in changes {
                let entry = self.services.entry(name).or_default();
                *entry = Entry { wanted, in_force: false, ids: std::mem::take(&mut entry.ids) };
            }
            if at <= now {
                self.resync(tables, now, &mut report);
            }
            return report;
        }
        let mut made_room = self.release(tables, now, &mut report.writes);
        made_room |= self.pass(tables, changes, leftovers, now, &mut report);
        if made_room && !self.refused.is_empty() && self.failed.is_none() {
            let again = self.refused.keys().cloned().collect::<Vec<_>>();
            let again = again.into_iter().map(|name| self.take_wanted(name)).collect();
            self.pass(tables, again, Batch::default(), now, &mut report);
        }
        report
    }

    /// Ends the quarantine of what has been in it long enough; `true` where that made room.
    fn release(&mut self, tables: &mut impl Tables, now: Duration, writes: &mut Writes) -> bool {
        let mut released = false;
        while let Some(freed) = self.space.due(now) {
            for &(id, family, row) in &freed.switches {
                let is_placed = |port: &Port| port.sets.get(family as usize).is_some_and(Option::is_some);
                let has_returned = self.ports.get(&id).is_some_and(is_placed);
                if !has_returned && self.space.named(id).any(|named| named == (family, row)) {
                    self.space.set_named(id, family, 0);
                    writes.services += 1;
                    tables.set_service(id, family, 0);
                }
            }
            self.space.give_back(freed);
            released = true;
        }
        released
    }

    /// After a failed write: reads the maps and writes all differences.
    fn resync(&mut self, tables: &mut impl Tables, now: Duration, report: &mut Report) {
        let snapshot = match tables.snapshot() {
            Ok(snapshot) => snapshot,
            Err(error) => {
                self.failed = Some(now + RETRY);
                report.error = Some(error);
                return;
            }
        };
        self.failed = None;
        let leftovers = self.start_over(&snapshot, tables.capacity(), now);
        // Before the first full sync, what was found in the maps is not wanted yet and must not go either.
        let is_told = |entry: &Entry| self.leftovers.is_none() || !entry.wanted.is_empty();
        let told = self.services.iter().filter(|(_, entry)| is_told(entry));
        let names: Vec<ObjectName> = told.map(|(name, _)| name.clone()).collect();
        let all = names.into_iter().map(|name| self.take_wanted(name)).collect();
        self.pass(tables, all, leftovers, now, report);
    }

    fn start_over(&mut self, snapshot: &Snapshot, capacity: Capacity, now: Duration) -> Batch {
        let Adopted { space, ports, mut claims, mut filters, leftovers } = adopt(snapshot, capacity);
        claims.inherit(&mut self.claims);
        self.node.adopt(snapshot, &mut filters.frontends);
        filters.settle(now);
        (self.space, self.ports, self.claims, self.filters) = (space, ports, claims, filters);
        for entry in self.services.values_mut() {
            entry.ids.clear();
            entry.in_force = false;
        }
        self.enter_ports();
        match &mut self.leftovers {
            Some(waiting) => {
                *waiting = leftovers;
                Batch::default()
            }
            None => leftovers,
        }
    }

    /// Enters the service ports that were found in the maps.
    fn enter_ports(&mut self) {
        let mut ids: Vec<u32> = self.ports.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            if let Some(port) = self.ports.get(&id) {
                self.services.entry(port.name.service()).or_default().ids.push(id);
            }
        }
        self.placed = self.services.values().filter(|entry| !entry.ids.is_empty()).count();
    }

    fn take_wanted(&mut self, name: ObjectName) -> (ObjectName, Vec<ServicePort>) {
        let wanted = self.services.get_mut(&name).map(|entry| std::mem::take(&mut entry.wanted));
        (name, wanted.unwrap_or_default())
    }

    /// Plans `changes`, writes them and puts what they free into quarantine. `true`: there is room that was not there
    /// before.
    fn pass(
        &mut self,
        tables: &mut impl Tables,
        mut changes: Vec<(ObjectName, Vec<ServicePort>)>,
        mut batch: Batch,
        now: Duration,
        report: &mut Report,
    ) -> bool {
        // Those that go make room; then the oldest first, so that every node refuses the same ones.
        let age = |wanted: &[ServicePort]| wanted.first().map(|port| port.created);
        changes.sort_by(|(a, a_wanted), (b, b_wanted)| (age(a_wanted), a).cmp(&(age(b_wanted), b)));
        let placed = self.placed;
        for (name, wanted) in changes {
            self.plan(name, wanted, &mut batch, report);
        }
        self.claims.settle(&self.ports, &mut batch, &mut report.problems);
        batch.config = self.node.config_to_write(self.claims.node_port_range());
        self.filters.repair(tables, &mut report.writes);
        let written = match self.node.write(tables, &mut self.filters, now, &mut report.writes) {
            Ok(()) => batch.write(tables, &mut self.filters, now, &mut report.writes),
            error => error,
        };
        if let Err(error) = written {
            self.failed = Some(now + RETRY);
            report.error = Some(error);
            return false;
        }
        if batch.disturbs_flows() {
            self.node.end_epoch();
        }
        self.node.raise_epoch(tables, &mut report.writes);
        self.space.quarantine(batch.freed, now + self.limits.grace);
        !batch.deletes.is_empty() || self.placed < placed
    }
}
