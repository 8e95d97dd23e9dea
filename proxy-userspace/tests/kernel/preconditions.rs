use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use proxy_userspace::kernel::{KernelError, Options, Runtime, cleanup};

use crate::sandbox::sandbox;

#[test]
fn a_kernel_without_btf_is_named() {
    sandbox(async |sandbox| {
        let options = Options { btf: "/nonexistent/vmlinux".into(), ..sandbox.options() };
        let error = Runtime::open(&options).map(drop).unwrap_err();
        assert!(error.to_string().contains("CONFIG_DEBUG_INFO_BTF"), "{error}");
        assert!(!sandbox.pin_dir().exists(), "nothing is made before everything is checked");
    });
}

#[test]
fn a_bpf_filesystem_is_mounted_where_there_is_none_and_unmounted_by_cleanup() {
    sandbox(async |sandbox| {
        let pin_dir = sandbox.plain().join("pins");
        let options = Options { pin_dir: pin_dir.clone(), ..sandbox.options() };
        drop(Runtime::open(&options).unwrap());
        assert_eq!(statfs(&pin_dir).unwrap().filesystem_type(), BPF_FS_MAGIC);
        drop(Runtime::open(&options).unwrap());
        cleanup(&pin_dir).await.unwrap();
        assert!(!pin_dir.exists());
    });
}

#[test]
fn a_directory_with_files_is_not_hidden_by_a_mount() {
    sandbox(async |sandbox| {
        let pin_dir = sandbox.plain().join("pins");
        std::fs::create_dir(&pin_dir).unwrap();
        std::fs::write(pin_dir.join("precious"), "").unwrap();
        let options = Options { pin_dir: pin_dir.clone(), ..sandbox.options() };
        let error = Runtime::open(&options).map(drop).unwrap_err();
        assert!(matches!(&error, KernelError::MountWouldHide { path } if *path == pin_dir), "{error}");
    });
}

#[test]
fn missing_privileges_are_named() {
    sandbox(async |sandbox| {
        // Capabilities belong to a thread, and the one that runs the test needs its own to tidy up.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                drop_capabilities();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let open = Runtime::open(&sandbox.options()).map(drop).unwrap_err();
                let cleanup = runtime.block_on(cleanup(&sandbox.pin_dir())).unwrap_err();
                for error in [open, cleanup] {
                    let text = error.to_string();
                    assert!(matches!(error, KernelError::Privileges { .. }), "{text}");
                    assert!(text.contains("CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON missing; run as root"), "{text}");
                }
            });
        });
    });
}

fn drop_capabilities() {
    let data = [LinuxCapabilities::default(); 2];
    let header = [0x2008_0522_u32, 0];
    // SAFETY: version 3 of capset(2) reads a header of two words and two sets of three words.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
    assert_eq!(result, 0);
}

/// `struct __user_cap_data_struct` of linux/capability.h.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct LinuxCapabilities {
    _effective: u32,
    _permitted: u32,
    _inheritable: u32,
}
