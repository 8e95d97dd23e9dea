use proxy_common::wire::{
    Address, Backend, Config, Frontend, FrontendKey, Kind, LAYOUT, Policy, Service, ServiceName, Sets,
};
use proxy_userspace::kernel::{Capacities, KernelError, Options, Runtime};
use proxy_userspace::model::Family;
use proxy_userspace::reconcile::{FilterMap, Tables};

use crate::ours;
use crate::sandbox::{CAPACITIES, sandbox};

fn service(name: &str) -> ServiceName {
    ServiceName {
        namespace: ServiceName::field("default").unwrap(),
        name: ServiceName::field(name).unwrap(),
        port: ServiceName::field("http").unwrap(),
        protocol: 6,
        algorithm: 0,
        pad: [0; 2],
    }
}

fn key(port: u16) -> FrontendKey {
    let address = Address::from("10.96.0.1".parse::<std::net::IpAddr>().unwrap());
    FrontendKey { address, port: port.to_be(), protocol: 6, scope: 0 }
}

fn frontend(port: u16) -> Frontend {
    Frontend::new(&key(port), port.into(), Policy::new(Kind::ClusterIp))
}

fn fill(tables: &mut impl Tables) {
    for id in 1..100 {
        tables.set_backend(id, Backend { port: id as u16, service: id, generation: 7, ..Backend::default() });
    }
    tables.set_backend_state(99, 2, 8);
    tables.set_slots(200, &[1, 2, 3]);
    tables.set_maglev(1000, &[4, 5]);
    tables.set_sets(40, Sets { service: 7, ..Sets::default() });
    tables.set_service(7, Family::V6, 40);
    tables.set_filter(FilterMap::Frontends, 3, 5);
    tables.set_filter(FilterMap::Targets, 4, 6);
    let names: Vec<_> = (1..=50).map(|id| (id, service(&format!("s{id}")))).collect();
    tables.put_names(&names).unwrap();
    let frontends: Vec<_> = (1..=50).map(|port| (key(port), frontend(port))).collect();
    tables.put_frontends(&frontends).unwrap();
    tables.put_local_addresses(&[key(0).address]).unwrap();
    tables.put_devices(&[(3, Default::default())]).unwrap();
    tables.set_config(&Config { rejects_per_tick: 17, ..Default::default() });
    tables.set_epoch(9);
}

fn check(tables: &impl Tables) {
    let mut found = tables.snapshot().unwrap();
    assert_eq!(found.backends[98], Backend { port: 98, service: 98, generation: 7, ..Backend::default() });
    assert_eq!(found.backends[99], Backend { port: 99, service: 99, generation: 8, flags: 2, ..Backend::default() });
    assert_eq!(found.slots[199..204], [0, 1, 2, 3, 0]);
    assert_eq!(found.maglev[1000..1003], [4, 5, 0]);
    assert_eq!(found.sets[40], Sets { service: 7, ..Sets::default() });
    assert_eq!(found.services[7], Service { sets4: 0, sets6: 40 });
    assert_eq!((found.frontend_filter[3], found.target_filter[4]), (5, 6));
    assert_eq!((found.config.rejects_per_tick, found.config.epoch), (17, 9));
    found.names.sort_by_key(|(id, _)| *id);
    assert_eq!(found.names.len(), 50);
    assert_eq!(found.names[49], (50, service("s50")));
    found.frontends.sort_by_key(|(_, frontend)| frontend.service);
    assert_eq!(found.frontends.len(), 50);
    assert_eq!(found.frontends[0], (key(1), frontend(1)));
    assert_eq!(found.local_addresses, [key(0).address]);
    assert_eq!(found.devices, [(3, Default::default())]);
}

#[test]
fn a_restart_adopts_the_maps() {
    sandbox(async |sandbox| {
        let mut first = Runtime::open(&sandbox.options()).unwrap();
        assert_eq!(first.tables.capacity().slots, CAPACITIES.slots);
        fill(&mut first.tables);
        check(&first.tables);
        let maps = ours::maps(&sandbox.pin_dir());
        drop(first);
        let second = Runtime::open(&sandbox.options()).unwrap();
        check(&second.tables);
        assert_eq!(ours::maps(&sandbox.pin_dir()), maps);
    });
}

/// Maps are mapped by pieces of 64 KiB as they are used: elements in each, at the borders, and the last one.
#[test]
fn elements_are_found_wherever_they_lie() {
    const LARGE: Capacities = Capacities { slots: 20_000, backends: 9_000, sets: 5_000, ..CAPACITIES };
    sandbox(async |sandbox| {
        let options = Options { capacities: LARGE, ..sandbox.options() };
        let mut first = Runtime::open(&options).unwrap();
        let slots: Vec<u32> = (1..=LARGE.slots).collect();
        first.tables.set_slots(0, &slots);
        // Beyond the end nothing happens.
        first.tables.set_slots(LARGE.slots, &[1]);
        // An element of 48 bytes lies across the border.
        let sets = [0, 1_364, 1_365, 1_366, LARGE.sets - 1];
        for index in sets {
            first.tables.set_sets(index, Sets { service: index + 1, ranges: index + 2, ..Sets::default() });
        }
        first.tables.set_backend_state(LARGE.backends - 1, 2, 8);
        let now = first.tables.snapshot().unwrap();
        drop(first);
        let later = Runtime::open(&options).unwrap().tables.snapshot().unwrap();
        for found in [now, later] {
            assert_eq!(found.slots, slots);
            for index in sets {
                let expected = Sets { service: index + 1, ranges: index + 2, ..Sets::default() };
                assert_eq!(found.sets[index as usize], expected);
            }
            assert_eq!(found.sets.iter().filter(|row| row.service != 0).count(), sets.len());
            let last = found.backends.last().unwrap();
            assert_eq!((found.backends.len(), last.flags, last.generation), (LARGE.backends as usize, 2, 8));
        }
    });
}

