//! The node image: the base, what kind's module carries for its own node image, Kubernetes, and the images that kubeadm
//! wants, in a store that podman reads without copying.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::cache::{self, Entry};
use super::engine::Engine;
use super::{image_store, node_base, system_images};
use crate::{command, go_programs};

/// Where an engine has its images, in its folder.
const STORE: &str = "storage";
const ENTRYPOINT: &str = "/kind/bin/node-entrypoint.sh";
const ADDED: [(&str, &str, u32); 4] = [
    (ENTRYPOINT, include_str!("node-entrypoint.sh"), 0o755),
    ("/kind/bin/pod-routes.sh", include_str!("pod-routes.sh"), 0o755),
    ("/etc/systemd/system/pod-routes.service", include_str!("pod-routes.service"), 0o644),
    ("/etc/systemd/system.conf.d/stop.conf", STOP, 0o644),
];

/// A pod whose first process has no ear for SIGTERM would hold up a node's end for 90 s, and an engine waits for 10.
const STOP: &str = "[Manager]\nDefaultTimeoutStopSec=5s\n";

/// As kind's Dockerfile enables them, and ours.
const UNITS: [&str; 4] = ["containerd", "kubelet", "pod-routes", "undo-mount-hacks"];
/// What kind's Dockerfile takes out of systemd's own targets: `FOLDER PART`, of whose links those go that have the part.
const UNWANTED: [(&str, &str); 6] = [
    ("lib/systemd/system/sysinit.target.wants", "systemd-tmpfiles-setup.service"),
    ("lib/systemd/system/multi-user.target.wants", ""),
    ("lib/systemd/system/local-fs.target.wants", ""),
    ("lib/systemd/system/sockets.target.wants", "udev"),
    ("lib/systemd/system/sockets.target.wants", "initctl"),
    ("lib/systemd/system/basic.target.wants", ""),
];
const CNI_PLUGINS: [&str; 4] = ["host-local", "loopback", "portmap", "ptp"];

/// A store of podman's with the image in it.
///
/// # Errors
/// The versions cannot be read.
pub fn entry() -> Result<Entry> {
    let mut parts = vec![node_base::key()];
    for program in system_images::PROGRAMS {
        parts.push(go_programs::path(program)?.display().to_string());
    }
    // The recipe itself: whoever changes it gets what it says.
    let recipe = [include_str!("node_image.rs"), include_str!("system_images.rs"), include_str!("image_store.rs")];
    parts.extend(recipe.iter().chain(ADDED.iter().map(|(_, text, _)| text)).map(|&text| text.to_owned()));
    Ok(Entry::new("node-image", &cache::key(parts)))
}

/// What `kind create cluster --image` is given.
///
/// # Errors
/// The version cannot be read.
pub fn name() -> Result<String> {
    Ok(format!("localhost/sheave-kind-node:{}", go_programs::kubernetes_version()?))
}

/// Makes the store, by an engine in namespaces of its own that `started` is told of.
///
/// # Errors
/// A part is missing, or a tool fails.
pub fn make(started: impl FnOnce(&Engine) -> Result<()>) -> Result<()> {
    entry()?.make(|folder| {
        let root = folder.join("root");
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        command::run(Command::new("cp").arg("--archive").arg(node_base::entry().path()).arg(&root))?;
        add_kind(&root).context("files of kind's module")?;
        set_up_units(&root).context("units of systemd")?;
        set_up_containerd(&root).context("containerd's configuration")?;
        add_kubernetes(&root).context("programs of Kubernetes")?;
        let archives = system_images::write(&folder.join("images"))?;
        image_store::import(&root, &folder.join("containerd"), &archives).context("images for the node")?;
        let engine = Engine::start(folder, &[])?;
        let imported = started(&engine).and_then(|()| import(&engine, &root));
        engine.stop()?;
        imported?;
        // What it was made of and by.
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path != folder.join(STORE) {
                cache::remove(&path)?;
            }
        }
        Ok(())
    })
}

/// Where the store is in the entry.
///
/// # Errors
/// As [`entry`].
pub fn store() -> Result<PathBuf> {
    Ok(entry()?.path().join(STORE))
}

fn add_kind(root: &Path) -> Result<()> {
    let files = go_programs::module_source("sigs.k8s.io/kind")?.join("images/base/files");
    // The module cache is read-only, and so is what it holds.
    command::run(Command::new("cp").args(["--recursive", "--no-preserve=mode"]).arg(files.join(".")).arg(root))?;
    for folder in ["usr/local/bin", "kind", "kind/bin"] {
        make_executable(&root.join(folder))?;
    }
    for folder in ["usr/local/bin", "kind/bin"] {
        for entry in fs::read_dir(root.join(folder))? {
            make_executable(&entry?.path())?;
        }
    }
    for (path, text, mode) in ADDED {
        let file = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(file.parent().unwrap_or(root))?;
        fs::write(&file, text)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn set_up_units(root: &Path) -> Result<()> {
    for (folder, part) in UNWANTED {
        remove_entries(&root.join(folder), part)?;
    }
    let system = root.join("etc/systemd/system");
    for entry in fs::read_dir(&system)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wants") {
            remove_entries(&path, "")?;
        }
    }
    let wants = system.join("multi-user.target.wants");
    fs::create_dir_all(&wants)?;
    for unit in UNITS {
        symlink(format!("/etc/systemd/system/{unit}.service"), wants.join(format!("{unit}.service")))?;
    }
    symlink("/dev/null", system.join("systemd-binfmt.service"))?;
    cache::remove(&root.join("sbin/init"))?;
    symlink("/usr/lib/systemd/systemd", root.join("sbin/init"))?;
    let mut journal = OpenOptions::new().append(true).open(root.join("etc/systemd/journald.conf"))?;
    Ok(journal.write_all(b"ReadKMsg=no\n")?)
}

