use std::{
    io::{self, IsTerminal},
    process::{Output, Stdio},
    time::{Duration, SystemTime},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{process::Command, time::timeout};

use super::{
    kubeconfig::{Exec, Text, Variable},
    tls::Identity,
};

const GROUP: &str = "client.authentication.k8s.io/";

/// How long a plugin may take; less than a list may stand still.
const LIMIT: Duration = Duration::from_secs(20);

/// How much of what a plugin complains of is repeated, in characters.
const COMPLAINT: usize = 300;

/// A program that issues credentials (KEP-541), ready to be run.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct Plugin {
    command: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    api_version: String,
    install_hint: String,
    is_interactive: Interactive,
    /// What it is told of the cluster.
    cluster: Option<Value>,
}

/// Whether a plugin wants to ask somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interactive {
    Never,
    IfAvailable,
    Always,
}

/// What a plugin issued.
#[derive(Clone)]
pub(in super::super) struct Issued {
    pub(super) token: Option<String>,
    pub(super) identity: Option<Identity>,
    /// `None`: until a server refuses it.
    until: Option<SystemTime>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Answer {
    api_version: Text,
    status: Option<Status>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    expiration_timestamp: Option<Time>,
    token: Text,
    client_certificate_data: Text,
    client_key_data: Text,
}

impl Issued {
    pub(in super::super) fn is_over(&self) -> bool {
        self.until.is_some_and(|until| until <= SystemTime::now())
    }
}

impl Plugin {
    pub(super) fn new(exec: &Exec, cluster: Option<Value>) -> Result<Self, String> {
        let command = exec.command.get().ok_or("exec: names no command")?;
        let version = exec.api_version.get().ok_or("exec: apiVersion is missing")?;
        let is_old = version.strip_prefix(GROUP).is_some_and(|version| version == "v1beta1");
        if !is_old && version != format!("{GROUP}v1") {
            return Err(format!("exec: apiVersion {version:?} is not supported; {GROUP}v1 and v1beta1 are"));
        }
        let is_interactive = match exec.interactive_mode.get() {
            Some("Never") => Interactive::Never,
            Some("IfAvailable") => Interactive::IfAvailable,
            Some("Always") => Interactive::Always,
            None if is_old => Interactive::IfAvailable,
            None => return Err("exec: interactiveMode is missing".into()),
            Some(other) => {
                return Err(format!("exec: interactiveMode {other:?} is none of Never, IfAvailable, Always"));
            }
        };
        let variable = |Variable { name, value }: &Variable| {
            let name = name.get().ok_or("exec: a variable of env has no name")?;
            Ok((name.to_owned(), value.get().unwrap_or_default().to_owned()))
        };
        Ok(Self {
            command: command.to_owned(),
            arguments: exec.args.clone().unwrap_or_default(),
            environment: exec.env.iter().flatten().map(variable).collect::<Result<_, String>>()?,
            api_version: version.to_owned(),
            install_hint: exec.install_hint.get().unwrap_or_default().to_owned(),
            is_interactive,
            cluster: cluster.filter(|_| exec.provide_cluster_info.unwrap_or_default()),
        })
    }

    /// Runs it. Standard input is passed on if it is a terminal and the plugin may use it.
    pub(in super::super) async fn run(&self) -> Result<Issued, String> {
        let failed = |reason: String| format!("exec: {}: {reason}", self.command);
        let has_terminal = io::stdin().is_terminal();
        if self.is_interactive == Interactive::Always && !has_terminal {
            return Err(failed("wants to ask somebody, but standard input is not a terminal".into()));
        }
        let is_interactive = has_terminal && self.is_interactive != Interactive::Never;
        let input = || if is_interactive { Stdio::inherit() } else { Stdio::null() };
        let mut command = Command::new(&self.command);
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("KUBERNETES_EXEC_INFO", self.question(is_interactive)).stdin(input()).kill_on_drop(true);
        let output = match timeout(LIMIT, command.output()).await {
            Err(_) => return Err(failed(format!("no answer within {} s", LIMIT.as_secs()))),
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Err(failed(format!("not found{}", self.hint())));
            }
            Ok(output) => output.map_err(|error| failed(error.to_string()))?,
        };
        self.answer(&output).map_err(failed)
    }

    fn question(&self, is_interactive: bool) -> String {
        let mut spec = json!({"interactive": is_interactive});
        if let Some(cluster) = &self.cluster {
            spec["cluster"] = cluster.clone();
        }
        json!({"kind": "ExecCredential", "apiVersion": self.api_version, "spec": spec}).to_string()
    }

    fn hint(&self) -> String {
        let hint = one_line(self.install_hint.as_bytes());
        if hint.is_empty() { hint } else { format!("; {hint}") }
    }

    fn answer(&self, output: &Output) -> Result<Issued, String> {
        if !output.status.success() {
            let complaint = one_line(&output.stderr);
            let colon = if complaint.is_empty() { "" } else { ": " };
            return Err(format!("{}{colon}{complaint}", output.status));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let answer: Answer = serde_saphyr::from_str(&text)
            .map_err(|error| format!("its answer cannot be read: {}", error.without_snippet()))?;
        let version = answer.api_version.get().unwrap_or_default();
        if version != self.api_version {
            return Err(format!("answers in version {version:?}; expected {:?}", self.api_version));
        }
        let status = answer.status.ok_or("its answer has no status")?;
        let identity = match (status.client_certificate_data.get(), status.client_key_data.get()) {
            (Some(certificate), Some(key)) => Some(Identity { certificate: certificate.into(), key: key.into() }),
            (None, None) => None,
            _ => return Err("issued only one of certificate and key".into()),
        };
        let token = status.token.get().map(str::to_owned);
        if token.is_none() && identity.is_none() {
            return Err("issued neither a token nor a certificate".into());
        }
        Ok(Issued { token, identity, until: status.expiration_timestamp.map(|time| time.0.into()) })
    }
}

/// Text of somebody else for the log: without line ends and terminal sequences, and of bounded length.
fn one_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let line: String = text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    line.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(COMPLAINT).collect()
}
