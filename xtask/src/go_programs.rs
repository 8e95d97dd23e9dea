//! Go programs that test clusters are made of, built from their published modules and cached.
//!
//! `go.mod` beside the module's sources says the versions; a program lies in a folder of its name and version, so that a
//! change of version builds anew.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{command, workspace};

/// The folder below `tests/kubernetes` with the `go.mod` that a program is built by.
const KUBERNETES: &str = ".";
const COREDNS: &str = "coredns";

/// What is built, and how it is found.
struct Source {
    name: &'static str,
    /// The module whose version is the program's.
    module: &'static str,
    /// The package, where it is not `cmd/NAME` of the module.
    package: Option<&'static str>,
    /// Which `go.mod`.
    folder: &'static str,
}

impl Source {
    const fn kubernetes(name: &'static str) -> Self {
        Self { name, module: "k8s.io/kubernetes", package: None, folder: KUBERNETES }
    }

    fn package(&self) -> String {
        self.package.map_or_else(|| format!("{}/cmd/{}", self.module, self.name), str::to_owned)
    }
}

const SOURCES: [Source; 10] = [
    Source::kubernetes("kube-apiserver"),
    Source::kubernetes("kube-controller-manager"),
    Source::kubernetes("kube-proxy"),
    Source::kubernetes("kube-scheduler"),
    Source::kubernetes("kubeadm"),
    Source::kubernetes("kubectl"),
    Source::kubernetes("kubelet"),
    Source {
        name: "etcd",
        module: "go.etcd.io/etcd/server/v3",
        package: Some("go.etcd.io/etcd/server/v3"),
        folder: KUBERNETES,
    },
    Source { name: "kind", module: "sigs.k8s.io/kind", package: Some("sigs.k8s.io/kind"), folder: KUBERNETES },
    Source { name: "coredns", module: "github.com/coredns/coredns", package: Some("."), folder: COREDNS },
];

/// Where a program is, or will be once it is built.
///
/// # Errors
/// As [`version`].
pub fn path(name: &str) -> Result<PathBuf> {
    let source = source(name)?;
    // One setting of CGO for all, since with another the standard library and all on top of it are compiled again; and
    // this one, since a container image then holds the program alone.
    let folder = format!("{name}-{}-static", version(source.folder, source.module)?);
    Ok(cache().join(folder).join(name))
}

/// Those of `names` that are not built yet.
///
/// # Errors
/// As [`version`].
pub fn missing<'a>(names: &[&'a str]) -> Result<Vec<&'a str>> {
    let mut missing = Vec::new();
    for name in names {
        if !path(name)?.is_file() {
            missing.push(*name);
        }
    }
    Ok(missing)
}

/// Builds what is missing of `names`; each program is at [`path`] then.
///
/// # Errors
/// Go is missing or a build fails.
pub fn ensure(names: &[&str]) -> Result<()> {
    if missing(names)?.is_empty() {
        return Ok(());
    }
    // Another build may be at the same programs: what it has done need not be done again.
    let _lock = lock()?;
    let missing = missing(names)?;
    if missing.is_empty() {
        return Ok(());
    }
    if workspace::find_program("go").is_none() {
        bail!("building {} needs Go 1.26 or later", missing.join(", "));
    }
    let mut by_folder: BTreeMap<&str, Vec<&Source>> = BTreeMap::new();
    for name in missing {
        let source = source(name)?;
        by_folder.entry(source.folder).or_default().push(source);
    }
    by_folder.into_iter().try_for_each(|(folder, sources)| build(folder, &sources))
}

/// The version of Kubernetes that `tests/kubernetes/go.mod` requires, such as `v1.36.3`.
///
/// # Errors
/// As [`version`].
pub fn kubernetes_version() -> Result<String> {
    version(KUBERNETES, "k8s.io/kubernetes")
}

