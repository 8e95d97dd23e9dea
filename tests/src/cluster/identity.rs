use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// First part of every name we give to something that outlives a process.
const PREFIX: &str = "sheave-";

/// What a cluster's namespaces, directory and mounts are called after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// `sheave-PID-N`: goes with the process.
    Process { pid: u32, number: u32 },
    /// `sheave-NAME`: stays until somebody removes it.
    Kept(String),
}

impl Identity {
    /// One that no other cluster has.
    pub fn unique() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        Self::Process { pid: std::process::id(), number: NUMBER.fetch_add(1, Ordering::Relaxed) }
    }

    pub fn stem(&self) -> String {
        match self {
            Self::Process { pid, number } => format!("{PREFIX}{pid}-{number}"),
            Self::Kept(name) => format!("{PREFIX}{name}"),
        }
    }

    /// Name of the network namespace for `role`.
    pub fn namespace(&self, role: &str) -> String {
        format!("{}-{role}", self.stem())
    }

    /// On /run, a tmpfs: sockets and mount points do not belong on a disk, and /tmp may be swept under us.
    pub fn directory(&self) -> PathBuf {
        Path::new("/run").join(self.stem())
    }

    /// The process-bound identity that a name of ours belongs to.
    pub fn of_process(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.splitn(3, '-');
        let pid = parts.next()?.parse().ok()?;
        let number = parts.next()?.parse().ok()?;
        Some(Self::Process { pid, number })
    }

    /// Whether the process that made it is gone.
    pub fn is_orphan(&self) -> bool {
        match self {
            Self::Process { pid, .. } => !Path::new(&format!("/proc/{pid}")).exists(),
            Self::Kept(_) => false,
        }
    }

    /// Whether `name` is that of the directory or of a namespace of this identity.
    pub fn owns(&self, name: &str) -> bool {
        name.strip_prefix(&self.stem()).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_process() {
        let identity = Identity::Process { pid: 17, number: 3 };
        assert_eq!(Identity::of_process(&identity.namespace("node1")), Some(identity.clone()));
        assert_eq!(Identity::of_process(&identity.stem()), Some(identity.clone()));
        for other in ["sheave-demo-node1", "sheave", "cni-17-3-node1", "sheave-17", "sheave-17-x"] {
            assert_eq!(Identity::of_process(other), None, "{other}");
        }
        assert!(identity.owns("sheave-17-3-node1") && !identity.owns("sheave-17-30-node1"));
    }

    #[test]
    fn our_own_are_no_orphans() {
        assert!(!Identity::unique().is_orphan());
        assert!(Identity::Process { pid: u32::MAX, number: 0 }.is_orphan());
    }
}
