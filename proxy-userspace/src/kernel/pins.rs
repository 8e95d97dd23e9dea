use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use proxy_common::wire::LAYOUT;

use super::raw::link;

/// Where a program sits on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// The directories below a pin directory. Of each layout version there is one, so that bytes of one layout are never
/// read with the types of another:
///
/// ```text
/// v1/maps/FRONTENDS ...                 the maps
/// v1/links-COOKIE/eth0-2-ingress ...    TCX links on the devices of the network namespace with this cookie
/// v1/clsact-COOKIE/eth0-2 ...           empty directories: its devices whose clsact qdisc we made
/// v1/sockets-COOKIE/connect4 ...        links at a control group, for the sockets of that namespace
/// ```
#[derive(Clone, Debug)]
pub(super) struct Layout {
    base: PathBuf,
}

impl Layout {
    pub fn current(pin_dir: &Path) -> Self {
        Self { base: pin_dir.join(format!("v{LAYOUT}")) }
    }

    /// Those of all versions that are there.
    pub fn all(pin_dir: &Path) -> Vec<Self> {
        let ours = |name: &str| name.strip_prefix('v').is_some_and(|digits| digits.parse::<u32>().is_ok());
        entries(pin_dir).into_iter().filter(|(_, name)| ours(name)).map(|(base, _)| Self { base }).collect()
    }

    pub fn base(&self) -> &Path {
        &self.base
    }

    pub fn maps(&self) -> PathBuf {
        self.base.join("maps")
    }

    pub fn links(&self, namespace: u64) -> PathBuf {
        self.base.join(format!("{LINKS}{namespace}"))
    }

    pub fn link(&self, namespace: u64, device: &str, index: u32, direction: Direction) -> PathBuf {
        self.links(namespace).join(format!("{}-{}", device_entry(device, index), direction.word()))
    }

    pub fn clsact(&self, namespace: u64) -> PathBuf {
        self.base.join(format!("{CLSACT}{namespace}"))
    }

    pub fn sockets(&self, namespace: u64) -> PathBuf {
        self.base.join(format!("{SOCKETS}{namespace}"))
    }

    /// The directories of links at control groups, with the cookies of their network namespaces.
    pub fn all_sockets(&self) -> Vec<(u64, PathBuf)> {
        self.by_namespace(SOCKETS)
    }

    /// The directories of links, with the cookies of their network namespaces.
    pub fn all_links(&self) -> Vec<(u64, PathBuf)> {
        self.by_namespace(LINKS)
    }

    /// The directories of clsact qdiscs, with the cookies of their network namespaces.
    pub fn all_clsact(&self) -> Vec<(u64, PathBuf)> {
        self.by_namespace(CLSACT)
    }

    fn by_namespace(&self, prefix: &str) -> Vec<(u64, PathBuf)> {
        entries(&self.base)
            .into_iter()
            .filter_map(|(path, name)| Some((name.strip_prefix(prefix)?.parse().ok()?, path)))
            .collect()
    }
}

const LINKS: &str = "links-";
const CLSACT: &str = "clsact-";
const SOCKETS: &str = "sockets-";

/// Paths and names of what is in a directory, sorted; nothing if there is no such directory.
pub(super) fn entries(directory: &Path) -> Vec<(PathBuf, String)> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut found: Vec<_> =
        entries.flatten().filter_map(|entry| Some((entry.path(), entry.file_name().into_string().ok()?))).collect();
    found.sort();
    found
}

/// `name-index`, with the dots of the name escaped: a BPF filesystem refuses names with dots
/// (`bpf_lookup`, kernel/bpf/inode.c).
pub(super) fn device_entry(name: &str, index: u32) -> String {
    format!("{}-{index}", name.replace('%', "%25").replace('.', "%2E"))
}

/// The device name, index and direction in the name of a link's pin.
pub(super) fn parse_link(entry: &str) -> Option<(String, u32, Direction)> {
    let (rest, word) = entry.rsplit_once('-')?;
    let direction = Direction::ALL.into_iter().find(|direction| direction.word() == word)?;
    let (name, index) = parse_device(rest)?;
    Some((name, index, direction))
}

/// The inverse of [`device_entry`].
pub(super) fn parse_device(entry: &str) -> Option<(String, u32)> {
    let (name, index) = entry.rsplit_once('-')?;
    Some((name.replace("%2E", ".").replace("%25", "%"), index.parse().ok()?))
}

/// Takes a link off what it is on, whoever else holds it, and removes its pin.
pub(super) fn detach(link: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    match link::detach(link) {
        // The device or the control group went first.
        Err(cause) if !matches!(cause.raw_os_error(), Some(libc::ENODEV | libc::ENOLINK | libc::ENOENT)) => Err(cause),
        _ => remove_if_there(path),
    }
}

pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_name_device_index_and_direction() {
        let layout = Layout::current(Path::new("/sys/fs/bpf/sheave"));
        let path = layout.link(3, "eth0.100", 7, Direction::Egress);
        assert_eq!(path, Path::new(&format!("/sys/fs/bpf/sheave/v{LAYOUT}/links-3/eth0%2E100-7-egress")));
    }

    #[test]
    fn names_survive_the_round_trip() {
        for name in ["eth0", "eth0.100", "cali-1-2", "a%2Eb", "%", "-"] {
            for direction in Direction::ALL {
                let path = Layout::current(Path::new("/x")).link(3, name, 42, direction);
                let entry = path.file_name().and_then(|name| name.to_str()).unwrap();
                assert!(!entry.contains('.'), "{entry}");
                assert_eq!(parse_link(entry), Some((name.to_owned(), 42, direction)), "{entry}");
            }
        }
    }

    #[test]
    fn other_entries_are_not_ours() {
        for entry in ["", "eth0", "eth0-2", "eth0-x-ingress", "eth0-2-sideways", "-ingress"] {
            assert_eq!(parse_link(entry), None, "{entry}");
        }
    }
}
