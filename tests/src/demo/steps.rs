use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{NAME, screen};
use crate::cluster::{Addresses, Agent, AgentOptions, Cluster, Family, Place, Pod, Process};
use crate::traffic::{AskOptions, Failure, HttpOptions, Transport, UdpOptions};

// What follows is what the files in deploy/demo say.

/// The node and the name of each pod, in the order that gives them the addresses in the EndpointSlices.
const PODS: [(u8, &str); 5] = [(1, "web-1"), (2, "web-2"), (2, "web-3"), (1, "shell"), (2, "iperf")];
const WEB_PODS: [&str; 3] = ["web-1", "web-2", "web-3"];
const WEB: Addresses = cluster_ips(10);
const IPERF: Addresses = cluster_ips(20);
const EMPTY: Addresses = cluster_ips(30);
const CLUSTER_PORTS: [(Transport, u16); 2] = [(Transport::Tcp, 80), (Transport::Udp, 53)];
const NODE_PORTS: [(Transport, u16); 2] = [(Transport::Tcp, 30080), (Transport::Udp, 30053)];

/// To each address.
const REQUESTS: u64 = 300;
/// Of each kernel table; flows are many, and some show what they are like.
const LINES: usize = 16;

const fn cluster_ips(last: u8) -> Addresses {
    Addresses { v4: Ipv4Addr::new(10, 96, 0, last), v6: Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, last as u16) }
}

/// A cluster that was shown, with what runs in it.
pub struct Shown {
    // Ended before their namespaces.
    servers: Vec<Process>,
    agents: Vec<Agent>,
    cluster: Cluster,
}

impl Shown {
    /// Lets it live on.
    pub fn leave(self) {
        let Self { servers, agents, cluster } = self;
        std::mem::forget((servers, agents));
        cluster.leave();
    }
}

/// Everything that is shown, in order.
///
/// # Errors
/// The first step that does not work.
pub fn all(manifests: &Path) -> Result<Shown> {
    let cluster = screen::step("two nodes, five pods and an outside client, each a network namespace", || {
        let builder = Cluster::builder().nodes(2).keep(NAME);
        PODS.iter().fold(builder, |builder, (node, pod)| builder.pod(*node, pod)).build()
    })?;
    let servers = screen::step("an HTTP and UDP server in each web pod, iperf3 in one more", || {
        let mut servers = Vec::new();
        for name in WEB_PODS {
            servers.push(cluster.pod(name).serve()?);
        }
        servers.push(start_iperf(cluster.pod("iperf"))?);
        Ok(servers)
    })?;
    let what = format!("the objects in {}", manifests.display());
    screen::step(&what, || copy(manifests, cluster.manifests().directory()))?;
    let agents = screen::step("an agent on each node, until its first sync is in the maps", || {
        cluster.start_agents(&AgentOptions::default())
    })?;

    show_traffic(&cluster)?;
    agents.first().map_or(Ok(()), show_tables)?;
    show_streams(cluster.pod("shell"), cluster.pod("iperf").ip(Family::V4))?;
    Ok(Shown { servers, agents, cluster })
}

fn start_iperf(pod: &Pod) -> Result<Process> {
    let mut command = pod.command("iperf3");
    command.args(["--server", "--forceflush"]);
    let mut server = pod.start("iperf3", command)?;
    server.wait_for_line(Duration::from_secs(5), |line| line.contains("listening"))?;
    Ok(server)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let file = entry?.path();
        let name = file.file_name().context("a file name")?;
        fs::copy(&file, to.join(name)).with_context(|| format!("copy {}", file.display()))?;
    }
    Ok(())
}

fn show_traffic(cluster: &Cluster) -> Result<()> {
    let (shell, client) = (cluster.pod("shell"), cluster.client());
    for family in Family::BOTH {
        for (transport, port) in CLUSTER_PORTS {
            let to = SocketAddr::new(WEB.of(family), port);
            show_answers(shell, "pod shell", "ClusterIP", transport, to)?;
        }
    }
    for family in Family::BOTH {
        for (transport, port) in NODE_PORTS {
            let to = SocketAddr::new(cluster.node(1).ip(family), port);
            show_answers(client, "the outside client", "NodePort", transport, to)?;
        }
    }
    show_refusal(shell, SocketAddr::new(EMPTY.of(Family::V4), 80))
}

