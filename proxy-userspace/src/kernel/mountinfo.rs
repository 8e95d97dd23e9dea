use std::path::PathBuf;

/// A mount that this process sees.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// The directory of the filesystem that is seen at the mount point.
    pub root: PathBuf,
    pub point: PathBuf,
    /// The type of the filesystem, for example `bpf`.
    pub kind: String,
    pub source: String,
}

/// All mounts, in the order in which they were made; none where they cannot be read.
pub(super) fn mounts() -> Vec<Mount> {
    let text = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    text.lines().filter_map(parse).collect()
}

/// Of a line of mountinfo (proc_pid_mountinfo(5)).
pub(super) fn parse(line: &str) -> Option<Mount> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut filesystem = filesystem.split(' ');
    let mut places = mount.split(' ').skip(3).map(unescaped);
    let (root, point) = (places.next()?, places.next()?);
    Some(Mount { root, point, kind: filesystem.next()?.to_owned(), source: filesystem.next()?.to_owned() })
}

/// The kernel escapes what would end a field (mangle, fs/seq_file.c).
fn unescaped(path: &str) -> PathBuf {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(path.to_owned(), |path, (escape, character)| path.replace(escape, character))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lines_with_and_without_optional_fields() {
        let line = |options: &str| format!("36 25 0:32 / /run/a\\040b rw,nosuid{options} - bpf sheave rw,mode=700");
        let mount = Mount { root: "/".into(), point: "/run/a b".into(), kind: "bpf".into(), source: "sheave".into() };
        for options in ["", " shared:9", " shared:9 master:1"] {
            assert_eq!(parse(&line(options)).as_ref(), Some(&mount));
        }
        for other in ["", "36 25 0:32 / - bpf sheave rw", "36 25 0:32 / /run rw - bpf"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
