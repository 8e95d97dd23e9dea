use proptest::prelude::*;
use proxy_common::datapath::Link;

use super::super::LinkOptions;
use super::super::role::{self, Decision};
use super::*;

fn device(index: u32, kind: Kind) -> Device {
    Device {
        index,
        name: format!("d{index}"),
        kind,
        up: true,
        link: Some(Link::Ethernet),
        peer: None,
        peer_elsewhere: false,
        controller: None,
        addresses: Vec::new(),
        gateway: false,
    }
}

fn veth(index: u32, peer: Option<u32>, peer_elsewhere: bool) -> Device {
    Device { peer, peer_elsewhere, ..device(index, Kind::Veth) }
}

fn address(cidr: &str) -> DeviceAddress {
    let net: ipnet::IpNet = cidr.parse().unwrap();
    DeviceAddress {
        ip: net.addr(),
        prefix: net.prefix_len(),
        far: net.addr(),
        global: true,
        poor: false,
        secondary: false,
    }
}

fn touched(inventory: &mut Inventory, told: Told) -> Touched {
    let mut touched = Touched::default();
    inventory.take(told, &mut touched);
    touched
}

fn set<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    items.into_iter().collect()
}

#[test]
fn what_is_known_already_touches_nothing() {
    let mut inventory = Inventory::default();
    let pod = veth(2, Some(9), true);
    assert_eq!(touched(&mut inventory, Told::Device(pod.clone())).devices, set([2]));
    touched(&mut inventory, Told::Address(2, address("10.0.0.1/32")));
    assert_eq!(touched(&mut inventory, Told::Device(pod)), Touched::default());
    assert_eq!(touched(&mut inventory, Told::Address(2, address("10.0.0.1/32"))), Touched::default());
    assert_eq!(touched(&mut inventory, Told::AddressGone(2, address("10.0.0.2/32"))), Touched::default());
    assert_eq!(touched(&mut inventory, Told::Address(3, address("10.0.0.2/32"))), Touched::default());
    assert_eq!(touched(&mut inventory, Told::DeviceGone { index: 3, peer: None }), Touched::default());
    assert_eq!(inventory.get(2).unwrap().addresses, [address("10.0.0.1/32")]);
}

#[test]
fn a_change_touches_what_depends_on_it() {
    let mut inventory = Inventory::default();
    let port = |index| Device { controller: Some(2), ..veth(index, Some(9), true) };
    // The port is told before its bridge.
    assert_eq!(touched(&mut inventory, Told::Device(port(3))).roles, set([2, 3]));
    assert_eq!(touched(&mut inventory, Told::Device(device(2, Kind::Bridge))).roles, set([2, 3]));
    assert_eq!(touched(&mut inventory, Told::Device(port(4))).roles, set([2, 4]));
    assert_eq!(touched(&mut inventory, Told::DeviceGone { index: 2, peer: None }).roles, set([2, 3, 4]));
    assert_eq!(touched(&mut inventory, Told::Device(veth(4, Some(9), true))).roles, set([2, 4]));

    // An address that a second device gets, and a third.
    let node = || address("192.0.2.1/32");
    assert_eq!(touched(&mut inventory, Told::Address(3, node())).roles, set([2, 3]));
    assert_eq!(touched(&mut inventory, Told::Address(4, node())).roles, set([3, 4]));
    touched(&mut inventory, Told::Device(veth(5, Some(9), true)));
    assert_eq!(touched(&mut inventory, Told::Address(5, node())).roles, set([5]));
    assert_eq!(touched(&mut inventory, Told::AddressGone(5, node())).roles, set([3, 4, 5]));
    assert_eq!(touched(&mut inventory, Told::DeviceGone { index: 4, peer: None }).roles, set([3, 4]));
}

#[test]
fn routes_are_asked_for_only_where_a_role_depends_on_them() {
    let mut inventory = Inventory::default();
    assert!(!touched(&mut inventory, Told::Device(veth(2, Some(9), true))).routes);
    assert!(!touched(&mut inventory, Told::Address(2, address("10.0.0.1/32"))).routes);
    assert!(touched(&mut inventory, Told::Address(2, address("10.0.1.1/24"))).routes);
    let mut touched = Touched::default();
    inventory.set_gateways(&set([2]), &mut touched);
    assert!(!touched.routes && touched.roles == set([2]), "{touched:?}");
    // Its routes may have gone with it.
    inventory.take(Told::Device(Device { up: false, ..veth(2, Some(9), true) }), &mut touched);
    assert!(touched.routes);
}

