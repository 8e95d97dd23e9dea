use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

use super::{Addresses, Family, Lifetime, Namespace, Process, binary, process};
use crate::traffic::{
    AskOptions, BesideOptions, BesideReport, CallOptions, Called, EchoReport, FloodOptions, FloodReport, HttpOptions,
    HttpReport, LatencyOptions, LatencyReport, OPEN, Resolutions, ResolveOptions, SessionsOptions, SessionsReport,
    StreamOptions, StreamReport, UdpOptions, UdpReport, server,
};

/// What every place has.
pub struct Site {
    pub(super) name: String,
    pub(super) namespace: Namespace,
    pub(super) addresses: Addresses,
    pub(super) directory: PathBuf,
    pub(super) lifetime: Lifetime,
}

/// Somewhere a program can run: a pod, a node, the outside client.
pub trait Place {
    fn site(&self) -> &Site;

    fn name(&self) -> &str {
        &self.site().name
    }

    fn namespace(&self) -> &Namespace {
        &self.site().namespace
    }

    fn addresses(&self) -> &Addresses {
        &self.site().addresses
    }

    /// Where logs go.
    fn directory(&self) -> &Path {
        &self.site().directory
    }

    /// Of what is started here.
    fn lifetime(&self) -> Lifetime {
        self.site().lifetime
    }

    fn ip(&self, family: Family) -> IpAddr {
        self.addresses().of(family)
    }

    /// A command that will run here.
    fn command(&self, program: &str) -> Command {
        self.namespace().command(program)
    }

    /// Runs a program to its end and gives back its standard output.
    fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(program);
        command.args(arguments);
        let output = process::output(command).with_context(|| format!("in {}", self.name()))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts a program in the background.
    fn start(&self, name: &str, command: Command) -> Result<Process> {
        let log = log_file(self.directory(), &format!("{}.{name}", self.name()));
        Process::start(&format!("{name} in {}", self.name()), command, log, self.lifetime())
    }

    /// A command for one of our traffic tools, to run here.
    fn traffic(&self) -> Result<Command> {
        Ok(self.namespace().command(binary::traffic()?))
    }

    /// Starts the traffic server here and waits until it listens; see [`server`] for what it answers.
    fn serve(&self) -> Result<Process> {
        self.serve_as(self.name(), server::PORT)
    }

    /// The same under another name and with another first port.
    fn serve_as(&self, name: &str, port: u16) -> Result<Process> {
        let mut command = self.traffic()?;
        command.args(["serve", "--name", name, "--port", &port.to_string()]);
        self.start_server(&format!("server-{port}"), command)
    }

    /// A server of HTTP and datagrams whose sockets are bound to exactly this address.
    fn serve_at(&self, name: &str, address: SocketAddr) -> Result<Process> {
        let mut command = self.traffic()?;
        command.args(["serve-at", "--name", name, "--address", &address.to_string()]);
        self.start_server("server-at", command)
    }

    #[doc(hidden)]
    fn start_server(&self, name: &str, command: Command) -> Result<Process> {
        let mut process = self.start(name, command)?;
        process.wait_for_line(Duration::from_secs(5), |line| line.starts_with("listening"))?;
        Ok(process)
    }

    /// HTTP requests from here, each on a connection of its own.
    fn http(&self, to: SocketAddr, options: &HttpOptions) -> Result<HttpReport> {
        self.report("http", to, &options.arguments())
    }

    /// The same in the background, until told to stop.
    fn start_http(&self, to: SocketAddr, options: &HttpOptions) -> Result<Load<HttpReport>> {
        self.start_load("http", to, &options.arguments())
    }

    /// UDP requests from here, on one socket.
    fn udp(&self, to: SocketAddr, options: &UdpOptions) -> Result<UdpReport> {
        self.report("udp", to, &options.arguments())
    }

    fn start_udp(&self, to: SocketAddr, options: &UdpOptions) -> Result<Load<UdpReport>> {
        self.start_load("udp", to, &options.arguments())
    }

    /// TCP streams from here, echoed and compared byte for byte.
    fn stream(&self, to: SocketAddr, options: &StreamOptions) -> Result<StreamReport> {
        self.report("stream", to, &options.arguments())
    }

