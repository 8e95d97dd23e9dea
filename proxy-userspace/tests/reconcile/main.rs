//! The reconciler over maps that check every write.

mod adoption;
mod capacity;
mod checked;
mod economy;
mod node;
mod random;
mod reader;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use checked::{Checked, GRACE};
use proxy_common::wire::{Address, BackendFlags, Filter, FrontendKey, Kind, Policy, Scope};
use proxy_userspace::{
    desired::{Endpoint, Frontend, ServicePort, ServicePortName, Sets},
    model::{Algorithm, ObjectName, Protocol},
    reconcile::{Capacity, FlowNeeds, Limits, Reconciler, Report},
};

const ROOMY: Capacity = Capacity { services: 64, frontends: 64, sets: 128, slots: 512, maglev: 8192, backends: 256 };

/// A reconciler, its maps and what they are to hold.
struct Bench {
    tables: Checked,
    reconciler: Reconciler,
    limits: Limits,
    services: BTreeMap<ObjectName, Vec<ServicePort>>,
}

impl Bench {
    fn new(capacity: Capacity) -> Self {
        Self::with(capacity, Limits { grace: GRACE, ..Limits::default() })
    }

    fn with(capacity: Capacity, limits: Limits) -> Self {
        let tables = Checked::new(capacity);
        let reconciler = Reconciler::adopt(&tables, limits).unwrap();
        let mut bench = Self { tables, reconciler, limits, services: BTreeMap::new() };
        bench.sync();
        bench
    }

    fn sync(&mut self) -> Report {
        let Self { tables, reconciler, services, .. } = self;
        let now = tables.now;
        reconciler.sync(tables, services.clone(), now)
    }

    fn apply(&mut self, ports: &[ServicePort]) -> Report {
        let name = ports[0].name.service();
        self.services.insert(name.clone(), ports.to_vec());
        let now = self.tables.now;
        self.reconciler.apply(&mut self.tables, [(name, ports.to_vec())], now)
    }

    fn remove(&mut self, port: &ServicePort) -> Report {
        let name = port.name.service();
        self.services.remove(&name);
        let now = self.tables.now;
        self.reconciler.apply(&mut self.tables, [(name, Vec::new())], now)
    }

    fn wait(&mut self, time: Duration) -> Report {
        self.tables.wait(time);
        let now = self.tables.now;
        self.reconciler.retry(&mut self.tables, now)
    }

    fn restart(&mut self) -> Report {
        self.reconciler = Reconciler::adopt(&self.tables, self.limits).unwrap();
        self.sync()
    }

    /// The maps hold what the services say, and nothing else.
    fn check(&self) {
        assert_eq!(view::of_tables(&self.tables.maps), view::of_services(&self.services));
        assert_eq!(view::serving(&self.tables.maps), view::to_serve(&self.services));
        assert_eq!(self.tables.maps.names.len(), self.services.values().flatten().count());
        assert!(!self.tables.disturbed, "an epoch has ended and the next has not begun");
    }

    /// What the filters have after a sweep that found no flow: no bit too many.
    fn check_filters(&mut self) {
        self.wait(GRACE);
        let now = self.tables.now;
        self.reconciler.forget(&mut self.tables, &FlowNeeds::none(), now);
        let maps = &self.tables.maps;
        let ones = |words: &[u32]| words.iter().map(|word| word.count_ones() as usize).sum::<usize>();
        let dialled = maps.frontends.keys().filter(|key| key.scope == Scope::ADDRESS);
        let frontends: BTreeSet<u32> = dialled.map(|key| Filter::frontend(&key.address)).collect();
        let serving = maps.backends.iter().filter(|row| row.flags & BackendFlags::SERVING != 0);
        let targets: BTreeSet<u32> = serving.map(|row| Filter::target(&row.address, row.port, row.protocol)).collect();
        assert_eq!((ones(&maps.frontend_filter), ones(&maps.target_filter)), (frontends.len(), targets.len()));
    }
}

fn key(text: &str) -> FrontendKey {
    let (ip, port) = text.rsplit_once(':').unwrap();
    let (address, scope) = match ip {
        "node" => (Address::ANY, Scope::NODE_PORT4),
        "node6" => (Address::ANY, Scope::NODE_PORT6),
        ip => (Address::from(ip.trim_matches(['[', ']']).parse::<IpAddr>().unwrap()), Scope::ADDRESS),
    };
    FrontendKey { address, port: port.parse::<u16>().unwrap().to_be(), protocol: Protocol::Tcp.number(), scope }
}

/// A service port with one set of all its endpoints, "a" for 10.1.0.97 and so on.
fn port(name: &str, created: i64, frontends: &[&str], endpoints: &str) -> ServicePort {
    let backends: Vec<Endpoint> = endpoints
        .bytes()
        .map(|byte| Endpoint { address: IpAddr::from([10, 1, 0, byte]), port: 8080, local: false })
        .collect();
    let cluster: Vec<u32> = (0..backends.len() as u32).collect();
    let frontend = |text: &&str| Frontend { key: key(text), policy: Policy::new(Kind::ClusterIp) };
    ServicePort {
        name: ServicePortName {
            namespace: "default".into(),
            name: name.into(),
            port: "http".into(),
            protocol: Protocol::Tcp,
        },
        created,
        algorithm: Algorithm::Random,
        sets: [Some(Sets { has_endpoints: !cluster.is_empty(), cluster, local: Vec::new() }), None],
        backends,
        frontends: frontends.iter().map(frontend).collect(),
    }
}

fn maglev(port: ServicePort) -> ServicePort {
    ServicePort { algorithm: Algorithm::Maglev, ..port }
}
