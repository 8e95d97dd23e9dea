//! The reconciler over maps that check every write.

mod adoption;
mod capacity;
mod checked;
mod economy;
mod node;
mod random;
mod view;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use checked::{Checked, GRACE};
use proxy_common::wire::{Address, FrontendFlags, FrontendKey, Scope};
use proxy_userspace::{
    desired::{Endpoint, Frontend, ServicePort, ServicePortName},
    model::{Algorithm, ObjectName, Protocol},
    reconcile::{Capacity, Limits, Reconciler, Report},
};

const ROOMY: Capacity = Capacity { services: 64, frontends: 64, slots: 512, maglev: 8192, backends: 256 };

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
        self.tables.now += time;
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
        assert_eq!(self.tables.maps.services.len(), self.services.values().flatten().count());
    }
}

fn key(text: &str) -> FrontendKey {
    let (ip, port) = text.rsplit_once(':').unwrap();
    let (address, scope) = match ip {
        "node" => (Address::ANY, Scope::NODE_PORT4),
        ip => (Address::from(ip.parse::<IpAddr>().unwrap()), Scope::ADDRESS),
    };
    FrontendKey { address, port: port.parse::<u16>().unwrap().to_be(), protocol: Protocol::Tcp.number(), scope }
}

/// A service port with one set of all its endpoints, "a" for 10.1.0.97 and so on.
fn port(name: &str, created: i64, frontends: &[&str], endpoints: &str) -> ServicePort {
    let backends: Vec<Endpoint> = endpoints
        .bytes()
        .map(|byte| Endpoint { address: IpAddr::from([10, 1, 0, byte]), port: 8080, local: false })
        .collect();
    let set = (!backends.is_empty()).then_some(0);
    let flags = if backends.is_empty() { 0 } else { FrontendFlags::HAS_ENDPOINTS };
    let frontend = |text: &&str| Frontend { key: key(text), flags, inside: set, outside: set };
    ServicePort {
        name: ServicePortName {
            namespace: "default".into(),
            name: name.into(),
            port: "http".into(),
            protocol: Protocol::Tcp,
        },
        created,
        algorithm: Algorithm::Random,
        sets: set.map(|_| (0..backends.len() as u32).collect()).into_iter().collect(),
        backends,
        frontends: frontends.iter().map(frontend).collect(),
    }
}

fn maglev(port: ServicePort) -> ServicePort {
    ServicePort { algorithm: Algorithm::Maglev, ..port }
}
