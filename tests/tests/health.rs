//! Whether an agent is ready and alive, as a kubelet's probes see it. Needs root and the agent.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use proxy_tests::cluster::{
    Agent, AgentOptions, Cluster, Cni, Endpoint, Family, Place, Probe, Service, Stage, eventually,
};
use proxy_tests::patience::patience;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

fn web() -> Service {
    Service::new("web", 1)
}

/// A node with two pods, one of which serves.
fn one_node() -> Result<Cluster> {
    let cluster = Cluster::builder().nodes(1).cni(Cni::Routed).pod(1, "a").pod(1, "b").build()?;
    cluster.manifests().apply(&web(), &[Endpoint::of(cluster.pod("b"))])?;
    Ok(cluster)
}

/// An agent that is told where its objects are by these arguments alone.
fn start(cluster: &Cluster, arguments: &[&str]) -> Result<Agent> {
    let options = AgentOptions { manifests: false, ..AgentOptions::default() }.with(arguments);
    Agent::start(cluster, cluster.node(1), &options)
}

/// Not ready, for a reason with all these words; alive.
fn waits_for(agent: &Agent, words: &[&str]) -> Result<()> {
    let Probe { status, body } = agent.probe("/readyz")?;
    ensure!(status == 503 && words.iter().all(|word| body.contains(word)), "{status} {body}");
    let live = agent.probe("/livez")?;
    ensure!(live.status == 200, "{live:?}");
    Ok(())
}

fn is_ready(agent: &Agent) -> Result<()> {
    let probe = agent.probe("/readyz")?;
    ensure!(probe == Probe { status: 200, body: "ready\n".into() }, "{probe:?}");
    Ok(())
}

/// Whoever is told that the agent is ready gets an answer from the first connection on.
#[test]
fn it_is_ready_when_traffic_is_carried_and_not_before() -> Result<()> {
    let cluster = one_node()?;
    let servers = cluster.start_servers()?;
    let later = cluster.directory().join("later");
    let agent = start(&cluster, &["--manifests", &later.display().to_string()])?;
    eventually(SOON, || waits_for(&agent, &["lists of Services, EndpointSlices and Nodes", "later"]))?;
    // Nothing is on the devices, so that nobody could answer.
    std::thread::sleep(Duration::from_millis(300));
    waits_for(&agent, &["lists"])?;

    let new = cluster.directory().join("new");
    copy(cluster.manifests().directory(), &new)?;
    fs::rename(new, later)?;
    eventually(SOON, || is_ready(&agent))?;
    let stage = Stage { agents: vec![agent], servers, cluster };
    for family in Family::BOTH {
        stage.expect(stage.cluster.pod("a"), web().http(family), "b", |_| true)?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// One that refuses connections, and one that takes them and never answers.
#[test]
fn an_api_server_that_cannot_be_reached_keeps_it_from_being_ready_and_alive() -> Result<()> {
    let cluster = one_node()?;
    let silent = cluster.node(1).namespace().enter(|| TcpListener::bind("127.0.0.1:0"))??;
    let silent_port = silent.local_addr()?.port();
    for server in ["http://127.0.0.1:1".to_owned(), format!("http://127.0.0.1:{silent_port}")] {
        let mut agent = start(&cluster, &["--master", &server])?;
        eventually(SOON, || waits_for(&agent, &["lists", &server]))?;
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            waits_for(&agent, &["lists", &server])?;
            std::thread::sleep(Duration::from_millis(50));
        }
        agent.terminate()?;
    }
    Ok(())
}

/// The maps and links that an earlier agent left carry traffic; what they carry may be out of date.
#[test]
fn an_agent_on_the_pins_of_another_is_ready_when_it_knows_the_state_itself() -> Result<()> {
    let builder = Cluster::builder().nodes(1).cni(Cni::Routed).pod(1, "a").pod(1, "b");
    let mut stage =
        Stage::start(builder, |cluster| cluster.manifests().apply(&web(), &[Endpoint::of(cluster.pod("b"))]))?;
    eventually(SOON, || is_ready(&stage.agents[0]))?;
    stage.agent(1).terminate()?;

    let mut waiting = start(&stage.cluster, &["--master", "http://127.0.0.1:1"])?;
    eventually(SOON, || waits_for(&waiting, &["lists", "http://127.0.0.1:1"]))?;
    stage.expect(stage.cluster.pod("a"), web().http(Family::V4), "b", |_| true)?;
    waiting.terminate()?;

    stage.agent(1).start_again()?;
    eventually(SOON, || is_ready(&stage.agents[0]))
}

/// A directory where a link is to be pinned.
#[test]
fn a_device_that_cannot_be_attached_to_is_named() -> Result<()> {
    let mut stage = Stage::start(Cluster::builder().nodes(1).cni(Cni::Routed).pod(1, "a"), |_| Ok(()))?;
    eventually(SOON, || is_ready(&stage.agents[0]))?;
    let layout = only_entry(stage.cluster.node(1).pin_dir(), "v")?;
    let obstacle = only_entry(&layout, "links-")?.join("late0-4242-ingress");
    fs::create_dir(&obstacle)?;
    let node = stage.cluster.node(1).namespace();
    let pod = stage.cluster.pod("a").namespace().name();
    node.ip(&format!("link add late0 index 4242 type veth peer name late0 netns {pod}\nlink set late0 up\n"))?;
    eventually(SOON, || waits_for(&stage.agents[0], &["programs on late0"]))?;
    fs::remove_dir(&obstacle)?;
    eventually(SOON, || is_ready(&stage.agents[0]))?;
    ensure!(stage.agent(1).process().is_running());
    Ok(())
}

fn only_entry(directory: &Path, prefix: &str) -> Result<std::path::PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    paths.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
    ensure!(paths.len() == 1, "{prefix} in {}: {paths:?}", directory.display());
    paths.pop().context("one entry")
}

