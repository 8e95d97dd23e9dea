use nix::mount::{MntFlags, umount2};
use nix::sys::statfs::{BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC, statfs};
use proxy_userspace::kernel::{KernelError, Mounted, mount_missing};

use crate::sandbox::sandbox;

#[test]
fn what_is_missing_is_mounted_once() {
    sandbox(async |sandbox| {
        // Those that the machine has; this mount namespace is the test's own.
        let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        for line in mounts.lines().filter(|line| line.contains(" - cgroup2 ")) {
            umount2(line.split(' ').nth(4).unwrap(), MntFlags::MNT_DETACH).unwrap();
        }
        let (bpffs, cgroup2) = (sandbox.plain().join("pins"), sandbox.plain().join("run/cgroup2"));
        for anew in [true, false] {
            let mounts = mount_missing(&bpffs, &cgroup2).unwrap();
            assert_eq!(mounts.bpffs, Mounted { path: bpffs.clone(), anew });
            assert_eq!(mounts.cgroup2, Mounted { path: cgroup2.clone(), anew });
        }
        assert_eq!(statfs(&bpffs).unwrap().filesystem_type(), BPF_FS_MAGIC);
        assert_eq!(statfs(&cgroup2).unwrap().filesystem_type(), CGROUP2_SUPER_MAGIC);

        // A hierarchy that is mounted somewhere else is as good.
        let elsewhere = sandbox.plain().join("elsewhere");
        let mounts = mount_missing(&bpffs, &elsewhere).unwrap();
        assert_eq!(mounts.cgroup2, Mounted { path: cgroup2.clone(), anew: false });
        assert!(!elsewhere.exists());
        umount2(&cgroup2, MntFlags::MNT_DETACH).unwrap();
    });
}

#[test]
fn a_directory_with_files_is_named_and_not_hidden() {
    sandbox(async |sandbox| {
        std::fs::write(sandbox.plain().join("precious"), "").unwrap();
        let error = mount_missing(sandbox.plain(), &sandbox.plain().join("cgroup2")).unwrap_err();
        assert!(matches!(&error, KernelError::MountWouldHide { path } if path == sandbox.plain()), "{error}");
    });
}
