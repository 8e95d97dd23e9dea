use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::binaries::asset;
use super::credentials::{ADMIN_TOKEN, Credentials};
use crate::cluster::{Family, Node, Place, Process, SERVICE_CIDRS};

/// The API server's port, and that of a second one on the same machine.
const PORTS: [u16; 2] = [6443, 6444];

/// Which of the two API servers; they share one etcd, as in a cluster with several control plane nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiServer {
    First,
    Second,
}

impl ApiServer {
    pub(super) fn port(self) -> u16 {
        let [first, second] = PORTS;
        match self {
            Self::First => first,
            Self::Second => second,
        }
    }
}

/// A running control plane. All of it ends when dropped.
pub struct ControlPlane<'a> {
    pub(super) machine: &'a Node,
    pub(super) directory: PathBuf,
    pub(super) credentials: Credentials,
    // In the order in which they end.
    controllers: Option<Process>,
    servers: [Option<Process>; 2],
    etcd: Process,
}

impl<'a> ControlPlane<'a> {
    /// Starts etcd, one API server and the controllers on `machine`, and waits until they work.
    ///
    /// # Errors
    /// A program is missing, ended, or took too long; its log is in the message.
    pub fn start(machine: &'a Node) -> Result<Self> {
        let directory = machine.directory().join("control-plane");
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        let addresses: Vec<IpAddr> = Family::BOTH.iter().map(|&family| machine.ip(family)).collect();
        let credentials = Credentials::create(&directory, &addresses)?;
        let etcd = start_etcd(machine, &directory)?;
        let mut plane = Self { machine, directory, credentials, controllers: None, servers: [None, None], etcd };
        fs::write(plane.admin_kubeconfig(), plane.kubeconfig(ADMIN_TOKEN)?).context("write the admin's kubeconfig")?;
        plane.start_server(ApiServer::First)?;
        plane.start_controllers()?;
        // Pods are refused until a controller has made their service account.
        plane.wait("the default service account", || plane.kubectl(&["get", "serviceaccount", "default"]).is_ok())?;
        Ok(plane)
    }

    /// Where an API server is, as nodes reach it.
    pub fn url(&self, server: ApiServer) -> String {
        format!("https://{}:{}", self.machine.ip(Family::V4), server.port())
    }

    /// Of the server that is asked on the control plane's own account.
    fn running_url(&self) -> String {
        match &self.servers {
            [None, Some(_)] => self.url(ApiServer::Second),
            _ => self.url(ApiServer::First),
        }
    }

    /// A file in the directory of this control plane.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The certificate of the authority that signed those of the API servers, in PEM.
    pub fn authority(&self) -> Result<String> {
        fs::read_to_string(&self.credentials.authority).context("read the authority")
    }

    /// A kubeconfig for the holder of `token`.
    pub fn kubeconfig(&self, token: &str) -> Result<String> {
        self.credentials.kubeconfig(&self.url(ApiServer::First), token)
    }

