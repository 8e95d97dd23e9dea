use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::samples::Turn;
use crate::cluster::{Cluster, Endpoint, Family, Place, Pod, Process, Service, ServicePort};
use crate::traffic::{Exchange, LatencyOptions, server};

/// Where the server is, as seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    SameNode,
    AcrossNodes,
}

impl Placement {
    pub const BOTH: [Self; 2] = [Self::SameNode, Self::AcrossNodes];

    /// The server that is reached over `path`. Each path has one of its own: with one server for all, connections
    /// stalled for a second now and then, most likely where a client's port was used over one path soon after the
    /// other and a TIME_WAIT socket of the server refused it.
    fn pod(self, path: Path) -> &'static str {
        match (self, path) {
            (Self::SameNode, Path::Direct) => "near-1",
            (Self::SameNode, Path::Control) => "near-2",
            (Self::SameNode, Path::Service) => "near-3",
            (Self::AcrossNodes, Path::Direct) => "far-1",
            (Self::AcrossNodes, Path::Control) => "far-2",
            (Self::AcrossNodes, Path::Service) => "far-3",
        }
    }

    fn node(self) -> u8 {
        match self {
            Self::SameNode => 1,
            Self::AcrossNodes => 2,
        }
    }
}

/// What is measured. More is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// One TCP stream by iperf3, in bits a second.
    Stream,
    /// One byte there and back on one connection, a second.
    Requests,
    /// A connection with one HTTP request, a second.
    Connections,
}

impl Metric {
    pub const ALL: [Self; 3] = [Self::Stream, Self::Requests, Self::Connections];
}

/// By which address the client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// The pod's own.
    Direct,
    /// The same again, of another pod.
    Control,
    /// The ClusterIP of a service with one pod.
    Service,
}

impl Path {
    pub const ALL: [Self; 3] = [Self::Direct, Self::Control, Self::Service];

    /// Where there is one path to be compared.
    pub fn of(turn: Turn) -> Self {
        match turn {
            Turn::Direct => Self::Direct,
            Turn::Control => Self::Control,
            Turn::Compared(_) => Self::Service,
        }
    }
}

const IPERF: u16 = 5201;

/// A client, and for each placement and path a server.
pub struct Stand {
    cluster: Cluster,
    services: [Service; 2],
}

impl Stand {
    pub fn build() -> Result<Self> {
        let mut builder = Cluster::builder().nodes(2).pod(1, "client");
        for placement in Placement::BOTH {
            builder =
                Path::ALL.iter().fold(builder, |builder, path| builder.pod(placement.node(), placement.pod(*path)));
        }
        let cluster = builder.build()?;
        let service = |placement: Placement, number| {
            let mut service = Service::new(placement.pod(Path::Service), number);
            service.ports.push(ServicePort {
                name: "iperf".to_owned(),
                protocol: "TCP".to_owned(),
                port: IPERF,
                target_port: IPERF,
                node_port: 0,
            });
            service
        };
        let services = [service(Placement::SameNode, 10), service(Placement::AcrossNodes, 11)];
        for service in &services {
            cluster.manifests().apply(service, &[Endpoint::of(cluster.pod(&service.name))])?;
        }
        Ok(Self { cluster, services })
    }

    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Everything that answers.
    pub fn start_servers(&self) -> Result<Vec<Process>> {
        let mut servers = Vec::new();
        for pod in self.cluster.pods().iter().filter(|pod| pod.name() != "client") {
            servers.push(pod.serve()?);
            let mut command = pod.command("iperf3");
            command.args(["--server", "--forceflush"]);
            let mut iperf = pod.start("iperf3", command)?;
            iperf.wait_for_line(Duration::from_secs(5), |line| line.contains("listening"))?;
            servers.push(iperf);
        }
        Ok(servers)
    }

    /// Measures once. The unit is the metric's.
    ///
    /// # Errors
    /// A request failed, too: a path that loses some is not to be compared.
    pub fn measure(&self, metric: Metric, placement: Placement, path: Path, window: Duration) -> Result<f64> {
        let client = self.cluster.pod("client");
        let exchange = |exchange, port, service_port| {
            let to = self.address(placement, path, port, service_port)?;
            let report = client.latency(to, &LatencyOptions::new(exchange, window))?;
            ensure!(report.failures == 0, "{} failures from {to}", report.failures);
            Ok(report.per_second)
        };
        match metric {
            Metric::Stream => stream(client, self.address(placement, path, IPERF, IPERF)?, window),
            Metric::Requests => exchange(Exchange::Rr, server::PORT + 1, Service::STREAM),
            Metric::Connections => exchange(Exchange::Crr, server::PORT, Service::HTTP),
        }
    }

    fn address(&self, placement: Placement, path: Path, port: u16, service_port: u16) -> Result<SocketAddr> {
        let name = placement.pod(path);
        Ok(match path {
            Path::Direct | Path::Control => (self.cluster.pod(name).ip(Family::V4), port).into(),
            Path::Service => {
                let service = self.services.iter().find(|service| service.name == name).context("a service")?;
                (service.cluster_ips.of(Family::V4), service_port).into()
            }
        })
    }
}

fn stream(client: &Pod, to: SocketAddr, window: Duration) -> Result<f64> {
    // iperf3 counts in whole seconds.
    let seconds = window.as_secs().max(1).to_string();
    let (address, port) = (to.ip().to_string(), to.port().to_string());
    let printed = client.run("iperf3", &["--client", &address, "--port", &port, "--time", &seconds, "--json"])?;
    let report: Value = serde_json::from_str(&printed).context("iperf3's report")?;
    report.pointer("/end/sum_received/bits_per_second").and_then(Value::as_f64).context("iperf3's rate")
}
