//! A place of its own for a test: namespaces that vanish with the thread that holds them.

use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use aya::util::KernelVersion;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use proxy_userspace::kernel::{AttachMode, Capacities, LinkOptions, Links, MapTables, Options, Runtime};

pub struct Sandbox {
    directory: tempfile::TempDir,
}

/// Small maps are made faster.
pub const CAPACITIES: Capacities = Capacities {
    services: 64,
    frontends: 64,
    sets: 128,
    slots: 256,
    maglev: 1024,
    backends: 128,
    flows4: 256,
    flows6: 256,
    opening4: 256,
    opening6: 256,
    proven4: 256,
    proven6: 256,
    local_addresses: 32,
    devices: 32,
};

/// Runs a test in a thread with network and mount namespaces of its own and a BPF filesystem that is mounted only there.
pub fn sandbox<F: Future<Output = ()>>(test: impl FnOnce(Sandbox) -> F + Send + 'static) {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root: it makes namespaces and loads BPF programs");
    let outcome = std::thread::spawn(move || {
        let directory = tempfile::Builder::new().prefix("sheave-kernel-").tempdir().unwrap();
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let bpffs = directory.path().join("bpf");
        std::fs::create_dir(&bpffs).unwrap();
        mount(Some("test"), &bpffs, Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
        ip("link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let test = test(Sandbox { directory });
        runtime.block_on(async {
            // Kernels whose processor is emulated take their time.
            tokio::time::timeout(Duration::from_secs(300), test).await.expect("the test took more than five minutes");
        });
    });
    if let Err(panic) = outcome.join() {
        std::panic::resume_unwind(panic);
    }
}

impl Drop for Sandbox {
    /// A directory with a mount in it cannot be removed.
    fn drop(&mut self) {
        for mounted in [self.bpffs(), self.plain().join("pins")] {
            // Most tests make no second mount.
            let _ = umount2(&mounted, MntFlags::MNT_DETACH);
        }
    }
}

impl Sandbox {
    /// A directory on a BPF filesystem.
    pub fn bpffs(&self) -> PathBuf {
        self.directory.path().join("bpf")
    }

    /// A directory on an ordinary filesystem.
    pub fn plain(&self) -> &Path {
        self.directory.path()
    }

    pub fn pin_dir(&self) -> PathBuf {
        self.bpffs().join("sheave")
    }

    pub fn options(&self) -> Options {
        Options { pin_dir: self.pin_dir(), capacities: CAPACITIES, ..Options::default() }
    }

    /// Starts an agent's kernel side as far as it attaches programs.
    pub async fn start(&self, links: LinkOptions) -> (MapTables, Links) {
        let runtime = Runtime::open(&self.options()).unwrap();
        let devices = Links::start(runtime.programs, links).await.unwrap();
        let attachments = devices.attach().await.unwrap();
        assert!(attachments.failed.is_empty(), "{attachments:?}");
        (runtime.tables, devices)
    }

    /// Waits until an agent that was dropped has let go of the pin directory: its task ends in the background.
    pub async fn free(&self) {
        eventually("the pin directory is free", || Runtime::open(&self.options()).is_ok()).await;
    }
}

/// Whether the kernel has TCX (Linux 6.6). Tests of it pass without a look where it has not.
pub fn has_tcx() -> bool {
    let has = KernelVersion::current().unwrap() >= KernelVersion::new(6, 6, 0);
    if !has {
        eprintln!("SKIPPED as far as it is about TCX: this kernel has none");
    }
    has
}

/// The ways to put programs on devices that the kernel has.
pub fn modes() -> &'static [AttachMode] {
    if has_tcx() { &[AttachMode::Tcx, AttachMode::Clsact] } else { &[AttachMode::Clsact] }
}

/// `ip` in the namespaces of the calling thread.
pub fn ip(arguments: &str) {
    run("ip", arguments);
}

/// Many lines of `ip` in the namespaces of the calling thread, at once and whatever becomes of one of them.
pub fn batch(lines: &[String]) {
    let mut command = Command::new("ip");
    let mut child =
        command.args(["-force", "-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.join("\n").as_bytes()).unwrap();
    child.wait().unwrap();
}

/// Runs a command in the namespaces of the calling thread; what it prints.
pub fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// A network namespace held open by a thread that waits in it; gone when dropped. Named by the thread's directory in
/// /proc, which `ip` takes as a process id.
pub struct FarNamespace {
    pub thread: i32,
    end: Option<std::sync::mpsc::Sender<()>>,
    holder: Option<std::thread::JoinHandle<()>>,
}

impl FarNamespace {
    pub fn new() -> Self {
        let (ready, id) = std::sync::mpsc::channel();
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let holder = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ready.send(nix::unistd::gettid().as_raw()).unwrap();
            // An error is the other side hanging up, which is the signal.
            let _ = wait.recv();
        });
        let thread = id.recv().unwrap();
        Self { thread, end: Some(end), holder: Some(holder) }
    }
}

impl Drop for FarNamespace {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(holder) = self.holder.take() {
            let _ = holder.join();
        }
    }
}

/// Makes a pod link: a veth whose other end is in `pod`.
pub fn pod_link(name: &str, pod: &FarNamespace) {
    ip(&format!("link add {name} type veth peer name eth0 netns {}", pod.thread));
    ip(&format!("link set {name} up"));
}

/// Waits for something that happens in the background.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not within 30 seconds");
}
