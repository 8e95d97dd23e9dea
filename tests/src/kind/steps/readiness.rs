//! An agent is ready when it carries traffic, and not before.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{Effort, removal};
use crate::cluster::{Family, Probe, output};
use crate::kind::client::Client;
use crate::kind::cluster::{is_ready, items};
use crate::kind::connections::Connections;
use crate::kind::interrupt::eventually;
use crate::kind::stage::Stage;
use crate::patience::silence_ms;
use crate::traffic::{AskOptions, Transport};

/// An address of which nobody answers (RFC 5737).
const NOWHERE: &str = "https://192.0.2.1:6443";
/// How long an agent that must not get ready is watched. A good one takes two seconds.
const WATCHED: Duration = Duration::from_secs(20);
/// Of a processor, for an agent that loads slowly: what it asks for in `deploy/base`, and no more.
const SHARE: &str = "cpu=50m";
/// For a rollout of agents that load slowly, node after node.
const LIMIT: Duration = Duration::from_secs(900);

pub fn is_true(stage: &Stage, _: &Effort) -> Result<String> {
    let connections = Connections::start(stage)?;
    let unreachable = without_api_server(stage).context("an agent without its API server")?;
    let carried = connections.stop()?;
    let slow = slowed_down(stage).context("agents that load slowly")?;
    Ok(format!("{unreachable} while {carried}; {slow}"))
}

/// It never gets ready, and says why. Its node's traffic goes on.
fn without_api_server(stage: &Stage) -> Result<String> {
    let line = "patch daemonset sheave --type json --patch";
    let argument =
        format!(r#"[{{"op":"add","path":"/spec/template/spec/containers/0/args/-","value":"--master={NOWHERE}"}}]"#);
    stage.system(&format!("{line} {argument}"))?;
    let node = eventually(LIMIT, || {
        let agents = agents(stage)?;
        let lost = agents.iter().find(|agent| agent.arguments.contains(NOWHERE) && agent.is_running);
        Ok(lost.context("no agent has the new argument")?.node.clone())
    })?;
    let since = Instant::now();
    while since.elapsed() < WATCHED {
        for agent in agents(stage)?.iter().filter(|agent| agent.arguments.contains(NOWHERE)) {
            ensure!(!agent.is_ready, "the agent of {} is ready", agent.node);
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    if stage.system("rollout status daemonset/sheave --timeout=1s").is_ok() {
        bail!("`kubectl rollout status` says that they are rolled out");
    }
    let place = stage.nodes()?.into_iter().find(|found| found.name == node).context("its node")?;
    let [live, ready] = ["livez", "readyz"].map(|path| -> Result<String> {
        let mut curl = stage.cluster.beside("curl");
        curl.args(["--silent", "--max-time", "30", "--write-out", " (%{http_code})"]);
        curl.arg(format!("http://{}:{}/{path}", place.ip(Family::V4)?, Probe::PORT));
        Ok(String::from_utf8_lossy(&output(curl)?.stdout).trim().replace('\n', " "))
    });
    let (live, ready) = (live?, ready?);
    ensure!(live.ends_with("(200)") && ready.ends_with("(503)"), "livez: {live}, readyz: {ready}");
    stage.apply()?;
    stage.rollout_proxy()?;
    Ok(format!("without the API server: not ready for {} s, \"{ready}\",", WATCHED.as_secs()))
}

/// On nodes where nothing is left of an earlier one, a node whose agent is ready answers at that moment.
fn slowed_down(stage: &Stage) -> Result<String> {
    removal::remove(stage)?;
    stage.system(&format!("set resources daemonset/sheave --containers sheave --limits {SHARE}"))?;
    stage.rollout_proxy()?;
    stage.apply()?;
    let nodes = stage.nodes()?;
    let deadline = Instant::now() + LIMIT;
    let (mut early, mut late) = (0, 0);
    loop {
        let agents = agents(stage)?;
        let at_work: Vec<&Agent> = agents.iter().filter(|agent| agent.arguments.starts_with("agent")).collect();
        for (node, client) in nodes.iter().zip(&stage.pods) {
            let Some(agent) = at_work.iter().find(|agent| agent.node == node.name) else { continue };
            let is_answered = is_answered(stage, client)?;
            ensure!(
                is_answered || !agent.is_ready,
                "{} is said to be ready, and {} is not answered",
                node.name,
                client.name()
            );
            match (agent.is_ready, is_answered) {
                (true, _) => late += 1,
                (false, false) => early += usize::from(agent.is_running),
                // Asked later, it may have become ready meanwhile.
                (false, true) => {}
            }
        }
        if at_work.len() == nodes.len() && at_work.iter().all(|agent| agent.is_ready) {
            break;
        }
        ensure!(Instant::now() < deadline, "not rolled out after {LIMIT:?}");
    }
    stage.rollout_proxy()?;
    ensure!(early > 0, "no agent was found loading: it was not slow enough to see anything");
    stage.unlimit()?;
    stage.rollout_proxy()?;
    Ok(format!(
        "with {SHARE} of a processor: {early} looks at loading agents found them neither ready nor carrying traffic, {late} at \
         ready ones found traffic carried"
    ))
}

fn is_answered(stage: &Stage, client: &Client) -> Result<bool> {
    let options = AskOptions { timeout_ms: silence_ms(), ..AskOptions::new(Transport::Tcp) };
    let report = client.ask(&stage.cluster, stage.web.at_cluster_ip(Family::V4)?, &options)?;
    Ok(report.answer.is_some())
}

/// A pod of the DaemonSet.
struct Agent {
    node: String,
    arguments: String,
    is_running: bool,
    is_ready: bool,
}

fn agents(stage: &Stage) -> Result<Vec<Agent>> {
    let list = stage.cluster.json("--namespace kube-system get pods --selector app.kubernetes.io/name=sheave")?;
    let of = |pod: &Value| Agent {
        node: pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned(),
        arguments: words(&pod["spec"]["containers"][0]["args"]),
        is_running: pod["status"]["containerStatuses"][0]["state"]["running"].is_object(),
        is_ready: is_ready(pod),
    };
    let lives = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
    Ok(items(&list).iter().filter(lives).map(of).collect())
}

fn words(list: &Value) -> String {
    let words: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    words.join(" ")
}
