//! What an image says of itself, by the keys that the OCI gives for it (image-spec, annotations.md).

use std::collections::BTreeMap;
use std::env;
use std::process::Command;

use oci_spec::image as oci;

use crate::{command, workspace};

pub const TITLE: &str = "Sheave";
pub const DESCRIPTION: &str = "An eBPF replacement for kube-proxy";
/// Of the agent. The kernel programs in it may be had under GPL-2.0 instead.
pub const LICENSES: &str = env!("CARGO_PKG_LICENSE");

/// Labels of the image, which are also the annotations of its manifest: engines show the ones, registries the others.
pub fn labels() -> BTreeMap<String, String> {
    let fixed = [
        (oci::ANNOTATION_TITLE, TITLE),
        (oci::ANNOTATION_DESCRIPTION, DESCRIPTION),
        (oci::ANNOTATION_LICENSES, LICENSES),
        (oci::ANNOTATION_VERSION, env!("CARGO_PKG_VERSION")),
    ];
    let fixed = fixed.map(|(key, value)| (key, value.to_owned()));
    let found = [(oci::ANNOTATION_REVISION, revision()), (oci::ANNOTATION_CREATED, created())];
    let found = found.into_iter().filter_map(|(key, value)| Some((key, value?)));
    fixed.into_iter().chain(found).map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The commit, and whether the tree differs from it; `None` outside of a checkout.
fn revision() -> Option<String> {
    let commit = git(&["rev-parse", "HEAD"])?;
    let is_clean = git(&["status", "--porcelain"])?.is_empty();
    Some(if is_clean { commit } else { format!("{commit}-dirty") })
}

/// When the source was made, not the image, so that equal sources give equal images: `SOURCE_DATE_EPOCH`
/// (reproducible-builds.org) or the time of the commit, by RFC 3339.
pub fn created() -> Option<String> {
    let seconds = env::var("SOURCE_DATE_EPOCH").ok().or_else(|| git(&["log", "-1", "--format=%ct"]))?;
    let mut date = Command::new("date");
    date.args(["--utc", &format!("--date=@{seconds}"), "+%Y-%m-%dT%H:%M:%SZ"]);
    command::output(&mut date).map(|text| text.trim().to_owned())
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = command::output(Command::new("git").args(arguments).current_dir(workspace::root()))?;
    Some(output.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_dockerfile_says_the_same() {
        let text = fs::read_to_string(workspace::root().join("deploy/Dockerfile")).unwrap();
        for (key, value) in [
            (oci::ANNOTATION_TITLE, TITLE),
            (oci::ANNOTATION_DESCRIPTION, DESCRIPTION),
            (oci::ANNOTATION_LICENSES, LICENSES),
        ] {
            let label = format!("{key}=\"{value}\"");
            assert!(text.contains(&label), "deploy/Dockerfile has no label {label}");
        }
    }
}