    fn start_stream(&self, to: SocketAddr, options: &StreamOptions) -> Result<Load<StreamReport>> {
        self.start_load("stream", to, &options.arguments())
    }

    /// Connections on which questions are asked again and again. All of them are made, or have failed, when this returns.
    fn hold_sessions(&self, to: SocketAddr, options: &SessionsOptions) -> Result<Load<SessionsReport>> {
        let mut load: Load<SessionsReport> = self.start_load("sessions", to, &options.arguments())?;
        load.process.wait_for_line(Duration::from_secs(30), |line| line == OPEN)?;
        Ok(load)
    }

    /// Connections to an address beside those to another.
    fn beside(&self, to: SocketAddr, options: &BesideOptions) -> Result<BesideReport> {
        self.report("beside", to, &options.arguments())
    }

    /// First packets of flows that never go on.
    fn start_flood(&self, to: SocketAddr, options: &FloodOptions) -> Result<Load<FloodReport>> {
        self.start_load("flood", to, &options.arguments())
    }

    /// Times connections or requests.
    fn latency(&self, to: SocketAddr, options: &LatencyOptions) -> Result<LatencyReport> {
        self.report("latency", to, &options.arguments())
    }

    /// One request: who answered, and what address it saw.
    fn ask(&self, to: SocketAddr, options: &AskOptions) -> Result<EchoReport> {
        self.report("ask", to, &options.arguments())
    }

    /// Questions by sockets that are used in one of the ways that there are.
    fn call(&self, to: SocketAddr, options: &CallOptions) -> Result<Vec<Called>> {
        self.report("call", to, &options.arguments())
    }

    /// Questions by datagrams on a connected socket, in the background.
    fn start_resolver(&self, to: SocketAddr, options: &ResolveOptions) -> Result<Load<Resolutions>> {
        self.start_load("resolve", to, &options.arguments())
    }

    #[doc(hidden)]
    fn report<T: DeserializeOwned>(&self, verb: &str, to: SocketAddr, arguments: &[String]) -> Result<T> {
        let mut command = self.traffic()?;
        command.args([verb, "--to", &to.to_string()]).args(arguments);
        let output = process::output(command).with_context(|| format!("{verb} from {} to {to}", self.name()))?;
        serde_json::from_slice(&output.stdout).with_context(|| format!("report of {verb}"))
    }

    #[doc(hidden)]
    fn start_load<T: DeserializeOwned>(&self, verb: &str, to: SocketAddr, arguments: &[String]) -> Result<Load<T>> {
        let mut command = self.traffic()?;
        command.args([verb, "--to", &to.to_string(), "--until-stdin-closes"]).args(arguments);
        let log = log_file(self.directory(), &format!("{}.{verb}", self.name()));
        // It ends with its standard input, so it cannot outlive us.
        let process = Process::start(&format!("{verb} from {}", self.name()), command, log, Lifetime::Parent)?;
        Ok(Load::of(process))
    }
}

/// A client that runs until it is told to stop.
pub struct Load<T> {
    process: Process,
    report: std::marker::PhantomData<T>,
}

impl<T: DeserializeOwned> Load<T> {
    /// One of our traffic tools that was started to run until its standard input ends.
    pub fn of(process: Process) -> Self {
        Self { process, report: std::marker::PhantomData }
    }

    /// Ends it and gives back what it saw.
    pub fn stop(mut self) -> Result<T> {
        self.process.close_stdin();
        let status = self.process.wait(Duration::from_secs(30))?;
        let log = self.process.log();
        let report = log.lines().rev().find(|line| line.starts_with('{'));
        let report =
            report.with_context(|| format!("{} ended ({status}) without a report:\n{log}", self.process.name()))?;
        serde_json::from_str(report).context("report")
    }

    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }
}

/// A file that is not there yet.
pub fn log_file(directory: &Path, stem: &str) -> std::path::PathBuf {
    let mut number = 0;
    loop {
        let path = directory.join(format!("{stem}.{number}.log"));
        if !path.exists() {
            return path;
        }
        number += 1;
    }
}