fn remove_entries(folder: &Path, part: &str) -> Result<()> {
    // A folder that Debian's package does not have needs no emptying.
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let entry = entry?;
        if entry.file_name().to_string_lossy().contains(part) {
            cache::remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Debian's containerd where kind's scripts look for it.
fn set_up_containerd(root: &Path) -> Result<()> {
    for program in ["containerd", "containerd-shim-runc-v2", "ctr"] {
        symlink(format!("/usr/bin/{program}"), root.join("usr/local/bin").join(program))?;
    }
    symlink("/usr/sbin/runc", root.join("usr/local/sbin/runc"))?;
    let plugins = root.join("opt/cni/bin");
    fs::create_dir_all(&plugins)?;
    for plugin in CNI_PLUGINS {
        fs::copy(root.join("usr/lib/cni").join(plugin), plugins.join(plugin)).with_context(|| plugin.to_owned())?;
    }
    // As in kind's Dockerfile: containerd's own, with kind's hook and without limits, which may not be raised here.
    let spec =
        command::output(Command::new("chroot").arg(root).args(["ctr", "oci", "spec"])).context("ctr oci spec")?;
    let mut spec: serde_json::Value = serde_json::from_str(&spec)?;
    spec["hooks"]["createContainer"] = serde_json::json!([{"path": "/kind/bin/mount-product-files.sh"}]);
    spec["process"].as_object_mut().context("process of the specification")?.remove("rlimits");
    fs::write(root.join("etc/containerd/cri-base.json"), serde_json::to_vec_pretty(&spec)?)?;

    let file = root.join("etc/containerd/config.toml");
    let mut text = fs::read_to_string(&file)?;
    let pause = system_images::pause()?;
    for (key, value) in [("sandbox_image", format!("\"{pause}\"")), ("restrict_oom_score_adj", "true".to_owned())] {
        // A machine may not have CAP_SYS_RESOURCE, without which no process may be made less likely to be killed.
        text = set(&text, key, &value).with_context(|| format!("kind's config.toml has no {key}"))?;
    }
    Ok(fs::write(&file, text)?)
}

fn add_kubernetes(root: &Path) -> Result<()> {
    for program in ["kubeadm", "kubectl", "kubelet"] {
        fs::copy(go_programs::path(program)?, root.join("usr/bin").join(program))?;
    }
    fs::create_dir_all(root.join("etc/kubernetes/manifests"))?;
    Ok(fs::write(root.join("kind/version"), go_programs::kubernetes_version()?)?)
}

/// `podman import`: the folder as one layer.
fn import(engine: &Engine, root: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.arg("--create").arg("--directory").arg(root).arg(".");
    let mut tar = tar.stdout(Stdio::piped()).spawn().context("start tar")?;
    let mut podman = engine.command("podman");
    podman.arg("import").arg("--quiet");
    for change in [
        format!("ENTRYPOINT [\"{ENTRYPOINT}\",\"/sbin/init\"]"),
        "ENV container=podman".to_owned(),
        // What systemd takes for "halt".
        "STOPSIGNAL SIGRTMIN+3".to_owned(),
    ] {
        podman.arg("--change").arg(change);
    }
    podman.arg("-").arg(name()?);
    podman.stdin(tar.stdout.take().context("output of tar")?);
    let imported = command::run(&mut podman);
    let status = tar.wait()?;
    imported?;
    if !status.success() {
        bail!("tar failed: {status}");
    }
    Ok(())
}

fn make_executable(path: &Path) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).with_context(|| path.display().to_string())
}

/// Sets the only line of a TOML file that gives a key a value.
fn set(text: &str, key: &str, value: &str) -> Option<String> {
    let is_line =
        |line: &str| line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='));
    text.lines().find(|line| is_line(line))?;
    let indent = |line: &str| line[..line.len() - line.trim_start().len()].to_owned();
    let lines = text.lines().map(|line| match is_line(line) {
        true => format!("{}{key} = {value}\n", indent(line)),
        false => format!("{line}\n"),
    });
    Some(lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_of_the_configuration_is_set() {
        let text = "[a]\n  # key = 1\n  key = 2\n  keys = 3\n";
        assert_eq!(set(text, "key", "\"x\"").unwrap(), "[a]\n  # key = 1\n  key = \"x\"\n  keys = 3\n");
        assert_eq!(set(text, "other", "1"), None);
    }
}
