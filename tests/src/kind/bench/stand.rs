use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::cell::{Cell, Way, Work};
use crate::cluster::Family;
use crate::comparison::Placement;
use crate::kind::client::{Client, WEB};
use crate::kind::cluster::{Cluster, Node, of_family};
use crate::kind::interrupt::eventually;
use crate::traffic::{AskOptions, Exchange, LatencyOptions, LatencyReport, Transport};

const IPERF3: &str = "docker.io/library/sheave-iperf3:dev";
/// Of iperf3 by the direct way; those of the other ways follow.
const STREAMS: u16 = 5201;
/// Of HTTP by the direct way. Its server takes the port after it, too.
const HTTP: u16 = 8080;
/// Of iperf3 and of HTTP, for the near server; the far one's follow. Out of the range that others are given one from
/// (KEP-3668). iperf3 wants one port for TCP and UDP, and those that are given differ.
const NODE_PORTS: [u16; 2] = [30010, 30020];
/// About half a second of a stream, which is long enough for it to find its rate. iperf3 counts whole seconds only, but ends
/// after so many bytes.
const TCP_BYTES: &str = "256M";
const UDP_BYTES: &str = "24M";
/// For new connections.
const WINDOW: Duration = Duration::from_millis(400);
/// iperf3's server may still be busy with a client that has gone.
const TRIES: usize = 5;
/// For a proxy that was just installed.
const SETTLE: Duration = Duration::from_secs(30);

/// A client pod, and a server pod beside it and one on another node.
pub struct Stand {
    cluster: Cluster,
    client_node: Node,
    servers: [Server; 2],
}

struct Server {
    placement: Placement,
    pod_ips: Vec<IpAddr>,
    cluster_ips: Vec<IpAddr>,
    node_ports: [u16; 2],
}

impl Stand {
    /// # Errors
    /// A pod does not become ready.
    pub fn build(cluster: Cluster) -> Result<Self> {
        let nodes = cluster.nodes()?;
        // The control plane's own work would be measured along; of two nodes it is one.
        let (near, far) = match &nodes[..] {
            [] | [_] => bail!("the bench needs two nodes: `cargo xtask kind up --nodes 2`"),
            [control_plane, worker] => (worker, control_plane),
            [_, near, .., far] => (near, far),
        };
        let near_server = Server::start(&cluster, Placement::SameNode, near)?;
        let far_server = Server::start(&cluster, Placement::AcrossNodes, far)?;
        let waiting = container("iperf3", IPERF3, &["--server", "--port", "5300"]);
        let client = pod(CLIENT, near, vec![waiting, container("traffic", WEB, &["serve", "--name", CLIENT])]);
        cluster.apply(&[client])?;
        cluster.kubectl(&format!("wait --for=condition=Ready pod/{CLIENT} --timeout=300s"))?;
        Ok(Self { client_node: near.clone(), cluster, servers: [near_server, far_server] })
    }

    /// Measures once.
    ///
    /// # Errors
    /// A connection failed, too: a way that loses some is not to be compared.
    pub fn measure(&self, cell: Cell, way: Way) -> Result<f64> {
        let is_http = cell.work == Work::Connections;
        let server = &self.servers[usize::from(cell.placement == Placement::AcrossNodes)];
        let to = server.address(way, is_http, cell.family, &self.client_node)?;
        match cell.work {
            Work::Tcp(streams) => self.streams(to, streams, &format!("--bytes {TCP_BYTES}")),
            Work::Udp(streams) => self.streams(to, streams, &format!("--bytes {UDP_BYTES} --udp --bitrate 0")),
            Work::Connections => {
                let options = LatencyOptions::new(Exchange::Crr, WINDOW).arguments();
                let client = Client::Pod(CLIENT.to_owned());
                let report: LatencyReport = client.report(&self.cluster, "latency", to, &options)?;
                ensure!(report.failures == 0, "{} failures at {to}", report.failures);
                Ok(report.per_second)
            }
        }
        .with_context(|| format!("{cell}, {way}"))
    }

    fn streams(&self, to: SocketAddr, streams: u8, words: &str) -> Result<f64> {
        let (ip, port) = (to.ip(), to.port());
        let line = format!(
            "exec {CLIENT} --container iperf3 -- iperf3 --json --client {ip} --port {port} --parallel {streams} {words}"
        );
        let mut tries = 1;
        loop {
            match self.cluster.json_of(&line) {
                Ok(report) => return received(&report),
                Err(error) if tries == TRIES => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_secs(1)),
            }
            tries += 1;
        }
    }

    /// Waits until every way carries something.
    ///
    /// # Errors
    /// One does not in time.
    pub fn settle(&self) -> Result<()> {
        let client = Client::Pod(CLIENT.to_owned());
        for server in &self.servers {
            for family in Family::BOTH {
                for way in Way::ALL {
                    let to = server.address(way, true, family, &self.client_node)?;
                    eventually(SETTLE, || {
                        let report = client.ask(&self.cluster, to, &AskOptions::new(Transport::Tcp))?;
                        ensure!(report.answer.is_some(), "{way} at {to}: {report:?}");
                        Ok(())
                    })?;
                }
            }
        }
        Ok(())
    }
}

