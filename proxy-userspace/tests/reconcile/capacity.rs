//! What does not fit is refused whole, by name, and waits.

use std::{collections::BTreeMap, time::Duration};

use proxy_userspace::{
    desired::ServicePort,
    model::ObjectName,
    reconcile::{Capacity, Limits, MemoryTables, Reconciler},
};

use crate::{Bench, ROOMY, checked::GRACE, maglev, port, view};

fn first_two(bench: &Bench) -> BTreeMap<ObjectName, Vec<ServicePort>> {
    bench.services.clone().into_iter().take(2).collect()
}

#[test]
fn the_last_of_too_many_services_is_refused_and_named() {
    let mut bench = Bench::with(ROOMY, Limits { services: 2, grace: GRACE });
    // The youngest comes first, in every order of the list.
    for (name, created) in [("c", 9), ("a", 1), ("b", 2)] {
        let web = port(name, created, &[&format!("10.96.0.{created}:80")], "abc");
        bench.services.insert(web.name.service(), vec![web]);
    }
    let report = bench.sync();
    let shown: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        ["Service default/c: refused as a whole: the configured maximum of 2 services is reached; \
          what an earlier version of it was given stays in force"]
    );
    assert_eq!(bench.reconciler.refused().collect::<Vec<_>>(), report.problems);
    assert_eq!(view::of_tables(&bench.tables.maps), view::of_services(&first_two(&bench)));
    assert_eq!(bench.sync().problems, []);

    // The services that are carried may change all the same, and room for the refused one is used.
    assert_eq!(bench.apply(&[port("b", 2, &["10.96.0.2:80"], "abcd")]).problems, []);
    bench.remove(&port("a", 1, &[], ""));
    bench.check();
    assert_eq!(bench.reconciler.refused().count(), 0);
}

#[test]
fn the_default_maximum_is_10_000_services() {
    let capacity = Capacity { services: 32_768, frontends: 65_536, sets: 10_001, ..ROOMY };
    let mut tables = MemoryTables::new(capacity);
    let mut reconciler = Reconciler::adopt(&tables, Limits::default()).unwrap();
    let services = (0..10_001_u32).map(|at| {
        let [_, _, high, low] = at.to_be_bytes();
        let web = port(&format!("s{at}"), i64::from(at), &[&format!("10.96.{high}.{low}:80")], "");
        (web.name.service(), vec![web])
    });
    let report = reconciler.sync(&mut tables, services, Duration::ZERO);
    assert_eq!(report.problems.len(), 1);
    assert_eq!(report.problems[0].object, "Service default/s10000");
    assert_eq!((tables.names.len(), tables.frontends.len()), (10_000, 10_000));
}

/// Fills one map with a service each way and expects the second to be refused until the first is gone.
fn refuses(capacity: Capacity, fits: &[ServicePort], too_much: &[ServicePort], why: &str) {
    let mut bench = Bench::new(capacity);
    assert_eq!(bench.apply(fits).problems, []);
    let before = bench.tables.maps.clone();
    let report = bench.apply(too_much);
    assert_eq!(report.writes.total(), 0);
    assert_eq!(format!("{before:?}"), format!("{:?}", bench.tables.maps));
    assert_eq!(report.problems.len(), 1);
    assert!(report.problems[0].message.contains(why), "{}", report.problems[0]);

    bench.remove(&fits[0]);
    bench.wait(GRACE);
    bench.check();
    assert_eq!(bench.reconciler.retry_at(), None);
}

#[test]
fn every_map_can_be_the_one_that_is_full() {
    let a = port("a", 1, &["10.96.0.1:80", "10.96.0.1:81"], "abc");
    let b = port("b", 2, &["10.96.0.2:80", "10.96.0.2:81"], "abc");
    let mut second = b.clone();
    second.name.port = "https".into();
    second.frontends.remove(0);
    let b = [ServicePort { frontends: b.frontends[..1].to_vec(), ..b.clone() }, second];
    let a = [a];
    refuses(Capacity { services: 2, ..ROOMY }, &a, &b, "2 service ports");
    refuses(Capacity { frontends: 3, ..ROOMY }, &a, &b, "3 frontends");
    refuses(Capacity { sets: 3, ..ROOMY }, &a, &b, "3 rows");
    refuses(Capacity { slots: 8, ..ROOMY }, &a, &b, "8 slots");
    refuses(Capacity { backends: 9, ..ROOMY }, &a, &b, "9 rows");
    let (a, b) = (a.map(maglev), b.map(maglev));
    refuses(Capacity { maglev: 2100, ..ROOMY }, &a, &b, "2100 elements");
}

#[test]
fn what_a_refused_service_had_stays_in_force_until_the_rest_fits() {
    let mut bench = Bench::new(Capacity { slots: 8, ..ROOMY });
    bench.apply(&[port("a", 1, &["10.96.0.1:80"], "abc")]);
    let in_force = bench.services.clone();
    // Old and new set together need nine slots.
    let report = bench.apply(&[port("a", 1, &["10.96.0.1:80"], "abcdef")]);
    assert_eq!(report.problems.len(), 1);
    assert_eq!(view::of_tables(&bench.tables.maps), view::of_services(&in_force));
    // A smaller change is not held up.
    assert_eq!(bench.apply(&[port("a", 1, &["10.96.0.1:80"], "abcd")]).problems, []);
    bench.check();
}

#[test]
fn nothing_leaks() {
    let mut bench = Bench::new(Capacity { services: 4, frontends: 4, sets: 3, slots: 24, maglev: 3500, backends: 25 });
    for round in 0..50_u8 {
        let endpoints: String = (0..12).map(|at| char::from(b'A' + (round + at) % 30)).collect();
        let web = maglev(port("a", 1, &["10.96.0.1:80"], &endpoints[..8]));
        assert_eq!(bench.apply(std::slice::from_ref(&web)).problems, []);
        bench.wait(GRACE);
        assert_eq!(bench.apply(&[port("a", 1, &["10.96.0.1:81"], &endpoints)]).problems, []);
        bench.check();
        bench.wait(GRACE);
        bench.remove(&web);
        bench.check();
        bench.wait(GRACE);
    }
}
