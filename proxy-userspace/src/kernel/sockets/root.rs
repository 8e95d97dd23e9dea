use std::path::{Component, PathBuf};

use crate::kernel::mountinfo::Mount;

/// Where control groups version 2 are mounted. Of several mounts it is the one that shows the most: a container has one
/// of its own group, and may be given the machine's besides.
pub fn cgroup2_of(mounts: Vec<Mount>) -> Option<PathBuf> {
    let depth = |mount: &Mount| -> isize {
        // Groups above one's own are shown as parents of the root (cgroup_namespaces(7)).
        let step = |component| match component {
            Component::ParentDir => -1,
            Component::Normal(_) => 1,
            _ => 0,
        };
        mount.root.components().map(step).sum()
    };
    mounts.into_iter().filter(|mount| mount.kind == "cgroup2").min_by_key(depth).map(|mount| mount.point)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::mountinfo;

    fn found(lines: &str) -> Option<PathBuf> {
        cgroup2_of(lines.lines().filter_map(mountinfo::parse).collect())
    }

    #[test]
    fn control_groups_are_found_in_every_layout() {
        let tmpfs = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n";
        let version_1 = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        let beside = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let alone = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(found(alone), Some("/sys/fs/cgroup".into()));
        assert_eq!(found(&format!("{tmpfs}{version_1}{beside}")), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(found(&format!("{tmpfs}{version_1}")), None);
    }

    #[test]
    fn a_container_takes_the_mount_of_the_machine_and_not_its_own() {
        let own = "50 40 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        let of_machine = "51 40 0:26 /../../.. /host/cgroup ro - cgroup2 cgroup2 rw\n";
        let below = "52 40 0:26 /a/b /elsewhere ro - cgroup2 cgroup2 rw\n";
        for lines in [format!("{own}{of_machine}{below}"), format!("{below}{of_machine}{own}")] {
            assert_eq!(found(&lines), Some("/host/cgroup".into()));
        }
        assert_eq!(found(&format!("{below}{own}")), Some("/sys/fs/cgroup".into()));
    }
}
