use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{Agent, AgentOptions, Cluster, ClusterBuilder, Place, Process};
use crate::patience::{patience, silence_ms};
use crate::traffic::{AskOptions, Failure, Transport, server::Answer};

/// A cluster at work: a server in every pod, an agent on every node.
pub struct Stage {
    // Dropped in this order.
    pub agents: Vec<Agent>,
    pub servers: Vec<Process>,
    pub cluster: Cluster,
}

impl Stage {
    /// Makes the cluster and its servers, lets `objects` write manifests, then starts the agents.
    pub fn start(builder: ClusterBuilder, objects: impl FnOnce(&Cluster) -> Result<()>) -> Result<Self> {
        Self::start_with(builder, &AgentOptions::default(), objects)
    }

    pub fn start_with(
        builder: ClusterBuilder,
        options: &AgentOptions,
        objects: impl FnOnce(&Cluster) -> Result<()>,
    ) -> Result<Self> {
        let cluster = builder.build()?;
        let servers = cluster.start_servers()?;
        objects(&cluster)?;
        let agents = cluster.start_agents(options)?;
        Ok(Self { agents, servers, cluster })
    }

    /// The agent of the node with this number.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn agent(&mut self, node: usize) -> &mut Agent {
        node.checked_sub(1).and_then(|at| self.agents.get_mut(at)).unwrap_or_else(|| panic!("no agent on node {node}"))
    }

    /// What the counters and the agents of all nodes say, to be shown when something was lost.
    pub fn evidence(&self) -> String {
        let nodes = self.agents.iter().map(|agent| {
            let counters = agent.get_table("counters").unwrap_or_else(|error| format!("{error:#}\n"));
            let log = agent.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n");
            let node = agent.node();
            format!("counters on {node}:\n{counters}agent of {node}:\n{tail}\n")
        });
        nodes.collect()
    }

    /// How often a reason was counted on all nodes, by all hooks.
    pub fn count(&self, reason: &str) -> Result<u64> {
        let mut sum = 0;
        for agent in &self.agents {
            let rows = agent.get("counters")?;
            let rows = rows.as_array().into_iter().flatten().filter(|row| row["reason"] == reason);
            sum += rows.filter_map(|row| row["packets"].as_u64()).sum::<u64>();
        }
        Ok(sum)
    }

    /// Asks once and wants an answer to the first packet, however late; of a SYN, to the second one at least.
    pub fn answer(&self, from: &impl Place, to: SocketAddr, transport: Transport) -> Result<Answer> {
        let report = from.ask(to, &AskOptions::new(transport))?;
        let most_repeats = match transport {
            Transport::Tcp => 1,
            Transport::Udp => 0,
        };
        let what = || format!("{} to {to} {transport:?}: {report:?}\n{}", from.name(), self.evidence());
        ensure!(report.repeats <= most_repeats, "packets were lost: {}", what());
        report.answer.clone().with_context(what)
    }

    /// Asks with both protocols; wants `server` to answer, having seen a client that `client` accepts.
    pub fn expect(
        &self,
        from: &impl Place,
        to: SocketAddr,
        server: &str,
        client: impl Fn(IpAddr) -> bool,
    ) -> Result<()> {
        for transport in Transport::BOTH {
            let answer = self.answer(from, to, transport)?;
            let what = || format!("{} to {to} {transport:?}: {answer:?}", from.name());
            ensure!(answer.server == server, "{}, not by {server}", what());
            ensure!(client(answer.client.ip()), "{}: the server saw another client than it should", what());
        }
        Ok(())
    }

    /// Asks with both protocols; wants no answer but `failure`, and a refusal to the first packet.
    pub fn expect_failure(&self, from: &impl Place, to: SocketAddr, failure: Failure) -> Result<()> {
        for transport in Transport::BOTH {
            let mut options = AskOptions::new(transport);
            if failure == Failure::TimedOut {
                options.timeout_ms = silence_ms();
            }
            let report = from.ask(to, &options)?;
            let what = || format!("{} to {to} {transport:?}: {report:?}\n{}", from.name(), self.evidence());
            ensure!(report.failure == Some(failure), "{}", what());
            ensure!(failure == Failure::TimedOut || report.repeats == 0, "packets were lost: {}", what());
        }
        Ok(())
    }

    /// Asks by TCP, and wants no answer.
    pub fn expect_unanswered(&self, from: &impl Place, to: SocketAddr) -> Result<()> {
        let report = from.ask(to, &AskOptions { timeout_ms: silence_ms(), ..AskOptions::new(Transport::Tcp) })?;
        ensure!(report.answer.is_none(), "{} to {to} is answered: {report:?}", from.name());
        Ok(())
    }
}

/// Tries until it succeeds; the last failure if that takes longer than `timeout`.
pub fn eventually<T>(timeout: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let timeout = patience(timeout);
    let deadline = Instant::now() + timeout;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => bail!("not within {timeout:?}: {error:#}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
