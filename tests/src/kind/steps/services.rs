//! Who answers at a Service's addresses.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Effort;
use crate::cluster::{Family, Lifetime, Process, log_file};
use crate::kind::client::{Client, patient};
use crate::kind::cluster::{items, name};
use crate::kind::interrupt::eventually;
use crate::kind::service::Service;
use crate::kind::stage::{self, Stage};
use crate::patience::silence_ms;
use crate::traffic::{AskOptions, EchoReport, Failure, HttpOptions, Transport, server};

/// For changes to reach every node.
const SETTLE: Duration = Duration::from_secs(10);
/// Connections from a client to an address: each of three pods is missed by all of them once in 5,000 times, and there are
/// many addresses.
const CONNECTIONS: u64 = 24;

/// The cluster's own name service answers pods of every node, at its ClusterIP, and what it names answers.
pub fn names(stage: &Stage, _: &Effort) -> Result<String> {
    let host = format!("web.{}.svc.cluster.local", stage.cluster.namespace());
    for pod in &stage.pods {
        let said = in_shell(stage, pod, &format!("nslookup {host}."))?;
        for ip in &stage.web.cluster_ips {
            ensure!(said.contains(&ip.to_string()), "{} finds no {ip}: {said}", pod.name());
        }
        for family in ["--ipv4", "--ipv6"] {
            let said =
                in_shell(stage, pod, &format!("curl --silent --show-error --max-time 60 {family} http://{host}/"))?;
            ensure!(said.contains("web-"), "{} is answered by {said:?}", pod.name());
        }
    }
    Ok(format!("{host} is known to pods of {} nodes and answers, in both families", stage.pods.len()))
}

fn in_shell(stage: &Stage, pod: &Client, line: &str) -> Result<String> {
    stage.cluster.kubectl(&format!("exec {} --container shell -- {line}", pod.name()))
}

/// Every client is answered at every address, over TCP and UDP, by all pods.
pub fn answers(stage: &Stage, _: &Effort) -> Result<String> {
    let expected = pods_of(stage, "web")?;
    let nodes = stage.nodes()?;
    let (mut asked, mut addresses) = (0, 0);
    let mut seen = BTreeSet::new();
    for client in stage.clients() {
        for to in stage.addresses(&client, &stage.web, &nodes)? {
            let options = patient(HttpOptions { requests: CONNECTIONS, ..HttpOptions::default() });
            let report = client.http(&stage.cluster, to, &options)?;
            ensure!(report.ok == CONNECTIONS, "{} at {to}: {report:?}", client.name());
            asked += report.ok;
            addresses += 1;
            seen.extend(report.servers.into_keys());
        }
        for to in stage.addresses(&client, &stage.datagrams, &nodes)? {
            let report = client.ask(&stage.cluster, to, &AskOptions::new(Transport::Udp))?;
            let answer =
                report.answer.with_context(|| format!("{} at {to} over UDP: {:?}", client.name(), report.failure))?;
            asked += 1;
            addresses += 1;
            seen.insert(answer.server);
        }
    }
    ensure!(seen == expected, "{seen:?} answered, and not {expected:?}");
    Ok(format!(
        "{asked} requests to {addresses} addresses, from pods of {} nodes and from outside: all answered, by {} pods",
        stage.pods.len(),
        seen.len()
    ))
}

fn pods_of(stage: &Stage, deployment: &str) -> Result<BTreeSet<String>> {
    let list = stage.cluster.json(&format!("get pods --selector app={deployment}"))?;
    // One that still ends is none of them.
    let lives = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
    items(&list).iter().filter(lives).map(|pod| Ok(name(pod)?.to_owned())).collect()
}

/// At this moment, pods of every node are answered at ClusterIPs.
///
/// # Errors
/// One is not.
pub fn expect_answers(stage: &Stage) -> Result<()> {
    at_cluster_ips(stage, |report| report.answer.is_some(), AskOptions::new(Transport::Tcp))
}

/// No pod is answered at ClusterIPs.
///
/// # Errors
/// One is.
pub fn expect_silence(stage: &Stage) -> Result<()> {
    let options = AskOptions { timeout_ms: silence_ms(), ..AskOptions::new(Transport::Tcp) };
    at_cluster_ips(stage, |report| report.answer.is_none(), options)
}

fn at_cluster_ips(stage: &Stage, is_right: fn(&EchoReport) -> bool, options: AskOptions) -> Result<()> {
    for pod in &stage.pods {
        for family in Family::BOTH {
            let to = stage.web.at_cluster_ip(family)?;
            let report = pod.ask(&stage.cluster, to, &options)?;
            ensure!(is_right(&report), "{} at {to}: {report:?}", pod.name());
        }
    }
    Ok(())
}

