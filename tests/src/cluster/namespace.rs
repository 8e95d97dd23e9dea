use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use super::{Addresses, iproute};

/// A named network namespace, removed when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    file: File,
}

impl Namespace {
    /// Where iproute2 registers them.
    pub const DIRECTORY: &str = "/run/netns";

    /// Makes namespaces of these names.
    pub fn create(names: &[String]) -> Result<Vec<Self>> {
        let lines: String = names.iter().map(|name| format!("netns add {name}\n")).collect();
        let made = iproute::batch(&lines).context("make network namespaces");
        let opened = made.and_then(|()| names.iter().map(|name| Self::open(name)).collect());
        if opened.is_err() {
            // What of them was made has no owner yet.
            let _ = Self::remove(names);
        }
        opened
    }

    fn open(name: &str) -> Result<Self> {
        let path = Path::new(Self::DIRECTORY).join(name);
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        Ok(Self(Arc::new(Inner { name: name.to_owned(), file })))
    }

    /// Removes namespaces by name; none that are missing, and no matter who else removes them now.
    pub fn remove(names: &[String]) -> Result<()> {
        let exists = |name: &&String| Path::new(Self::DIRECTORY).join(name).exists();
        let lines: String = names.iter().filter(exists).map(|name| format!("netns del {name}\n")).collect();
        if lines.is_empty() {
            return Ok(());
        }
        let result = iproute::batch_all(&lines);
        if names.iter().any(|name| exists(&name)) { result } else { Ok(()) }
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub fn path(&self) -> PathBuf {
        Path::new(Self::DIRECTORY).join(self.name())
    }

    /// Runs lines of iproute2 inside.
    pub fn ip(&self, lines: &str) -> Result<()> {
        iproute::batch_in(self.name(), lines)
    }

    /// Gives `eth0` its addresses and the way out through `gateway`, as in a network of /24 and /64.
    pub(super) fn configure_host(&self, own: &Addresses, gateway: &Addresses) -> Result<()> {
        self.ip(&format!(
            "link set lo up
             addr add {}/24 dev eth0
             addr add {}/64 dev eth0 nodad
             link set eth0 up
             route add default via {}
             route add default via {}
            ",
            own.v4, own.v6, gateway.v4, gateway.v6
        ))
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let namespace = self.clone();
        let enter = move || setns(&namespace.0.file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
        // SAFETY: between fork and exec only async-signal-safe calls are allowed; the closure makes one system call
        // on a descriptor that it keeps open, and allocates nothing.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Runs `work` on a thread inside and gives back what it returned. Sockets made there stay there.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.0.file, CloneFlags::CLONE_NEWNET)?;
                Ok::<T, nix::Error>(work())
            });
            match thread.join() {
                Ok(result) => result.with_context(|| format!("enter namespace {}", self.name())),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Number of the namespace, as `ls -i` and `bpftool net` have it.
    pub fn inode(&self) -> Result<u64> {
        let status = nix::sys::stat::fstat(&self.0.file).map_err(|error| anyhow!("stat {}: {error}", self.name()))?;
        Ok(status.st_ino)
    }

    /// Descriptor of the namespace, for calls that take one.
    pub fn descriptor(&self) -> i32 {
        self.0.file.as_raw_fd()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = Namespace::remove(std::slice::from_ref(&self.name));
    }
}