const CLIENT: &str = "client";

impl Server {
    fn start(cluster: &Cluster, placement: Placement, node: &Node) -> Result<Self> {
        let (name, step) = match placement {
            Placement::SameNode => ("near", 0),
            Placement::AcrossNodes => ("far", 1),
        };
        let mut containers = Vec::new();
        for way in Way::ALL {
            let [streams, http] = ports(way);
            let words = ["--server", "--port", &streams.to_string()];
            containers.push(container(&format!("iperf3-{streams}"), IPERF3, &words));
            let words = ["serve", "--name", name, "--port", &http.to_string()];
            containers.push(container(&format!("http-{http}"), WEB, &words));
        }
        let node_ports = NODE_PORTS.map(|port| port + step);
        let service = |way: Way, kind: &str| service(name, way, kind, node_ports);
        let objects =
            [pod(name, node, containers), service(Way::ClusterIp, "ClusterIP"), service(Way::NodePort, "NodePort")];
        cluster.apply(&objects)?;
        cluster.kubectl(&format!("wait --for=condition=Ready pod/{name} --timeout=300s"))?;
        let ips =
            |object: &str, list: &dyn Fn(&Value) -> Vec<IpAddr>| Ok::<_, anyhow::Error>(list(&cluster.json(object)?));
        Ok(Self {
            placement,
            pod_ips: ips(&format!("get pod {name}"), &|pod| addresses(&pod["status"]["podIPs"], Some("ip")))?,
            cluster_ips: ips(&format!("get service {name}-clusterip"), &|it| {
                addresses(&it["spec"]["clusterIPs"], None)
            })?,
            node_ports,
        })
    }

    fn address(&self, way: Way, is_http: bool, family: Family, client_node: &Node) -> Result<SocketAddr> {
        let kind = usize::from(is_http);
        let own = ports(way)[kind];
        let of = |ips: &[IpAddr]| of_family(ips, family).with_context(|| format!("server of {:?}", self.placement));
        Ok(match way {
            Way::Direct | Way::Control => (of(&self.pod_ips)?, own).into(),
            Way::ClusterIp => (of(&self.cluster_ips)?, own).into(),
            Way::NodePort => (client_node.ip(family)?, self.node_ports[kind]).into(),
        })
    }
}

/// Of iperf3 and of HTTP.
fn ports(way: Way) -> [u16; 2] {
    let step = Way::ALL.iter().position(|known| *known == way).unwrap_or_default() as u16;
    [STREAMS + step, HTTP + 10 * step]
}

fn addresses(list: &Value, field: Option<&str>) -> Vec<IpAddr> {
    let text = |item: &Value| field.map_or(item, |field| &item[field]).as_str().and_then(|ip| ip.parse().ok());
    list.as_array().into_iter().flatten().filter_map(text).collect()
}

fn container(name: &str, image: &str, words: &[&str]) -> Value {
    json!({"name": name, "image": image, "imagePullPolicy": "Never", "args": words})
}

/// All of a pod's containers are in one control group, and none shares it with others.
fn pod(name: &str, node: &Node, mut containers: Vec<Value>) -> Value {
    // Without a request a pod would be best effort's, and starve beside whatever else the node does.
    containers[0]["resources"] = json!({"requests": {"cpu": "500m"}});
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "nodeName": node.name,
            "terminationGracePeriodSeconds": 1,
            "tolerations": [{"operator": "Exists"}],
            "containers": containers,
        },
    })
}

fn service(pod: &str, way: Way, kind: &str, [streams_node_port, http_node_port]: [u16; 2]) -> Value {
    let [streams, http] = ports(way);
    let mut ports = json!([
        {"name": "tcp", "protocol": "TCP", "port": streams, "targetPort": streams},
        {"name": "udp", "protocol": "UDP", "port": streams, "targetPort": streams},
        {"name": "http", "protocol": "TCP", "port": http, "targetPort": http},
    ]);
    if way == Way::NodePort {
        for (at, port) in [streams_node_port, streams_node_port, http_node_port].into_iter().enumerate() {
            ports[at]["nodePort"] = port.into();
        }
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": format!("{pod}-{}", kind.to_lowercase())},
        "spec": {"type": kind, "selector": {"app": pod}, "ipFamilyPolicy": "RequireDualStack", "ports": ports},
    })
}

/// Bits a second that arrived, by iperf3's report.
fn received(report: &Value) -> Result<f64> {
    report.pointer("/end/sum_received/bits_per_second").and_then(Value::as_f64).context("iperf3's rate")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_has_ports_of_its_own() {
        let mut all: Vec<u16> = Way::ALL.into_iter().flat_map(ports).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 2 * Way::ALL.len());
    }
}
