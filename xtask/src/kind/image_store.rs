//! Images that are in a node from its first moment on: taken into the store of its containerd, before there is a node.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::command;

/// It takes a tenth of a second on an idle machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Takes archives into `/var/lib/containerd` below `root`, by the containerd that is there. `work` holds its socket
/// meanwhile. Not unpacked: a node unpacks what its pods need.
///
/// # Errors
/// containerd does not start, or refuses an archive.
pub fn import(root: &Path, work: &Path, archives: &[PathBuf]) -> Result<()> {
    fs::create_dir_all(work).with_context(|| format!("cannot make {}", work.display()))?;
    let socket = work.join("socket");
    let configuration = work.join("config.toml");
    let text = format!(
        "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {:?}\n",
        root.join("var/lib/containerd"),
        work.join("state"),
        socket
    );
    fs::write(&configuration, text).with_context(|| format!("cannot write {}", configuration.display()))?;
    let log = File::create(work.join("log")).context("cannot write containerd's log")?;
    let mut containerd = Command::new(root.join("usr/bin/containerd"));
    containerd.arg("--config").arg(&configuration).stdout(log.try_clone()?).stderr(log);
    let mut containerd = Server(containerd.spawn().context("start containerd")?);
    containerd.wait_for(&socket)?;
    for archive in archives {
        let mut ctr = Command::new(root.join("usr/bin/ctr"));
        ctr.arg("--address").arg(&socket).args(["--namespace", "k8s.io", "images", "import", "--no-unpack"]);
        command::run(ctr.arg(archive))?;
    }
    Ok(())
}

/// Ends with the value, whatever happens.
struct Server(Child);

impl Server {
    fn wait_for(&mut self, socket: &Path) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !socket.exists() {
            if let Some(status) = self.0.try_wait()? {
                bail!("containerd ended early: {status}");
            }
            if Instant::now() > deadline {
                bail!("containerd is not ready after {LIMIT:?}");
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Not killed: its database is written at the end.
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}
