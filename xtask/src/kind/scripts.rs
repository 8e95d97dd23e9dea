//! Scripts in the cluster's folder, by which people and this program get into it. They say so when the cluster has gone.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::state::First;
use crate::go_programs;

/// kubectl with the cluster's address and rights.
pub const KUBECTL: &str = "kubectl";
/// Runs a program next to the cluster: on the network of its nodes, and in its control group.
pub const ENTER: &str = "enter";
/// Runs a program in all namespaces of the engine.
pub const ENGINE: &str = "engine";
/// What kubectl reads, beside it.
pub const KUBECONFIG: &str = "kubeconfig";

/// For an engine in namespaces of its own. `groups` are its control groups.
///
/// # Errors
/// The folder cannot be written.
pub fn write(folder: &Path, First { pid, network }: First, groups: &[PathBuf]) -> Result<()> {
    let place = folder.display();
    let begin = format!(
        "#!/bin/sh\nset -e\nif [ \"$(readlink /proc/{pid}/ns/net)\" != 'net:[{network}]' ]; then\n    \
         echo 'the cluster is not up any more: cargo xtask kind down' >&2\n    exit 1\nfi\n"
    );
    let mut join = String::new();
    for group in groups {
        // See engine.sh: the place for processes under version 2.
        let inner = group.join("engine");
        let group = if inner.is_dir() { &inner } else { group };
        join += &format!("echo $$ > {}/cgroup.procs\n", group.display());
    }
    let network = format!("nsenter --net=/proc/{pid}/ns/net --");
    let settings = format!(
        "export CONTAINERS_CONF={place}/containers.conf CONTAINERS_STORAGE_CONF={place}/storage.conf\n\
         export KIND_EXPERIMENTAL_PROVIDER=podman\n\
         unset http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY\n"
    );
    let all = format!("nsenter --target {pid} --net --mount --pid --ipc --uts --cgroup --wdns=\"$PWD\" --");
    executable(&folder.join(KUBECTL), &format!("{begin}{join}exec {network} {} \"$@\"\n", kubectl(folder)?))?;
    executable(&folder.join(ENTER), &format!("{begin}{join}exec {network} \"$@\"\n"))?;
    executable(&folder.join(ENGINE), &format!("{begin}{join}{settings}exec {all} \"$@\"\n"))
}

/// For the machine's own engine, whose network is the machine's.
///
/// # Errors
/// The folder cannot be written.
pub fn write_plain(folder: &Path) -> Result<()> {
    executable(&folder.join(KUBECTL), &format!("#!/bin/sh\nexec {} \"$@\"\n", kubectl(folder)?))?;
    for name in [ENTER, ENGINE] {
        executable(&folder.join(name), "#!/bin/sh\nexec \"$@\"\n")?;
    }
    Ok(())
}

fn kubectl(folder: &Path) -> Result<String> {
    let program = go_programs::path("kubectl")?;
    Ok(format!("{} --kubeconfig {}", program.display(), folder.join(KUBECONFIG).display()))
}

fn executable(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text)
        .and_then(|()| fs::set_permissions(file, Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", file.display()))
}
