use proxy_common::datapath::Link;

use super::super::device::DeviceAddress;
use super::super::inventory::Touched;
use super::*;

fn device(index: u32, name: &str, kind: Kind) -> Device {
    Device {
        index,
        name: name.into(),
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

fn with(mut device: Device, cidr: &str) -> Device {
    let net: ipnet::IpNet = cidr.parse().unwrap();
    let (ip, prefix) = (net.addr(), net.prefix_len());
    device.addresses.push(DeviceAddress { ip, prefix, far: ip, global: true, poor: false, secondary: false });
    device
}

fn far(device: Device) -> Device {
    Device { peer_elsewhere: true, ..device }
}

fn port(device: Device, controller: u32) -> Device {
    Device { controller: Some(controller), ..device }
}

fn gateway(device: Device) -> Device {
    Device { gateway: true, ..device }
}

fn roles(devices: &[Device], options: &LinkOptions) -> Vec<Option<Role>> {
    let options = LinkOptions { node_addresses: vec!["192.168.0.1".parse().unwrap()], ..options.clone() };
    let mut inventory = Inventory::default();
    inventory.replace(devices.to_vec(), &mut Touched::default());
    let gateways = devices.iter().filter(|device| device.gateway).map(|device| device.index).collect();
    inventory.set_gateways(&gateways, &mut Touched::default());
    devices.iter().map(|device| decide(device, &inventory, &options).role).collect()
}

const POD: Option<Role> = Some(Role::PodLink);
const UP: Option<Role> = Some(Role::Uplink);
const OVERLAY: Option<Role> = Some(Role::Overlay);

#[test]
fn each_device_gets_its_role() {
    type Case = (&'static str, Vec<(Device, Option<Role>)>);
    let cases: Vec<Case> = vec![
        (
            "a machine with a routed CNI",
            vec![
                (device(1, "lo", Kind::Loopback), None),
                (gateway(with(device(2, "eth0", Kind::Hardware), "192.168.0.1/24")), UP),
                (far(device(3, "cali1", Kind::Veth)), POD),
                (far(with(device(4, "ptp1", Kind::Veth), "10.1.0.1/32")), POD),
                (with(device(5, "storage0", Kind::Hardware), "172.20.0.1/24"), UP),
                (device(6, "spare0", Kind::Hardware), None),
                (with(device(7, "kube-ipvs0", Kind::Other), "10.96.0.1/32"), None),
            ],
        ),
        (
            "a node that is a container, with a bridge CNI",
            vec![
                (far(gateway(with(device(2, "eth0", Kind::Veth), "192.168.0.1/24"))), UP),
                (with(device(3, "cni0", Kind::Bridge), "10.1.0.1/24"), None),
                (port(far(device(4, "veth1", Kind::Veth)), 3), POD),
                (port(device(5, "local", Kind::Veth), 3), None),
                (device(6, "flannel.1", Kind::Tunnel), OVERLAY),
            ],
        ),
        (
            "a container node before its Node object is known: the gateway decides",
            vec![(far(gateway(with(device(2, "eth0", Kind::Veth), "172.18.0.2/16"))), UP)],
        ),
        (
            "the node's address on every pod link",
            vec![
                (gateway(with(device(2, "eth0", Kind::Hardware), "192.168.0.1/24")), UP),
                (far(with(device(3, "pod1", Kind::Veth), "192.168.0.1/32")), POD),
                (far(with(device(4, "pod2", Kind::Veth), "192.168.0.1/32")), POD),
            ],
        ),
        (
            "a bond with a VLAN that holds the address",
            vec![
                (port(device(2, "eth0", Kind::Hardware), 4), None),
                (port(device(3, "eth1", Kind::Hardware), 4), None),
                (device(4, "bond0", Kind::Bond), None),
                (gateway(with(device(5, "bond0.100", Kind::Stacked), "192.168.0.1/24")), UP),
            ],
        ),
        (
            "a bridge that holds the node's address, with virtual machines on it",
            vec![
                (port(device(2, "eth0", Kind::Hardware), 3), None),
                (gateway(with(device(3, "br0", Kind::Bridge), "192.168.0.1/24")), UP),
                (port(device(4, "tap0", Kind::Tap), 3), POD),
            ],
        ),
        (
            "BGP unnumbered: routes without addresses",
            vec![(gateway(device(2, "swp1", Kind::Hardware)), UP), (device(3, "swp2", Kind::Hardware), None)],
        ),
        (
            "a medium that is not understood",
            vec![(Device { link: None, ..with(device(2, "ib0", Kind::Hardware), "192.168.0.1/24") }, None)],
        ),
    ];
    for (name, rows) in cases {
        let (devices, expected): (Vec<Device>, Vec<_>) = rows.into_iter().unzip();
        assert_eq!(roles(&devices, &LinkOptions::default()), expected, "{name}");
    }
}

#[test]
fn configuration_overrides() {
    let devices = [
        far(device(2, "eth0", Kind::Veth)),
        far(device(3, "special7", Kind::Veth)),
        with(device(4, "eth1", Kind::Hardware), "192.168.0.1/24"),
        device(5, "wan0", Kind::Other),
    ];
    let options = LinkOptions {
        uplinks: vec!["eth0".into()],
        exclude: vec!["special*".into()],
        pod_links: vec!["eth?".into()],
        overlays: vec!["wan*".into()],
        ..LinkOptions::default()
    };
    // In this order: exclude, pod_links, uplinks, overlays.
    assert_eq!(roles(&devices, &options), [POD, None, POD, OVERLAY]);
}
