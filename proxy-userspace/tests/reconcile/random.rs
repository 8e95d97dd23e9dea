//! Whatever happens in whatever order: the maps end up as if they were compiled from scratch, and every packet in
//! between finds the old state of its service or the new one.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use proptest::prelude::*;
use proxy_common::wire::Policy;
use proxy_userspace::{
    desired::{Endpoint, Frontend, ServicePort, ServicePortName, Sets},
    model::{Algorithm, ObjectName, Protocol},
    reconcile::{Capacity, Writes},
};

use crate::{
    Bench, key,
    view::{self, View},
};

#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<ServicePort>),
    Remove(usize),
    /// Several services change at once.
    Sync(Vec<Vec<ServicePort>>),
    Restart,
    Wait(u64),
    /// A write during the next change fails.
    Fail(u32),
    /// The agent is killed during the next change, after so many writes.
    Kill(u32),
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// By family.
const KEYS: [&[&str]; 2] = [
    &["10.96.0.1:80", "10.96.0.2:80", "192.0.2.1:80", "192.0.2.2:80", "node:30000", "node:30001"],
    &["[fd96::1]:80", "[fd96::2]:80", "node6:30000"],
];

/// What one family adds to a service port: last bytes of endpoints and whether they are local, members of the sets,
/// whether somebody could serve, and frontends with their policies.
#[derive(Clone, Debug)]
struct Part {
    endpoints: BTreeMap<u8, bool>,
    masks: [u8; 2],
    has_endpoints: bool,
    frontends: BTreeMap<usize, u32>,
}

fn part(family: usize) -> impl Strategy<Value = Option<Part>> {
    let endpoints = prop::collection::btree_map(1..7_u8, any::<bool>(), 0..6);
    let frontends = prop::collection::btree_map(0..KEYS[family].len(), 0..0x1000_u32, 0..4);
    // A mask twice, since both sets of a port may well be the same.
    let masks = prop_oneof![any::<[u8; 2]>(), any::<u8>().prop_map(|mask| [mask; 2])];
    let part = (endpoints, masks, any::<bool>(), frontends)
        .prop_map(|(endpoints, masks, has_endpoints, frontends)| Part { endpoints, masks, has_endpoints, frontends });
    prop::option::weighted(if family == 0 { 0.9 } else { 0.4 }, part)
}

fn service_port(name: usize, created: i64, port: &'static str) -> impl Strategy<Value = ServicePort> {
    (part(0), part(1), 0..4_u8).prop_map(move |(v4, v6, algorithm)| {
        let (mut backends, mut frontends) = (Vec::new(), Vec::new());
        let mut family = 0;
        let sets = [v4, v6].map(|part| {
            family += 1;
            let part = part?;
            let first = backends.len() as u32;
            backends.extend(part.endpoints.iter().map(|(&last, &local)| {
                let address = if family == 1 {
                    IpAddr::from([10, 1, 0, last])
                } else {
                    IpAddr::from([0xfd01, 0, 0, 0, 0, 0, 0, u16::from(last)])
                };
                Endpoint { address, port: 8080, local }
            }));
            let policy =
                |(&at, &bits): (&usize, &u32)| Frontend { key: key(KEYS[family - 1][at]), policy: Policy(bits) };
            frontends.extend(part.frontends.iter().map(policy));
            let [cluster, local] = part.masks.map(|mask| {
                (0..part.endpoints.len() as u32).filter(|at| mask >> at & 1 != 0).map(|at| first + at).collect()
            });
            Some(Sets { cluster, local, has_endpoints: part.has_endpoints })
        });
        ServicePort {
            name: ServicePortName {
                namespace: "default".into(),
                name: NAMES[name].into(),
                port: port.into(),
                protocol: Protocol::Tcp,
            },
            created,
            algorithm: if algorithm == 0 { Algorithm::Maglev } else { Algorithm::Random },
            frontends,
            backends,
            sets,
        }
    })
}

