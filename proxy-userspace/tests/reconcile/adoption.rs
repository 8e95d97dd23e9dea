//! A restart finds what is there and writes the difference.

use proptest::prelude::*;
use proxy_common::wire::{Backend, Frontend, Policy, Service, ServiceName, Set, Sets};
use proxy_userspace::reconcile::{MemoryTables, Reconciler, Writes};

use crate::{Bench, ROOMY, checked::GRACE, key, maglev, port, view};

impl Bench {
    /// A new agent finds everything as it should be.
    fn restart_quietly(&mut self) {
        self.wait(GRACE);
        assert_eq!(self.restart().writes, Writes { config: 1, ..Writes::default() });
    }
}

fn populated() -> Bench {
    let mut bench = Bench::new(ROOMY);
    bench.apply(&[port("web", 1, &["10.96.0.1:80", "node:30000"], "abc")]);
    bench.apply(&[maglev(port("api", 2, &["10.96.0.2:80"], "bcd"))]);
    bench.apply(&[port("empty", 3, &["10.96.0.3:80"], "")]);
    bench.apply(&[port("web", 1, &["10.96.0.1:80", "node:30000"], "acd")]);
    bench
}

#[test]
fn an_unchanged_cluster_writes_nothing_but_a_new_epoch() {
    let mut bench = populated();
    let report = bench.restart();
    // Whoever wrote before may have been stopped at any point: what flows know is looked up once more.
    assert_eq!(report.writes, Writes { config: 1, ..Writes::default() });
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
    // One row is new; the set, its row and its switch; a frontend, a name and an epoch less. The filter has the address
    // of the new endpoint.
    let expected = Writes {
        backends: 1,
        slots: 4,
        sets: 1,
        services: 1,
        frontends: 1,
        names: 1,
        filters: 1,
        config: 1,
        ..Writes::default()
    };
    assert_eq!(writes, expected);
}

#[test]
fn nothing_goes_before_the_first_full_sync() {
    let mut bench = populated();
    let before = view::of_tables(&bench.tables.maps);
    let mut reconciler = Reconciler::adopt(&bench.tables, bench.limits).unwrap();
    bench.tables.failing = Some(0);
    let local_addresses = vec![key("192.0.2.1:0").address];
    let node = proxy_userspace::desired::NodeState { local_addresses, ..Default::default() };
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
    for writes in 0.. {
        let mut bench = populated();
        bench.tables.dies_after = Some(writes);
        bench.services.remove(&port("api", 2, &[], "").name.service());
        let new = port("new", 4, &["10.96.0.2:80", "10.96.0.9:80"], "uv");
        bench.services.insert(new.name.service(), vec![new]);
        let web = maglev(port("web", 1, &["10.96.0.1:80", "node:30001"], "xyz"));
        bench.services.insert(web.name.service(), vec![web]);
        bench.sync();
        let has_died = bench.tables.is_dead();
        assert!(has_died || writes > 25, "only {writes} writes");
        bench.tables.dies_after = None;
        bench.restart();
        bench.check();
        bench.restart_quietly();
        bench.check_filters();
        if !has_died {
            return;
        }
    }
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
    // Two frontends, one of which the filter had to know to the end.
    assert_eq!(report.writes, Writes { frontends: 2, filters: 1, config: 1, ..Writes::default() });
    bench.check();
}

/// A frontend of a service with a value that was made for another key.
fn put(maps: &mut MemoryTables, at: &str, of: &str, service: u32) {
    maps.frontends.insert(key(at), Frontend::new(&key(of), service, Policy(9)));
}

