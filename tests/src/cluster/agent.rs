use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{
    CLUSTER_CIDRS, Cluster, Namespace, Node, Place, Probe, Process, binary,
    place::log_file,
    process::{self, Lifetime},
};

/// How agents are started.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// Whether its objects come from the cluster's directory of manifests; else the arguments say where from.
    pub manifests: bool,
    /// More arguments for `sheave agent`.
    pub arguments: Vec<String>,
    /// Variables for its environment, for example `RUST_LOG`.
    pub environment: Vec<(String, String)>,
    /// How long it may take to get ready.
    pub timeout: Duration,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self { manifests: true, arguments: Vec::new(), environment: Vec::new(), timeout: Duration::from_secs(20) }
    }
}

impl AgentOptions {
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }
}

/// The agent of one node: the real program. Killed when dropped; what it pinned goes with the cluster.
pub struct Agent {
    recipe: Recipe,
    process: Process,
}

impl Agent {
    /// Starts it on `node`; [`Self::wait_ready`] is to follow.
    ///
    /// # Errors
    /// The program is not to be found or does not start.
    pub fn start(cluster: &Cluster, node: &Node, options: &AgentOptions) -> Result<Self> {
        let recipe = Recipe {
            node: node.name().to_owned(),
            namespace: node.namespace().clone(),
            binary: binary::sheave()?,
            pin_dir: node.pin_dir().to_owned(),
            manifests: cluster.manifests().directory().to_owned(),
            directory: cluster.directory().to_owned(),
            lifetime: node.lifetime(),
            options: options.clone(),
        };
        let process = recipe.start()?;
        Ok(Self { recipe, process })
    }

    /// Name of its node.
    pub fn node(&self) -> &str {
        &self.recipe.node
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it has said since its last start.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until its maps hold the first complete state and its programs are attached.
    ///
    /// # Errors
    /// It ended or took too long; its log is in the message.
    pub fn wait_ready(&mut self) -> Result<()> {
        // A word, since "not ready yet" and "already" are none of it.
        let ready = |line: &str| {
            !line.contains("not ready") && line.split(|c: char| !c.is_alphanumeric()).any(|word| word == "ready")
        };
        self.process.wait_for_line(self.recipe.options.timeout, ready)
    }

    /// Asks its health endpoints.
    ///
    /// # Errors
    /// Nobody answers there.
    pub fn probe(&self, path: &str) -> Result<Probe> {
        Probe::send(&self.recipe.namespace, path)
    }

    /// `SIGKILL`: no time to say anything to anybody.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// `SIGTERM`, and waits for the end.
    ///
    /// # Errors
    /// It has not ended after ten seconds.
    pub fn terminate(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.wait(Duration::from_secs(10)).map(drop)
    }

    /// Starts it again after [`Self::kill`] or [`Self::terminate`], on the same pins, and waits until it is ready.
    ///
    /// # Errors
    /// As [`Self::start`] and [`Self::wait_ready`].
    pub fn start_again(&mut self) -> Result<()> {
        self.process = self.recipe.start()?;
        self.wait_ready()
    }

    /// What `sheave get WHAT -o json` shows for it: `services`, `backends`, `flows`, `counters` or `drops`.
    ///
    /// # Errors
    /// The command's message.
    pub fn get(&self, what: &str) -> Result<Value> {
        let output = self.recipe.sheave(&["get", what, "-o", "json"])?;
        serde_json::from_slice(&output.stdout).with_context(|| format!("output of sheave get {what}"))
    }

    /// The same as a table for people.
    ///
    /// # Errors
    /// The command's message.
    pub fn get_table(&self, what: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.recipe.sheave(&["get", what])?.stdout).into_owned())
    }

    /// `sheave cleanup`.
    ///
    /// # Errors
    /// The command's message.
    pub fn cleanup(&self) -> Result<Output> {
        self.recipe.sheave(&["cleanup"])
    }

    /// Lets it run on; see [`Cluster::leave`].
    pub fn leave(self) {
        self.process.leave();
    }
}

/// What it takes to start an agent, as often as it dies.
struct Recipe {
    node: String,
    namespace: Namespace,
    binary: PathBuf,
    pin_dir: PathBuf,
    manifests: PathBuf,
    directory: PathBuf,
    lifetime: Lifetime,
    options: AgentOptions,
}

impl Recipe {
    fn start(&self) -> Result<Process> {
        let mut command = self.namespace.command(&self.binary);
        command.args(["agent", "--hostname-override", &self.node, "--cluster-cidr", CLUSTER_CIDRS]);
        command.arg("--pin-dir").arg(&self.pin_dir);
        if self.options.manifests {
            command.arg("--manifests").arg(&self.manifests);
        }
        command.args(&self.options.arguments).envs(self.options.environment.iter().cloned());
        let log = log_file(&self.directory, &format!("{}.agent", self.node));
        Process::start(&format!("agent of {}", self.node), command, log, self.lifetime)
    }

    /// Another command of the program, for this agent's pins.
    fn sheave(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.namespace.command(&self.binary);
        command.args(arguments).arg("--pin-dir").arg(&self.pin_dir);
        process::output(command)
    }
}
