//! What is wrong is named, and everything else goes on. Needs root and the agent.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proxy_tests::cluster::{
    Agent, AgentOptions, Cluster, Cni, Endpoint, Family, Place, Service, Stage, binary::sheave, eventually,
};
use proxy_tests::traffic::HttpOptions;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(3);

fn one_node() -> Result<Stage> {
    let builder = Cluster::builder().nodes(1).cni(Cni::Routed).pod(1, "a").pod(1, "b").pod(1, "c");
    Stage::start(builder, |cluster| cluster.manifests().apply(&good(), &[Endpoint::of(cluster.pod("b"))]))
}

fn good() -> Service {
    Service::new("good", 1)
}

/// Does something wrong under load; wants the agent to say all of `words` in one line, the load not to notice, and the
/// next good change to be live.
fn is_named_and_disturbs_nothing(wrong: impl FnOnce(&Cluster) -> Result<()>, words: &[&str]) -> Result<()> {
    let stage = one_node()?;
    let cluster = &stage.cluster;
    let pod = cluster.pod("a");
    let load = pod.start_http(good().http(Family::V4), &HttpOptions { rate: 200, ..HttpOptions::default() })?;
    wrong(cluster)?;
    eventually(SOON, || is_logged(&stage.agents[0], words))?;
    cluster.manifests().apply_endpoints(&good(), &[Endpoint::of(cluster.pod("c"))])?;
    eventually(SOON, || stage.expect(pod, good().http(Family::V4), "c", |_| true))?;
    let report = load.stop()?;
    ensure!(report.failures.is_empty() && report.ok > 0, "{report:?}");
    Ok(())
}

fn is_logged(agent: &Agent, words: &[&str]) -> Result<()> {
    let log = agent.log();
    ensure!(log.lines().any(|line| words.iter().all(|word| line.contains(word))), "no line with {words:?} in:\n{log}");
    Ok(())
}

#[test]
fn yaml_that_does_not_parse_is_named_by_file_and_line() -> Result<()> {
    let broken = "apiVersion: v1\nkind: Service\nmetadata:\n  name: broken\n   namespace: default\n";
    is_named_and_disturbs_nothing(|cluster| cluster.manifests().write("broken.yaml", broken), &["broken.yaml", "5"])
}

#[test]
fn a_file_that_breaks_leaves_its_objects_in_force() -> Result<()> {
    let stage = one_node()?;
    let cluster = &stage.cluster;
    cluster.manifests().write("good.service.json", "{\"apiVersion\": \"v1\", \"kind\":")?;
    eventually(SOON, || is_logged(&stage.agents[0], &["good.service.json"]))?;
    stage.expect(cluster.pod("a"), good().http(Family::V4), "b", |_| true)?;
    cluster.manifests().apply(&good(), &[Endpoint::of(cluster.pod("c"))])?;
    eventually(SOON, || stage.expect(cluster.pod("a"), good().http(Family::V4), "c", |_| true))
}

#[test]
fn a_service_without_ports_is_named() -> Result<()> {
    let mut service = Service::new("portless", 2);
    service.ports.clear();
    is_named_and_disturbs_nothing(|cluster| cluster.manifests().apply(&service, &[]), &["portless", "port"])
}

#[test]
fn a_port_name_without_a_match_is_named() -> Result<()> {
    let service = Service::new("mismatch", 2);
    let wrong = |cluster: &Cluster| {
        cluster.manifests().apply(&service, &[])?;
        let slices = Family::BOTH.map(|family| {
            let mut slice = service.slice(family, &[Endpoint::of(cluster.pod("b"))]);
            slice["ports"] = json!([{"name": "other", "protocol": "TCP", "port": 8080}]);
            slice
        });
        cluster.manifests().objects("mismatch-ipv4.slice.json", &slices[..1])?;
        cluster.manifests().objects("mismatch-ipv6.slice.json", &slices[1..])
    };
    is_named_and_disturbs_nothing(wrong, &["mismatch", "http", "matches no port"])
}

#[test]
fn an_endpoint_that_is_no_ip_is_named_and_its_neighbours_serve() -> Result<()> {
    let service = Service::new("odd", 2);
    let stage = one_node()?;
    let cluster = &stage.cluster;
    cluster.manifests().apply(&service, &[])?;
    let mut slice = service.slice(Family::V4, &[Endpoint::of(cluster.pod("b"))]);
    let list = slice["endpoints"].as_array_mut().context("endpoints")?;
    list.push(json!({"addresses": ["not-an-ip"], "conditions": {"ready": true}}));
    cluster.manifests().objects("odd-ipv4.slice.json", &[slice])?;
    eventually(SOON, || is_logged(&stage.agents[0], &["odd", "not-an-ip"]))?;
    eventually(SOON, || stage.expect(cluster.pod("a"), service.http(Family::V4), "b", |_| true))
}