/// Sends requests, says who answered, and fails if one was not answered or a pod never did.
fn show_answers(from: &impl Place, who: &str, kind: &str, transport: Transport, to: SocketAddr) -> Result<()> {
    let protocol = match transport {
        Transport::Tcp => "HTTP",
        Transport::Udp => "UDP",
    };
    screen::title(&format!("{protocol}: {who} → {kind} {to}"));
    let (servers, failures) = screen::step(&format!("{REQUESTS} requests, each a flow of its own"), || {
        Ok(match transport {
            Transport::Tcp => {
                let report = from.http(to, &HttpOptions { requests: REQUESTS, ..HttpOptions::default() })?;
                (report.servers, report.failures)
            }
            Transport::Udp => {
                let options = UdpOptions { requests: REQUESTS, new_sockets: true, ..UdpOptions::default() };
                let report = from.udp(to, &options)?;
                (report.servers, report.failures)
            }
        })
    })?;
    screen::shares(&servers);
    let answered: u64 = servers.values().sum();
    ensure!(answered == REQUESTS, "{answered} of {REQUESTS} requests were answered: {failures:?}");
    ensure!(servers.len() == WEB_PODS.len(), "of {} pods, {} answered", WEB_PODS.len(), servers.len());
    Ok(())
}

fn show_refusal(shell: &Pod, to: SocketAddr) -> Result<()> {
    screen::title(&format!("No endpoint: pod shell → ClusterIP {to}"));
    let report = screen::step("one request", || shell.ask(to, &AskOptions::new(Transport::Tcp)))?;
    match report.failure {
        Some(Failure::Refused) => println!("    refused after {} µs", report.micros),
        other => bail!("a service without endpoints refuses; this was {other:?}, {:?}", report.answer),
    }
    Ok(())
}

/// What the kernel holds for a node's agent.
fn show_tables(agent: &Agent) -> Result<()> {
    for table in ["services", "backends", "flows", "counters"] {
        screen::title(&format!("{}: sheave get {table}", agent.node()));
        let text = agent.get_table(table)?;
        let mut lines = text.lines();
        screen::block(lines.next().unwrap_or_default());
        let rows: Vec<&str> = lines.collect();
        // From all over a long table: what lies together is alike.
        let step = rows.len().div_ceil(LINES).max(1);
        rows.iter().step_by(step).for_each(|row| screen::block(row));
        if step > 1 {
            println!("    … of {} in all", rows.len());
        }
    }
    Ok(())
}

/// A stream straight to the pod beside one through the service.
fn show_streams(shell: &Pod, pod: IpAddr) -> Result<()> {
    screen::title("iperf3: pod shell on node1 → pod iperf on node2");
    let mut rates = BTreeMap::new();
    for (path, address) in [("pod IP", pod.to_string()), ("ClusterIP", IPERF.v4.to_string())] {
        let rate = screen::step(&format!("3 s through the {path} {address}"), || {
            let printed = shell.run("iperf3", &["--client", &address, "--time", "3", "--json"])?;
            let report: Value = serde_json::from_str(&printed).context("iperf3's report")?;
            report.pointer("/end/sum_received/bits_per_second").and_then(Value::as_f64).context("iperf3's rate")
        })?;
        println!("    {:.2} Gbit/s", rate / 1e9);
        rates.insert(path, rate);
    }
    if let (Some(direct), Some(service)) = (rates.get("pod IP"), rates.get("ClusterIP")) {
        println!("    ClusterIP / pod IP: {:.2} (one run each; `cargo xtask bench` measures)", service / direct);
    }
    Ok(())
}

/// For those who keep the cluster.
pub fn say_how_to_enter() {
    let sheave = std::env::var("SHEAVE_BIN").unwrap_or_else(|_| "sheave".to_owned());
    let directory = format!("/run/sheave-{NAME}");
    screen::title("The cluster stays");
    screen::block(&format!(
        "ip netns exec sheave-{NAME}-pod-shell curl http://{}/
ip netns exec sheave-{NAME}-client curl http://172.18.0.11:30080/
{sheave} get flows --pin-dir {directory}/bpf/node1
$EDITOR {directory}/manifests/web.yaml      # the agents follow
cargo xtask demo --remove                   # removes all of it",
        WEB.v4
    ));
}
