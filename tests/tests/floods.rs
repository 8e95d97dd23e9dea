//! What a stranger opens, and what has ended, takes nothing from those who are there. Needs root and the agent.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use proxy_tests::cluster::{Agent, Cluster, Cni, Endpoint, Family, Load, Place, Service, Stage};
use proxy_tests::scale::{is_full, scaled};
use proxy_tests::traffic::{
    BEHIND_NOBODY4, BEHIND_NOBODY6, FloodOptions, FloodReport, HttpOptions, HttpReport, SessionsOptions,
    SessionsReport, Transport, UdpOptions,
};
use serde_json::Value;

const NEAR_PORT: u16 = 30080;
const FAR_PORT: u16 = 30090;

/// A service with a backend on the first node, where all clients come in, and one with a backend on the second.
struct Scene {
    stage: Stage,
    near: Service,
    far: Service,
}

/// A way to a service: who dials, and the addresses of HTTP (and datagrams) and of streams.
#[derive(Clone, Copy)]
struct Way<'a> {
    name: &'static str,
    from: &'a dyn Dialler,
    http: SocketAddr,
    stream: SocketAddr,
}

/// A place behind a reference: the trait itself has generic methods.
trait Dialler {
    fn hold(&self, to: SocketAddr, options: &SessionsOptions) -> Result<Load<SessionsReport>>;
    fn ask_on(&self, to: SocketAddr, options: &HttpOptions) -> Result<Load<HttpReport>>;
}

impl<P: Place> Dialler for P {
    fn hold(&self, to: SocketAddr, options: &SessionsOptions) -> Result<Load<SessionsReport>> {
        self.hold_sessions(to, options)
    }

    fn ask_on(&self, to: SocketAddr, options: &HttpOptions) -> Result<Load<HttpReport>> {
        self.start_http(to, options)
    }
}

impl Scene {
    fn start() -> Result<Self> {
        let (near, far) = (Service::new("near", 1).node_port(NEAR_PORT), Service::new("far", 2).node_port(FAR_PORT));
        let builder = Cluster::builder().nodes(2).cni(Cni::Routed);
        let builder = builder.pod(1, "client").pod(1, "near").pod(2, "far").pod(1, "flooder");
        let stage = Stage::start(builder, |cluster| {
            cluster.manifests().apply(&near, &[Endpoint::of(cluster.pod("near"))])?;
            cluster.manifests().apply(&far, &[Endpoint::of(cluster.pod("far"))])?;
            // Whom answers to random sources go to.
            let routes = [BEHIND_NOBODY4, BEHIND_NOBODY6].map(|network| format!("route add blackhole {network}\n"));
            cluster.fabric().namespace().ip(&routes.concat())
        })?;
        Ok(Self { stage, near, far })
    }

    fn ways(&self, family: Family) -> [Way<'_>; 3] {
        let cluster = &self.stage.cluster;
        let node = |port| SocketAddr::new(cluster.node(1).ip(family), port);
        let (outside, pod) = (cluster.client(), cluster.pod("client"));
        [
            Way { name: "NodePort, far", from: outside, http: node(FAR_PORT), stream: node(FAR_PORT + 1) },
            Way { name: "NodePort, near", from: outside, http: node(NEAR_PORT), stream: node(NEAR_PORT + 1) },
            Way { name: "ClusterIP", from: pod, http: self.far.http(family), stream: self.far.stream(family) },
        ]
    }

    /// Entries in the flow tables of each node that floods have made: of nobody's addresses, and of the pod's that floods.
    fn flooded(&self) -> Result<Vec<usize>> {
        let own =
            Family::BOTH.map(|family| SocketAddr::new(self.stage.cluster.pod("flooder").ip(family), 0).to_string());
        let own = own.map(|end| end.trim_end_matches('0').to_owned());
        let marks = ["198.18.", "198.19.", "[2001:2:", &own[0], &own[1]];
        let is_flood = |flow: &Value| {
            let ends = ["source", "destination"].into_iter().filter_map(|end| flow[end].as_str());
            ends.into_iter().any(|end| marks.iter().any(|mark| end.starts_with(mark)))
        };
        let count = |agent: &Agent| {
            let flows = agent.get("flows")?;
            Ok(flows.as_array().context("a list of flows")?.iter().filter(|flow| is_flood(flow)).count())
        };
        self.stage.agents.iter().map(count).collect()
    }
}

