//! Addresses, devices and configuration of the node.

use proxy_common::wire::{Address, Config, Device, Filter, Network4, Timeouts};
use proxy_userspace::{
    desired::NodeState,
    reconcile::{FlowNeeds, Writes},
};

use crate::{Bench, ROOMY, checked::GRACE, port};

fn address(last: u8) -> Address {
    Address::from(std::net::IpAddr::from([192, 0, 2, last]))
}

fn state(addresses: &[u8]) -> NodeState {
    let device = |&last: &u8| {
        let mut device = Device::default();
        device.networks4[0] = Network4 { address: address(last).0[3], mask: u32::MAX };
        (u32::from(last), device)
    };
    NodeState {
        config: Config { timeouts: Timeouts { udp: 30, ..Timeouts::default() }, node_port_min: 1, ..Config::default() },
        local_addresses: addresses.iter().map(|&last| address(last)).collect(),
        devices: addresses.iter().map(device).collect(),
    }
}

impl Bench {
    fn set_node(&mut self, state: &NodeState) -> Writes {
        let now = self.tables.now;
        let report = self.reconciler.set_node(&mut self.tables, state, now);
        assert!(report.error.is_none());
        report.writes
    }

    fn check_node(&self, state: &NodeState) {
        let maps = &self.tables.maps;
        assert_eq!(maps.local_addresses.iter().copied().collect::<Vec<_>>(), state.local_addresses);
        assert_eq!(maps.devices.iter().map(|(&at, &device)| (at, device)).collect::<Vec<_>>(), state.devices);
    }
}

#[test]
fn only_differences_are_written() {
    let mut bench = Bench::new(ROOMY);
    let writes = bench.set_node(&state(&[1, 2]));
    assert_eq!(writes, Writes { local_addresses: 2, devices: 2, filters: 2, config: 1, ..Writes::default() });
    assert_eq!(bench.set_node(&state(&[1, 2])).total(), 0);
    let writes = bench.set_node(&state(&[2, 3]));
    assert_eq!(writes, Writes { local_addresses: 2, devices: 2, filters: 1, ..Writes::default() });
    bench.check_node(&state(&[2, 3]));
}

#[test]
fn a_restart_knows_addresses_and_devices() {
    let mut bench = Bench::new(ROOMY);
    bench.set_node(&state(&[1, 2]));
    bench.restart();
    // The configuration is one row, cheaper written than compared.
    assert_eq!(
        bench.set_node(&state(&[2, 4])),
        Writes { local_addresses: 2, devices: 2, filters: 1, config: 1, ..Writes::default() }
    );
    bench.check_node(&state(&[2, 4]));
}

#[test]
fn a_failed_write_is_made_up_for() {
    for failing in 0..4 {
        let mut bench = Bench::new(ROOMY);
        bench.set_node(&state(&[1, 2]));
        bench.tables.failing = Some(failing);
        let now = bench.tables.now;
        let timeouts = Timeouts { udp: 40, ..Timeouts::default() };
        let wanted = NodeState { config: Config { timeouts, ..Config::default() }, ..state(&[3, 4]) };
        assert!(bench.reconciler.set_node(&mut bench.tables, &wanted, now).error.is_some());
        bench.wait(std::time::Duration::from_secs(1));
        bench.check_node(&wanted);
        assert_eq!(bench.tables.maps.config.timeouts, timeouts);
    }
}

#[test]
fn the_range_of_node_ports_follows_the_services() {
    let mut bench = Bench::new(ROOMY);
    bench.set_node(&state(&[1]));
    let range = |bench: &Bench| {
        let config = bench.tables.maps.config;
        (config.node_port_min, config.node_port_max)
    };
    assert_eq!(range(&bench), (1, 0));
    let (low, high) = (port("low", 1, &["node:30000"], "a"), port("high", 1, &["node:31000"], "a"));
    bench.apply(std::slice::from_ref(&low));
    bench.apply(&[high]);
    assert_eq!(range(&bench), (30000, 31000));
    bench.restart();
    bench.set_node(&state(&[1]));
    assert_eq!(range(&bench), (30000, 31000));
    bench.remove(&low);
    assert_eq!(range(&bench), (31000, 31000));
}

#[test]
fn addresses_to_which_replies_come_are_in_the_filter_as_long_as_the_node_has_them() {
    let mut bench = Bench::new(ROOMY);
    let with = |node: u8, addresses: &[u8]| {
        let mut state = state(addresses);
        state.config.node4 = address(node);
        state
    };
    let has = |bench: &Bench, last: u8| {
        let (word, bit) = Filter::place(Filter::frontend(&address(last)));
        bench.tables.maps.frontend_filter[word as usize] & bit != 0
    };
    let sweep = |bench: &mut Bench| {
        bench.wait(GRACE);
        let now = bench.tables.now;
        bench.reconciler.forget(&mut bench.tables, &FlowNeeds::none(), now);
    };
    bench.set_node(&with(9, &[1, 2]));
    assert!([1, 2, 9].iter().all(|&last| has(&bench, last)));
    bench.restart();
    sweep(&mut bench);
    assert!([1, 2, 9].iter().all(|&last| has(&bench, last)), "a new agent knows them");
    bench.set_node(&with(8, &[2]));
    assert!([1, 2, 8, 9].iter().all(|&last| has(&bench, last)), "flows may still use them");
    sweep(&mut bench);
    assert!(has(&bench, 2) && has(&bench, 8) && !has(&bench, 1) && !has(&bench, 9));
    // An address that is a frontend's too stays for its sake.
    bench.apply(&[port("web", 1, &["192.0.2.2:80"], "a")]);
    bench.set_node(&with(8, &[]));
    sweep(&mut bench);
    assert!(has(&bench, 2));
}

#[test]
fn the_epoch_is_never_lowered() {
    let mut bench = Bench::new(ROOMY);
    let epoch = |bench: &Bench| bench.tables.maps.config.epoch;
    bench.set_node(&state(&[1]));
    let (web, other) = (port("web", 2, &["10.96.0.1:80"], "ab"), port("other", 1, &["10.96.0.1:80"], "c"));
    let mut last = epoch(&bench);
    let mut raised = |bench: &Bench, what: &str| {
        assert_eq!(epoch(bench), last + 1, "{what}");
        last += 1;
    };
    bench.apply(std::slice::from_ref(&web));
    raised(&bench, "a frontend that may have been a NodePort's before");
    bench.apply(&[port("web", 2, &["10.96.0.1:80"], "b")]);
    raised(&bench, "an endpoint is gone");
    bench.apply(std::slice::from_ref(&other));
    raised(&bench, "a frontend has another owner");
    bench.remove(&other);
    raised(&bench, "and another one, and an endpoint is gone");
    bench.remove(&web);
    raised(&bench, "a frontend is gone");
    bench.restart();
    raised(&bench, "a new agent");
    bench.set_node(&state(&[2]));
    bench.apply(&[port("web", 2, &["node:30000"], "ab")]);
    raised(&bench, "the configuration is written, and a NodePort has come");
}
