//! What Sheave has on a node, and what it leaves alone there.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use aya::maps::loaded_maps;
use aya::programs::{loaded_links, loaded_programs};

use super::cluster::Cluster;

/// A node as one finds it by looking.
pub struct NodeState {
    pub node: String,
    /// Files of the BPF filesystem.
    pub pins: BTreeSet<String>,
    /// Devices with their queueing disciplines, addresses, routes, rules and netfilter.
    pub network: BTreeSet<String>,
}

impl NodeState {
    /// # Errors
    /// A program is missing on the node.
    pub fn look(cluster: &Cluster, node: &str) -> Result<Self> {
        let lines = |script: &str| -> Result<BTreeSet<String>> {
            Ok(cluster.on_node(node, script)?.lines().map(|line| line.trim().to_owned()).collect())
        };
        Ok(Self {
            node: node.to_owned(),
            // The kernel puts its own two into every BPF filesystem where CONFIG_BPF_PRELOAD is set.
            pins: lines("find /sys/fs/bpf -mindepth 1 ! -name '*.debug'")?,
            network: lines(
                "ip -oneline link; tc qdisc show; ip -oneline address; ip route show table all; \
                 ip -6 route show table all; ip rule; ip -6 rule; nft --stateless list ruleset",
            )?,
        })
    }
}

/// Programs, maps and links by their ids, which are the whole machine's.
#[derive(Debug, Default)]
pub struct KernelObjects {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
    links: BTreeSet<u32>,
}

impl KernelObjects {
    /// Those that a node's agent holds, by what the kernel says of its descriptors (proc_pid_fdinfo(5)).
    ///
    /// # Errors
    /// The node has no agent.
    pub fn add_those_of_agent(&mut self, cluster: &Cluster, node: &str) -> Result<()> {
        let script = "for pid in $(pgrep -x sheave); do cat /proc/$pid/fdinfo/*; done";
        self.add(&cluster.on_node(node, script).with_context(|| format!("the agent of {node}"))?);
        Ok(())
    }

    fn add(&mut self, descriptors: &str) {
        for line in descriptors.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let Ok(id) = value.trim().parse() else { continue };
            match key {
                "prog_id" => self.programs.insert(id),
                "map_id" => self.maps.insert(id),
                "link_id" => self.links.insert(id),
                _ => false,
            };
        }
    }

    pub fn len(&self) -> usize {
        self.programs.len() + self.maps.len() + self.links.len()
    }

    /// Those of them that the kernel still has. One that goes while it is looked at is none of them.
    pub fn left(&self) -> Vec<String> {
        let programs = loaded_programs().flatten().map(|program| program.id()).filter(|id| self.programs.contains(id));
        let maps = loaded_maps().flatten().map(|map| map.id()).filter(|id| self.maps.contains(id));
        let links = loaded_links().flatten().map(|link| link.id()).filter(|id| self.links.contains(id));
        let programs = programs.map(|id| format!("program {id}"));
        programs.chain(maps.map(|id| format!("map {id}"))).chain(links.map(|id| format!("link {id}"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_from_what_the_kernel_says_of_descriptors() {
        let mut objects = KernelObjects::default();
        objects.add(
            "pos:\t0\nmap_type:\t1\nmap_id:\t7\npos:\t0\nlink_type:\ttcx\nlink_id:\t3\nprog_tag:\tab\nprog_id:\t9\n",
        );
        let KernelObjects { programs, maps, links } = objects;
        assert_eq!((programs, maps, links), (BTreeSet::from([9]), BTreeSet::from([7]), BTreeSet::from([3])));
    }
}
