use std::time::Duration;

use super::{Reconciler, Report, Tables};
use crate::{
    desired::{ServicePort, compile},
    model::{Changes, Cluster, ObjectName},
};

impl Reconciler {
    /// Compiles what `changes` touched and brings it into the maps.
    pub fn follow(&mut self, tables: &mut impl Tables, cluster: &Cluster, changes: &Changes, now: Duration) -> Report {
        if changes.all {
            return self.sync_all(tables, cluster, now);
        }
        self.apply(tables, changes.services.iter().map(|name| compiled(cluster, name)), now)
    }

    /// A full sync with everything in `cluster`, whose lists have to be complete.
    pub fn sync_all(&mut self, tables: &mut impl Tables, cluster: &Cluster, now: Duration) -> Report {
        self.sync(tables, cluster.service_names().map(|name| compiled(cluster, name)), now)
    }
}

fn compiled(cluster: &Cluster, name: &ObjectName) -> (ObjectName, Vec<ServicePort>) {
    (name.clone(), compile(cluster, name))
}
