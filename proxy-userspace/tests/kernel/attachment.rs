use std::net::IpAddr;

use proxy_userspace::kernel::{AttachMode, LinkOptions, Role};

use crate::ours;
use crate::sandbox::{FarNamespace, eventually, has_tcx, ip, modes, pod_link, sandbox};

const TCX: AttachMode = AttachMode::Tcx;
const CLSACT: AttachMode = AttachMode::Clsact;

fn mode(mode: AttachMode) -> LinkOptions {
    LinkOptions { mode, ..LinkOptions::default() }
}

/// A node with an uplink that is a veth, as on nodes made of containers.
fn uplink(fabric: &FarNamespace) {
    ip(&format!("link add up0 type veth peer name node netns {}", fabric.thread));
    ip("link set up0 up");
    ip("addr add 192.168.7.1/24 dev up0");
    ip("route add default via 192.168.7.254");
}

#[test]
fn devices_get_the_programs_of_their_roles_by_tcx() {
    if !has_tcx() {
        return;
    }
    sandbox(async |sandbox| {
        let (fabric, pod) = (FarNamespace::new(), FarNamespace::new());
        uplink(&fabric);
        pod_link("pod0", &pod);
        ip("link add cni0 type bridge");
        ip("link add vx0 type vxlan id 7 dev up0 dstport 4789");
        ip("tuntap add dev tun0 mode tun");
        let (_tables, links) = sandbox.start(mode(TCX)).await;
        let attached: Vec<_> = links
            .attachments()
            .borrow()
            .attached
            .iter()
            .map(|device| (device.name.clone(), device.role, device.ethernet))
            .collect();
        let mut expected = vec![
            ("pod0".to_owned(), Role::PodLink, true),
            ("tun0".to_owned(), Role::Overlay, false),
            ("up0".to_owned(), Role::Uplink, true),
            ("vx0".to_owned(), Role::Overlay, true),
        ];
        let mut sorted = attached.clone();
        sorted.sort();
        expected.sort();
        assert_eq!(sorted, expected);
        assert_eq!(ours::tcx_names("pod0"), [["pod_in"], ["pod_out"]]);
        assert_eq!(ours::tcx_names("up0"), [["uplink_in"], ["uplink_out"]]);
        assert_eq!(ours::tcx_names("vx0"), [["overlay_in"], ["overlay_out"]]);
        assert_eq!(ours::tcx_names("tun0"), [["overlay_in_l3"], ["overlay_out_l3"]]);
        assert_eq!(ours::tcx_names("cni0"), [[""; 0], [""; 0]]);
    });
}

#[test]
fn a_restart_replaces_programs_in_place_by_tcx() {
    if !has_tcx() {
        return;
    }
    sandbox(async |sandbox| {
        let pod = FarNamespace::new();
        pod_link("pod0", &pod);
        let first = sandbox.start(mode(TCX)).await;
        let before = ours::tcx("pod0");
        let links: Vec<u32> = before.iter().map(|programs| ours::link_of(programs[0].1)).collect();
        drop(first);
        assert_eq!(ours::tcx("pod0"), before, "programs go on working without the agent");
        sandbox.free().await;
        let _second = sandbox.start(mode(TCX)).await;
        let after = ours::tcx("pod0");
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(after.len(), 1, "{after:?}");
            assert_eq!(before[0].0, after[0].0);
            assert_ne!(before[0].1, after[0].1, "the new agent's programs are there");
        }
        let now: Vec<u32> = after.iter().map(|programs| ours::link_of(programs[0].1)).collect();
        assert_eq!(now, links, "the links are the same");
    });
}

#[test]
fn ours_is_first_in_and_last_out() {
    if !has_tcx() {
        return;
    }
    sandbox(async |sandbox| {
        let pod = FarNamespace::new();
        pod_link("pod0", &pod);
        // An agent in another pin directory stands in for a stranger.
        let mut stranger_options = sandbox.options();
        stranger_options.pin_dir = sandbox.bpffs().join("stranger");
        let stranger = proxy_userspace::kernel::Runtime::open(&stranger_options).unwrap();
        let stranger = proxy_userspace::kernel::Links::start(stranger.programs, mode(TCX)).await.unwrap();
        stranger.attach().await.unwrap();
        let [theirs_in, theirs_out] = ours::tcx("pod0");
        let (_tables, _links) = sandbox.start(mode(TCX)).await;
        let [ingress, egress] = ours::tcx("pod0");
        assert_eq!(ingress.len(), 2);
        assert_eq!(ingress[1], theirs_in[0]);
        assert_eq!(egress[0], theirs_out[0]);
    });
}

