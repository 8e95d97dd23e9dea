//! The agent against a real Kubernetes control plane. Run by `cargo xtask test kubernetes`, which brings the programs.

mod deployment;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use proxy_tests::cluster::{Cluster, Endpoint, Family, Place, Pod, Service};
use proxy_tests::kubernetes::{ApiServer, ControlPlane, Cutter, Readiness, selecting};
use proxy_tests::patience::patience;
use proxy_tests::traffic::{HttpOptions, HttpReport, server};
use serde_json::json;

/// A control plane fills both cores of a small machine.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Two nodes with three servers and a pod to ask from, and a machine for the control plane.
fn cluster() -> Result<Cluster> {
    Cluster::builder().nodes(3).pod(1, "a").pod(2, "b").pod(2, "c").pod(1, "shell").build()
}

/// A control plane that knows both nodes, and the rights that the agent is deployed with.
fn control_plane(cluster: &Cluster) -> Result<ControlPlane<'_>> {
    let plane = ControlPlane::start(cluster.node(3))?;
    plane.grant_rights()?;
    plane.register_node(cluster.node(1))?;
    plane.register_node(cluster.node(2))?;
    Ok(plane)
}

/// A service that the pod `a` serves, without the controller, and `a` and `b` to be its endpoints.
fn served_by_a(plane: &ControlPlane<'_>, cluster: &Cluster) -> Result<(Service, [[Endpoint; 1]; 2])> {
    let web = Service::new("web", 100);
    let pods = ["a", "b"].map(|name| [Endpoint::of(cluster.pod(name))]);
    plane.apply_unmanaged(&web, &pods[0])?;
    Ok((web, pods))
}

const NO_MASTERS: &[String] = &[];

/// Enough that each of three servers answers, but for one run in 10^9.
fn ask(from: &Pod, to: SocketAddr) -> Result<HttpReport> {
    from.http(to, &HttpOptions { requests: 60, timeout_ms: 1000, ..HttpOptions::default() })
}

fn names(report: &HttpReport) -> BTreeSet<&str> {
    report.servers.keys().map(String::as_str).collect()
}

/// All requests are answered, by exactly these, in both families.
fn assert_served_by(from: &Pod, service: &Service, expected: &[&str]) -> Result<()> {
    for family in Family::BOTH {
        let report = ask(from, service.http(family))?;
        ensure!(report.failures.is_empty(), "{} {family:?}: {:?}", service.name, report.failures);
        ensure!(
            names(&report) == expected.iter().copied().collect(),
            "{} {family:?}: {:?}",
            service.name,
            report.servers
        );
    }
    Ok(())
}

