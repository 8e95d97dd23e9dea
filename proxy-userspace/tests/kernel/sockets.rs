use std::path::PathBuf;

use proxy_common::programs::Call;
use proxy_userspace::kernel::{KernelError, Options, Runtime, SocketLoad, cleanup};

use crate::sandbox::{Sandbox, run, sandbox};

/// A control group of a test's own, beside those of the machine; mounted where only the test sees it.
struct Group(PathBuf);

impl Group {
    fn new(sandbox: &Sandbox, name: &str) -> Self {
        let mount = sandbox.plain().join("cgroup2");
        if !mount.exists() {
            std::fs::create_dir(&mount).unwrap();
            run("mount", &format!("-t cgroup2 cgroup2 {}", mount.display()));
        }
        let path = mount.join(format!("sheave-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Names of the programs at the group.
    fn programs(&self) -> Vec<String> {
        let shown = run("bpftool", &format!("-j cgroup show {}", self.0.display()));
        let shown: Vec<serde_json::Value> = serde_json::from_str(&shown).unwrap_or_default();
        let mut names: Vec<_> = shown.iter().filter_map(|it| Some(it["name"].as_str()?.to_owned())).collect();
        names.sort();
        names
    }

    fn options(&self, sandbox: &Sandbox) -> Options {
        Options { sockets: SocketLoad::At(self.0.clone()), ..sandbox.options() }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn all() -> Vec<String> {
    let mut names = Call::ALL.map(|call| call.program().to_owned()).to_vec();
    names.sort();
    names
}

fn unmount(sandbox: &Sandbox) {
    run("umount", &sandbox.plain().join("cgroup2").display().to_string());
}

/// Puts the programs there as an agent does, and lets go of everything.
fn attach(options: &Options) -> Result<(), KernelError> {
    Runtime::open(options)?.sockets?.attach()
}

#[test]
fn every_call_has_one_program_however_often_an_agent_starts() {
    sandbox(async |sandbox| {
        let group = Group::new(&sandbox, "one");
        for _ in 0..3 {
            attach(&group.options(&sandbox)).unwrap();
            assert_eq!(group.programs(), all());
        }
        // Another group in its place, and then the first one again after it was gone.
        let other = Group::new(&sandbox, "other");
        attach(&other.options(&sandbox)).unwrap();
        assert_eq!((group.programs(), other.programs()), (vec![], all()));
        drop(other);
        attach(&group.options(&sandbox)).unwrap();
        assert_eq!(group.programs(), all());
        // Switched off.
        attach(&Options { sockets: SocketLoad::Off, ..sandbox.options() }).unwrap();
        assert!(group.programs().is_empty());
        drop(group);
        unmount(&sandbox);
    });
}

#[test]
fn programs_of_others_stay_and_ours_go_with_cleanup() {
    sandbox(async |sandbox| {
        let group = Group::new(&sandbox, "shared");
        attach(&group.options(&sandbox)).unwrap();
        // Another agent's are as foreign as any.
        let other = Options { pin_dir: sandbox.bpffs().join("other"), ..group.options(&sandbox) };
        attach(&other).unwrap();
        assert_eq!(group.programs().len(), 2 * Call::ALL.len());
        let removed = cleanup(&sandbox.pin_dir()).await.unwrap();
        assert_eq!((removed.sockets, removed.left.len()), (Call::ALL.len(), 0), "{removed:?}");
        assert_eq!(group.programs(), all());
        assert_eq!(cleanup(&other.pin_dir).await.unwrap().sockets, Call::ALL.len());
        assert!(group.programs().is_empty());
        drop(group);
        unmount(&sandbox);
    });
}

#[test]
fn what_is_no_control_group_is_named_and_keeps_nothing_else() {
    sandbox(async |sandbox| {
        let sockets = SocketLoad::At(sandbox.plain().to_owned());
        let runtime = Runtime::open(&Options { sockets, ..sandbox.options() }).unwrap();
        let error = runtime.sockets.unwrap().attach().unwrap_err();
        assert!(error.to_string().contains(&sandbox.plain().display().to_string()), "{error}");
        drop((runtime.tables, runtime.programs, runtime.redialler, runtime.sweeper));
        // None is mounted where this process could see it.
        let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        for line in mounts.lines().filter(|line| line.contains(" - cgroup2 ")) {
            nix::mount::umount2(line.split(' ').nth(4).unwrap(), nix::mount::MntFlags::MNT_DETACH).unwrap();
        }
        let runtime = Runtime::open(&sandbox.options()).unwrap();
        assert!(matches!(runtime.sockets, Err(KernelError::NoCgroup2)));
    });
}
