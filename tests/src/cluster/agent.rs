use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{
    CLUSTER_CIDRS, Cluster, Namespace, Node, Place, Process, binary,
    place::log_file,
    process::{self, Lifetime},
};

/// How agents are started.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// More arguments for `sheave agent`.
    pub arguments: Vec<String>,
    /// Variables for its environment, for example `RUST_LOG`.
    pub environment: Vec<(String, String)>,
    /// How long it may take to get ready.
    pub timeout: Duration,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self { arguments: Vec::new(), environment: Vec::new(), timeout: Duration::from_secs(20) }
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
    node: String,
    namespace: Namespace,
    binary: PathBuf,
    pin_dir: PathBuf,
    manifests: PathBuf,
    directory: PathBuf,
    lifetime: Lifetime,
    options: AgentOptions,
    process: Process,
}

impl Agent {
    /// Starts it on `node`; [`Self::wait_ready`] is to follow.
    pub fn start(cluster: &Cluster, node: &Node, options: &AgentOptions) -> Result<Self> {
        let binary = binary::sheave()?;
        let manifests = cluster.manifests().directory().to_owned();
        let pin_dir = node.pin_dir().to_owned();
        let process = spawn(node.name(), node.namespace(), &binary, &pin_dir, &manifests, cluster.directory(), node.lifetime(), options)?;
        Ok(Self {
            node: node.name().to_owned(),
            namespace: node.namespace().clone(),
            binary,
            pin_dir,
            manifests,
            directory: cluster.directory().to_owned(),
            lifetime: node.lifetime(),
            options: options.clone(),
            process,
        })
    }

    /// Name of its node.
    pub fn node(&self) -> &str {
        &self.node
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

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
        self.process.wait_for_line(self.options.timeout, ready)
    }

    /// `SIGKILL`: no time to say anything to anybody.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// `SIGTERM`, and waits for the end.
    pub fn terminate(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.wait(Duration::from_secs(10)).map(drop)
    }

    /// Starts it again after [`Self::kill`] or [`Self::terminate`], on the same pins, and waits until it is ready.
    pub fn start_again(&mut self) -> Result<()> {
        self.process = spawn(
            &self.node,
            &self.namespace,
            &self.binary,
            &self.pin_dir,
            &self.manifests,
            &self.directory,
            self.lifetime,
            &self.options,
        )?;
        self.wait_ready()
    }

    /// What `sheave get WHAT -o json` shows for it: `services`, `backends`, `flows` or `drops`.
    pub fn get(&self, what: &str) -> Result<Value> {
        let output = self.sheave(&["get", what, "-o", "json"])?;
        serde_json::from_slice(&output.stdout).with_context(|| format!("output of sheave get {what}"))
    }

    /// The same as a table for people.
    pub fn get_table(&self, what: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.sheave(&["get", what])?.stdout).into_owned())
    }

    /// `sheave cleanup`.
    pub fn cleanup(&self) -> Result<Output> {
        self.sheave(&["cleanup"])
    }

    fn sheave(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.namespace.command(&self.binary);
        command.args(arguments).arg("--pin-dir").arg(&self.pin_dir);
        process::output(command)
    }
}

#[expect(clippy::too_many_arguments, reason = "the two callers have these in different owners")]
fn spawn(
    node: &str,
    namespace: &Namespace,
    binary: &std::path::Path,
    pin_dir: &std::path::Path,
    manifests: &std::path::Path,
    directory: &std::path::Path,
    lifetime: Lifetime,
    options: &AgentOptions,
) -> Result<Process> {
    let mut command = namespace.command(binary);
    let flags: [(&str, OsString); 4] = [
        ("--manifests", manifests.into()),
        ("--hostname-override", node.into()),
        ("--pin-dir", pin_dir.into()),
        ("--cluster-cidr", CLUSTER_CIDRS.into()),
    ];
    command.arg("agent");
    for (flag, value) in flags {
        command.arg(flag).arg(value);
    }
    command.args(&options.arguments).envs(options.environment.iter().cloned());
    Process::start(&format!("agent of {node}"), command, log_file(directory, &format!("{node}.agent")), lifetime)
}
