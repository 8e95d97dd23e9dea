use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::cluster::{Cluster, Node};
use crate::cluster::{Lifetime, Load, Process, binary, log_file, output};
use crate::traffic::{AskOptions, EchoReport, HttpOptions, HttpReport};

/// Servers and clients that say who they are; `cargo xtask kind up` puts it into every node.
pub const WEB: &str = "docker.io/library/sheave-web:dev";
const SHELL: &str = "docker.io/library/sheave-shell:dev";

/// Where requests come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Client {
    /// A machine beside the nodes.
    Outside,
    /// A pod by its name, with a container `traffic`.
    Pod(String),
}

impl Client {
    /// A pod on a node, whatever the node keeps others away for: `traffic`, and `shell` with curl and nslookup.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn on(cluster: &Cluster, node: &Node) -> Result<Self> {
        let name = format!("client-{}", node.name);
        let container = |name: &str, image: &str| json!({"name": name, "image": image, "imagePullPolicy": "Never"});
        let mut traffic = container("traffic", WEB);
        traffic["args"] = json!(["serve", "--name", name]);
        let spec: Value = json!({"spec": {
            "nodeName": node.name,
            "terminationGracePeriodSeconds": 1,
            "tolerations": [{"operator": "Exists"}],
            "containers": [traffic, container("shell", SHELL)],
        }});
        cluster.kubectl(&format!("run {name} --image {WEB} --overrides {spec}"))?;
        cluster.kubectl(&format!("wait --for=condition=Ready pod/{name} --timeout=300s"))?;
        Ok(Self::Pod(name))
    }

    pub fn name(&self) -> &str {
        match self {
            Self::Outside => "outside",
            Self::Pod(name) => name,
        }
    }

    /// One request, and what became of it.
    ///
    /// # Errors
    /// The client itself fails.
    pub fn ask(&self, cluster: &Cluster, to: SocketAddr, options: &AskOptions) -> Result<EchoReport> {
        self.report(cluster, "ask", to, &options.arguments())
    }

    /// HTTP requests, each on a connection of its own unless the options say otherwise.
    ///
    /// # Errors
    /// The client itself fails.
    pub fn http(&self, cluster: &Cluster, to: SocketAddr, options: &HttpOptions) -> Result<HttpReport> {
        self.report(cluster, "http", to, &options.arguments())
    }

    /// The same in the background, until it is told to stop.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_http(&self, cluster: &Cluster, to: SocketAddr, options: &HttpOptions) -> Result<Load<HttpReport>> {
        let mut command = self.traffic(cluster)?;
        command.args(["http", "--to", &to.to_string(), "--until-stdin-closes"]).args(options.arguments());
        let name = format!("http from {} to {to}", self.name());
        let log = log_file(cluster.logs(), &format!("{}.http", self.name()));
        Ok(Load::of(Process::start(&name, command, log, Lifetime::Parent)?))
    }

    /// What a traffic tool reports that ends by itself.
    ///
    /// # Errors
    /// It fails.
    pub fn report<Report: DeserializeOwned>(
        &self,
        cluster: &Cluster,
        verb: &str,
        to: SocketAddr,
        arguments: &[String],
    ) -> Result<Report> {
        let mut command = self.traffic(cluster)?;
        command.args([verb, "--to", &to.to_string()]).args(arguments);
        let output = output(command).with_context(|| format!("{verb} from {} to {to}", self.name()))?;
        serde_json::from_slice(&output.stdout).with_context(|| format!("report of {verb} from {}", self.name()))
    }

    fn traffic(&self, cluster: &Cluster) -> Result<Command> {
        Ok(match self {
            Self::Outside => cluster.beside(binary::traffic()?),
            Self::Pod(name) => cluster.kubectl_command(&format!("exec {name} --stdin --container traffic -- traffic")),
        })
    }
}

/// A request that is late is no failure; one that gets no answer for a minute is.
pub fn patient(options: HttpOptions) -> HttpOptions {
    HttpOptions { timeout_ms: Duration::from_secs(60).as_millis() as u64, ..options }
}
