use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use super::{ApiServer, ControlPlane, TokenVolume};
use crate::cluster::{CLUSTER_CIDRS, Node, Place, Process, binary};

/// The manifests that a user applies, so that the rights granted there are those that the agent is tested with.
const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/base");
pub(super) const NAMESPACE: &str = "kube-system";
/// What the container of `deploy/base` is left with.
const CAPABILITIES: &str = "+bpf,+perfmon,+net_admin";

/// One round of the agent's reconciler, as it logs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Sync {
    /// When it was logged, which is just after the last map was written.
    timestamp: Timestamp,
    /// Events of the API server in it; only of changes.
    pub events: Option<u64>,
    /// Map elements written.
    pub writes: u64,
    /// Microseconds from the arrival of the oldest event in it to the last map written; only of changes, since a whole
    /// list has no one event.
    pub event_to_maps_us: Option<u64>,
}

impl Sync {
    /// The round that a line of the log is about. Only rounds have the field `writes`.
    pub(super) fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }

    /// When the maps were written, in microseconds since the epoch.
    pub(super) fn at_us(&self) -> Result<u64> {
        u64::try_from(self.timestamp.as_microsecond()).context("a time after 1970")
    }
}

/// The agent of a node that takes its objects from the API server, as the service account of `deploy/base`.
pub struct ProxyAgent {
    process: Process,
}

impl ControlPlane<'_> {
    /// Applies `deploy/base` as a user does: the service account, the role and its binding among it.
    pub fn grant_rights(&self) -> Result<()> {
        // Its DaemonSet starts nothing, since no controller for those runs.
        self.kubectl(&["apply", "--kustomize", DEPLOY]).map(drop)
    }

    /// Takes the rights away; the service account stays.
    pub fn revoke_rights(&self) -> Result<()> {
        self.kubectl(&["delete", "clusterrolebinding", "sheave"]).map(drop)
    }

    /// A token of the service account of `deploy/base`, and more options of `kubectl create token`.
    pub fn create_token(&self, options: &[&str]) -> Result<String> {
        let arguments = [&["create", "token", "sheave", "--namespace", NAMESPACE], options].concat();
        Ok(self.kubectl(&arguments)?.trim().to_owned())
    }

    /// Starts the agent of a node. With `masters` it is told these addresses of API servers.
    pub fn start_agent(&self, node: &Node, masters: &[String]) -> Result<ProxyAgent> {
        let kubeconfig = self.directory.join(format!("{}.kubeconfig", node.name()));
        let content = self.kubeconfig(&self.create_token(&[])?)?;
        fs::write(&kubeconfig, content).context("write the agent's kubeconfig")?;
        self.start_agent_by(node, &kubeconfig, |command| {
            if !masters.is_empty() {
                command.arg("--master").arg(masters.join(","));
            }
        })
    }

    /// Starts the agent of a node with this kubeconfig, and whatever else `extend` gives it.
    pub fn start_agent_by(
        &self,
        node: &Node,
        kubeconfig: &Path,
        extend: impl FnOnce(&mut Command),
    ) -> Result<ProxyAgent> {
        let mut command = node.namespace().command("setpriv");
        agent_arguments(&mut command, node)?;
        command.arg("--kubeconfig").arg(kubeconfig);
        extend(&mut command);
        Ok(ProxyAgent { process: node.start("agent", command)? })
    }

    /// Starts the agent of a node as in a pod: it finds the API server in its environment, at this address, and
    /// everything else in the volume of its service account.
    pub fn start_agent_in_pod(&self, node: &Node, volume: &TokenVolume, server: IpAddr) -> Result<ProxyAgent> {
        let mut command = volume.command(node.namespace());
        command.arg("setpriv");
        agent_arguments(&mut command, node)?;
        command.env("KUBERNETES_SERVICE_HOST", server.to_string());
        command.env("KUBERNETES_SERVICE_PORT", ApiServer::First.port().to_string());
        Ok(ProxyAgent { process: node.start("agent", command)? })
    }
}

/// Of `setpriv`, which starts the agent with the capabilities of its container.
fn agent_arguments(command: &mut Command, node: &Node) -> Result<()> {
    let bounds = ["--bounding-set", "--inh-caps"].map(|set| format!("{set}=-all,{CAPABILITIES}"));
    command.arg("--no-new-privs").args(bounds).arg(binary::sheave()?);
    command.args(["agent", "--verbose", "--log-format", "json"]);
    command.args(["--hostname-override", node.name(), "--cluster-cidr", CLUSTER_CIDRS]);
    command.arg("--pin-dir").arg(node.pin_dir());
    Ok(())
}

impl ProxyAgent {
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    pub(super) fn log_path(&self) -> &Path {
        self.process.log_path()
    }

    /// Waits for the first sync to be in the maps.
    pub fn wait_ready(&mut self) -> Result<()> {
        self.process.wait_for_line(Duration::from_secs(30), is_ready)
    }

    pub fn is_ready(&self) -> bool {
        self.process.log().lines().any(is_ready)
    }

    /// Waits for a line of the log that has all these words.
    pub fn wait_for_words(&mut self, words: &[&str], timeout: Duration) -> Result<()> {
        self.process.wait_for_line(timeout, |line| words.iter().all(|word| line.contains(word)))
    }

    /// The rounds so far, those that found nothing to write among them.
    pub fn syncs(&self) -> Vec<Sync> {
        self.process.log().lines().filter_map(Sync::parse).collect()
    }

    /// Number of map elements written so far.
    pub fn writes(&self) -> u64 {
        self.syncs().iter().map(|sync| sync.writes).sum()
    }

    /// The rounds after the first `seen` ones, once `quiet` has passed without a further one.
    pub fn settle(&self, seen: usize, quiet: Duration) -> Vec<Sync> {
        let (mut count, mut since) = (self.syncs().len(), Instant::now());
        while since.elapsed() < quiet {
            std::thread::sleep(quiet / 10);
            let now = self.syncs().len();
            if now != count {
                (count, since) = (now, Instant::now());
            }
        }
        self.syncs().split_off(seen.min(count))
    }
}

fn is_ready(line: &str) -> bool {
    #[derive(Deserialize)]
    struct Line<'a> {
        message: &'a str,
    }
    serde_json::from_str::<Line<'_>>(line).is_ok_and(|line| line.message == "ready")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_are_found_in_log_lines() {
        let change = r#"{"timestamp":"1970-01-01T00:00:01.000250Z","level":"DEBUG","message":"change written","events":2,"writes":3,"event_to_maps_us":412}"#;
        let sync = Sync::parse(change).unwrap();
        assert_eq!((sync.events, sync.writes, sync.event_to_maps_us), (Some(2), 3, Some(412)));
        assert_eq!(sync.at_us().unwrap(), 1_000_250);
        let list =
            r#"{"timestamp":"1970-01-01T00:00:01.000250Z","level":"INFO","message":"full sync written","writes":9}"#;
        let sync = Sync::parse(list).unwrap();
        assert_eq!((sync.events, sync.writes, sync.event_to_maps_us), (None, 9, None));
        assert_eq!(Sync::parse(r#"{"timestamp":"1970-01-01T00:00:01Z","message":"ready"}"#), None);
        assert!(is_ready(r#"{"message":"ready","devices":3}"#) && !is_ready(list));
    }
}