fn service() -> impl Strategy<Value = Vec<ServicePort>> {
    (0..NAMES.len(), 0..3_i64, any::<bool>()).prop_flat_map(|(name, created, two)| {
        let second = prop::collection::vec(service_port(name, created, "https"), usize::from(two));
        (service_port(name, created, "http"), second).prop_map(|(first, second)| [vec![first], second].concat())
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => service().prop_map(Step::Apply),
        2 => (0..NAMES.len()).prop_map(Step::Remove),
        2 => prop::collection::vec(service(), 0..4).prop_map(Step::Sync),
        1 => Just(Step::Restart),
        4 => (0..3000_u64).prop_map(Step::Wait),
        2 => (0..6_u32).prop_map(Step::Fail),
        4 => (0..25_u32).prop_map(Step::Kill),
    ]
}

type Services = BTreeMap<ObjectName, Vec<ServicePort>>;

fn after(step: &Step, services: &Services) -> Services {
    let mut services = services.clone();
    match step {
        Step::Apply(ports) => drop(services.insert(ports[0].name.service(), ports.clone())),
        Step::Remove(name) => drop(services.remove(&ObjectName::new("default", NAMES[*name]))),
        Step::Sync(list) => services = list.iter().map(|ports| (ports[0].name.service(), ports.clone())).collect(),
        Step::Restart | Step::Wait(_) | Step::Fail(_) | Step::Kill(_) => {}
    }
    services
}

fn run(bench: &mut Bench, step: &Step) {
    let wanted = after(step, &bench.services);
    let to_be = View { sets: view::all_sets(&wanted), ..view::of_services(&wanted) };
    bench.tables.allowed = vec![view::of_tables(&bench.tables.maps), to_be];
    let unchanged = wanted == bench.services;
    bench.services = wanted;
    let now = bench.tables.now;
    let mut report = match step {
        Step::Apply(ports) => {
            let change = [(ports[0].name.service(), ports.clone())];
            bench.reconciler.apply(&mut bench.tables, change, now)
        }
        Step::Remove(name) => {
            let change = [(ObjectName::new("default", NAMES[*name]), Vec::new())];
            bench.reconciler.apply(&mut bench.tables, change, now)
        }
        Step::Sync(_) => bench.sync(),
        Step::Restart => bench.restart(),
        Step::Wait(millis) => bench.wait(Duration::from_millis(*millis)),
        Step::Fail(writes) => {
            bench.tables.failing = Some(*writes);
            return;
        }
        Step::Kill(writes) => {
            bench.tables.dies_after = Some(*writes);
            return;
        }
    };
    let has_died = bench.tables.is_dead();
    if has_died {
        bench.tables.dies_after = None;
        bench.tables.failing = None;
        report = bench.restart();
        assert!(report.error.is_none());
    }
    bench.tables.dies_after = None;
    if unchanged && !matches!(step, Step::Sync(_)) {
        // Of what is gone, the map ceases to name the sets after a while; a new agent begins a new epoch.
        let config = u64::from(has_died || matches!(step, Step::Restart));
        assert_eq!(Writes { services: 0, ..report.writes }, Writes { config, ..Writes::default() }, "{step:?}");
    }
    while report.error.is_some() {
        let at = bench.reconciler.retry_at().expect("a failed write is tried again");
        report = bench.wait(at - bench.tables.now);
    }
    bench.tables.failing = None;
    assert_eq!(bench.reconciler.refused().collect::<Vec<_>>(), []);
    bench.check();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_maps_follow_the_services(steps in prop::collection::vec(step(), 1..25)) {
        let capacity =
            Capacity { services: 64, frontends: 16, sets: 200, slots: 2000, maglev: 80_000, backends: 1000 };
        let mut bench = Bench::new(capacity);
        for step in &steps {
            run(&mut bench, step);
        }
        bench.tables.allowed.clear();
        (bench.tables.failing, bench.tables.dies_after) = (None, None);
        bench.check_filters();
    }

    #[test]
    fn a_service_is_in_the_maps_whole_or_as_it_was(steps in prop::collection::vec(step(), 1..25)) {
        let mut bench = Bench::new(Capacity { services: 6, frontends: 7, sets: 9, slots: 16, maglev: 1400, backends: 16 });
        // What each service was when it was last not refused.
        let mut in_force = Services::new();
        for step in steps.iter().filter(|step| !matches!(step, Step::Fail(_) | Step::Restart | Step::Kill(_))) {
            let wanted = after(step, &bench.services);
            bench.services = wanted.clone();
            match step {
                Step::Wait(millis) => drop(bench.wait(Duration::from_millis(*millis))),
                _ => drop(bench.sync()),
            }
            let refused: Vec<String> = bench.reconciler.refused().map(|problem| problem.object).collect();
            let is_refused = |name: &ObjectName| refused.contains(&format!("Service {name}"));
            in_force.retain(|name, _| wanted.contains_key(name));
            in_force.extend(wanted.into_iter().filter(|(name, _)| !is_refused(name)));
            prop_assert_eq!(view::of_tables(&bench.tables.maps), view::of_services(&in_force));
            prop_assert_eq!(view::serving(&bench.tables.maps), view::to_serve(&in_force));
        }
        // With all services gone there is room again for what fills the maps.
        bench.services.clear();
        bench.sync();
        bench.wait(crate::checked::GRACE);
        let full = crate::port("full", 1, KEYS[0], "abcdefghijklmno");
        prop_assert_eq!(bench.apply(&[full]).problems, []);
        bench.check();
    }
}
