//! Work is proportional to the change, and a switch is one.

use std::time::Duration;

use proxy_common::wire::{Kind, Policy};
use proxy_userspace::{
    desired::{ServicePort, Sets},
    reconcile::{FlowNeeds, Writes},
};

use crate::{Bench, ROOMY, checked::GRACE, key, maglev, port, view};

#[test]
fn an_unchanged_service_writes_nothing() {
    let mut bench = Bench::new(ROOMY);
    let web = port("web", 1, &["10.96.0.1:80"], "abc");
    let expected = Writes {
        names: 1,
        frontends: 1,
        services: 1,
        sets: 1,
        slots: 3,
        backends: 3,
        filters: 4,
        config: 1,
        ..Writes::default()
    };
    assert_eq!(bench.apply(std::slice::from_ref(&web)).writes, expected);
    bench.apply(&[port("other", 1, &["10.96.0.2:80"], "abc")]);
    assert_eq!(bench.apply(&[web]).writes.total(), 0);
    assert_eq!(bench.sync().writes.total(), 0);
    bench.check();
}

#[test]
fn a_changed_endpoint_writes_its_row_and_the_set_and_makes_no_system_call() {
    let mut bench = Bench::new(ROOMY);
    let frontends = ["10.96.0.1:80", "192.0.2.1:80", "node:30000"];
    bench.apply(&[port("web", 1, &frontends, "abc")]);
    bench.apply(&[port("other", 1, &["10.96.0.2:80"], "abc")]);
    let report = bench.apply(&[port("web", 1, &frontends, "acd")]);
    // One row is new and one retired, so that flows ask again; the set, its row and the switch.
    let expected = Writes { backends: 2, slots: 3, sets: 1, services: 1, filters: 1, config: 1, ..Writes::default() };
    assert_eq!(report.writes, expected);
    assert_eq!(report.writes.by_system_call(), 0);
    // Nobody has to ask again for one more.
    let report = bench.apply(&[port("web", 1, &frontends, "abcd")]);
    assert_eq!(report.writes, Writes { backends: 1, slots: 4, sets: 1, services: 1, ..Writes::default() });
    for endpoints in ["", "a", "abcdefgh"] {
        let writes = bench.apply(&[maglev(port("web", 1, &frontends, endpoints))]).writes;
        assert_eq!(writes.by_system_call() - writes.names, 0, "{endpoints:?}");
        bench.check();
    }
}

#[test]
fn a_changed_policy_writes_the_frontend_only() {
    let mut bench = Bench::new(ROOMY);
    let mut web = port("web", 1, &["10.96.0.1:80", "192.0.2.1:80"], "abc");
    bench.apply(std::slice::from_ref(&web));
    let epoch = bench.tables.maps.config.epoch;
    web.frontends[1].policy = Policy::new(Kind::ExternalIp);
    assert_eq!(bench.apply(&[web]).writes, Writes { frontends: 1, ..Writes::default() });
    assert_eq!(bench.tables.maps.config.epoch, epoch, "flows keep what they have");
    bench.check();
}

#[test]
fn a_set_that_stays_keeps_its_slots() {
    let mut bench = Bench::new(ROOMY);
    let mut web = port("web", 1, &["10.96.0.1:80"], "abc");
    let local = |web: &mut ServicePort, local: &[u32]| web.sets[0].as_mut().unwrap().local = local.to_vec();
    local(&mut web, &[1]);
    bench.apply(std::slice::from_ref(&web));
    local(&mut web, &[2]);
    assert_eq!(bench.apply(&[web.clone()]).writes, Writes { slots: 1, sets: 1, services: 1, ..Writes::default() });
    // Both sets are one.
    local(&mut web, &[0, 1, 2]);
    assert_eq!(bench.apply(&[web.clone()]).writes, Writes { sets: 1, services: 1, ..Writes::default() });
    bench.check();
    web.sets[0].as_mut().unwrap().has_endpoints = false;
    assert_eq!(bench.apply(&[web]).writes, Writes { sets: 1, services: 1, ..Writes::default() });
    bench.check();
}

#[test]
fn a_family_that_goes_leaves_its_sets_to_those_on_their_way() {
    let mut bench = Bench::new(ROOMY);
    let v4 = port("web", 1, &["10.96.0.1:80"], "ab");
    let mut both = port("web", 1, &["10.96.0.1:80", "[fd96::1]:80"], "ab");
    both.sets[1] = Some(Sets::default());
    bench.apply(std::slice::from_ref(&both));
    let named = bench.tables.maps.services[1];
    bench.apply(std::slice::from_ref(&v4));
    bench.check();
    assert_eq!(bench.tables.maps.services[1], named);
    // It returns in time: nothing of what was is used again, and nothing is taken from it.
    bench.apply(&[both]);
    bench.wait(GRACE);
    bench.check();
    bench.apply(&[v4]);
    assert_ne!(bench.tables.maps.services[1].sets6, 0);
    bench.wait(GRACE);
    assert_eq!(bench.tables.maps.services[1].sets6, 0);
    bench.check();
}

#[test]
fn a_bit_of_a_filter_stays_as_long_as_a_flow_needs_it() {
    let mut bench = Bench::new(ROOMY);
    let web = port("web", 1, &["10.96.0.1:80"], "a");
    bench.apply(std::slice::from_ref(&web));
    bench.remove(&web);
    let ones = |bench: &Bench| {
        let ones = |words: &[u32]| words.iter().map(|word| word.count_ones()).sum::<u32>();
        (ones(&bench.tables.maps.frontend_filter), ones(&bench.tables.maps.target_filter))
    };
    assert_eq!(ones(&bench), (1, 1));
    let mut needs = FlowNeeds::none();
    needs.add_frontend(&key("10.96.0.1:80").address);
    bench.wait(GRACE);
    let now = bench.tables.now;
    // What was seen before a late reader of the frontend was through says nothing.
    let early = now - Duration::from_millis(1);
    assert_eq!(bench.reconciler.forget(&mut bench.tables, &FlowNeeds::none(), early).writes.total(), 0);
    assert_eq!(bench.reconciler.forget(&mut bench.tables, &needs, now).writes.filters, 1);
    assert_eq!(ones(&bench), (1, 0));
    // It is needed again, and then not any more.
    bench.apply(std::slice::from_ref(&web));
    assert_eq!(bench.reconciler.forget(&mut bench.tables, &FlowNeeds::none(), now).writes.total(), 0);
    bench.remove(&web);
    bench.wait(GRACE);
    let now = bench.tables.now;
    assert_eq!(bench.reconciler.forget(&mut bench.tables, &FlowNeeds::none(), now).writes.filters, 2);
    assert_eq!(ones(&bench), (0, 0));
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
    let sets = bench.tables.maps.services[1].sets4;
    assert_eq!(bench.tables.maps.sets[sets as usize].cluster.count, 0);
    assert!(view::serving(&bench.tables.maps).is_empty());
}

#[test]
fn the_algorithm_can_change() {
    let mut bench = Bench::new(ROOMY);
    let web = port("web", 1, &["10.96.0.1:80"], "abc");
    bench.apply(std::slice::from_ref(&web));
    bench.apply(&[maglev(web.clone())]);
    bench.check();
    assert_eq!(bench.tables.maps.names[&1].algorithm, 1);
    bench.apply(&[web]);
    bench.check();
    assert_eq!(bench.tables.maps.names[&1].algorithm, 0);
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