#[test]
fn garbage_is_repaired() {
    let garble: [fn(&mut MemoryTables); 19] = [
        |maps| put(maps, "192.0.2.9:1", "192.0.2.9:1", 77),
        |maps| put(maps, "192.0.2.9:1", "192.0.2.9:1", 1),
        |maps| put(maps, "10.96.0.1:80", "10.96.0.1:80", 3),
        // Torn: the check is that of another key.
        |maps| put(maps, "10.96.0.1:80", "10.96.0.2:80", 1),
        |maps| maps.frontends.retain(|found, _| *found != key("10.96.0.2:80")),
        |maps| maps.slots.fill(9999),
        |maps| maps.maglev.fill(3),
        // Filled by an earlier version in another order.
        |maps| maps.maglev[..1021].reverse(),
        |maps| maps.backends.fill(Backend::default()),
        |maps| maps.sets.fill(Sets::default()),
        |maps| maps.services.fill(Service::default()),
        // The sets of another service, those of another family, and none that exist.
        |maps| maps.services[1].sets4 = maps.services[2].sets4,
        |maps| maps.services[2].sets6 = maps.services[2].sets4,
        |maps| maps.services[1].sets4 = u32::MAX,
        |maps| maps.services[50] = Service { sets4: maps.services[1].sets4, sets6: 7 },
        |maps| {
            let of_web = maps.services[1].sets4 as usize;
            maps.sets[of_web].local = Set { base: u32::MAX, count: 2, maglev_base: 9000, maglev_size: 7 };
        },
        |maps| maps.names.extend([(0, maps.names[&1])]),
        |maps| {
            let twin = maps.names[&1];
            maps.names.insert(9, twin);
            maps.names.insert(5000, twin);
            maps.names.insert(10, ServiceName { protocol: 99, ..twin });
            let (row, free) = (maps.backends[1], 200);
            maps.backends[free] = Backend { service: 1234, flags: u32::MAX, ..row };
            maps.backends[free + 1] = Backend { service: row.service, ..row };
        },
        |maps| {
            maps.frontend_filter.fill(0);
            maps.target_filter.fill(u32::MAX);
        },
    ];
    for (at, garble) in garble.into_iter().enumerate() {
        let mut bench = populated();
        garble(&mut bench.tables.maps);
        // The checks of the maps would find the garbage itself.
        let mut tables = bench.tables.maps.clone();
        let mut reconciler = Reconciler::adopt(&tables, bench.limits).unwrap();
        let report = reconciler.sync(&mut tables, bench.services.clone(), bench.tables.now);
        assert!(report.error.is_none(), "{at}: {report:?}");
        // Places that are all in use by nobody take a grace period to be free.
        reconciler.retry(&mut tables, bench.tables.now + GRACE);
        assert_eq!(reconciler.refused().count(), 0, "{at}");
        bench.tables.maps = tables;
        bench.check();
        bench.restart_quietly();
        bench.check_filters();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_garbage_panics(
        words in prop::collection::vec((0..6_usize, 0..40_usize, 0..30_u32), 0..20),
        rows in prop::collection::vec((1..40_usize, any::<[u32; 4]>(), 0..9_u32, 0..5_u32), 0..9),
        sets in prop::collection::vec((1..9_usize, 0..5_u32, [0..40_u32, 0..9, 0..40, 0..600]), 0..4),
        frontends in prop::collection::vec((0..5_u32, 0..5_u32), 0..4),
    ) {
        let mut bench = populated();
        let maps = &mut bench.tables.maps;
        for (kind, at, value) in words {
            match kind {
                0 => maps.slots[at] = value,
                1 => maps.maglev[at] = value,
                2 => maps.services[at].sets4 = value,
                3 => maps.services[at].sets6 = value,
                4 => maps.target_filter[at] = value,
                _ => maps.backends[at].service = value,
            }
        }
        for (at, address, service, flags) in rows {
            maps.backends[at].address = proxy_common::wire::Address(address);
            (maps.backends[at].service, maps.backends[at].flags) = (service, flags);
        }
        for (at, service, [base, count, maglev_base, maglev_size]) in sets {
            let set = Set { base, count, maglev_base, maglev_size };
            maps.sets[at] = Sets { cluster: set, local: set, service, flags: count, ..Sets::default() };
        }
        for (last, service) in frontends {
            let key = key(&format!("10.96.0.{last}:80"));
            maps.frontends.insert(key, Frontend::new(&key, service, Policy(service)));
        }
        let mut tables = maps.clone();
        let mut reconciler = Reconciler::adopt(&tables, bench.limits).unwrap();
        let report = reconciler.sync(&mut tables, bench.services.clone(), bench.tables.now);
        prop_assert!(report.error.is_none());
        bench.tables.maps = tables;
        bench.check();
    }
}
