//! A restart finds what is there and writes the difference.

use proptest::prelude::*;
use proxy_common::wire::{Backend, Frontend, ServiceName, Set};
use proxy_userspace::reconcile::{MemoryTables, Reconciler};

use crate::{Bench, ROOMY, checked::GRACE, key, maglev, port, view};

fn populated() -> Bench {
    let mut bench = Bench::new(ROOMY);
    bench.apply(&[port("web", 1, &["10.96.0.1:80", "node:30000"], "abc")]);
    bench.apply(&[maglev(port("api", 2, &["10.96.0.2:80"], "bcd"))]);
    bench.apply(&[port("empty", 3, &["10.96.0.3:80"], "")]);
    bench.apply(&[port("web", 1, &["10.96.0.1:80", "node:30000"], "acd")]);
    bench
}

#[test]
fn an_unchanged_cluster_writes_nothing() {
    let mut bench = populated();
    let report = bench.restart();
    assert_eq!(report.writes.total(), 0);
    bench.check();
    // Nor does it later.
    bench.wait(GRACE);
    assert_eq!(bench.sync().writes.total(), 0);
}

#[test]
fn a_difference_is_written_and_nothing_else() {
    let mut bench = populated();
    let web = port("web", 1, &["10.96.0.1:80", "node:30000"], "acde");
    bench.services.insert(web.name.service(), vec![web]);
    bench.services.remove(&port("empty", 3, &[], "").name.service());
    let writes = bench.restart().writes;
    bench.check();
    assert_eq!((writes.backends, writes.slots, writes.frontends, writes.services, writes.maglev), (1, 4, 3, 1, 0));
}

#[test]
fn nothing_goes_before_the_first_full_sync() {
    let mut bench = populated();
    let before = view::of_tables(&bench.tables.maps);
    let mut reconciler = Reconciler::adopt(&bench.tables, bench.limits).unwrap();
    bench.tables.failing = Some(0);
    let node = proxy_userspace::desired::NodeState::default();
    let now = bench.tables.now;
    assert!(reconciler.set_node(&mut bench.tables, &node, now).error.is_some());
    let now = reconciler.retry_at().unwrap();
    assert!(reconciler.retry(&mut bench.tables, now).error.is_none());
    assert_eq!(view::of_tables(&bench.tables.maps), before);
    reconciler.sync(&mut bench.tables, [], now);
    assert!(bench.tables.maps.frontends.is_empty());
}

#[test]
fn an_agent_that_died_between_two_writes_leaves_no_trace() {
    // Rows and sets are written, the frontends still name the old ones.
    let mut bench = populated();
    bench.tables.failing = Some(0);
    assert!(bench.apply(&[port("web", 1, &["10.96.0.1:80", "node:30000"], "xyz")]).error.is_some());
    bench.tables.failing = None;
    bench.restart();
    bench.check();
    assert_eq!(bench.restart().writes.total(), 0);
}

#[test]
fn what_somebody_else_changed_is_repaired() {
    let mut bench = populated();
    bench.tables.maps.frontends.remove(&key("10.96.0.1:80"));
    let frontend = bench.tables.maps.frontends[&key("10.96.0.2:80")];
    bench.tables.maps.frontends.insert(key("10.96.0.66:80"), frontend);
    let now = bench.tables.now;
    let report = bench.reconciler.repair(&mut bench.tables, now);
    assert!(report.error.is_none());
    assert_eq!(report.writes.total(), 2);
    bench.check();
}

#[test]
fn garbage_is_repaired() {
    let unknown = Frontend {
        service: 77,
        flags: 0,
        inside: Set { base: 500, count: 100, ..Set::default() },
        outside: Set { base: u32::MAX, count: 2, maglev_base: 9000, maglev_size: 7 },
    };
    let garble: [fn(&mut MemoryTables, Frontend); 10] = [
        |maps, unknown| {
            maps.frontends.insert(key("192.0.2.9:1"), unknown);
        },
        |maps, unknown| {
            maps.frontends.insert(key("10.96.0.1:80"), Frontend { service: 1, ..unknown });
        },
        |maps, unknown| {
            maps.frontends.insert(key("10.96.0.1:80"), unknown);
        },
        |maps, _| {
            maps.frontends.remove(&key("10.96.0.2:80"));
        },
        |maps, _| maps.slots.fill(9999),
        |maps, _| maps.maglev.fill(3),
        // Filled by an earlier version in another order.
        |maps, _| maps.maglev[..1021].reverse(),
        |maps, _| maps.backends.fill(Backend::default()),
        |maps, _| {
            maps.services.insert(0, maps.services[&1]);
        },
        |maps, _| {
            let twin = maps.services[&1];
            maps.services.insert(9, twin);
            maps.services.insert(5000, twin);
            maps.services.insert(10, ServiceName { protocol: 99, ..twin });
            let (row, free) = (maps.backends[1], 200);
            maps.backends[free] = Backend { service: 1234, flags: u32::MAX, ..row };
            maps.backends[free + 1] = Backend { service: row.service, ..row };
        },
    ];
    for (at, garble) in garble.into_iter().enumerate() {
        let mut bench = populated();
        garble(&mut bench.tables.maps, unknown);
        // The checks of the maps would find the garbage itself.
        let mut tables = bench.tables.maps.clone();
        let mut reconciler = Reconciler::adopt(&tables, bench.limits).unwrap();
        let report = reconciler.sync(&mut tables, bench.services.clone(), bench.tables.now);
        assert!(report.error.is_none(), "{at}: {report:?}");
        // Slots that are all in use by nobody take a grace period to be free.
        reconciler.retry(&mut tables, bench.tables.now + GRACE);
        assert_eq!(reconciler.refused().count(), 0, "{at}");
        bench.tables.maps = tables;
        bench.check();
        assert_eq!(bench.restart().writes.total(), 0, "{at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_garbage_panics(
        words in prop::collection::vec((0..3_usize, 0..40_usize, 0..30_u32), 0..20),
        rows in prop::collection::vec((1..40_usize, any::<[u32; 4]>(), 0..9_u32, 0..5_u32), 0..9),
        sets in prop::collection::vec((0..5_u32, [0..40_u32, 0..9, 0..40, 0..600]), 0..4),
    ) {
        let mut bench = populated();
        let maps = &mut bench.tables.maps;
        for (kind, at, value) in words {
            match kind {
                0 => maps.slots[at] = value,
                1 => maps.maglev[at] = value,
                _ => maps.backends[at].service = value,
            }
        }
        for (at, address, service, flags) in rows {
            maps.backends[at].address = proxy_common::wire::Address(address);
            (maps.backends[at].service, maps.backends[at].flags) = (service, flags);
        }
        for (service, [base, count, maglev_base, maglev_size]) in sets {
            let set = Set { base, count, maglev_base, maglev_size };
            let key = key(&format!("10.96.0.{service}:80"));
            maps.frontends.insert(key, Frontend { service, flags: 0, inside: set, outside: set });
        }
        let mut tables = maps.clone();
        let mut reconciler = Reconciler::adopt(&tables, bench.limits).unwrap();
        let report = reconciler.sync(&mut tables, bench.services.clone(), bench.tables.now);
        prop_assert!(report.error.is_none());
        bench.tables.maps = tables;
        bench.check();
    }
}
