//! What Kubernetes promises, from objects to verdicts: objects -> model -> desired -> reconcile -> maps in memory ->
//! the datapath of the kernel programs. Numbers of rows are those of the table of kube-proxy's behaviour in the design.
//!
//! Addresses: pods 10.1.0.0/16 and fd01::/64, services 10.96.0.0/16 and fd96::/64, this node ("here") 192.0.2.1 and
//! fd02::1, another one ("there") 192.0.2.2, clients outside 198.51.100.0/24 and fd03::/64.

mod classes;
mod endpoints;
mod frontends;
mod host;
mod intake;
mod node_state;
mod objects;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use host::{Answer, Host};
use proxy_common::reason::{Hook, Reason};
use proxy_tests::rows::world;
use proxy_userspace::{
    desired::{NodeSettings, Seats, node_state},
    model::{
        Changes, Cluster, Delta, DetectLocal, EndpointSlice, Event, Interface, Node, NodePortAddresses, ObjectName,
        Problem, Protocol, Service, Settings,
    },
    reconcile::{Capacity, Limits, MemoryTables, Reconciler},
};
use serde_json::{Value, json};

const POD: &str = "10.1.0.200:40000";
const OUTSIDE: &str = "198.51.100.7:40000";
const POD6: &str = "[fd01::200]:40000";
const OUTSIDE6: &str = "[fd03::7]:40000";
const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const NODE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 1));
/// Index of the device that all packets leave the node by, see [`interfaces`].
const UPLINK: u32 = 2;
/// How many flows are opened to learn where flows go.
const FLOWS: u16 = 100;

const CAPACITY: Capacity = Capacity { services: 64, frontends: 64, sets: 192, slots: 512, maglev: 8192, backends: 256 };

/// This node: its cluster, its maps and the time.
struct World {
    cluster: Cluster,
    reconciler: Reconciler,
    maps: MemoryTables,
    settings: NodeSettings,
    now: Duration,
}

impl World {
    fn new() -> Self {
        Self::with(Settings::default(), &["primary"], &["10.1.0.0/16", "fd01::/64"])
    }

    fn with(settings: Settings, node_port_addresses: &[&str], cluster_cidrs: &[&str]) -> Self {
        let cluster_cidrs = cluster_cidrs.iter().map(|text| text.parse().unwrap()).collect();
        let detect_local = DetectLocal::ClusterCidr(cluster_cidrs);
        Self::start(Settings { detect_local, ..settings }, node_port_addresses)
    }

    fn detecting(settings: Settings) -> Self {
        Self::start(settings, &["primary"])
    }

    fn start(settings: Settings, node_port_addresses: &[&str]) -> Self {
        let list: Vec<String> = node_port_addresses.iter().map(ToString::to_string).collect();
        let settings_of_node = NodeSettings {
            node_port_addresses: NodePortAddresses::parse(&list).unwrap().unwrap_or_default(),
            node_ports_before: Vec::new(),
            bind_address: None,
            masquerade_ports: 61000..=65535,
            timeouts: world::TIMEOUTS,
            rejects_per_tick: FLOWS.into(),
            seats: Seats { opening: [world::SEATS; 2], proven: [world::SEATS; 2] },
            fast: [true; 2],
        };
        let mut maps = MemoryTables::new(CAPACITY);
        let mut reconciler = Reconciler::adopt(&maps, Limits::default()).unwrap();
        reconciler.sync(&mut maps, [], Duration::ZERO);
        let cluster = Cluster::new("here", settings);
        let mut world = Self { cluster, reconciler, maps, settings: settings_of_node, now: Duration::ZERO };
        world.event(Event::Services(Delta::Replace(Vec::new())));
        world.event(Event::EndpointSlices(Delta::Replace(Vec::new())));
        world.apply(json!({
            "kind": "Node",
            "metadata": {"name": "here", "labels": {"topology.kubernetes.io/zone": "zone-a"}},
            "status": {"addresses": [
                {"type": "InternalIP", "address": "192.0.2.1"}, {"type": "InternalIP", "address": "fd02::1"},
            ]},
        }));
        world
    }

    /// Takes in an object as a source does, and returns what is wrong with it.
    fn apply(&mut self, object: Value) -> Vec<String> {
        fn event<T>(
            (converted, problems): (Option<T>, Vec<Problem>),
            of: &Value,
            kind: fn(Delta<T>) -> Event,
        ) -> (Event, Vec<Problem>) {
            let metadata = |field: &str| of["metadata"][field].as_str().unwrap_or_default();
            let name = ObjectName::new(metadata("namespace"), metadata("name"));
            (kind(converted.map_or(Delta::Delete(name), Delta::Apply)), problems)
        }
        let kind = object["kind"].as_str().unwrap().to_owned();
        let (event, mut problems) = match kind.as_str() {
            "Service" => {
                event(Service::from_object(&serde_json::from_value(object.clone()).unwrap()), &object, Event::Services)
            }
            "EndpointSlice" => {
                let typed = serde_json::from_value(object.clone()).unwrap();
                event(EndpointSlice::from_object(&typed), &object, Event::EndpointSlices)
            }
            "Node" => event(Node::from_object(&serde_json::from_value(object.clone()).unwrap()), &object, Event::Nodes),
            other => panic!("{other}"),
        };
        problems.extend(self.event(event));
        problems.iter().map(Problem::to_string).collect()
    }

    fn delete_service(&mut self, name: &str) {
        self.event(Event::Services(Delta::Delete(ObjectName::new("default", name))));
    }