/// Waits until it is so, and gives back how long that took.
fn wait_served_by(from: &Pod, service: &Service, expected: &[&str], timeout: Duration) -> Result<Duration> {
    let start = Instant::now();
    loop {
        let Err(error) = assert_served_by(from, service, expected) else { return Ok(start.elapsed()) };
        if start.elapsed() > patience(timeout) {
            return Err(error).with_context(|| format!("still so after {:?}", start.elapsed()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn assert_unserved(from: &Pod, to: SocketAddr) -> Result<()> {
    let report = from.http(to, &HttpOptions { requests: 5, timeout_ms: 500, ..HttpOptions::default() })?;
    ensure!(report.ok == 0, "{to} is answered by {:?}", report.servers);
    Ok(())
}

const SOON: Duration = Duration::from_secs(5);

#[test]
fn a_service_follows_its_pods() -> Result<()> {
    let _turn = turn();
    let cluster = cluster()?;
    let _servers = cluster.start_servers()?;
    let plane = control_plane(&cluster)?;
    let (a, b, c, shell) = (cluster.pod("a"), cluster.pod("b"), cluster.pod("c"), cluster.pod("shell"));
    plane.run_pod(a, "web")?;
    plane.run_pod(b, "web")?;
    let web = Service::new("web", 100);
    plane.apply(&selecting(&web, "web"))?;
    plane.wait_endpoints(&web, 2)?;

    let mut agent = plane.start_agent(cluster.node(1), NO_MASTERS)?;
    agent.wait_ready()?;
    assert_served_by(shell, &web, &["a", "b"]).context("the first sync was complete when the agent was ready")?;

    plane.set_readiness(a, Readiness::Unready)?;
    wait_served_by(shell, &web, &["b"], SOON).context("a is unready")?;
    plane.set_readiness(a, Readiness::Ready)?;
    wait_served_by(shell, &web, &["a", "b"], SOON).context("a is ready again")?;
    plane.run_pod(c, "web")?;
    wait_served_by(shell, &web, &["a", "b", "c"], SOON).context("scaled up")?;
    plane.kubectl(&["delete", "pod", "a", "c", "--force", "--grace-period=0"])?;
    wait_served_by(shell, &web, &["b"], SOON).context("scaled down")?;
    plane.kubectl(&["delete", "pod", "b", "--force", "--grace-period=0"])?;
    wait_refused(shell, web.http(Family::V4)).context("scaled to nothing")
}

fn wait_refused(from: &Pod, to: SocketAddr) -> Result<()> {
    let start = Instant::now();
    while let Err(error) = assert_unserved(from, to) {
        if start.elapsed() > patience(SOON) {
            return Err(error);
        }
    }
    Ok(())
}

#[test]
fn a_service_is_changed_deleted_and_remade() -> Result<()> {
    let _turn = turn();
    let cluster = cluster()?;
    let _servers = cluster.start_servers()?;
    let (a, shell) = (cluster.pod("a"), cluster.pod("shell"));
    let _second = a.serve_as("second", server::PORT + 10)?;
    let plane = control_plane(&cluster)?;
    plane.run_pod(a, "web")?;
    let mut web = Service::new("web", 100);
    plane.apply(&selecting(&web, "web"))?;
    let mut agent = plane.start_agent(cluster.node(1), NO_MASTERS)?;
    agent.wait_ready()?;
    wait_served_by(shell, &web, &["a"], SOON)?;

    let old = web.http(Family::V4);
    let patch = json!([{"op": "replace", "path": "/spec/ports/0/port", "value": 8000}]).to_string();
    plane.kubectl(&["patch", "service", "web", "--type=json", "--patch", &patch])?;
    let new = SocketAddr::new(old.ip(), 8000);
    wait_answered_by(shell, new, "a").context("the port was changed")?;
    wait_refused(shell, old).context("the old port")?;

    let patch = json!([{"op": "replace", "path": "/spec/ports/0/targetPort", "value": server::PORT + 10}]).to_string();
    plane.kubectl(&["patch", "service", "web", "--type=json", "--patch", &patch])?;
    wait_answered_by(shell, new, "second").context("the target port was changed")?;

    plane.kubectl(&["delete", "service", "web"])?;
    wait_refused(shell, new).context("deleted")?;
    web = Service::new("web", 101);
    plane.apply(&selecting(&web, "web"))?;
    wait_served_by(shell, &web, &["a"], SOON).context("remade at other addresses")?;
    wait_refused(shell, new).context("the addresses that it had before")
}

fn wait_answered_by(from: &Pod, to: SocketAddr, server: &str) -> Result<()> {
    let start = Instant::now();
    loop {
        let report = ask(from, to)?;
        if report.failures.is_empty() && names(&report) == BTreeSet::from([server]) {
            return Ok(());
        }
        if start.elapsed() > SOON {
            bail!("{to}: {:?} {:?}", report.servers, report.failures);
        }
    }
}

#[test]
fn an_api_server_may_be_away_for_a_minute() -> Result<()> {
    let _turn = turn();
    let cluster = cluster()?;
    let _servers = cluster.start_servers()?;
    let mut plane = control_plane(&cluster)?;
    let shell = cluster.pod("shell");
    let [a, b, c] = ["a", "b", "c"].map(|name| Endpoint::of(cluster.pod(name)));
    // Without the controller, whose own patience with an absent API server is not what this is about.
    let web = Service::new("web", 100);
    plane.apply_unmanaged(&web, &[a.clone(), b.clone(), c.clone()])?;
    for number in 101..120 {
        plane.apply_unmanaged(&Service::new(&format!("other-{number}"), number), std::slice::from_ref(&b))?;
    }
    let mut agent = plane.start_agent(cluster.node(1), NO_MASTERS)?;
    agent.wait_ready()?;

    // What the change that is made after the outage costs without one.
    let written = agent.writes();
    plane.apply_slices(&web, &[b.clone(), c.clone()])?;
    wait_served_by(shell, &web, &["b", "c"], SOON)?;
    agent.settle(0, Duration::from_secs(1));
    let usual = agent.writes() - written;
    plane.apply_slices(&web, &[a, b.clone(), c.clone()])?;
    wait_served_by(shell, &web, &["a", "b", "c"], SOON)?;
    agent.settle(0, Duration::from_secs(1));

    let written = agent.writes();
    let options = HttpOptions { rate: 200, ..HttpOptions::default() };
    let load = shell.start_http(web.http(Family::V4), &options)?;
    plane.stop_server(ApiServer::First);
    std::thread::sleep(Duration::from_secs(60));
    ensure!(agent.writes() == written, "maps were written while there was nothing to be learned");
    plane.start_server(ApiServer::First)?;
    plane.apply_slices(&web, &[b, c])?;
    let took = wait_served_by(shell, &web, &["b", "c"], Duration::from_secs(10))?;
    println!("a change after the outage was live after {took:?}");
    ensure!(took < Duration::from_secs(2), "the change took {took:?}");

    agent.settle(0, Duration::from_secs(2));
    let rewritten = agent.writes() - written;
    // The slices of the two families may come one by one or together, which makes a difference of a few; that of all
    // Services again would make one of many times as much.
    ensure!(rewritten < 2 * usual, "the change takes {usual} writes; {rewritten} were made");
    let report = load.stop()?;
    println!("{} requests during the outage, {} failed", report.requests, report.requests - report.ok);
    ensure!(report.failures.is_empty(), "failed requests: {:?}", report.failures);
    ensure!(report.requests > 60 * 150, "only {} requests were sent", report.requests);
    Ok(())
}

#[test]
fn an_expired_watch_is_begun_anew() -> Result<()> {
    let _turn = turn();
    let cluster = cluster()?;
    let _servers = cluster.start_servers()?;
    let mut plane = control_plane(&cluster)?;
    let shell = cluster.pod("shell");
    let [a, b] = ["a", "b"].map(|name| Endpoint::of(cluster.pod(name)));
    let [kept, gone, fresh] = [("kept", 100), ("gone", 101), ("fresh", 102)].map(|(name, at)| Service::new(name, at));
    plane.apply_unmanaged(&kept, std::slice::from_ref(&a))?;
    plane.apply_unmanaged(&gone, std::slice::from_ref(&a))?;
    let mut agent = plane.start_agent(cluster.node(1), NO_MASTERS)?;
    agent.wait_ready()?;
    assert_served_by(shell, &gone, &["a"])?;

    // The agent sleeps through changes and through the end of the API server that could have told of them.
    let version = plane.kubectl(&["get", "--raw", "/api/v1/services?limit=1"])?;
    let version: serde_json::Value = serde_json::from_str(&version)?;
    let version =
        version.pointer("/metadata/resourceVersion").and_then(serde_json::Value::as_str).context("version")?;
    agent.process().signal(Signal::SIGSTOP)?;
    plane.kubectl(&["delete", "service", "gone"])?;
    plane.apply_unmanaged(&fresh, std::slice::from_ref(&b))?;
    plane.stop_server(ApiServer::First);
    plane.start_server(ApiServer::First)?;
    let watch = format!("/api/v1/services?watch=1&timeoutSeconds=1&resourceVersion={version}");
    let answer = plane.kubectl(&["get", "--raw", &watch]).unwrap_or_else(|error| error.to_string());
    ensure!(answer.contains("410") || answer.contains("too old"), "this watch has not expired: {answer}");

    agent.process().signal(Signal::SIGCONT)?;
    wait_served_by(shell, &fresh, &["b"], Duration::from_secs(10))?;
    wait_refused(shell, gone.http(Family::V4))?;
    assert_served_by(shell, &kept, &["a"])
}

#[test]
fn nothing_is_done_on_half_a_list() -> Result<()> {
    let _turn = turn();
    let cluster = cluster()?;
    let _servers = cluster.start_servers()?;
    let plane = control_plane(&cluster)?;
    let shell = cluster.pod("shell");
    let a = [Endpoint::of(cluster.pod("a"))];
    let services: Vec<Service> = (100..250).map(|number| Service::new(&format!("web-{number}"), number)).collect();
    let objects: Vec<_> = services.iter().map(Service::object).collect();
    plane.apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects}))?;
    let web = services.first().context("a service")?;
    plane.apply_slices(web, &a)?;

    let machine = cluster.node(3);
    let at = |port| SocketAddr::new(machine.ip(Family::V4), port);
    let cutter = Cutter::start(machine.namespace(), at(7443), at(6443))?;
    // The list of services is some 150 KB; the handshake and the other lists fit.
    cutter.cut_after(40_000);
    let mut agent = plane.start_agent(cluster.node(1), &[cutter.url()])?;
    plane.wait("three lists that were cut", || cutter.cuts() >= 3)?;
    ensure!(!agent.is_ready(), "the agent is ready with half a list");
    assert_unserved(shell, web.http(Family::V4))?;

    cutter.cut_after(0);
    agent.wait_ready()?;
    assert_served_by(shell, web, &["a"])?;
    // And a watch that is cut is begun again.
    cutter.cut_after(1);
    let cuts = cutter.cuts();
    plane.apply_slices(web, &[Endpoint::of(cluster.pod("b"))])?;
    plane.wait("a watch that was cut", || cutter.cuts() > cuts)?;
    cutter.cut_after(0);
    wait_served_by(shell, web, &["b"], SOON).map(drop)
}

#[test]
fn missing_rights_are_named_and_waited_for() -> Result<()> {
    let _turn = turn();
    let cluster = cluster()?;
    let _servers = cluster.start_servers()?;
    let plane = control_plane(&cluster)?;
    let shell = cluster.pod("shell");
    let (web, [_, b]) = served_by_a(&plane, &cluster)?;
    plane.revoke_rights()?;

    let mut agent = plane.start_agent(cluster.node(1), NO_MASTERS)?;
    for resource in ["services", "endpointslices", "nodes"] {
        agent.wait_for_words(&["cannot watch", resource, "forbidden"], SOON).context("the missing right is named")?;
    }
    ensure!(!agent.is_ready(), "the agent is ready without having seen anything");
    plane.grant_rights()?;
    agent.wait_ready()?;
    assert_served_by(shell, &web, &["a"])?;

    // Rights that go away do not take the services with them.
    plane.revoke_rights()?;
    std::thread::sleep(Duration::from_secs(1));
    assert_served_by(shell, &web, &["a"])?;
    plane.grant_rights()?;
    plane.apply_slices(&web, &b)?;
    wait_served_by(shell, &web, &["b"], Duration::from_secs(10)).map(drop)
}

#[test]
fn one_of_several_api_servers_is_enough() -> Result<()> {
    let _turn = turn();
    let cluster = cluster()?;
    let _servers = cluster.start_servers()?;
    let mut plane = control_plane(&cluster)?;
    let shell = cluster.pod("shell");
    let (web, [a, b]) = served_by_a(&plane, &cluster)?;
    let nobody = format!("https://{}:6999", cluster.node(3).ip(Family::V4));
    let masters = [nobody, plane.url(ApiServer::First), plane.url(ApiServer::Second)];

    let mut agent = plane.start_agent(cluster.node(1), &masters)?;
    agent.wait_ready()?;
    assert_served_by(shell, &web, &["a"])?;
    plane.start_server(ApiServer::Second)?;
    plane.stop_server(ApiServer::First);
    plane.apply_slices(&web, &b)?;
    wait_served_by(shell, &web, &["b"], Duration::from_secs(10))?;

    plane.start_server(ApiServer::First)?;
    plane.hang_server(ApiServer::Second)?;
    plane.apply_slices(&web, &a)?;
    // Its kernel acknowledges everything; only a ping of HTTP/2 tells.
    let took = wait_served_by(shell, &web, &["a"], Duration::from_secs(40))?;
    println!("a change was live {took:?} after the API server had begun to hang");
    ensure!(took < Duration::from_secs(30), "the change took {took:?}");
    Ok(())
}

#[test]
fn a_thousand_flips_are_followed_within_milliseconds() -> Result<()> {
    const FLIPS: u32 = 1000;
    let _turn = turn();
    let cluster = cluster()?;
    let _servers = cluster.start_servers()?;
    let plane = control_plane(&cluster)?;
    let (a, shell) = (cluster.pod("a"), cluster.pod("shell"));
    for name in ["a", "b", "c"] {
        plane.run_pod(cluster.pod(name), "web")?;
    }
    let web = Service::new("web", 100);
    plane.apply(&selecting(&web, "web"))?;
    plane.wait_endpoints(&web, 3)?;
    let mut agent = plane.start_agent(cluster.node(1), NO_MASTERS)?;
    agent.wait_ready()?;
    agent.settle(0, Duration::from_secs(1));

    let to = Family::BOTH.map(|family| web.http(family));
    let flips = plane.flip_readiness(a, &agent, FLIPS, (shell, &to, 5))?;
    let mut times: Vec<u64> = flips.syncs.iter().filter_map(|sync| sync.event_to_maps_us).collect();
    times.sort_unstable();
    ensure!(times.len() >= FLIPS as usize, "{FLIPS} flips, and only {} rounds of the agent", times.len());
    let at = |share: f64| times.get((share * (times.len() - 1) as f64) as usize).copied().unwrap_or(u64::MAX);
    println!(
        "watch event to maps, {} rounds: median {} µs, p99 {} µs, max {} µs",
        times.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    ensure!(at(0.99) <= 5000, "p99 is {} µs", at(0.99));

    // Not the p99, but the time of each flip itself.
    let verdict = flips.unready_at(a.name());
    println!(
        "{} connections; {} of them began while a was unready in the maps, {} or more in each of {} such times; {} late",
        flips.opened.len(),
        verdict.judged,
        verdict.fewest,
        verdict.unready,
        verdict.late_us.len()
    );
    ensure!(verdict.unready == FLIPS as usize / 2 && verdict.fewest >= 5 * to.len(), "not all was seen: {verdict:?}");
    ensure!(verdict.late_us.is_empty(), "connections that began so many µs after went to a: {:?}", verdict.late_us);
    ensure!(verdict.failed == 0, "{} connections failed", verdict.failed);
    let answers = flips.opened.iter().filter(|opened| opened.server.as_deref() == Some(a.name())).count();
    ensure!(answers * 10 > flips.opened.len(), "a answered only {answers} of {} connections", flips.opened.len());
    Ok(())
}
