use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, Patch, PatchParams};

use super::objects::pod_status;
use super::tail::Tail;
use super::{ControlPlane, ProxyAgent, Readiness, Sync};
use crate::cluster::{Family, Place as _, Pod, Process};
use crate::patience::patience;
use crate::traffic::{OpenOptions, Opened, now_us};

/// The controller changes the slice of each family, one after the other.
const EVENTS: u64 = Family::BOTH.len() as u64;
/// Between two looks at the logs.
const POLL: Duration = Duration::from_millis(1);
/// Until the agent has followed a flip, and until the clients have opened their connections after it.
const LIMIT: Duration = Duration::from_secs(20);

/// A pod that became ready or unready. Times are in microseconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub struct Flip {
    pub to: Readiness,
    /// Before the API server was asked for it.
    pub asked_us: u64,
    /// When the agent logged that the maps say so, in both families.
    pub in_force_us: u64,
}

/// What became of a series of flips.
pub struct Flips {
    pub flips: Vec<Flip>,
    /// The agent's rounds meanwhile.
    pub syncs: Vec<Sync>,
    /// Connections meanwhile, in no order.
    pub opened: Vec<Opened>,
}

/// Connections that begin while a pod is known not to be ready.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Number of times that the pod was unready.
    pub unready: usize,
    /// Connections that began while the maps said so.
    pub judged: usize,
    /// The least number of those in one of the times.
    pub fewest: usize,
    /// Those that it answered: microseconds after the maps were written.
    pub late_us: Vec<u64>,
    /// Connections that failed, at any time.
    pub failed: usize,
}

impl ControlPlane<'_> {
    /// Lets a pod be unready and ready in turn, `count` times in all, while clients in `from` open connections to all of
    /// `to`. Each flip waits until the agent has written the one before and, since then, each client has opened
    /// `connections`.
    pub fn flip_readiness(
        &self,
        of: &Pod,
        agent: &ProxyAgent,
        count: u32,
        (from, to, connections): (&Pod, &[SocketAddr], usize),
    ) -> Result<Flips> {
        let mut rounds = Rounds::follow(agent)?;
        let mut clients = to.iter().map(|&to| Opener::start(from, to)).collect::<Result<Vec<_>>>()?;
        let [ready, unready] = [Readiness::Ready, Readiness::Unready].map(|readiness| pod_status(of, readiness));
        let (began, began_us) = (Instant::now(), now_us());
        let flips = self.with_client(async |client| {
            let pods: Api<core::Pod> = Api::default_namespaced(client);
            let mut flips = Vec::new();
            for number in 0..count {
                let (to, status) = match number % 2 {
                    0 => (Readiness::Unready, &unready),
                    _ => (Readiness::Ready, &ready),
                };
                let asked_us = now_us();
                pods.patch_status(of.name(), &PatchParams::default(), &Patch::Strategic(status)).await?;
                let in_force_us = rounds.take_events(EVENTS).await.with_context(|| format!("flip {number}"))?;
                flips.push(Flip { to, asked_us, in_force_us });
                for client in clients.iter_mut() {
                    client.wait_for_connections(in_force_us, connections).await?;
                }
            }
            Ok(flips)
        })?;
        let drift = (now_us() - began_us).abs_diff(began.elapsed().as_micros() as u64);
        ensure!(drift < 1000, "the clock was set meanwhile, by {drift} µs");
        let opened = clients.into_iter().map(Opener::stop).collect::<Result<Vec<_>>>()?.concat();
        Ok(Flips { flips, syncs: rounds.syncs, opened })
    }
}

impl Flips {
    /// What `pod` got while it was not ready: from the moment at which the agent had written the maps to the moment at
    /// which the pod is asked to be ready again.
    pub fn unready_at(&self, pod: &str) -> Verdict {
        let mut opened: Vec<&Opened> = self.opened.iter().collect();
        opened.sort_unstable_by_key(|opened| opened.began_us);
        let mut verdict = Verdict {
            fewest: usize::MAX,
            failed: opened.iter().filter(|opened| opened.server.is_none()).count(),
            ..Verdict::default()
        };
        for (at, flip) in self.flips.iter().enumerate().filter(|(_, flip)| flip.to == Readiness::Unready) {
            let end = self.flips.get(at + 1).map_or(u64::MAX, |next| next.asked_us);
            let first = opened.partition_point(|opened| opened.began_us <= flip.in_force_us);
            let last = opened.partition_point(|opened| opened.began_us < end);
            let meanwhile = opened.get(first..last).unwrap_or_default();
            verdict.unready += 1;
            verdict.judged += meanwhile.len();
            verdict.fewest = verdict.fewest.min(meanwhile.len());
            let late = meanwhile.iter().filter(|opened| opened.server.as_deref() == Some(pod));
            verdict.late_us.extend(late.map(|opened| opened.began_us - flip.in_force_us));
        }
        verdict
    }
}

