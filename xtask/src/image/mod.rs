//! `cargo xtask image`: the container image as an OCI archive, made without a container engine. It holds one file, the
//! agent as a static program. `deploy/Dockerfile` makes the same where an engine is at hand.

mod description;
mod program;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow};
use oci_spec::distribution::Reference;

use crate::oci::{Compression, Image, Layer};
use crate::workspace;

/// In the image.
const PROGRAM: &str = "/usr/local/bin/sheave";
/// What `deploy/kind` names.
const DEFAULT_NAME: &str = "docker.io/library/sheave:dev";

#[derive(clap::Args)]
pub struct Options {
    /// Where the archive goes [default: sheave-image.tar in cargo's target folder]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Name of the image in it; what is left out is what Docker takes: docker.io/library/NAME:latest
    #[arg(long, value_name = "NAME:TAG", default_value = DEFAULT_NAME)]
    pub tag: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { output: None, tag: DEFAULT_NAME.to_owned() }
    }
}

pub fn run(options: &Options) -> Result<()> {
    let archive = build(options)?;
    let size = fs::metadata(&archive).context("size of the archive")?.len();
    let (path, name) = (archive.display(), name(options)?);
    println!("{path}: {name}, {:.1} MB", size as f64 / 1e6);
    println!("  kind load image-archive {path}");
    println!("  ctr --namespace k8s.io images import {path}");
    println!("  podman load --input {path}          (or docker load)");
    println!("  skopeo copy oci-archive:{path} docker://REGISTRY/NAME:TAG");
    Ok(())
}

/// Makes the archive and says where it is. Built twice from the same tree, it is the same to the byte.
///
/// # Errors
/// A name that is none, a tool that is missing, a build that fails, or a file that cannot be written.
pub fn build(options: &Options) -> Result<PathBuf> {
    let name = name(options)?;
    let mut layer = Layer::new();
    layer.program(PROGRAM, &program::build()?)?;
    let output = match &options.output {
        Some(file) => std::path::absolute(file)?,
        None => workspace::target_dir().join("sheave-image.tar"),
    };
    let image = Image {
        name,
        entrypoint: vec![PROGRAM.to_owned()],
        command: vec!["--help".to_owned()],
        labels: description::labels(),
        created: description::created(),
        created_by: "cargo xtask image",
        compression: Compression::Best,
    };
    let content = image.archive(layer)?;
    // Beside it and renamed: whoever reads the old one meanwhile keeps a whole one.
    let partial = output.with_added_extension("partial");
    fs::write(&partial, content).with_context(|| format!("cannot write {}", partial.display()))?;
    fs::rename(&partial, &output).with_context(|| format!("cannot write {}", output.display()))?;
    Ok(output)
}

fn name(options: &Options) -> Result<Reference> {
    let name: Reference =
        options.tag.parse().map_err(|cause| anyhow!("{:?} is no name of an image: {cause}", options.tag))?;
    // A digest is what comes out of a build.
    if name.digest().is_some() { Err(anyhow!("{:?} names a digest, not a tag", options.tag)) } else { Ok(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(tag: &str) -> Result<String> {
        name(&Options { tag: tag.to_owned(), ..Options::default() }).map(|name| name.to_string())
    }

    #[test]
    fn names_are_completed_as_docker_does() {
        assert_eq!(full("sheave:dev").unwrap(), "docker.io/library/sheave:dev");
        assert_eq!(full("registry.example:5000/net/sheave:v1").unwrap(), "registry.example:5000/net/sheave:v1");
        assert_eq!(full("net/sheave").unwrap(), "docker.io/net/sheave:latest");
        assert_eq!(full(DEFAULT_NAME).unwrap(), DEFAULT_NAME);
    }

    #[test]
    fn what_is_no_name_is_named() {
        let digest = format!("sheave@sha256:{}", "0".repeat(64));
        for wrong in ["", "Sheave:dev", "sheave:", &digest] {
            let error = full(wrong).unwrap_err().to_string();
            assert!(error.contains(&format!("{wrong:?}")), "{error}");
        }
    }
}
