//! Work is proportional to the change, and a switch is one.

use std::time::Duration;

use proxy_userspace::reconcile::Writes;

use crate::{Bench, ROOMY, maglev, port, view};

#[test]
fn an_unchanged_service_writes_nothing() {
    let mut bench = Bench::new(ROOMY);
    let web = port("web", 1, &["10.96.0.1:80"], "abc");
    assert_eq!(
        bench.apply(std::slice::from_ref(&web)).writes,
        Writes { services: 1, backends: 3, slots: 3, frontends: 1, ..Writes::default() }
    );
    bench.apply(&[port("other", 1, &["10.96.0.2:80"], "abc")]);
    assert_eq!(bench.apply(&[web]).writes.total(), 0);
    assert_eq!(bench.sync().writes.total(), 0);
    bench.check();
}

#[test]
fn a_changed_endpoint_writes_its_row_the_set_and_the_frontends() {
    let mut bench = Bench::new(ROOMY);
    let frontends = ["10.96.0.1:80", "192.0.2.1:80", "node:30000"];
    bench.apply(&[port("web", 1, &frontends, "abc")]);
    bench.apply(&[port("other", 1, &["10.96.0.2:80"], "abc")]);
    let report = bench.apply(&[port("web", 1, &frontends, "acd")]);
    // One row is new and one retired.
    assert_eq!(report.writes, Writes { backends: 2, slots: 3, frontends: 3, ..Writes::default() });
    bench.check();
}

#[test]
fn endpoints_keep_their_ids() {
    let mut bench = Bench::new(ROOMY);
    bench.apply(&[port("web", 1, &["10.96.0.1:80"], "abc")]);
    let rows = bench.tables.maps.backends.clone();
    bench.apply(&[port("web", 1, &["10.96.0.1:80"], "0abcd")]);
    assert_eq!(rows[1..4], bench.tables.maps.backends[1..4]);
    bench.restart();
    assert_eq!(rows[1..4], bench.tables.maps.backends[1..4]);
}

#[test]
fn an_endpoint_that_moves_to_this_node_keeps_its_flows() {
    let mut bench = Bench::new(ROOMY);
    let mut web = port("web", 1, &["10.96.0.1:80"], "ab");
    bench.apply(std::slice::from_ref(&web));
    web.backends[1].local = true;
    let report = bench.apply(&[web]);
    assert_eq!(report.writes, Writes { backends: 1, ..Writes::default() });
    bench.check();
}

#[test]
fn a_service_port_that_loses_its_last_endpoint_is_rejected_and_not_forgotten() {
    let mut bench = Bench::new(ROOMY);
    bench.apply(&[port("web", 1, &["10.96.0.1:80"], "ab")]);
    bench.apply(&[port("web", 1, &["10.96.0.1:80"], "")]);
    bench.check();
    assert_eq!(bench.tables.maps.frontends.values().map(|value| value.inside.count).collect::<Vec<_>>(), [0]);
    assert!(view::serving(&bench.tables.maps).is_empty());
}

#[test]
fn the_algorithm_can_change() {
    let mut bench = Bench::new(ROOMY);
    let web = port("web", 1, &["10.96.0.1:80"], "abc");
    bench.apply(std::slice::from_ref(&web));
    bench.apply(&[maglev(web.clone())]);
    bench.check();
    assert_eq!(bench.tables.maps.services[&1].algorithm, 1);
    bench.apply(&[web]);
    bench.check();
    assert_eq!(bench.tables.maps.services[&1].algorithm, 0);
}

#[test]
fn the_older_of_two_services_has_a_frontend_that_both_claim() {
    let mut bench = Bench::new(ROOMY);
    let young = port("a", 2, &["10.96.0.1:80", "192.0.2.1:80"], "ab");
    let old = port("b", 1, &["10.96.0.2:80", "192.0.2.1:80"], "cd");
    assert_eq!(bench.apply(&[young]).problems, []);
    let report = bench.apply(std::slice::from_ref(&old));
    bench.check();
    let shown: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["Service default/a:http/TCP: 192.0.2.1:80 belongs to default/b:http/TCP, which is older"]);
    assert_eq!(bench.sync().problems, [], "a problem that lasts is not repeated");
    bench.remove(&old);
    bench.check();
    assert_eq!(bench.apply(&[old]).problems.len(), 1);
    bench.check();
}

#[test]
fn a_failed_write_is_made_up_for() {
    let mut bench = Bench::new(ROOMY);
    bench.apply(&[port("web", 1, &["10.96.0.1:80"], "abc")]);
    for failing in 0..4 {
        let frontends = [["10.96.0.1:80", "192.0.2.1:80"], ["10.96.0.9:80", "192.0.2.2:80"]][failing % 2];
        bench.tables.failing = Some(failing as u32);
        let report = bench.apply(&[port("web", 1, &frontends, if failing % 2 == 0 { "abcd" } else { "be" })]);
        let other = port("other", 1, &["10.96.0.2:80"], "abc");
        bench.apply(&[other]);
        if report.error.is_some() {
            assert_eq!(bench.reconciler.retry_at(), Some(bench.tables.now + Duration::from_secs(1)));
        }
        bench.tables.failing = None;
        assert!(bench.wait(Duration::from_secs(1)).error.is_none());
        bench.check();
        assert_eq!(bench.reconciler.retry_at(), None);
        bench.wait(Duration::from_secs(5));
    }
}
