//! An OCI image layout (image-spec, image-layout.md) in a tar file. A second table of contents, in the form of
//! `docker save`, lies beside it: Docker before version 25 reads no other.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};
use oci_spec::distribution::Reference;
use oci_spec::image::{
    ANNOTATION_REF_NAME, Arch, ConfigBuilder, Descriptor, DescriptorBuilder, HistoryBuilder, ImageConfigurationBuilder,
    ImageIndexBuilder, ImageManifestBuilder, MediaType, OciLayoutBuilder, Os, PlatformBuilder, RootFsBuilder,
    Sha256Digest,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

/// In the image.
pub const PROGRAM: &str = "/usr/local/bin/sheave";
/// What containerd, and all that is built on it, takes for the name of an image.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// The whole archive. Its bytes depend on nothing but the arguments.
pub fn archive(
    program: &[u8],
    name: &Reference,
    labels: &BTreeMap<String, String>,
    created: Option<String>,
) -> Result<Vec<u8>> {
    let mut blobs = Blobs::default();
    let layer = layer(program)?;
    let diff = digest(&layer);
    let layer = blobs.add(MediaType::ImageLayerGzip, compress(&layer)?)?;
    let configuration = json(&configuration(&diff, labels, created)?)?;
    let configuration = blobs.add(MediaType::ImageConfig, configuration)?;
    let manifest = ImageManifestBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageManifest)
        .config(configuration.clone())
        .layers([layer.clone()])
        .annotations(labels.clone().into_iter().collect::<HashMap<_, _>>())
        .build()?;
    let manifest = blobs.add(MediaType::ImageManifest, json(&manifest)?)?;
    let index = ImageIndexBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageIndex)
        .manifests([named(manifest, name)?])
        .build()?;
    let layout = OciLayoutBuilder::default().image_layout_version("1.0.0").build()?;
    let for_docker = serde_json::json!([{
        "Config": path(&configuration),
        "RepoTags": [name.to_string()],
        "Layers": [path(&layer)],
    }]);

    let mut tar = tar::Builder::new(Vec::new());
    add_file(&mut tar, "oci-layout", 0o644, &json(&layout)?)?;
    add_file(&mut tar, "index.json", 0o644, &json(&index)?)?;
    add_file(&mut tar, "manifest.json", 0o644, &json(&for_docker)?)?;
    add_directories(&mut tar, "blobs/sha256")?;
    for (digest, content) in &blobs.0 {
        add_file(&mut tar, &format!("blobs/sha256/{digest}"), 0o644, content)?;
    }
    tar.into_inner().context("end of the archive")
}

/// The only layer: the program and the folders above it.
fn layer(program: &[u8]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let file = PROGRAM.trim_start_matches('/');
    let (folder, _) = file.rsplit_once('/').context("a program in a folder")?;
    add_directories(&mut tar, folder)?;
    add_file(&mut tar, file, 0o755, program)?;
    tar.into_inner().context("end of the layer")
}

fn configuration(
    diff: &str,
    labels: &BTreeMap<String, String>,
    created: Option<String>,
) -> Result<oci_spec::image::ImageConfiguration> {
    let config = ConfigBuilder::default()
        .entrypoint([PROGRAM.to_owned()])
        .cmd(["--help".to_owned()])
        .env(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()])
        .labels(labels.clone().into_iter().collect::<HashMap<_, _>>())
        .build()?;
    let root = RootFsBuilder::default().typ("layers").diff_ids([format!("sha256:{diff}")]).build()?;
    let mut history = HistoryBuilder::default().created_by("cargo xtask image");
    let mut image = ImageConfigurationBuilder::default().architecture(Arch::default()).os(Os::Linux);
    if let Some(created) = created {
        history = history.created(created.clone());
        image = image.created(created);
    }
    Ok(image.config(config).rootfs(root).history([history.build()?]).build()?)
}

/// The manifest's entry in the index, by which tools know the image's name.
fn named(manifest: Descriptor, name: &Reference) -> Result<Descriptor> {
    let platform = PlatformBuilder::default().architecture(Arch::default()).os(Os::Linux).build()?;
    let mut annotations = HashMap::from([(CONTAINERD_NAME.to_owned(), name.to_string())]);
    if let Some(tag) = name.tag() {
        annotations.insert(ANNOTATION_REF_NAME.to_owned(), tag.to_owned());
    }
    let mut named = manifest;
    named.set_annotations(Some(annotations)).set_platform(Some(platform));
    Ok(named)
}