    fn event(&mut self, event: Event) -> Vec<Problem> {
        let changes = self.cluster.apply(event);
        let report = self.reconciler.follow(&mut self.maps, &self.cluster, &changes, self.now);
        let Changes { node, mut problems, .. } = changes;
        assert!(report.error.is_none());
        problems.extend(report.problems);
        if node {
            let state = node_state(&interfaces(), &self.cluster, &self.settings);
            assert!(self.reconciler.set_node(&mut self.maps, &state, self.now).error.is_none());
        }
        problems
    }

    /// Takes in the devices of this node as the agent does; returns how many frontends that changes.
    fn set_interfaces(&mut self, interfaces: &[Interface]) -> u64 {
        let changes = self.cluster.set_interfaces(interfaces);
        let report = self.reconciler.follow(&mut self.maps, &self.cluster, &changes, self.now);
        assert!(report.error.is_none() && !changes.all);
        report.writes.frontends
    }

    /// All answers that clients with this address get who open a flow to `dialled`.
    fn answers(&self, client: &str, dialled: &str, protocol: Protocol) -> BTreeSet<Answer> {
        let address: SocketAddr = client.parse().unwrap();
        let is_pod = self.maps.config.is_pod(&address.ip().into()) == Some(true);
        let hook = if is_pod { Hook::PodIngress } else { Hook::UplinkIngress };
        self.answers_of(hook, client, dialled, protocol)
    }

    /// The same by TCP at a hook.
    fn answers_at(&self, hook: Hook, client: &str, dialled: &str) -> BTreeSet<Answer> {
        self.answers_of(hook, client, dialled, Protocol::Tcp)
    }

    fn answers_of(&self, hook: Hook, client: &str, dialled: &str, protocol: Protocol) -> BTreeSet<Answer> {
        let (mut client, dialled): (SocketAddr, SocketAddr) = (client.parse().unwrap(), dialled.parse().unwrap());
        let host = Host::new(&self.maps, 0);
        let dial = |port: u16| {
            client.set_port(port);
            host.send(hook, client, dialled, protocol)
        };
        (40000..40000 + FLOWS).map(dial).collect()
    }

    /// The backends that a client reaches by TCP; panics where it gets another answer.
    fn reaches(&self, client: &str, dialled: &str) -> Vec<String> {
        let shown = |answer| match answer {
            Answer::Backend { address, .. } | Answer::TurnedAround { address } => address.to_string(),
            other => panic!("{client} -> {dialled}: {other:?}"),
        };
        let reached: BTreeSet<String> = self.answers(client, dialled, Protocol::Tcp).into_iter().map(shown).collect();
        reached.into_iter().collect()
    }

    /// The one answer of a TCP frontend that has no choice.
    fn answer(&self, client: &str, dialled: &str) -> Answer {
        let answers: Vec<Answer> = self.answers(client, dialled, Protocol::Tcp).into_iter().collect();
        match &answers[..] {
            [only] => only.clone(),
            several => panic!("{client} -> {dialled}: {several:?}"),
        }
    }

    /// Whether the source address of a client is replaced, in every flow that it opens.
    fn masquerades(&self, client: &str, dialled: &str) -> bool {
        let masqueraded = |answer| match answer {
            Answer::Backend { masqueraded, .. } => masqueraded,
            other => panic!("{client} -> {dialled}: {other:?}"),
        };
        let all: BTreeSet<bool> = self.answers(client, dialled, Protocol::Tcp).into_iter().map(masqueraded).collect();
        assert_eq!(all.len(), 1, "{client} -> {dialled}: only some flows are masqueraded");
        all.contains(&true)
    }
}

fn interfaces() -> Vec<Interface> {
    let interface = |index, name: &str, addresses: &[&str], networks: &[&str]| Interface {
        index,
        name: name.into(),
        controller: None,
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
    };
    vec![
        interface(1, "lo", &["127.0.0.1", "::1"], &[]),
        interface(
            UPLINK,
            "eth0",
            &["192.0.2.1", "192.0.2.9", "fd02::1"],
            &["192.0.2.1/24", "192.0.2.9/24", "fd02::1/64"],
        ),
        interface(3, "veth1", &["fe80::1"], &[]),
    ]
}

const DROPPED: Answer = Answer::Dropped(Reason::NoLocalEndpoint);
const BOTH: [&str; 2] = ["10.1.0.1:8080", "10.1.1.1:8080"];

/// Service "web" with ClusterIP 10.96.0.1 and port 80 named "http"; `spec` is merged over that.
fn service(spec: Value) -> Value {
    service_named("web", spec)
}

fn service_named(name: &str, spec: Value) -> Value {
    let mut object = json!({
        "kind": "Service",
        "metadata": {"namespace": "default", "name": name, "creationTimestamp": "2024-01-01T00:00:00Z"},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "http", "port": 80}]},
    });
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    object
}

/// A slice of service "web" with port 8080 named "http".
fn slice(name: &str, endpoints: Value) -> Value {
    let first = endpoints[0]["addresses"][0].as_str().unwrap_or_default();
    json!({
        "kind": "EndpointSlice",
        "metadata": {"namespace": "default", "name": name, "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": if first.contains(':') { "IPv6" } else { "IPv4" },
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}

/// A slice of service "web" with an endpoint on this node and one elsewhere; [`BOTH`] are what they are reached as.
fn two_pods() -> Value {
    slice("web-1", json!([endpoint("10.1.0.1", "here"), endpoint("10.1.1.1", "there")]))
}

fn endpoint(address: &str, node: &str) -> Value {
    json!({"addresses": [address], "nodeName": node, "conditions": {"ready": true, "serving": true}})
}

fn endpoint_that(address: &str, node: &str, ready: bool, serving: bool, terminating: bool) -> Value {
    json!({
        "addresses": [address], "nodeName": node,
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
    })
}
