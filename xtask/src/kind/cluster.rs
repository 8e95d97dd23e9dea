//! The cluster that is up, for all who use it: kubectl, its nodes, its pods, and the place next to it.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::scripts;
use super::state::{self, CLUSTER, Record};
use crate::{command, go_programs};

/// Whose commands are run by way of the scripts in its folder.
pub struct Cluster {
    record: Record,
}

/// As the API server has it.
#[derive(Debug)]
pub struct Node {
    pub name: String,
    /// Of both families.
    pub addresses: Vec<String>,
    /// The ranges of its pods, IPv4 first.
    pub pod_ranges: Vec<String>,
}

impl Cluster {
    /// The one that is up.
    ///
    /// # Errors
    /// None is.
    pub fn running() -> Result<Self> {
        Ok(Self { record: Record::of_running()? })
    }

    /// While it comes up.
    pub(super) fn begun(record: Record) -> Self {
        Self { record }
    }

    /// `kubectl ARGUMENTS`, with this cluster's address and rights.
    pub fn kubectl<Word: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = Word>) -> Command {
        let mut command = Command::new(state::path(scripts::KUBECTL));
        command.args(arguments);
        command
    }

    /// A program of this machine's next to the cluster: outside of it, on the network of its nodes, in the control group of
    /// all that belongs to it.
    pub fn beside<Word: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = Word>) -> Command {
        let mut command = Command::new(state::path(scripts::ENTER));
        command.args(words);
        command
    }

    /// The container engine's client (podman, or docker), among its own.
    pub fn engine<Word: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = Word>) -> Command {
        let mut command = self.in_engine(self.record.machine_engine.as_deref().unwrap_or("podman"));
        command.args(arguments);
        command
    }

    /// A program in a node's container, as the node's own processes are. Its standard input is passed on.
    pub fn on_node<Word: AsRef<OsStr>>(&self, node: &str, words: impl IntoIterator<Item = Word>) -> Command {
        let mut command = self.engine(["exec", "--interactive", node]);
        command.args(words);
        command
    }

    /// `kind ARGUMENTS` for this cluster.
    ///
    /// # Errors
    /// The program's version cannot be read.
    pub fn kind<Word: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = Word>) -> Result<Command> {
        let mut command = self.in_engine(&go_programs::path("kind")?.to_string_lossy());
        command.args(arguments).args(["--name", CLUSTER]);
        if let Some(engine) = &self.record.machine_engine {
            command.env("KIND_EXPERIMENTAL_PROVIDER", engine);
        }
        Ok(command)
    }

    /// Puts the images of an OCI archive into every node.
    ///
    /// # Errors
    /// kind refuses it.
    pub fn load(&self, archive: &Path) -> Result<()> {
        let archive = archive.to_string_lossy();
        command::run(&mut self.kind(["load", "image-archive", &archive])?)
    }

    /// The nodes, by name: the control plane's comes first.
    ///
    /// # Errors
    /// The API server does not answer.
    pub fn nodes(&self) -> Result<Vec<Node>> {
        let list = self.json(["get", "nodes"])?;
        list["items"].as_array().into_iter().flatten().map(node).collect()
    }

    /// What `kubectl ARGUMENTS --output json` says.
    ///
    /// # Errors
    /// It fails, with what kubectl says of it.
    pub fn json<Word: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = Word>) -> Result<Value> {
        let text = output(self.kubectl(arguments).args(["--output", "json"]))?;
        serde_json::from_str(&text).context("what kubectl says")
    }

    /// Of the machine's own engine, this machine is all there is to enter.
    fn in_engine(&self, program: &str) -> Command {
        if self.record.machine_engine.is_some() {
            return Command::new(program);
        }
        let mut command = Command::new(state::path(scripts::ENGINE));
        command.arg(program);
        command
    }
}

/// What a program prints.
///
/// # Errors
/// It fails, with what it says of it.
pub fn output(command: &mut Command) -> Result<String> {
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let output = command.stdin(Stdio::null()).output().context("start a program of the cluster's")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}", words.join(" "), said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program with this standard input.
///
/// # Errors
/// It fails.
pub fn feed(command: &mut Command, text: &str) -> Result<()> {
    let mut child = command.stdin(Stdio::piped()).spawn().context("start a program of the cluster's")?;
    let mut input = child.stdin.take().context("its standard input")?;
    // Should it end early, its status says more than the broken pipe.
    let _ = input.write_all(text.as_bytes());
    drop(input);
    let status = child.wait()?;
    if !status.success() {
        bail!("it failed: {status}");
    }
    Ok(())
}

fn node(item: &Value) -> Result<Node> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let name = text(&item["metadata"]["name"]).context("a node without a name")?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let internal = list(&item["status"]["addresses"]).into_iter().filter(|address| address["type"] == "InternalIP");
    Ok(Node {
        name,
        addresses: internal.filter_map(|address| text(&address["address"])).collect(),
        pod_ranges: list(&item["spec"]["podCIDRs"]).iter().filter_map(text).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_read_from_what_kubectl_says() {
        let item = serde_json::json!({
            "metadata": {"name": "kind-worker"},
            "spec": {"podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"]},
            "status": {"addresses": [
                {"type": "InternalIP", "address": "10.89.0.3"},
                {"type": "Hostname", "address": "kind-worker"},
                {"type": "InternalIP", "address": "fc00::3"},
            ]},
        });
        let node = node(&item).unwrap();
        assert_eq!(node.name, "kind-worker");
        assert_eq!(node.addresses, ["10.89.0.3", "fc00::3"]);
        assert_eq!(node.pod_ranges, ["10.244.1.0/24", "fd00:10:244:1::/64"]);
    }
}
