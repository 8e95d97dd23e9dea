//! Addresses, devices and configuration of the node.

use proxy_common::wire::{Address, Config, Device};
use proxy_userspace::{desired::NodeState, reconcile::Writes};

use crate::{Bench, ROOMY, port};

fn address(last: u8) -> Address {
    Address::from(std::net::IpAddr::from([192, 0, 2, last]))
}

fn state(addresses: &[u8]) -> NodeState {
    let device = |&last: &u8| (u32::from(last), Device { address4: address(last), address6: Address::ANY });
    NodeState {
        config: Config { udp_timeout: 30, node_port_min: 1, ..Config::default() },
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
    assert_eq!(writes, Writes { local_addresses: 2, devices: 2, config: 1, ..Writes::default() });
    assert_eq!(bench.set_node(&state(&[1, 2])).total(), 0);
    let writes = bench.set_node(&state(&[2, 3]));
    assert_eq!(writes, Writes { local_addresses: 2, devices: 2, ..Writes::default() });
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
        Writes { local_addresses: 2, devices: 2, config: 1, ..Writes::default() }
    );
    bench.check_node(&state(&[2, 4]));
}

#[test]
fn a_failed_write_is_made_up_for() {
    for failing in 0..5 {
        let mut bench = Bench::new(ROOMY);
        bench.set_node(&state(&[1, 2]));
        bench.tables.failing = Some(failing);
        let now = bench.tables.now;
        let wanted = NodeState { config: Config { udp_timeout: 40, ..Config::default() }, ..state(&[3, 4]) };
        assert!(bench.reconciler.set_node(&mut bench.tables, &wanted, now).error.is_some());
        bench.wait(std::time::Duration::from_secs(1));
        bench.check_node(&wanted);
        assert_eq!(bench.tables.maps.config.map(|config| config.udp_timeout), Some(40));
    }
}

#[test]
fn the_range_of_node_ports_follows_the_services() {
    let mut bench = Bench::new(ROOMY);
    bench.set_node(&state(&[1]));
    let range = |bench: &Bench| bench.tables.maps.config.map(|config| (config.node_port_min, config.node_port_max));
    assert_eq!(range(&bench), Some((1, 0)));
    let (low, high) = (port("low", 1, &["node:30000"], "a"), port("high", 1, &["node:31000"], "a"));
    bench.apply(std::slice::from_ref(&low));
    bench.apply(&[high]);
    assert_eq!(range(&bench), Some((30000, 31000)));
    bench.restart();
    bench.set_node(&state(&[1]));
    assert_eq!(range(&bench), Some((30000, 31000)));
    bench.remove(&low);
    assert_eq!(range(&bench), Some((31000, 31000)));
}
