use super::{
    batch::Batch,
    port::Placement,
    reconciler::{Entry, Reconciler},
    report::Report,
    space::Shortage,
};
use crate::{
    desired::ServicePort,
    model::{ObjectName, Problem},
};

impl Reconciler {
    /// Finds places for a service and adds its writes to `batch`, or refuses it as it is now.
    pub(super) fn plan(&mut self, name: ObjectName, wanted: Vec<ServicePort>, batch: &mut Batch, report: &mut Report) {
        let mut entry = self.services.remove(&name).unwrap_or_default();
        if entry.in_force && entry.wanted == wanted {
            self.services.insert(name, entry);
            return;
        }
        entry.wanted = wanted;
        match self.place(&entry) {
            Ok(placements) => {
                self.refused.remove(&name);
                self.replace(&mut entry, placements, batch);
                entry.in_force = true;
            }
            Err(shortage) => {
                entry.in_force = false;
                let problem = refusal(&name, &shortage);
                if self.refused.insert(name.clone(), shortage) != Some(shortage) {
                    report.problems.push(problem);
                }
            }
        }
        if !entry.wanted.is_empty() || !entry.ids.is_empty() {
            self.services.insert(name, entry);
        }
    }

    /// A place for every service port, or for none.
    fn place(&mut self, entry: &Entry) -> Result<Vec<Placement>, Shortage> {
        if entry.ids.is_empty() && !entry.wanted.is_empty() && self.placed >= self.limits.services {
            return Err(Shortage::Services(self.limits.services));
        }
        let keys = entry.wanted.iter().flat_map(|port| &port.frontends).map(|frontend| &frontend.key);
        if self.claims.peak_with(keys) > self.space.capacity.frontends as usize {
            return Err(Shortage::Frontends(self.space.capacity.frontends));
        }
        let mut placements = Vec::with_capacity(entry.wanted.len());
        for wanted in &entry.wanted {
            let current = entry.ids.iter().filter_map(|id| self.ports.get(id)).find(|port| port.name == wanted.name);
            match Placement::find(&mut self.space, wanted, current) {
                Ok(placement) => placements.push(placement),
                Err(shortage) => {
                    placements.into_iter().for_each(|placement| placement.undo(&mut self.space));
                    return Err(shortage);
                }
            }
        }
        Ok(placements)
    }

    fn replace(&mut self, entry: &mut Entry, placements: Vec<Placement>, batch: &mut Batch) {
        let ids = placements.iter().map(|placement| placement.port.id).collect();
        let old_ids = std::mem::replace(&mut entry.ids, ids);
        for placement in placements {
            let port = batch.add(placement, &mut self.space);
            let old = self.ports.remove(&port.id);
            if old.as_ref().is_some_and(|old| old.created != port.created) {
                // A service that was made anew may lose what it had won.
                batch.touched.extend(port.frontends.iter().map(|frontend| frontend.key));
            }
            let old = old.map(|old| old.frontends).unwrap_or_default();
            self.claims.replace(port.id, &old, &port.frontends, &mut batch.touched);
            self.ports.insert(port.id, port);
        }
        for id in old_ids.iter().filter(|id| !entry.ids.contains(id)) {
            if let Some(port) = self.ports.remove(id) {
                self.claims.replace(*id, &port.frontends, &[], &mut batch.touched);
                batch.remove(port, &mut self.space);
            }
        }
        self.placed = self.placed + usize::from(!entry.ids.is_empty()) - usize::from(!old_ids.is_empty());
    }
}

pub(super) fn refusal(name: &ObjectName, shortage: &Shortage) -> Problem {
    let message = format!("refused as a whole: {shortage}; what an earlier version of it was given stays in force");
    Problem::new("Service", name, message)
}