/// For example by kube-proxy, or an agent that is just ending.
#[test]
fn a_port_in_use_is_named_and_taken_when_it_is_free() -> Result<()> {
    let cluster = one_node()?;
    let address = ("0.0.0.0", Probe::PORT);
    let taken = cluster.node(1).namespace().enter(|| TcpListener::bind(address))??;
    let servers = cluster.start_servers()?;
    let agents = cluster.start_agents(&AgentOptions::default())?;
    let stage = Stage { agents, servers, cluster };
    let log = stage.agents[0].log();
    ensure!(log.contains("[::]:10256") && log.contains("Address already in use"), "{log}");
    stage.expect(stage.cluster.pod("a"), web().http(Family::V4), "b", |_| true)?;
    drop(taken);
    eventually(SOON, || is_ready(&stage.agents[0]))
}

/// Both probes are answered all the time while 10,000 services are decoded, compiled and written.
#[test]
fn a_full_sync_holds_no_probe_up() -> Result<()> {
    let cluster = Cluster::builder().nodes(1).cni(Cni::Routed).pod(1, "a").build()?;
    let endpoint = [Endpoint::of(cluster.pod("a"))];
    let objects: Vec<Value> = (1..=10_000)
        .flat_map(|number| {
            let service = Service::new(&format!("svc-{number:05}"), number);
            let slices = Family::BOTH.map(|family| service.slice(family, &endpoint));
            slices.into_iter().chain([service.object()])
        })
        .collect();
    cluster.manifests().objects("many.json", &objects)?;
    let agent = Agent::start(&cluster, cluster.node(1), &AgentOptions::default())?;
    eventually(SOON, || agent.probe("/livez"))?;
    let (mut refused, mut longest) = (0, Duration::ZERO);
    let deadline = Instant::now() + patience(Duration::from_secs(60));
    loop {
        ensure!(Instant::now() < deadline, "not ready after {refused} questions: {}", agent.log());
        let asked = Instant::now();
        let live = agent.probe("/livez")?;
        ensure!(live.status == 200, "{live:?}");
        let ready = agent.probe("/readyz")?;
        longest = longest.max(asked.elapsed());
        if ready.status == 200 {
            break;
        }
        refused += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("not ready {refused} times before it was; both probes took at most {longest:?}");
    ensure!(refused > 0, "it was ready at once");
    let services = agent.get("services")?;
    let count = services.as_array().map_or(0, Vec::len);
    ensure!(count >= 10_000, "ready with {count} services in the maps");
    Ok(())
}