#[test]
fn devices_get_programs_by_clsact_and_a_restart_replaces_them() {
    sandbox(async |sandbox| {
        let (fabric, pod) = (FarNamespace::new(), FarNamespace::new());
        uplink(&fabric);
        pod_link("pod0", &pod);
        let first = sandbox.start(mode(CLSACT)).await;
        let [ingress, egress] = ours::filters("pod0");
        assert!(ingress.contains("pref 1 ") && ingress.contains("sheave/pod_in direct-action"), "{ingress}");
        assert!(egress.contains("pref 65535 ") && egress.contains("sheave/pod_out direct-action"), "{egress}");
        assert!(ours::filters("up0")[0].contains("sheave/uplink_in"));
        assert_eq!(ours::tcx_names("pod0"), [[""; 0], [""; 0]]);
        drop(first);
        sandbox.free().await;
        let _second = sandbox.start(mode(CLSACT)).await;
        for (before, direction) in [ingress, egress].iter().zip([0, 1]) {
            let after = &ours::filters("pod0")[direction];
            assert_eq!(after.matches("sheave/").count(), 1, "{after}");
            assert_ne!(after, before, "the new agent's programs are there");
        }
    });
}

#[test]
fn changing_the_mode_leaves_only_one() {
    if !has_tcx() {
        return;
    }
    sandbox(async |sandbox| {
        let pod = FarNamespace::new();
        pod_link("pod0", &pod);
        drop(sandbox.start(mode(CLSACT)).await);
        sandbox.free().await;
        assert!(ours::has_clsact("pod0"));
        drop(sandbox.start(mode(TCX)).await);
        sandbox.free().await;
        assert!(!ours::has_clsact("pod0"));
        assert_eq!(ours::tcx_names("pod0"), [["pod_in"], ["pod_out"]]);
        drop(sandbox.start(mode(CLSACT)).await);
        assert_eq!(ours::tcx_names("pod0"), [[""; 0], [""; 0]]);
        assert!(ours::filters("pod0")[0].contains("sheave/pod_in"));
    });
}

#[test]
fn devices_that_come_and_go_are_followed() {
    if !has_tcx() {
        return;
    }
    sandbox(async |sandbox| {
        let (_tables, links) = sandbox.start(mode(TCX)).await;
        let interfaces = links.interfaces();
        let names = || interfaces.borrow().iter().map(|interface| interface.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(), ["lo"]);
        let pods: Vec<_> = (0..10).map(|_| FarNamespace::new()).collect();
        for (number, pod) in pods.iter().enumerate() {
            pod_link(&format!("pod{number}"), pod);
        }
        let attachments = links.attachments();
        eventually("ten pods attached", || attachments.borrow().attached.len() == 10).await;
        assert_eq!(ours::tcx_names("pod9"), [["pod_in"], ["pod_out"]]);
        ip("addr add 10.9.0.1/32 dev pod3");
        let has = |text: &str| {
            let ip: IpAddr = text.parse().unwrap();
            interfaces.borrow().iter().any(|interface| interface.name == "pod3" && interface.addresses.contains(&ip))
        };
        eventually("the address is told", || has("10.9.0.1")).await;
        ip("addr del 10.9.0.1/32 dev pod3");
        eventually("and that it is gone", || !has("10.9.0.1")).await;
        ip("link del pod3");
        eventually("one is gone", || attachments.borrow().attached.len() == 9).await;
        assert!(!names().contains(&"pod3".to_owned()));
        let pins = || std::fs::read_dir(sandbox.pin_dir().join(format!("v{}", proxy_common::wire::LAYOUT))).unwrap();
        let links_dir =
            pins().flatten().find(|entry| entry.file_name().to_string_lossy().starts_with("links-")).unwrap();
        assert_eq!(std::fs::read_dir(links_dir.path()).unwrap().count(), 18, "its links are unpinned");
    });
}

#[test]
fn a_device_that_changes_its_role_changes_its_programs() {
    if !has_tcx() {
        return;
    }
    sandbox(async |sandbox| {
        let far = FarNamespace::new();
        pod_link("eth9", &far);
        ip("addr add 172.18.0.2/16 dev eth9");
        let (_tables, links) = sandbox.start(mode(TCX)).await;
        assert_eq!(ours::tcx_names("eth9"), [["pod_in"], ["pod_out"]]);
        links.set_node_addresses(vec!["172.18.0.2".parse().unwrap()]).await.unwrap();
        eventually("it is an uplink", || ours::tcx_names("eth9") == [["uplink_in"], ["uplink_out"]]).await;
        ip("addr del 172.18.0.2/16 dev eth9");
        eventually("it is a pod link", || ours::tcx_names("eth9") == [["pod_in"], ["pod_out"]]).await;
    });
}

#[test]
fn devices_that_vanish_while_they_are_attached_do_no_harm() {
    sandbox(async |sandbox| {
        for &attach in modes() {
            let (tables, links) = sandbox.start(mode(attach)).await;
            for round in 0..20 {
                let pod = FarNamespace::new();
                pod_link(&format!("pod{round}"), &pod);
                tokio::time::sleep(std::time::Duration::from_micros(100 * round)).await;
                ip(&format!("link del pod{round}"));
            }
            let pod = FarNamespace::new();
            pod_link("last", &pod);
            let attachments = links.attachments();
            eventually("the last one is attached", || {
                let now = attachments.borrow();
                now.failed.is_empty() && now.attached.len() == 1 && now.attached[0].name == "last"
            })
            .await;
            drop((tables, links));
            ip("link del last");
            sandbox.free().await;
        }
    });
}