/// By digest, which is also their order in the archive.
#[derive(Default)]
struct Blobs(BTreeMap<String, Vec<u8>>);

impl Blobs {
    fn add(&mut self, kind: MediaType, content: Vec<u8>) -> Result<Descriptor> {
        let (digest, size) = (digest(&content), content.len() as u64);
        let descriptor =
            DescriptorBuilder::default().media_type(kind).digest(digest.parse::<Sha256Digest>()?).size(size).build()?;
        self.0.insert(digest, content);
        Ok(descriptor)
    }
}

fn path(blob: &Descriptor) -> String {
    format!("blobs/sha256/{}", blob.digest().digest())
}

fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// With sorted keys: the maps of `oci_spec` have no order of their own.
fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(&serde_json::to_value(value)?)?)
}

fn compress(content: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    encoder.write_all(content)?;
    encoder.finish().context("end of the compressed layer")
}

fn add_directories(tar: &mut tar::Builder<Vec<u8>>, path: &str) -> Result<()> {
    for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
        add(tar, EntryType::Directory, &format!("{}/", &path[..end]), 0o755, &[])?;
    }
    Ok(())
}

fn add_file(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    add(tar, EntryType::Regular, path, mode, content)
}

/// Owned by root, from the epoch.
fn add(tar: &mut tar::Builder<Vec<u8>>, kind: EntryType, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, path, content).with_context(|| format!("cannot add {path}"))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use serde_json::Value;

    use super::*;

    fn made() -> Vec<u8> {
        let labels = BTreeMap::from(["b", "a", "c", "d"].map(|key| (key.to_owned(), format!("label {key}"))));
        let name = "sheave:dev".parse().unwrap();
        archive(b"program", &name, &labels, Some("2026-11-26T00:00:00Z".to_owned())).unwrap()
    }

    /// Regular files by their path.
    fn files(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(tar);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            assert_eq!(entry.header().mtime().unwrap(), 0);
            assert_eq!((entry.header().uid().unwrap(), entry.header().gid().unwrap()), (0, 0));
            let path = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.header().entry_type(), path, content)
        });
        entries.filter(|(kind, ..)| *kind == EntryType::Regular).map(|(_, path, content)| (path, content)).collect()
    }

    fn blob<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
        let hex = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let content = &files[&format!("blobs/sha256/{hex}")];
        assert_eq!((digest(content).as_str(), content.len() as u64), (hex, descriptor["size"].as_u64().unwrap()));
        content
    }

    #[test]
    fn the_same_twice() {
        assert_eq!(made(), made());
    }

    #[test]
    fn every_descriptor_describes_what_it_names() {
        let archive = made();
        let files = files(&archive);
        let json = |content: &[u8]| serde_json::from_slice::<Value>(content).unwrap();
        assert_eq!(json(&files["oci-layout"])["imageLayoutVersion"], "1.0.0");
        let index = json(&files["index.json"]);
        let entry = &index["manifests"][0];
        assert_eq!(entry["annotations"][CONTAINERD_NAME], "docker.io/library/sheave:dev");
        assert_eq!(entry["annotations"][ANNOTATION_REF_NAME], "dev");
        let manifest = json(blob(&files, entry));
        assert_eq!(manifest["annotations"]["a"], "label a");
        let configuration = json(blob(&files, &manifest["config"]));
        assert_eq!(configuration["config"]["Labels"]["a"], "label a");
        assert_eq!(configuration["config"]["Entrypoint"][0], PROGRAM);
        let mut layer = Vec::new();
        GzDecoder::new(blob(&files, &manifest["layers"][0])).read_to_end(&mut layer).unwrap();
        assert_eq!(configuration["rootfs"]["diff_ids"][0], format!("sha256:{}", digest(&layer)));
        assert_eq!(self::files(&layer)[&PROGRAM[1..]], b"program");

        let for_docker = json(&files["manifest.json"]);
        assert_eq!(for_docker[0]["RepoTags"][0], "docker.io/library/sheave:dev");
        for path in [&for_docker[0]["Config"], &for_docker[0]["Layers"][0]] {
            assert!(files.contains_key(path.as_str().unwrap()), "{path}");
        }
    }
}
