use proxy_userspace::kernel::{Capacities, KernelError, LinkOptions, Links, Options, Runtime};
use proxy_userspace::reconcile::Tables;

use crate::ours;
use crate::sandbox::{CAPACITIES, FarNamespace, has_tcx, pod_link, sandbox};

#[test]
fn a_second_agent_on_one_pin_directory_is_refused() {
    sandbox(async |sandbox| {
        let first = Runtime::open(&sandbox.options()).unwrap();
        let error = Runtime::open(&sandbox.options()).map(drop).unwrap_err();
        assert!(matches!(error, KernelError::InUse { .. }), "{error}");
        // Whichever part outlives the others keeps the directory.
        let Runtime { tables, programs, sockets, redialler, sweeper, log } = first;
        drop((tables, sweeper, log));
        assert!(Runtime::open(&sandbox.options()).is_err());
        drop(redialler);
        assert!(Runtime::open(&sandbox.options()).is_err());
        drop(sockets);
        assert!(Runtime::open(&sandbox.options()).is_err());
        drop(programs);
        assert!(Runtime::open(&sandbox.options()).is_ok());
    });
}

#[test]
fn agents_on_two_pin_directories_do_not_see_each_other() {
    sandbox(async |sandbox| {
        let pod = FarNamespace::new();
        pod_link("pod0", &pod);
        let (mut tables, _links) = sandbox.start(LinkOptions::default()).await;
        let before = ours::tcx("pod0");
        tables.set_slots(0, &[1, 2, 3]);
        let other = sandbox.bpffs().join("other");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                let far = FarNamespace::new();
                pod_link("pod0", &far);
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let capacities = Capacities { slots: 512, ..CAPACITIES };
                    let options = Options { pin_dir: other.clone(), capacities, ..Options::default() };
                    let agent = Runtime::open(&options).unwrap();
                    assert_eq!(agent.tables.snapshot().unwrap().slots, [0; 512]);
                    let links = Links::start(agent.programs, LinkOptions::default()).await.unwrap();
                    assert_eq!(links.attach().await.unwrap().attached.len(), 1);
                    assert!(ours::maps(&sandbox.pin_dir()).is_disjoint(&ours::maps(&other)));
                    // This directory serves the other namespace.
                    let error = Runtime::open(&sandbox.options()).map(drop).unwrap_err();
                    assert!(matches!(error, KernelError::InUse { .. }), "{error}");
                });
            });
        });
        assert_eq!(ours::tcx("pod0"), before);
        assert_eq!(tables.snapshot().unwrap().slots[..4], [1, 2, 3, 0]);
    });
}

#[test]
fn a_pin_directory_that_serves_another_namespace_is_refused() {
    // Told by the links that are pinned there: filters have none.
    if !has_tcx() {
        return;
    }
    sandbox(async |sandbox| {
        let pod = FarNamespace::new();
        pod_link("pod0", &pod);
        drop(sandbox.start(LinkOptions::default()).await);
        sandbox.free().await;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                let error = Runtime::open(&sandbox.options()).map(drop).unwrap_err();
                assert!(matches!(error, KernelError::OtherNamespace { index, .. } if index > 0), "{error}");
            });
        });
        assert!(Runtime::open(&sandbox.options()).is_ok());
    });
}
