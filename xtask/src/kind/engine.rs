//! The container engine: podman in network, mount, process, control group, IPC and host name namespaces of its own. All of
//! them, and all that runs in them, end with one process; its bridges, rules and mounts go with it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::state::First;
use super::{cache, control_groups, scripts};

const FIRST_PROCESS: &str = include_str!("engine.sh");
/// Preparing takes a tenth of a second on an idle machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Podman's own settings: nothing of the machine's containers is read or written.
///
/// runc, since crun refuses hybrid control groups; no limit of processes, since a node is one container.
const CONTAINERS: &str = r#"[containers]
log_driver = "k8s-file"
pids_limit = 0
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
network_config_dir = "FOLDER/networks"
"#;

const STORAGE: &str = r#"[storage]
driver = "overlay"
graphroot = "FOLDER/storage"
runroot = "/run/containers/storage"
[storage.options]
additionalimagestores = [IMAGES]
"#;

/// An engine's folder, and images that are there without being copied.
pub struct Engine {
    folder: PathBuf,
    first: First,
}

impl Engine {
    /// Starts one that keeps all it has in `folder`, which must be there.
    ///
    /// # Errors
    /// Namespaces or control groups cannot be made.
    pub fn start(folder: &Path, images: &[&Path]) -> Result<Self> {
        let groups = control_groups::create()?;
        write_settings(folder, images)?;
        let script = folder.join("engine.sh");
        fs::write(&script, FIRST_PROCESS).with_context(|| format!("cannot write {}", script.display()))?;
        let ready = folder.join("engine-ready");
        cache::remove(&ready)?;
        let log = folder.join("engine.log");
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;

        // In its groups before the namespaces are made, so that they are the root of what it sees; in a session of its own,
        // so that it outlives the terminal.
        let mut command = Command::new("sh");
        command.args(["-c", "for group; do echo $$ > \"$group/cgroup.procs\"; done; exec setsid $UNSHARE", "sh"]);
        command.args(&groups).current_dir("/");
        let words = [
            "unshare --net --mount --pid --ipc --uts --cgroup --fork --kill-child --mount-proc bash",
            path_word(&script)?,
            path_word(&ready)?,
        ];
        command.env("UNSHARE", words.join(" "));
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let mut outer = command.spawn().context("start the container engine's namespaces")?;
        let started = wait_for(&mut outer, &ready).and_then(|first| {
            scripts::write(folder, first, &groups)?;
            Ok(Self { folder: folder.to_owned(), first })
        });
        if started.is_err() {
            let _ = outer.kill();
            let _ = outer.wait();
            // The first error says more than what fails for it.
            let _ = control_groups::remove();
        }
        started.with_context(|| {
            let said = fs::read_to_string(&log).unwrap_or_default();
            format!("the container engine's namespaces: {}", said.trim())
        })
    }

    pub fn first(&self) -> First {
        self.first
    }

    /// A program in all of the engine's namespaces.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.folder.join(scripts::ENGINE));
        command.arg(program);
        command
    }

    /// Ends every process in it and beside it, and removes its control groups.
    ///
    /// # Errors
    /// They do not end.
    pub fn stop(&self) -> Result<()> {
        stop(self.first)
    }
}

/// Whether the process is still the one that was started.
pub fn is_running(first: First) -> bool {
    network_of(first.pid).is_ok_and(|network| network == first.network)
}

/// As [`Engine::stop`].
pub fn stop(first: First) -> Result<()> {
    if is_running(first) {
        let pid = first.pid.to_string();
        Command::new("kill").args(["-KILL", &pid]).status().context("end the container engine")?;
        let deadline = Instant::now() + LIMIT;
        while !has_ended(first.pid) {
            if Instant::now() > deadline {
                bail!("process {pid}, the first of the cluster's, does not end");
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
    control_groups::remove()
}

/// Gone, or a zombie: the first process of a process namespace becomes one when all others in it have ended.
fn has_ended(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("State:")).is_none_or(|state| state.trim().starts_with('Z'))
}

fn write_settings(folder: &Path, images: &[&Path]) -> Result<()> {
    let place = folder.display().to_string();
    let images: Vec<String> = images.iter().map(|image| format!("\"{}\"", image.display())).collect();
    let storage = STORAGE.replace("FOLDER", &place).replace("IMAGES", &images.join(", "));
    for (name, text) in [("containers.conf", CONTAINERS.replace("FOLDER", &place)), ("storage.conf", storage)] {
        fs::write(folder.join(name), text).with_context(|| format!("cannot write {name}"))?;
    }
    Ok(())
}

/// Waits for the file that the first process makes, and says which one that process is.
fn wait_for(outer: &mut Child, ready: &Path) -> Result<First> {
    let deadline = Instant::now() + LIMIT;
    while !ready.exists() {
        if let Some(status) = outer.try_wait()? {
            bail!("ended early: {status}");
        }
        if Instant::now() > deadline {
            bail!("not ready after {LIMIT:?}");
        }
        thread::sleep(Duration::from_millis(20));
    }
    let pid = child_of(outer.id()).context("the first process is not to be found")?;
    Ok(First { pid, network: network_of(pid)? })
}

/// `unshare --fork` has one child.
fn child_of(parent: u32) -> Option<u32> {
    let of = |pid: u32| -> Option<u32> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
    };
    let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.into_iter().find(|pid| of(*pid) == Some(parent))
}

/// The inode of a process's network namespace.
fn network_of(pid: u32) -> Result<u64> {
    let link = fs::read_link(format!("/proc/{pid}/ns/net")).with_context(|| format!("process {pid}"))?;
    let link = link.to_string_lossy();
    let inode = link.strip_prefix("net:[").and_then(|rest| rest.strip_suffix(']')).and_then(|inode| inode.parse().ok());
    inode.with_context(|| format!("{link} is no network namespace"))
}

/// Scripts and settings name paths without quotes.
fn path_word(path: &Path) -> Result<&str> {
    match path.to_str() {
        Some(text) if !text.contains(|c: char| c.is_whitespace() || "\"'$\\*?[".contains(c)) => Ok(text),
        _ => bail!("{} has blanks or signs of the shell in it: choose another XDG_CACHE_HOME", path.display()),
    }
}
