use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::ControlPlane;
use super::proxy_agent::NAMESPACE;
use crate::cluster::Namespace;

/// Where a pod finds it.
const MOUNT_POINT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The volume of a service account that a kubelet gives to a pod: `token`, `ca.crt` and `namespace`.
pub struct TokenVolume {
    directory: PathBuf,
}

impl ControlPlane<'_> {
    /// Makes the volume of a pod of `deploy/base`.
    pub fn token_volume(&self, name: &str, token: &str) -> Result<TokenVolume> {
        let directory = self.directory.join(name);
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        fs::copy(&self.credentials.authority, directory.join("ca.crt")).context("copy the authority")?;
        fs::write(directory.join("namespace"), NAMESPACE).context("write the namespace")?;
        let volume = TokenVolume { directory };
        volume.set_token(token)?;
        Ok(volume)
    }
}

impl TokenVolume {
    /// Replaces the token at once, as a kubelet does in good time.
    pub fn set_token(&self, token: &str) -> Result<()> {
        let new = self.directory.join("token.new");
        fs::write(&new, token).with_context(|| format!("write {}", new.display()))?;
        fs::rename(&new, self.directory.join("token")).context("replace the token")
    }

    /// A command whose arguments are a program that sees the volume in its place and nothing else in `/var`
    /// (where `run` leads elsewhere on a machine), and what that is told.
    pub(super) fn command(&self, namespace: &Namespace) -> Command {
        let script = format!(
            "mount -t tmpfs tmpfs /var && mkdir -p {MOUNT_POINT} && mount --bind \"$1\" {MOUNT_POINT} && shift && exec \"$@\""
        );
        let mut command = namespace.command("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]).arg(&self.directory);
        command
    }
}