/// The folder in Go's cache that has the source of a module of `tests/kubernetes/go.mod`, which is fetched if needed.
///
/// # Errors
/// Go is missing, or cannot fetch it.
pub fn module_source(module: &str) -> Result<PathBuf> {
    let mut go = go(KUBERNETES);
    go.args(["mod", "download", "-json", module]);
    let answer = command::output(&mut go).with_context(|| format!("go cannot fetch the module {module}"))?;
    let answer: serde_json::Value = serde_json::from_str(&answer).context("what go says of a module")?;
    answer["Dir"].as_str().map(PathBuf::from).with_context(|| format!("go does not say where {module} is"))
}

fn cache() -> PathBuf {
    workspace::cache_dir().join("go-programs")
}

/// Held until the value is dropped.
fn lock() -> Result<File> {
    let folder = cache();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let file = File::create(folder.join("lock")).context("cannot make the lock of the Go programs")?;
    file.lock().context("cannot lock the Go programs")?;
    Ok(file)
}

fn source(name: &str) -> Result<&'static Source> {
    SOURCES.iter().find(|source| source.name == name).with_context(|| format!("nothing says how {name} is built"))
}

/// Builds beside and moves at the end: an interrupted build must not look like a finished one.
fn build(folder: &str, sources: &[&Source]) -> Result<()> {
    let partial = cache().join("partial");
    fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    let version = kubernetes_version()?;
    let (major, minor) = version.trim_start_matches('v').split_once('.').unwrap_or_default();
    let minor = minor.split('.').next().unwrap_or_default();
    let package = "k8s.io/component-base/version";
    let stamp =
        format!("-s -w -X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}");
    // All at once: their packages are compiled while others are linked.
    let mut go = go(folder);
    go.env("CGO_ENABLED", "0");
    go.args(["build", "-mod=readonly", "-buildvcs=false", "-ldflags", &stamp, "-o"]).arg(partial.join(""));
    command::run(go.args(sources.iter().map(|source| source.package())))?;
    for source in sources {
        let (from, to) = (partial.join(output_name(folder, source)), path(source.name)?);
        let parent = to.parent().unwrap_or(&partial);
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        fs::rename(&from, &to).with_context(|| format!("cannot move {}", from.display()))?;
    }
    fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))
}

/// What go calls the program: the last part of the package's path that is not a major version.
fn output_name(folder: &str, source: &Source) -> String {
    let package = source.package();
    let package = if package == "." { folder } else { &package };
    let is_version = |part: &&str| part.strip_prefix('v').is_some_and(|rest| rest.parse::<u32>().is_ok());
    package.rsplit('/').find(|part| !is_version(part)).unwrap_or(package).to_owned()
}

/// The version that a `go.mod` requires of a module.
///
/// # Errors
/// The file cannot be read or requires no such module.
fn version(folder: &str, module: &str) -> Result<String> {
    let file = directory(folder).join("go.mod");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    required(&text, module).with_context(|| format!("{} does not require {module}", file.display()))
}

/// `require MODULE VERSION`, or the same in a block.
fn required(text: &str, module: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        (words.next() == Some(module)).then(|| words.next()).flatten().map(str::to_owned)
    })
}

fn go(folder: &str) -> Command {
    let mut go = command::in_workspace("go");
    go.current_dir(directory(folder));
    go
}

fn directory(folder: &str) -> PathBuf {
    workspace::root().join("tests/kubernetes").join(Path::new(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_has_a_version_and_a_name() {
        let mut outputs: Vec<(&str, String)> = Vec::new();
        for source in &SOURCES {
            let path = path(source.name).unwrap();
            assert!(path.ends_with(source.name), "{}", path.display());
            outputs.push((source.name, output_name(source.folder, source)));
        }
        assert!(outputs.contains(&("etcd", "server".to_owned())));
        assert!(outputs.iter().all(|(name, output)| name == output || *name == "etcd"), "{outputs:?}");
    }

    #[test]
    fn versions_are_read_from_both_forms() {
        let text = "module m\n\nrequire a.b/c v1.2.3\n\nrequire (\n\td.e/f v4.5.6\n\td.e/f/g v7.0.0 // indirect\n)\n";
        assert_eq!(required(text, "a.b/c").as_deref(), Some("v1.2.3"));
        assert_eq!(required(text, "d.e/f").as_deref(), Some("v4.5.6"));
        assert_eq!(required(text, "d.e"), None);
    }
}