/// The last of 10,001 services does not fit: it is refused whole and named, the rest works.
#[test]
fn one_service_too_many_is_refused_whole() -> Result<()> {
    const MAXIMUM: u16 = 10_000;
    let service = |number: u16| {
        let mut service = Service::new(&format!("svc-{number:05}"), number);
        service.ports.truncate(1);
        service
    };
    let builder = Cluster::builder().nodes(1).cni(Cni::Routed).pod(1, "a").pod(1, "b");
    let options = AgentOptions::default().with(&["--max-services", &MAXIMUM.to_string()]);
    let stage = Stage::start_with(builder, &options, |cluster| {
        let endpoint = [Endpoint::of(cluster.pod("b"))];
        let objects: Vec<Value> = (1..=MAXIMUM + 1)
            .flat_map(|number| {
                let service = service(number);
                let slices = Family::BOTH.map(|family| service.slice(family, &endpoint));
                slices.into_iter().chain([service.object()])
            })
            .collect();
        cluster.manifests().objects("many.json", &objects)
    })?;
    let last = service(MAXIMUM + 1);
    is_logged(&stage.agents[0], &[&last.name])?;
    let pod = stage.cluster.pod("a");
    for number in [1, MAXIMUM / 2, MAXIMUM] {
        let to = service(number).http(Family::V4);
        let answer = stage.answer(pod, to, proxy_tests::traffic::Transport::Tcp)?;
        ensure!(answer.server == "b", "{number}: {answer:?}");
    }
    for family in Family::BOTH {
        stage.expect_unanswered(pod, last.http(family)).context("the refused service")?;
    }
    Ok(())
}

/// Devices that are gone before anybody could attach to them, and some that stay.
#[test]
fn interfaces_that_vanish_are_no_trouble() -> Result<()> {
    let mut stage = one_node()?;
    let load = {
        let pod = stage.cluster.pod("a");
        pod.start_http(good().http(Family::V4), &HttpOptions { rate: 200, ..HttpOptions::default() })?
    };
    let node = stage.cluster.node(1);
    let namespace = stage.cluster.pod("c").namespace().name().to_owned();
    for round in 0..100 {
        let name = format!("fleeting{round}");
        node.namespace().ip(&format!(
            "link add {name} type veth peer name {name} netns {namespace}\nlink set {name} up\nlink del {name}\n"
        ))?;
    }
    stage.cluster.add_pod(1, "late")?;
    let late = stage.cluster.pod("late");
    eventually(SOON, || stage.expect(late, good().http(Family::V4), "b", |_| true))?;
    let report = load.stop()?;
    ensure!(report.failures.is_empty(), "{report:?}");
    ensure!(stage.agent(1).process().is_running(), "the agent ended");
    Ok(())
}

/// Runs an agent that is expected to refuse, and gives back what it said.
fn refuses(cluster: &Cluster, command: Command) -> Result<String> {
    let mut process = cluster.node(1).start("refusing-agent", command)?;
    let status = process.wait(Duration::from_secs(10))?;
    let said = process.log();
    ensure!(!status.success() && !said.contains("panicked"), "{status}: {said}");
    Ok(said)
}

#[test]
fn without_root_it_says_what_is_missing() -> Result<()> {
    let cluster = Cluster::builder().nodes(1).build()?;
    // Where anybody may read and execute it.
    let copy = cluster.directory().join("sheave");
    std::fs::copy(sheave()?, &copy)?;
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755))?;
    let mut command = Command::new(&copy);
    command.args(["agent", "--manifests"]).arg(cluster.manifests().directory());
    command.arg("--pin-dir").arg(cluster.node(1).pin_dir()).uid(65534).gid(65534);
    let said = refuses(&cluster, command)?;
    ensure!(said.contains("root") && said.contains("CAP_"), "{said}");
    Ok(())
}

/// An agent in a mount namespace of its own, prepared by a line of shell.
fn in_own_mounts(cluster: &Cluster, prepare: &str, pin_dir: &str) -> Result<Command> {
    let agent: PathBuf = sheave()?;
    let mut command = cluster.node(1).command("unshare");
    command.args(["--mount", "sh", "-ec"]).arg(format!(
        "{prepare}\nexec {} agent --manifests {} --hostname-override node1 --pin-dir {pin_dir}",
        agent.display(),
        cluster.manifests().directory().display()
    ));
    Ok(command)
}

#[test]
fn without_btf_it_says_so() -> Result<()> {
    let cluster = Cluster::builder().nodes(1).build()?;
    let pin_dir = cluster.node(1).pin_dir().display().to_string();
    let said = refuses(&cluster, in_own_mounts(&cluster, "mount -t tmpfs none /sys/kernel/btf", &pin_dir)?)?;
    ensure!(said.contains("BTF") && said.contains("CONFIG_DEBUG_INFO_BTF"), "{said}");
    Ok(())
}

/// Mounts it, or says how.
#[test]
fn without_a_bpf_filesystem_it_mounts_one_or_says_how() -> Result<()> {
    let cluster = Cluster::builder().nodes(1).build()?;
    let plain = cluster.directory().join("plain");
    std::fs::create_dir_all(&plain)?;
    let command = in_own_mounts(&cluster, "", &plain.display().to_string())?;
    let mut process = cluster.node(1).start("agent-without-bpffs", command)?;
    let said = process.wait_for_line(Duration::from_secs(9), |line| {
        line.contains("mount -t bpf") || line.contains("mounted a BPF filesystem")
    });
    ensure!(said.is_ok(), "{}", process.log());
    // In a directory with files of somebody else, nothing is mounted over them.
    std::fs::write(plain.join("somebodys"), "file")?;
    drop(process);
    let said = refuses(&cluster, in_own_mounts(&cluster, "", &plain.display().to_string())?)?;
    ensure!(said.contains("--pin-dir"), "{said}");
    Ok(())
}