    /// Runs kubectl as an administrator, on the control plane's machine.
    ///
    /// # Errors
    /// It failed; what it printed is in the message.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with(arguments, "")
    }

    /// `kubectl apply` of one object.
    pub fn apply(&self, object: &Value) -> Result<()> {
        self.kubectl_with(&["apply", "--server-side", "--filename=-"], &object.to_string()).map(drop)
    }

    fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = self.machine.namespace().command(asset("kubectl")?);
        command
            .arg("--kubeconfig")
            .arg(self.admin_kubeconfig())
            .args(["--server", &self.running_url()])
            .args(arguments);
        command.env("HOME", &self.directory);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start kubectl")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).context("write to kubectl")?;
        }
        let output = child.wait_with_output().context("run kubectl")?;
        if !output.status.success() {
            bail!("kubectl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts an API server (again) and waits until it is ready.
    pub fn start_server(&mut self, server: ApiServer) -> Result<()> {
        let mut command = self.machine.namespace().command(asset("kube-apiserver")?);
        let credentials = &self.credentials;
        let file = |flag: &str, path: &Path| format!("--{flag}={}", path.display());
        command.args([
            "--etcd-servers=http://127.0.0.1:2379",
            "--authorization-mode=Node,RBAC",
            // As kubeadm has it: the init container of deploy/base is privileged.
            "--allow-privileged=true",
            "--endpoint-reconciler-type=none",
            "--service-account-issuer=https://kubernetes.default.svc",
            &file("service-account-key-file", &credentials.service_account_public_key),
            &file("service-account-signing-key-file", &credentials.service_account_key),
            &file("tls-cert-file", &credentials.server_certificate),
            &file("tls-private-key-file", &credentials.server_key),
            &file("token-auth-file", &credentials.tokens),
            &format!("--service-cluster-ip-range={SERVICE_CIDRS}"),
            &format!("--advertise-address={}", self.machine.ip(Family::V4)),
            &format!("--secure-port={}", server.port()),
        ]);
        *self.slot(server) = Some(self.machine.start("kube-apiserver", command)?);
        let url = format!("https://127.0.0.1:{}", server.port());
        self.wait("the API server", || self.kubectl(&["--server", &url, "get", "--raw", "/readyz"]).is_ok())
    }

    /// Ends an API server as a crash would: nobody says goodbye.
    pub fn stop_server(&mut self, server: ApiServer) {
        *self.slot(server) = None;
    }

    /// Lets an API server hang: its connections stay, and the kernel acknowledges what comes.
    pub fn hang_server(&mut self, server: ApiServer) -> Result<()> {
        let process = self.slot(server).as_ref().context("this API server does not run")?;
        process.signal(Signal::SIGSTOP)
    }

    fn slot(&mut self, server: ApiServer) -> &mut Option<Process> {
        let [first, second] = &mut self.servers;
        match server {
            ApiServer::First => first,
            ApiServer::Second => second,
        }
    }

    fn start_controllers(&mut self) -> Result<()> {
        // No kubelet reports here: the node lifecycle controller would declare every node dead after 40 s.
        const CONTROLLERS: &str = "endpointslice-controller,serviceaccount-controller,namespace-controller";
        let mut command = self.machine.namespace().command(asset("kube-controller-manager")?);
        command.arg("--kubeconfig").arg(self.admin_kubeconfig()).args([
            &format!("--controllers={CONTROLLERS}"),
            "--leader-elect=false",
            "--secure-port=0",
            // By default it sends 20 requests a second, which would be what a burst of changes measures.
            "--kube-api-qps=1000",
            "--kube-api-burst=1000",
        ]);
        self.controllers = Some(self.machine.start("kube-controller-manager", command)?);
        Ok(())
    }

    pub(super) fn admin_kubeconfig(&self) -> PathBuf {
        self.directory.join("admin.kubeconfig")
    }

    /// Waits until `done`, at most a minute.
    ///
    /// # Errors
    /// Time is over; the ends of the logs are in the message.
    pub fn wait(&self, what: &str, done: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !done() {
            if Instant::now() > deadline {
                bail!("{what} did not come within a minute\n{}", self.log_tails());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn log_tails(&self) -> String {
        let processes = [Some(&self.etcd), self.controllers.as_ref()];
        let processes = processes.into_iter().chain(self.servers.iter().map(Option::as_ref)).flatten();
        let tail = |process: &Process| {
            let log = process.log();
            let lines: Vec<&str> = log.lines().collect();
            format!("--- {}\n{}\n", process.name(), lines[lines.len().saturating_sub(15)..].join("\n"))
        };
        processes.map(tail).collect()
    }
}

fn start_etcd(machine: &Node, directory: &Path) -> Result<Process> {
    let mut command = machine.namespace().command(asset("etcd")?);
    command.arg("--data-dir").arg(directory.join("etcd")).args([
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        // The data lives as long as the test.
        "--unsafe-no-fsync",
    ]);
    machine.start("etcd", command)
}