/// Without endpoints a client is told at once, and not left to wait; with one it is answered, and without it again not.
pub fn refusals(stage: &Stage, _: &Effort) -> Result<String> {
    stage::deployment(&stage.cluster, "solo", 0)?;
    let services = [
        (Transport::Tcp, Service::expose(&stage.cluster, "solo", "solo", server::PORT, "")?),
        (Transport::Udp, Service::expose(&stage.cluster, "solo", "solo-udp", server::PORT, "--protocol UDP")?),
    ];
    let nodes = stage.nodes()?;
    let mut refused = 0;
    let mut slowest = Duration::ZERO;
    for replicas in [0, 1, 0] {
        stage.cluster.kubectl(&format!("scale deployment solo --replicas {replicas}"))?;
        stage.cluster.rollout("deployment/solo")?;
        for client in stage.clients() {
            for (transport, service) in &services {
                for to in stage.addresses(&client, service, &nodes[..1])? {
                    let took = eventually(SETTLE, || expect(stage, &client, to, *transport, replicas))?;
                    if let Some(took) = took {
                        refused += 1;
                        slowest = slowest.max(took);
                    }
                }
            }
        }
    }
    let slowest = slowest.as_secs_f64() * 1e3;
    Ok(format!(
        "{refused} requests refused, the slowest in {slowest:.1} ms; with a pod all answered, without it refused again"
    ))
}

/// How long it took to be refused, where that is right.
fn expect(
    stage: &Stage,
    client: &Client,
    to: SocketAddr,
    transport: Transport,
    replicas: u32,
) -> Result<Option<Duration>> {
    let options = AskOptions { timeout_ms: 5 * silence_ms(), ..AskOptions::new(transport) };
    let report = client.ask(&stage.cluster, to, &options)?;
    let place = || format!("{} at {to} with {replicas} endpoints: {report:?}", client.name());
    if replicas == 0 {
        ensure!(report.failure == Some(Failure::Refused), "{}", place());
        return Ok(Some(Duration::from_micros(report.micros)));
    }
    ensure!(report.answer.is_some(), "{}", place());
    Ok(None)
}

/// A pod that asks the Service that it alone stands behind is answered by itself. Follows [`refusals`].
pub fn hairpins(stage: &Stage, _: &Effort) -> Result<String> {
    stage.cluster.kubectl("scale deployment solo --replicas 1")?;
    stage.cluster.rollout("deployment/solo")?;
    let pods = pods_of(stage, "solo")?;
    let pod = pods.first().context("deployment solo has no pod")?;
    let service = Service::read(&stage.cluster, "solo")?;
    let mut asked = 0;
    for to in stage.addresses(&Client::Pod(pod.clone()), &service, &stage.nodes()?)? {
        eventually(SETTLE, || {
            let line = format!("exec {pod} -- traffic ask --to {to} --timeout-ms {}", 5 * silence_ms());
            let said = stage.cluster.kubectl(&line)?;
            ensure!(said.contains(&format!("\"server\":\"{pod}\"")), "{pod} at {to}: {said}");
            Ok(())
        })?;
        asked += 1;
    }
    Ok(format!("a pod is answered by itself at {asked} addresses of its Service"))
}

/// `kubectl port-forward` goes to a pod of a Service.
pub fn forward(stage: &Stage, _: &Effort) -> Result<String> {
    let command = stage.cluster.kubectl_command("port-forward service/web :80");
    let log = log_file(stage.cluster.logs(), "port-forward");
    let mut forwarder = Process::start("port-forward", command, log, Lifetime::Parent)?;
    forwarder.wait_for_line(Duration::from_secs(20), |line| line.starts_with("Forwarding from 127.0.0.1:"))?;
    let log = forwarder.log();
    let rest = log.split("Forwarding from 127.0.0.1:").nth(1).and_then(|rest| rest.split_whitespace().next());
    let port: u16 = rest.and_then(|port| port.parse().ok()).with_context(|| format!("its port: {log}"))?;
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    let report = Client::Outside.ask(&stage.cluster, to, &AskOptions::new(Transport::Tcp))?;
    let answer = report.answer.with_context(|| format!("nobody answers: {:?}", report.failure))?;
    Ok(format!("{} answered", answer.server))
}

/// A Service that is deleted answers nowhere any more.
pub fn deletion(stage: &Stage, _: &Effort) -> Result<String> {
    stage.cluster.kubectl("delete service web datagrams")?;
    let mut asked = 0;
    for client in stage.clients() {
        for (transport, service) in [(Transport::Tcp, &stage.web), (Transport::Udp, &stage.datagrams)] {
            for family in Family::BOTH {
                let to = match &client {
                    Client::Pod(_) => service.at_cluster_ip(family)?,
                    Client::Outside => service.at_node(&stage.last_worker()?, family)?,
                };
                eventually(SETTLE, || {
                    let options = AskOptions { timeout_ms: silence_ms(), ..AskOptions::new(transport) };
                    let report = client.ask(&stage.cluster, to, &options)?;
                    ensure!(report.answer.is_none(), "{} at {to} is answered: {report:?}", client.name());
                    Ok(())
                })?;
                asked += 1;
            }
        }
    }
    Ok(format!("nobody answers at {asked} addresses of deleted Services"))
}