/// The rounds of an agent, as they are logged.
struct Rounds {
    log: Tail,
    syncs: Vec<Sync>,
    /// Number of rounds that belong to an earlier flip.
    taken: usize,
}

impl Rounds {
    /// From now on.
    fn follow(agent: &ProxyAgent) -> Result<Self> {
        let mut log = Tail::open(agent.log_path())?;
        log.lines()?;
        Ok(Self { log, syncs: Vec::new(), taken: 0 })
    }

    /// Waits until so many events are in the maps, and returns since when.
    async fn take_events(&mut self, events: u64) -> Result<u64> {
        let deadline = Instant::now() + patience(LIMIT);
        loop {
            self.syncs.extend(self.log.lines()?.iter().filter_map(|line| Sync::parse(line)));
            let new = self.syncs.get(self.taken..).unwrap_or_default();
            let written: u64 = new.iter().filter_map(|sync| sync.events).sum();
            // One more, and it would be open which of them a later flip waits for.
            ensure!(written <= events, "{written} events, and not {events}: {new:?}");
            if let (true, Some(last)) = (written == events, new.last()) {
                self.taken = self.syncs.len();
                return last.at_us();
            }
            ensure!(Instant::now() < deadline, "{written} of {events} events are in the maps");
            tokio::time::sleep(POLL).await;
        }
    }
}

/// A client that opens connections all along.
struct Opener {
    process: Process,
    log: Tail,
    opened: Vec<Opened>,
}

impl Opener {
    fn start(from: &Pod, to: SocketAddr) -> Result<Self> {
        let mut command = from.traffic()?;
        command.args(["open", "--to", &to.to_string()]);
        command.args(OpenOptions::default().arguments());
        let process = from.start("open", command)?;
        let log = Tail::open(process.log_path())?;
        Ok(Self { process, log, opened: Vec::new() })
    }

    fn read(&mut self) -> Result<()> {
        for line in self.log.lines()? {
            self.opened.push(serde_json::from_str(&line).with_context(|| format!("a client says {line:?}"))?);
        }
        Ok(())
    }

    /// Waits until so many connections have begun after `since_us`, and are over.
    async fn wait_for_connections(&mut self, since_us: u64, count: usize) -> Result<()> {
        let deadline = Instant::now() + patience(LIMIT);
        loop {
            self.read()?;
            let later = self.opened.iter().rev().take(100 + count).filter(|opened| opened.began_us > since_us);
            if later.count() >= count {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{} opens no connections", self.process.name());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Every connection that it opened.
    fn stop(mut self) -> Result<Vec<Opened>> {
        self.process.close_stdin();
        self.process.wait(LIMIT)?;
        self.read()?;
        Ok(self.opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_late_if_it_began_after_the_maps_were_written() {
        let flip = |to, asked_us, in_force_us| Flip { to, asked_us, in_force_us };
        let opened =
            |began_us, server: Option<&str>| Opened { began_us, server: server.map(str::to_owned), failure: None };
        let mut flips = Flips {
            flips: vec![
                flip(Readiness::Unready, 100, 110),
                flip(Readiness::Ready, 200, 210),
                flip(Readiness::Unready, 300, 310),
                flip(Readiness::Ready, 400, 410),
            ],
            syncs: Vec::new(),
            // Out of order, as several threads print them.
            opened: [(199, "b"), (110, "a"), (111, "b"), (200, "a"), (250, "a"), (390, "b"), (450, "a")]
                .map(|(began_us, server)| opened(began_us, Some(server)))
                .to_vec(),
        };
        let verdict = flips.unready_at("a");
        assert_eq!((verdict.unready, verdict.judged, verdict.fewest, verdict.failed), (2, 3, 1, 0));
        assert!(verdict.late_us.is_empty());
        flips.opened.extend([opened(317, Some("a")), opened(318, None)]);
        let verdict = flips.unready_at("a");
        assert_eq!((verdict.late_us, verdict.failed), (vec![7], 1));
    }
}
