//! Whatever happens in whatever order: the maps end up as if they were compiled from scratch, and every packet in
//! between finds the old state of its service or the new one.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;
use proxy_userspace::{
    desired::{Endpoint, Frontend, ServicePort, ServicePortName},
    model::{Algorithm, ObjectName, Protocol},
    reconcile::{Capacity, Writes},
};

use crate::{Bench, key, view};

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
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const KEYS: [&str; 6] = ["10.96.0.1:80", "10.96.0.2:80", "192.0.2.1:80", "192.0.2.2:80", "node:30000", "node:30001"];

fn service_port(name: usize, created: i64, port: &'static str) -> impl Strategy<Value = ServicePort> {
    let endpoints = prop::collection::btree_map(1..7_u8, any::<bool>(), 0..6);
    let frontends = prop::collection::btree_map(0..KEYS.len(), any::<[u8; 3]>(), 0..4);
    (endpoints, frontends, any::<[u8; 2]>(), 0..4_u8).prop_map(move |(endpoints, frontends, masks, algorithm)| {
        let backends: Vec<Endpoint> = endpoints
            .into_iter()
            .map(|(last, local)| Endpoint { address: [10, 1, 0, last].into(), port: 8080, local })
            .collect();
        let mut sets: Vec<Vec<u32>> = Vec::new();
        for mask in masks {
            let set: Vec<u32> = (0..backends.len() as u32).filter(|at| mask >> at & 1 != 0).collect();
            if !set.is_empty() && !sets.contains(&set) {
                sets.push(set);
            }
        }
        let pick = |choice: u8| Some(usize::from(choice) % 3).filter(|&at| at < sets.len());
        let frontend = |(at, [inside, outside, flags]): (usize, [u8; 3])| {
            let (inside, outside) = (pick(inside), pick(outside));
            Frontend { key: key(KEYS[at]), flags: u32::from(flags & 3), inside, outside }
        };
        ServicePort {
            name: ServicePortName {
                namespace: "default".into(),
                name: NAMES[name].into(),
                port: port.into(),
                protocol: Protocol::Tcp,
            },
            created,
            algorithm: if algorithm == 0 { Algorithm::Maglev } else { Algorithm::Random },
            frontends: frontends.into_iter().map(frontend).collect(),
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
    ]
}

type Services = BTreeMap<ObjectName, Vec<ServicePort>>;

fn after(step: &Step, services: &Services) -> Services {
    let mut services = services.clone();
    match step {
        Step::Apply(ports) => drop(services.insert(ports[0].name.service(), ports.clone())),
        Step::Remove(name) => drop(services.remove(&ObjectName::new("default", NAMES[*name]))),
        Step::Sync(list) => services = list.iter().map(|ports| (ports[0].name.service(), ports.clone())).collect(),
        Step::Restart | Step::Wait(_) | Step::Fail(_) => {}
    }
    services
}

fn run(bench: &mut Bench, step: &Step) {
    let wanted = after(step, &bench.services);
    bench.tables.allowed = vec![view::of_tables(&bench.tables.maps), view::of_services(&wanted)];
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
    };
    if unchanged && !matches!(step, Step::Sync(_)) {
        // A set that no frontend names, since an older service has them all, is not found again: that is all.
        assert_eq!(Writes { slots: 0, maglev: 0, ..report.writes }, Writes::default(), "{step:?}");
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
        let capacity = Capacity { services: 64, frontends: 16, slots: 2000, maglev: 80_000, backends: 1000 };
        let mut bench = Bench::new(capacity);
        for step in &steps {
            run(&mut bench, step);
        }
    }

    #[test]
    fn a_service_is_in_the_maps_whole_or_as_it_was(steps in prop::collection::vec(step(), 1..25)) {
        let mut bench = Bench::new(Capacity { services: 6, frontends: 7, slots: 16, maglev: 1400, backends: 16 });
        // What each service was when it was last not refused.
        let mut in_force = Services::new();
        for step in steps.iter().filter(|step| !matches!(step, Step::Fail(_) | Step::Restart)) {
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
        let full = crate::port("full", 1, &KEYS, "abcdefghijklmno");
        prop_assert_eq!(bench.apply(&[full]).problems, []);
        bench.check();
    }
}