#[test]
fn the_order_of_several_addresses_is_asked_for() {
    let mut inventory = Inventory::default();
    touched(&mut inventory, Told::Device(device(2, Kind::Hardware)));
    let told = |inventory: &mut Inventory, cidr| touched(inventory, Told::Address(2, address(cidr))).unordered;
    assert_eq!(told(&mut inventory, "10.0.0.1/24"), set([]));
    assert_eq!(told(&mut inventory, "fd00::1/64"), set([]));
    assert_eq!(told(&mut inventory, "10.0.0.2/24"), set([(2, Family::V4)]));
    let list = ["10.0.0.2/24", "10.0.0.1/24"].map(address).to_vec();
    inventory.set_addresses(2, Family::V4, list, &mut Touched::default());
    let ips: Vec<String> = inventory.get(2).unwrap().interface().addresses.iter().map(IpAddr::to_string).collect();
    assert_eq!(ips, ["10.0.0.2", "10.0.0.1", "fd00::1"]);
}

#[test]
fn one_address_with_two_far_ends_is_two() {
    let mut inventory = Inventory::default();
    touched(&mut inventory, Told::Device(device(2, Kind::Tunnel)));
    let to = |far: &str| DeviceAddress { far: far.parse().unwrap(), ..address("10.0.0.1/32") };
    touched(&mut inventory, Told::Address(2, to("10.0.0.8")));
    touched(&mut inventory, Told::Address(2, to("10.0.0.9")));
    touched(&mut inventory, Told::AddressGone(2, to("10.0.0.8")));
    assert_eq!(inventory.get(2).unwrap().addresses, [to("10.0.0.9")]);
}

#[test]
fn an_end_of_a_pair_whose_other_end_changes_place_is_asked_for() {
    let mut inventory = Inventory::default();
    let told = |inventory: &mut Inventory, device| touched(inventory, Told::Device(device)).unsure;
    // Made: the first end is told before there is a second.
    assert_eq!(told(&mut inventory, veth(2, None, false)), set([2]));
    assert_eq!(told(&mut inventory, veth(3, Some(2), false)), set([]));
    // The second one moves away, and comes back.
    let gone = touched(&mut inventory, Told::DeviceGone { index: 3, peer: Some(2) });
    assert_eq!((gone.unsure, gone.gone), (set([2]), set([3])));
    inventory.update(veth(2, Some(3), true), &mut Touched::default());
    assert_eq!(told(&mut inventory, veth(3, Some(2), false)), set([2]));
    // One that is not ours has the same index.
    assert_eq!(told(&mut inventory, veth(4, Some(2), true)), set([]));
}

/// Something that happens to one of a few devices.
fn step() -> impl Strategy<Value = Told> {
    let kinds = [Kind::Veth, Kind::Bridge, Kind::Bond, Kind::Hardware, Kind::Tap, Kind::Stacked, Kind::Tunnel];
    let index = 1..7_u32;
    let device =
        (index.clone(), prop::sample::select(kinds.to_vec()), any::<(bool, bool)>(), prop::option::of(1..7_u32))
            .prop_map(|(index, kind, (up, peer_elsewhere), controller)| {
                let controller = controller.filter(|controller| *controller != index);
                Told::Device(Device { up, peer_elsewhere, controller, peer: Some(8), ..device(index, kind) })
            });
    let held =
        (index.clone(), prop::sample::select(&["192.0.2.1/24", "192.0.2.1/32", "192.0.2.2/24", "10.0.0.1/24"][..]));
    prop_oneof![
        4 => device,
        1 => index.prop_map(|index| Told::DeviceGone { index, peer: None }),
        4 => held.clone().prop_map(|(index, cidr)| Told::Address(index, address(cidr))),
        2 => held.prop_map(|(index, cidr)| Told::AddressGone(index, address(cidr))),
    ]
}

proptest! {
    /// Whoever decides anew only what is touched knows the same roles as one who decides everything anew.
    #[test]
    fn roles_that_are_not_touched_do_not_change(
        steps in prop::collection::vec((step(), prop::option::of(prop::collection::btree_set(1..7_u32, 0..3))), 1..60)
    ) {
        let options =
            LinkOptions { node_addresses: ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse().unwrap()).into(), ..Default::default() };
        let mut inventory = Inventory::default();
        let mut roles: BTreeMap<u32, Decision> = BTreeMap::new();
        for (told, gateways) in steps {
            let mut touched = Touched::default();
            inventory.take(told, &mut touched);
            if let Some(gateways) = gateways {
                inventory.set_gateways(&gateways, &mut touched);
            }
            for index in touched.roles {
                match inventory.get(index) {
                    Some(device) => drop(roles.insert(index, role::decide(device, &inventory, &options))),
                    None => drop(roles.remove(&index)),
                }
            }
            let all: BTreeMap<u32, Decision> = inventory
                .devices()
                .map(|device| (device.index, role::decide(device, &inventory, &options)))
                .collect();
            prop_assert_eq!(&roles, &all);
            let listed: Vec<Device> = inventory.devices().cloned().collect();
            let mut anew = Inventory::default();
            anew.replace(listed, &mut Touched::default());
            prop_assert_eq!((&anew.ports, &anew.holders), (&inventory.ports, &inventory.holders));
        }
    }
}