/// Holds connections by every way; `all` of them together.
fn hold(ways: &[Way<'_>], all: u32, options: &SessionsOptions) -> Result<Vec<(&'static str, Load<SessionsReport>)>> {
    let options = SessionsOptions { connections: all.div_ceil(ways.len() as u32), ..options.clone() };
    ways.iter().map(|way| Ok((way.name, way.from.hold(way.stream, &options)?))).collect()
}

/// Ends held connections; wants all of them to be there still.
fn let_go(held: Vec<(&'static str, Load<SessionsReport>)>, evidence: impl Fn() -> String) -> Result<()> {
    for (name, load) in held {
        let report = load.stop()?;
        println!("{name}: {report:?}");
        ensure!(report.failures.is_empty() && report.opened > 0, "{name}: {report:?}\n{}", evidence());
    }
    Ok(())
}

/// Floods, one after the other, from one thread each at its full rate. Meanwhile connections that are held do not notice,
/// and new ones come about.
fn weather(scene: &Scene, family: Family, protocol: Transport, lasts: Duration) -> Result<()> {
    let cluster = &scene.stage.cluster;
    let [far, near, inside] = scene.ways(family);
    let asking = HttpOptions { rate: 50, concurrency: 8, ..HttpOptions::default() };
    let asked: Vec<_> = [far, near, inside]
        .into_iter()
        .map(|way| Ok((way.name, way.from.ask_on(way.http, &asking)?)))
        .collect::<Result<_>>()?;
    let random = FloodOptions::new(protocol);
    let flooder = cluster.pod("flooder");
    let own = random.clone().from_own(flooder.ip(family));
    let twice = FloodOptions { each: 2, ..random.clone() };
    let outside = cluster.client();
    let stream = if protocol == Transport::Tcp { far.stream } else { far.http };
    for (what, to, options) in
        [("NodePort, far", far.http, &random), ("NodePort, near", near.http, &random), ("each twice", stream, &twice)]
    {
        let flood = outside.start_flood(to, options)?;
        std::thread::sleep(lasts);
        report(what, family, protocol, flood.stop()?)?;
    }
    for (what, options) in [("pod, as itself", &own), ("pod, as others", &random)] {
        let flood = flooder.start_flood(inside.http, options)?;
        std::thread::sleep(lasts);
        report(what, family, protocol, flood.stop()?)?;
    }
    for (name, load) in asked {
        let report = load.stop()?;
        let failed: u64 = report.failures.values().sum();
        println!("new connections to {name}: {} of {} failed: {:?}", failed, report.requests, report.failures);
        ensure!(
            report.requests > 0 && failed * 100 <= report.requests,
            "{name}: {report:?}\n{}",
            scene.stage.evidence()
        );
    }
    Ok(())
}

fn report(what: &str, family: Family, protocol: Transport, flood: FloodReport) -> Result<()> {
    println!(
        "{family:?} {protocol:?} flood, {what}: {:.0} a second for {:.1} s, {:?}",
        flood.sent as f64 / flood.seconds,
        flood.seconds,
        flood.errors
    );
    ensure!(flood.sent > 1000, "no flood: {flood:?}");
    Ok(())
}

/// With the agents at work and with the agents dead.
#[test]
fn floods_take_nothing_from_those_who_are_there() -> Result<()> {
    let mut scene = Scene::start()?;
    let lasts = scaled(Duration::from_secs(1), Duration::from_secs(30));
    let sessions = SessionsOptions { interval_ms: scaled(20, 200), ..SessionsOptions::default() };
    let families: &[Family] = if is_full() { &Family::BOTH } else { &[Family::V4] };
    for &family in families {
        let held = hold(&scene.ways(family), scaled(150, 1000), &sessions)?;
        for protocol in Transport::BOTH {
            weather(&scene, family, protocol, lasts)?;
            if is_full() {
                settle(&scene)?;
            }
        }
        scene.stage.agents.iter_mut().for_each(Agent::kill);
        for protocol in Transport::BOTH {
            weather(&scene, family, protocol, lasts).context("without agents")?;
        }
        scene.stage.agents.iter_mut().try_for_each(Agent::start_again)?;
        let_go(held, || scene.stage.evidence())?;
        ensure!(scene.stage.count("displaced")? > 0, "nothing was displaced: no flood\n{}", scene.stage.evidence());
    }
    Ok(())
}

/// A minute after a flood the tables hold nothing of it.
fn settle(scene: &Scene) -> Result<()> {
    let began = Instant::now();
    let after = scene.flooded()?;
    ensure!(after.iter().any(|&count| count > 1_000), "{after:?} entries are no flood");
    loop {
        std::thread::sleep(Duration::from_secs(5));
        let now = scene.flooded()?;
        let passed = began.elapsed();
        println!("entries: {after:?} after the flood, {now:?} {:.0} s later", passed.as_secs_f64());
        if now.iter().all(|&now| now < 100) {
            return Ok(());
        }
        ensure!(passed < Duration::from_secs(60), "{now:?} a minute later");
    }
}

/// Connections on which nothing is said outlive any number of others, whether they were made before those or in the midst
/// of them.
#[test]
fn idle_connections_outlive_any_number_of_finished_ones() -> Result<()> {
    let scene = Scene::start()?;
    let (all, others) = scaled((200, 20_000), (2_000, 200_000));
    let ways = scene.ways(Family::V4);
    let idle = SessionsOptions::idle(0);
    let before = hold(&ways, all / 2, &idle)?;
    finished(&scene, others / 2)?;
    let amid = hold(&ways, all / 2, &idle)?;
    finished(&scene, others / 2)?;
    let_go(before, || scene.stage.evidence()).context("made before the others")?;
    let_go(amid, || scene.stage.evidence()).context("made amid the others")
}

/// So many connections that end, and as many datagrams that are answered, each from a socket of its own.
fn finished(scene: &Scene, count: u64) -> Result<()> {
    let [far, ..] = scene.ways(Family::V4);
    let cluster = &scene.stage.cluster;
    let (pod, outside) = (cluster.pod("client"), cluster.client());
    let options = HttpOptions { requests: count / 2, concurrency: 8, ..HttpOptions::default() };
    let queries = UdpOptions { requests: count / 2, rate: 0, new_sockets: true, ..UdpOptions::default() };
    std::thread::scope(|scope| {
        let work = [
            scope.spawn(|| pod.http(scene.near.http(Family::V4), &options).map(|report| (report.ok, report.failures))),
            scope.spawn(|| outside.http(far.http, &options).map(|report| (report.ok, report.failures))),
            scope.spawn(|| {
                pod.udp(scene.near.http(Family::V4), &queries).map(|report| (report.answered, report.failures))
            }),
            scope.spawn(|| outside.udp(far.http, &queries).map(|report| (report.answered, report.failures))),
        ];
        for work in work {
            let (ok, failures) = work.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
            ensure!(ok == count / 2, "{ok} of {}: {failures:?}\n{}", count / 2, scene.stage.evidence());
        }
        Ok(())
    })
}
