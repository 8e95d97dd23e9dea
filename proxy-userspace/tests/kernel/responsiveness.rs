//! What takes its time keeps nothing else waiting.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Parser;
use proxy_userspace::agent;
use proxy_userspace::config::AgentArgs;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::ours;
use crate::sandbox::{has_tcx, ip, sandbox};

const SERVICES: u32 = 10_000;
const ENDPOINTS: u32 = 10;
/// Between beats.
const BEAT: Duration = Duration::from_millis(5);

/// When the agent has said something for the first time, by its words and the device it is about.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<BTreeMap<String, Instant>>>);

impl<S: tracing::Subscriber> Layer<S> for Said {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut words = Words::default();
        event.record(&mut words);
        self.0.lock().unwrap().entry(words.0).or_insert_with(Instant::now);
    }
}

#[derive(Default)]
struct Words(String);

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if ["message", "device"].contains(&field.name()) {
            self.0 += &format!("{value:?} ");
        }
    }
}

impl Said {
    fn at(&self, words: &str) -> Option<Instant> {
        let said = self.0.lock().unwrap();
        said.iter().find(|(text, _)| words.split('+').all(|word| text.contains(word))).map(|(_, at)| *at)
    }

    async fn wait_for(&self, words: &str) -> Instant {
        timeout(Duration::from_secs(240), async {
            loop {
                match self.at(words) {
                    Some(at) => return at,
                    None => sleep(BEAT).await,
                }
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{words} was not said, but {:?}", self.0.lock().unwrap().keys()))
    }
}

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: AgentArgs,
}

fn objects() -> Value {
    let endpoint = |number: u32| json!({"addresses": [Ipv4Addr::from(0x0a00_0000 + number)]});
    let service = |number: u32| {
        let name = format!("svc{number}");
        let ip = Ipv4Addr::from(0x6440_0001 + number);
        let endpoints: Vec<Value> = (0..ENDPOINTS).map(|at| endpoint(number * ENDPOINTS + at)).collect();
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80}]},
        });
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 8080}],
        });
        [service, slice]
    };
    json!({"apiVersion": "v1", "kind": "List", "items": (0..SERVICES).flat_map(service).collect::<Vec<_>>()})
}

fn arguments(pins: &Path, manifests: &Path) -> AgentArgs {
    let mut arguments = vec!["agent".into(), "--hostname-override=here".into()];
    arguments.extend(
        [("--pin-dir", pins), ("--manifests", manifests)].map(|(name, path)| format!("{name}={}", path.display())),
    );
    Command::parse_from(arguments).args
}

/// What the heart of the caller's runtime did from `from` to `to`.
fn judge(what: &str, beats: &[Instant], from: Instant, to: Instant) {
    let within: Vec<Instant> = beats.iter().copied().filter(|at| (from..to).contains(at)).collect();
    let edges = std::iter::once(from).chain(within.iter().copied()).chain([to]).collect::<Vec<_>>();
    let longest = edges.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
    let late = longest.saturating_sub(BEAT);
    println!("{what}: took {:?}, {} beats meanwhile, at most {late:?} late", to - from, within.len());
    // A heart that shares the thread does not beat at all meanwhile.
    assert!(within.len() >= 5 && longest < (to - from) / 2, "{what} kept the heart from beating");
}

/// The agent runs on this thread's runtime, beside a heart.
#[test]
fn neither_loading_nor_a_full_sync_keeps_the_devices_waiting() {
    sandbox(async |sandbox| {
        let said = Said::default();
        // No other test of this program runs an agent.
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(said.clone())).unwrap();
        let manifests = sandbox.plain().join("manifests");
        std::fs::create_dir(&manifests).unwrap();
        std::fs::write(manifests.join("all.json"), objects().to_string()).unwrap();
        let mut beats = Vec::new();
        let heart = async {
            loop {
                sleep(BEAT).await;
                beats.push(Instant::now());
            }
        };
        let begun = Instant::now();
        let story = async {
            let loaded = said.wait_for("waiting for the first complete lists").await;
            let listed = said.wait_for("node written").await;
            let synced = said.wait_for("full sync written").await;
            said.wait_for("the first complete state is in force").await;
            let added = Instant::now();
            // The first device without an Ethernet header.
            tokio::task::spawn_blocking(|| ip("tuntap add dev tun0 mode tun")).await.unwrap();
            let attached = said.wait_for("attached +tun0").await;
            [
                (loaded, "loading", begun),
                (listed, "reading the objects", loaded),
                (synced, "a full sync", listed),
                (attached, "loading for a late device", added),
            ]
        };
        let phases = tokio::select! {
            ended = agent::run(arguments(&sandbox.pin_dir(), &manifests)) => panic!("the agent ended: {ended:?}"),
            () = heart => unreachable!("it beats for ever"),
            phases = story => phases,
        };
        if has_tcx() {
            assert_eq!(ours::tcx_names("tun0"), [["overlay_in_l3"], ["overlay_out_l3"]]);
        } else {
            let [ingress, egress] = ours::filters("tun0");
            assert!(ingress.contains("overlay_in_l3") && egress.contains("overlay_out_l3"), "{ingress} {egress}");
        }
        for (to, what, from) in phases {
            judge(what, &beats, from, to);
        }
    });
}
