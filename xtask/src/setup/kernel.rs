//! Kernels for virtual machines: Debian's, unpacked and not installed, of those series that the machine's apt offers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{command, setup::packages, workspace};

/// A kernel and its modules, in an unpacked package.
#[derive(Debug)]
pub struct Kernel {
    /// As `uname -r` says it, for example `6.1.0-56-cloud-amd64`.
    pub release: String,
    /// What is booted.
    pub image: PathBuf,
    /// The folder that has `lib/modules/RELEASE`.
    pub root: PathBuf,
}

impl Kernel {
    /// The newest kernel of a series (`6.1`), from the cache or Debian; or that of a folder with an unpacked package.
    ///
    /// # Errors
    /// Debian has none of the series, this machine has no apt, or the folder holds no kernel.
    pub fn find(wanted: &str) -> Result<Self> {
        if Path::new(wanted).is_dir() {
            return Self::unpacked(Path::new(wanted));
        }
        let cache = workspace::cache_dir().join("kernels");
        fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
        let mut cached = Vec::new();
        for entry in fs::read_dir(&cache).with_context(|| format!("cannot list {}", cache.display()))? {
            cached.push(entry?.file_name().to_string_lossy().into_owned());
        }
        let package = match newest(wanted, cached.iter().map(String::as_str)) {
            Some(package) => package.to_owned(),
            None => download(wanted, &cache)?,
        };
        Self::unpacked(&cache.join(package))
    }

    fn unpacked(root: &Path) -> Result<Self> {
        let modules = root.join("lib/modules");
        let entries = fs::read_dir(&modules).with_context(|| format!("no kernel in {}", root.display()))?;
        let mut releases: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        let (Some(release), None) = (releases.pop(), releases.pop()) else {
            bail!("{} should have one folder, named after the kernel", modules.display());
        };
        let image = root.join(format!("boot/vmlinuz-{release}"));
        if !image.is_file() {
            bail!("there is no {}", image.display());
        }
        Ok(Self { release, image, root: root.to_owned() })
    }
}

/// The highest version among Debian's packages of cloud kernels of a series; they have the drivers of virtual machines
/// and no others.
fn newest<'a>(series: &str, packages: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let of_series = |package: &&str| {
        let version = package.strip_prefix("linux-image-").and_then(|rest| rest.strip_suffix("-cloud-amd64"));
        version.is_some_and(|version| version.starts_with(&format!("{series}.")))
    };
    packages.filter(of_series).max_by_key(|package| numbers(package))
}

/// Compared one by one, where text would put 6.1.0-9 behind 6.1.0-56.
fn numbers(package: &str) -> Vec<u64> {
    package.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// Unpacks the newest package of a series into a folder of its name below `cache`.
fn download(series: &str, cache: &Path) -> Result<String> {
    eprintln!("setup: looking for Debian's newest kernel {series}");
    packages::update_lists(&format!("linux-image-{series}"))?;
    let names = command::output(Command::new("apt-cache").args(["pkgnames", "linux-image-"])).unwrap_or_default();
    let package = newest(series, names.lines()).with_context(|| {
        format!("this machine's apt offers no kernel {series} (Debian 12 has 6.1 and 6.12): name a folder with one")
    })?;
    // Apart from the kernels, so that an interrupted download is not taken for one.
    let work = cache.join("download");
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    }
    packages::download(package, &work)?;
    let home = cache.join(package);
    fs::rename(&work, &home).with_context(|| format!("cannot move {}", work.display()))?;
    Ok(package.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_series_is_found_by_number() {
        let packages = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64-dbg",
            "linux-image-6.1.0-57-rt-amd64",
            "linux-image-6.12-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-cloud-amd64",
        ];
        assert_eq!(newest("6.1", packages.into_iter()), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(newest("6.12", packages.into_iter()), Some("linux-image-6.12.117+deb12-cloud-amd64"));
        assert_eq!(newest("6.6", packages.into_iter()), None);
    }
}
