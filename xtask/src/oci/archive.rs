//! An OCI image layout (image-spec, image-layout.md) in a tar file. A second table of contents, in the form of
//! `docker save`, lies beside it: Docker before version 25 reads no other.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;

use anyhow::{Context as _, Result};
use flate2::GzBuilder;
use oci_spec::distribution::Reference;
use oci_spec::image::{
    ANNOTATION_REF_NAME, Arch, ConfigBuilder, Descriptor, DescriptorBuilder, HistoryBuilder, ImageConfiguration,
    ImageConfigurationBuilder, ImageIndexBuilder, ImageManifestBuilder, MediaType, OciLayoutBuilder, Os,
    PlatformBuilder, RootFsBuilder, Sha256Digest,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use super::layer::{self, Layer};

/// What containerd, and all that is built on it, takes for the name of an image.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// How the layer lies in the archive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// For what never leaves this machine.
    None,
    /// Gzip at its best, for what is sent.
    Best,
}

/// What is said of an image besides its files.
pub struct Image {
    pub name: Reference,
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    /// Also the annotations of the manifest: engines show the ones, registries the others.
    pub labels: BTreeMap<String, String>,
    /// By RFC 3339.
    pub created: Option<String>,
    /// What made it.
    pub created_by: &'static str,
    pub compression: Compression,
}

impl Image {
    /// The whole archive. Its bytes depend on nothing but the arguments.
    ///
    /// # Errors
    /// A text is not what the specification allows.
    pub fn archive(&self, layer: Layer) -> Result<Vec<u8>> {
        let mut blobs = Blobs::default();
        let layer = layer.finish()?;
        let diff = digest(&layer);
        let layer = match self.compression {
            Compression::None => blobs.add(MediaType::ImageLayer, layer)?,
            Compression::Best => blobs.add(MediaType::ImageLayerGzip, compress(&layer)?)?,
        };
        let configuration = blobs.add(MediaType::ImageConfig, json(&self.configuration(&diff)?)?)?;
        let manifest = ImageManifestBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageManifest)
            .config(configuration.clone())
            .layers([layer.clone()])
            .annotations(self.labels.clone().into_iter().collect::<HashMap<_, _>>())
            .build()?;
        let manifest = blobs.add(MediaType::ImageManifest, json(&manifest)?)?;
        let index = ImageIndexBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageIndex)
            .manifests([self.named(manifest)?])
            .build()?;
        let layout = OciLayoutBuilder::default().image_layout_version("1.0.0").build()?;
        let for_docker = serde_json::json!([{
            "Config": path(&configuration),
            "RepoTags": [self.name.to_string()],
            "Layers": [path(&layer)],
        }]);

        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |path: &str, content: &[u8]| layer::add(&mut tar, EntryType::Regular, path, 0o644, content);
        add("oci-layout", &json(&layout)?)?;
        add("index.json", &json(&index)?)?;
        add("manifest.json", &json(&for_docker)?)?;
        for (digest, content) in &blobs.0 {
            add(&format!("blobs/sha256/{digest}"), content)?;
        }
        tar.into_inner().context("end of the archive")
    }

    fn configuration(&self, diff: &str) -> Result<ImageConfiguration> {
        let config = ConfigBuilder::default()
            .entrypoint(self.entrypoint.clone())
            .cmd(self.command.clone())
            .env(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()])
            .labels(self.labels.clone().into_iter().collect::<HashMap<_, _>>())
            .build()?;
        let root = RootFsBuilder::default().typ("layers").diff_ids([format!("sha256:{diff}")]).build()?;
        let mut history = HistoryBuilder::default().created_by(self.created_by);
        let mut image = ImageConfigurationBuilder::default().architecture(Arch::default()).os(Os::Linux);
        if let Some(created) = &self.created {
            history = history.created(created.clone());
            image = image.created(created.clone());
        }
        Ok(image.config(config).rootfs(root).history([history.build()?]).build()?)
    }

    /// The manifest's entry in the index, by which tools know the image's name.
    fn named(&self, mut manifest: Descriptor) -> Result<Descriptor> {
        let platform = PlatformBuilder::default().architecture(Arch::default()).os(Os::Linux).build()?;
        let mut annotations = HashMap::from([(CONTAINERD_NAME.to_owned(), self.name.to_string())]);
        if let Some(tag) = self.name.tag() {
            annotations.insert(ANNOTATION_REF_NAME.to_owned(), tag.to_owned());
        }
        manifest.set_annotations(Some(annotations)).set_platform(Some(platform));
        Ok(manifest)
    }
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
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), flate2::Compression::best());
    encoder.write_all(content)?;
    encoder.finish().context("end of the compressed layer")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use serde_json::Value;

    use super::*;

    const PROGRAM: &str = "/usr/local/bin/sheave";

    fn made() -> Vec<u8> {
        let mut layer = Layer::new();
        layer.file(PROGRAM, 0o755, b"program").unwrap();
        let image = Image {
            name: "sheave:dev".parse().unwrap(),
            entrypoint: vec![PROGRAM.to_owned()],
            command: vec!["--help".to_owned()],
            labels: BTreeMap::from(["b", "a", "c", "d"].map(|key| (key.to_owned(), format!("label {key}")))),
            created: Some("2026-11-26T00:00:00Z".to_owned()),
            created_by: "a test",
            compression: Compression::Best,
        };
        image.archive(layer).unwrap()
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
