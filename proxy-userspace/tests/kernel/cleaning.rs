use proxy_userspace::kernel::{AttachMode, KernelError, LinkOptions, cleanup};

use crate::ours;
use crate::sandbox::{FarNamespace, eventually, modes, pod_link, run, sandbox};

fn mode(mode: AttachMode) -> LinkOptions {
    LinkOptions { mode, ..LinkOptions::default() }
}

#[test]
fn nothing_is_left() {
    sandbox(async |sandbox| {
        for &attach in modes() {
            let pod = FarNamespace::new();
            pod_link("pod0", &pod);
            let agent = sandbox.start(mode(attach)).await;
            let error = cleanup(&sandbox.pin_dir()).await.unwrap_err();
            assert!(matches!(error, KernelError::InUse { .. }), "{error}");
            drop(agent);
            let maps = ours::maps(&sandbox.pin_dir());
            // Those that no device carries go with the agent, whose task ends in the background.
            eventually("only attached programs are left", || ours::programs(&maps).len() == 2).await;

            let removed = cleanup(&sandbox.pin_dir()).await.unwrap();
            let tcx = attach == AttachMode::Tcx;
            let expected = if tcx { (2, 0, 0) } else { (0, 2, 1) };
            assert_eq!((removed.links, removed.filters, removed.qdiscs), expected, "{removed:?}");
            assert_eq!(removed.maps, maps.len());
            assert!(removed.left.is_empty(), "{removed:?}");
            assert!(!sandbox.pin_dir().exists());
            assert_eq!(ours::tcx_names("pod0"), [[""; 0], [""; 0]]);
            assert!(!ours::has_clsact("pod0"));
            eventually("no program is left", || ours::programs(&maps).is_empty()).await;
            eventually("no map is left", || ours::still_there(&maps).is_empty()).await;
            assert_eq!(
                cleanup(&sandbox.pin_dir()).await.unwrap(),
                Default::default(),
                "a second time there is nothing"
            );
            run("ip", "link del pod0");
        }
    });
}

#[test]
fn qdiscs_and_filters_of_others_stay() {
    sandbox(async |sandbox| {
        let pods = [FarNamespace::new(), FarNamespace::new()];
        pod_link("theirs", &pods[0]);
        pod_link("shared", &pods[1]);
        run("tc", "qdisc add dev theirs clsact");
        drop(sandbox.start(mode(AttachMode::Clsact)).await);
        let bytecode = sandbox.plain().join("pass");
        std::fs::write(&bytecode, "1,6 0 0 4294967295").unwrap();
        run("tc", &format!("filter add dev shared ingress pref 9 bpf bytecode-file {} flowid 1:1", bytecode.display()));
        sandbox.free().await;
        let removed = cleanup(&sandbox.pin_dir()).await.unwrap();
        assert_eq!((removed.filters, removed.qdiscs), (4, 0));
        assert_eq!(removed.left.len(), 1, "{removed:?}");
        assert!(removed.left[0].contains("shared"));
        assert!(ours::has_clsact("theirs"));
        let [ingress, egress] = ours::filters("shared");
        assert!(ingress.contains("pref 9 ") && !ingress.contains("sheave"), "{ingress}");
        assert!(!egress.contains("sheave"), "{egress}");
    });
}

#[test]
fn layouts_of_other_versions_go_as_well() {
    sandbox(async |sandbox| {
        drop(sandbox.start(LinkOptions::default()).await);
        let current = sandbox.pin_dir().join(format!("v{}", proxy_common::wire::LAYOUT));
        let old = sandbox.pin_dir().join("v0/maps");
        std::fs::create_dir_all(&old).unwrap();
        aya::maps::MapData::from_pin(current.join("maps/SLOTS")).unwrap().pin(old.join("ANCIENT")).unwrap();
        let maps = ours::maps(&sandbox.pin_dir()).len();
        sandbox.free().await;
        assert_eq!(cleanup(&sandbox.pin_dir()).await.unwrap().maps, maps + 1);
        assert!(!sandbox.pin_dir().exists());
    });
}
