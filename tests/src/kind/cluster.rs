use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde_json::Value;

use super::interrupt;
use crate::cluster::{Family, output};

/// Who answers at the addresses of Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proxy {
    Sheave,
    KubeProxy,
}

impl Proxy {
    /// As `cargo xtask kind` and its DaemonSet call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sheave => "sheave",
            Self::KubeProxy => "kube-proxy",
        }
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The cluster that is up, by the scripts in its folder, and a namespace in it for what is made here. Dropped, it removes
/// the namespace with all that is in it.
pub struct Cluster {
    folder: PathBuf,
    namespace: &'static str,
    logs: tempfile::TempDir,
}

/// As the API server has it.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    /// IPv4 first.
    pub addresses: Vec<IpAddr>,
}

impl Node {
    /// # Errors
    /// It has no address of this family.
    pub fn ip(&self, family: Family) -> Result<IpAddr> {
        of_family(&self.addresses, family).with_context(|| format!("{} has no address of {family:?}", self.name))
    }
}

/// What a program may take that waits for others. Those that wait longer by themselves have a limit of their own.
const LIMIT: &str = "600";

impl Cluster {
    /// Makes the namespace anew, should an earlier run have left it.
    ///
    /// # Errors
    /// The API server does not answer.
    pub fn enter(folder: &Path, namespace: &'static str) -> Result<Self> {
        let cluster = Self { folder: folder.to_owned(), namespace, logs: tempfile::tempdir()? };
        cluster.kubectl(&format!("delete namespace {namespace} --ignore-not-found"))?;
        cluster.kubectl(&format!("create namespace {namespace}"))?;
        Ok(cluster)
    }

    /// What kubectl prints. Its words are separated by blanks; without another `--namespace` it is in ours.
    ///
    /// # Errors
    /// It fails, with what it says of it.
    pub fn kubectl(&self, line: &str) -> Result<String> {
        self.kubectl_with(line, [] as [&str; 0])
    }

    /// The same with further words, which may have blanks in them.
    ///
    /// # Errors
    /// As [`Cluster::kubectl`].
    pub fn kubectl_with<Word: AsRef<OsStr>>(
        &self,
        line: &str,
        words: impl IntoIterator<Item = Word>,
    ) -> Result<String> {
        let mut command = self.kubectl_command(line);
        command.args(words);
        text(command)
    }

    /// kubectl, not yet run.
    pub fn kubectl_command(&self, line: &str) -> Command {
        let mut command = self.script("kubectl");
        command.args(["--namespace", self.namespace]).args(line.split_whitespace());
        command
    }

    /// What `kubectl LINE --output json` says.
    ///
    /// # Errors
    /// As [`Cluster::kubectl`].
    pub fn json(&self, line: &str) -> Result<Value> {
        self.json_of(&format!("{line} --output json"))
    }

    /// What `kubectl LINE` says, which is JSON by itself.
    ///
    /// # Errors
    /// As [`Cluster::kubectl`].
    pub fn json_of(&self, line: &str) -> Result<Value> {
        serde_json::from_str(&self.kubectl(line)?).context("what kubectl says")
    }

    /// Applies objects.
    ///
    /// # Errors
    /// As [`Cluster::kubectl`].
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        let file = self.logs.path().join("objects.json");
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
        fs::write(&file, list.to_string()).with_context(|| format!("cannot write {}", file.display()))?;
        self.kubectl_with("apply --filename", [file]).map(drop)
    }

    /// A program of this machine's beside the nodes, outside of the cluster.
    pub fn beside(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.script("enter");
        command.arg(program);
        command
    }

    /// What a shell says that runs in a node, as its own processes do.
    ///
    /// # Errors
    /// It fails.
    pub fn on_node(&self, node: &str, script: &str) -> Result<String> {
        text(self.engine(&["exec", node, "sh", "-c", script])).with_context(|| format!("on {node}"))
    }

    /// Restarts a node: its container, which is all that it is.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn restart_node(&self, node: &str) -> Result<()> {
        text(self.engine(&["restart", node])).map(drop)
    }

    /// The nodes by name; the control plane's comes first.
    ///
    /// # Errors
    /// The API server does not answer as it should.
    pub fn nodes(&self) -> Result<Vec<Node>> {
        items(&self.json("get nodes")?)
            .iter()
            .map(|item| {
                let of_status = item["status"]["addresses"].as_array().into_iter().flatten();
                let internal = of_status.filter(|address| address["type"] == "InternalIP");
                let addresses = internal.filter_map(|address| address["address"].as_str()?.parse().ok()).collect();
                Ok(Node { name: name(item)?.to_owned(), addresses })
            })
            .collect()
    }

    /// Waits until a workload is rolled out, for as long as kubectl's own words say.
    ///
    /// # Errors
    /// It is not in time.
    pub fn rollout(&self, workload: &str) -> Result<()> {
        self.kubectl(&format!("rollout status {workload} --timeout=300s")).map(drop)
    }

    /// The namespace of what is made here.
    pub fn namespace(&self) -> &str {
        self.namespace
    }

    /// For the output of what runs in the background.
    pub fn logs(&self) -> &Path {
        self.logs.path()
    }

    fn script(&self, name: &str) -> Command {
        let mut command = Command::new("timeout");
        // Within reach of the terminal's Ctrl-C.
        command.args(["--foreground", LIMIT]).arg(self.folder.join(name));
        command
    }

    fn engine(&self, words: &[&str]) -> Command {
        let mut command = self.script("engine");
        command.arg("podman").args(words);
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        interrupt::begin_cleaning();
        let _ = self.kubectl(&format!("delete namespace {} --ignore-not-found", self.namespace));
    }
}

fn text(command: Command) -> Result<String> {
    interrupt::check()?;
    Ok(String::from_utf8_lossy(&output(command)?.stdout).into_owned())
}

/// Of a list of objects.
pub fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map_or(&[], Vec::as_slice)
}

/// # Errors
/// An object without a name.
pub fn name(object: &Value) -> Result<&str> {
    object["metadata"]["name"].as_str().context("an object without a name")
}

/// Whether a pod, or a node, says that it is.
pub fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// The address of a family among those of an object.
pub fn of_family(addresses: &[IpAddr], family: Family) -> Result<IpAddr> {
    let found = addresses.iter().find(|address| address.is_ipv4() == (family == Family::V4));
    match found {
        Some(address) => Ok(*address),
        None => bail!("none of {addresses:?} is of {family:?}"),
    }
}