#[test]
fn maps_grow_with_what_is_in_them_and_never_shrink() {
    sandbox(async |sandbox| {
        let mut small = Runtime::open(&sandbox.options()).unwrap();
        fill(&mut small.tables);
        drop(small);
        let larger = Capacities {
            services: 5_000,
            frontends: 5_000,
            slots: 20_000,
            maglev: 20_000,
            backends: 9_000,
            flows4: 4_096,
            local_addresses: 64,
            devices: 64,
            ..CAPACITIES
        };
        let large = Runtime::open(&Options { capacities: larger, ..sandbox.options() }).unwrap();
        check(&large.tables);
        let capacity = large.tables.capacity();
        assert_eq!((capacity.services, capacity.frontends, capacity.slots), (5_000, 5_000, 20_000));
        assert_eq!((capacity.maglev, capacity.backends), (20_000, 9_000));
        let reader = proxy_userspace::kernel::read::Reader::open(&sandbox.pin_dir()).unwrap();
        let sizes = reader.sizes().unwrap();
        assert!(sizes.contains(&("FLOWS4", CAPACITIES.flows4)), "programs write it, so it keeps its size: {sizes:?}");
        drop(large);
        let small = Runtime::open(&sandbox.options()).unwrap();
        check(&small.tables);
        assert_eq!(small.tables.capacity(), capacity);
        assert_eq!(ours::maps(&sandbox.pin_dir()).len(), sizes.len(), "nothing but the maps is left pinned");
    });
}

#[test]
fn a_growth_that_was_interrupted_is_done_again() {
    sandbox(async |sandbox| {
        let mut small = Runtime::open(&sandbox.options()).unwrap();
        fill(&mut small.tables);
        drop(small);
        let maps = sandbox.pin_dir().join(format!("v{LAYOUT}/maps"));
        let stray = aya::maps::MapData::from_pin(maps.join("SLOTS")).unwrap();
        stray.pin(maps.join("FRONTENDS-new")).unwrap();
        let larger = Capacities { frontends: 5_000, ..CAPACITIES };
        let large = Runtime::open(&Options { capacities: larger, ..sandbox.options() }).unwrap();
        check(&large.tables);
        assert!(!maps.join("FRONTENDS-new").exists());
    });
}

#[test]
fn a_pin_that_is_another_map_is_refused_by_its_path() {
    sandbox(async |sandbox| {
        drop(Runtime::open(&sandbox.options()).unwrap());
        let maps = sandbox.pin_dir().join(format!("v{LAYOUT}/maps"));
        let pin = maps.join("FRONTENDS");
        std::fs::remove_file(&pin).unwrap();
        aya::maps::MapData::from_pin(maps.join("SLOTS")).unwrap().pin(&pin).unwrap();
        match Runtime::open(&sandbox.options()) {
            Err(KernelError::ForeignMap { path, expected, found }) => {
                assert_eq!(path, pin);
                assert!(expected.contains("keys of 20") && found.contains("keys of 4"), "{expected} / {found}");
            }
            other => panic!("{:?}", other.map(drop)),
        }
        std::fs::remove_file(&pin).unwrap();
        assert!(Runtime::open(&sandbox.options()).is_ok());
    });
}

#[test]
fn a_pin_that_is_no_map_is_refused_by_its_path() {
    sandbox(async |sandbox| {
        drop(Runtime::open(&sandbox.options()).unwrap());
        let maps = sandbox.pin_dir().join(format!("v{LAYOUT}/maps"));
        let pin = maps.join("DEVICES");
        std::fs::remove_file(&pin).unwrap();
        std::fs::create_dir(&pin).unwrap();
        let error = Runtime::open(&sandbox.options()).map(drop).unwrap_err();
        assert!(matches!(&error, KernelError::ForeignMap { path, .. } if *path == pin), "{error}");
    });
}

#[test]
fn deleting_what_is_not_there_is_no_error() {
    sandbox(async |sandbox| {
        let mut runtime = Runtime::open(&sandbox.options()).unwrap();
        fill(&mut runtime.tables);
        let keys: Vec<_> = (40..=60).map(key).collect();
        runtime.tables.delete_frontends(&keys).unwrap();
        assert_eq!(runtime.tables.snapshot().unwrap().frontends.len(), 39);
        runtime.tables.delete_names(&[1, 2, 1]).unwrap();
        assert_eq!(runtime.tables.snapshot().unwrap().names.len(), 48);
    });
}

#[test]
fn a_full_map_says_so() {
    sandbox(async |sandbox| {
        let mut runtime = Runtime::open(&sandbox.options()).unwrap();
        let frontends: Vec<_> = (0..1000).map(|port| (key(port), Frontend::default())).collect();
        let error = runtime.tables.put_frontends(&frontends).unwrap_err();
        assert_eq!((error.map, error.operation, error.count), ("FRONTENDS", "write", 1000));
        // Beyond the end of a mapped map nothing happens.
        runtime.tables.set_slots(u32::MAX, &[1, 2]);
        runtime.tables.set_slots(CAPACITIES.slots - 1, &[5, 6]);
        assert_eq!(runtime.tables.snapshot().unwrap().slots.last(), Some(&5));
    });
}
