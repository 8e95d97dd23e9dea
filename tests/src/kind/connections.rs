use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Result, bail, ensure};

use super::client::{Client, patient};
use super::cluster::Proxy;
use super::stage::Stage;
use crate::cluster::{Family, Load};
use crate::traffic::{HttpOptions, HttpReport};

/// New connections a second of each of the four clients: a hundred in all.
const RATE: u64 = 25;

/// New connections to the Service `web` all along: of both families, from pods to its ClusterIPs and from outside to its
/// NodePort.
pub struct Connections {
    loads: Vec<(String, Load<HttpReport>)>,
    began: Instant,
    proxy: Proxy,
}

impl Connections {
    /// # Errors
    /// A client does not start.
    pub fn start(stage: &Stage) -> Result<Self> {
        let nodes = stage.nodes()?;
        let [first, .., last] = &nodes[..] else { bail!("one node is not enough") };
        let near = &stage.pods[stage.pods.len() - 1];
        // On the first worker, which is the last one as well where there are two nodes.
        let other = &stage.pods[1];
        let targets = [
            (near, stage.web.at_cluster_ip(Family::V4)?),
            (other, stage.web.at_cluster_ip(Family::V6)?),
            (&Client::Outside, stage.web.at_node(first, Family::V4)?),
            (&Client::Outside, stage.web.at_node(last, Family::V6)?),
        ];
        let options = patient(HttpOptions { rate: RATE, concurrency: 8, ..HttpOptions::default() });
        let start = |(client, to): (&Client, SocketAddr)| {
            Ok((format!("{} to {to}", client.name()), client.start_http(&stage.cluster, to, &options)?))
        };
        Ok(Self {
            loads: targets.into_iter().map(start).collect::<Result<_>>()?,
            began: Instant::now(),
            proxy: stage.proxy,
        })
    }

    /// Ends them. Of kube-proxy's it is only said how many failed: it lets a second pass between two rounds of changes
    /// (`minSyncPeriod`), which is as long as a pod goes on that was told to end.
    ///
    /// # Errors
    /// A client ended before, or one of Sheave's connections failed.
    pub fn stop(self) -> Result<Carried> {
        let seconds = self.began.elapsed().as_secs_f64();
        let mut reports = BTreeMap::new();
        for (name, load) in self.loads {
            reports.insert(name, load.stop()?);
        }
        let failed = reports.values().map(|report| report.requests - report.ok).sum();
        ensure!(failed == 0 || self.proxy != Proxy::Sheave, "{failed} connections failed: {reports:#?}");
        // A client that was stuck sends nothing, and nothing of it fails.
        let silent: Vec<_> = reports.iter().filter(|(_, report)| report.ok < 10).collect();
        ensure!(silent.is_empty(), "clients that hardly asked: {silent:#?}");
        let servers: BTreeSet<_> = reports.values().flat_map(|report| report.servers.keys()).collect();
        Ok(Carried {
            failed,
            connections: reports.values().map(|report| report.requests).sum(),
            servers: servers.len(),
            seconds,
        })
    }
}

/// What became of them.
pub struct Carried {
    pub failed: u64,
    pub connections: u64,
    /// Pods that answered.
    pub servers: usize,
    pub seconds: f64,
}

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.connections as f64 / self.seconds;
        write!(
            f,
            "{} of {} connections failed ({rate:.0} a second), {} pods answered",
            self.failed, self.connections, self.servers
        )
    }
}
