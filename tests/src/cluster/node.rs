use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Cni, Overlay, Place, Site, plan, sysctl};

/// A node: forwards, has an uplink to the fabric, and pods behind it.
pub struct Node {
    pub(super) site: Site,
    pub(super) number: u8,
    pub(super) pin_dir: PathBuf,
}

/// What all nodes of a cluster have alike.
pub(super) struct Layout {
    pub cni: Cni,
    pub overlay: Option<Overlay>,
    pub vlan: Option<u16>,
    /// How many.
    pub nodes: u8,
}

impl Layout {
    /// The numbers of the others.
    fn peers(&self, of: u8) -> impl Iterator<Item = u8> {
        (1..=self.nodes).filter(move |&peer| peer != of)
    }

    /// The device with the node's address.
    pub fn uplink(&self) -> String {
        self.vlan.map_or_else(|| "eth0".to_owned(), |vlan| format!("eth0.{vlan}"))
    }

    /// MTU of pods, in bytes.
    pub fn pod_mtu(&self) -> u32 {
        // vxlan over IPv4: 20 + 8 + 8 + 14.
        if self.overlay.is_some() { 1450 } else { 1500 }
    }
}

impl Node {
    pub(super) const BRIDGE: &str = "cni0";
    const OVERLAY: &str = "flannel.1";

    pub fn number(&self) -> u8 {
        self.number
    }

    /// Where the agent of this node pins.
    pub fn pin_dir(&self) -> &Path {
        &self.pin_dir
    }

    /// Addresses of all its devices but the loopback and link-local ones.
    pub fn own_addresses(&self) -> Result<Vec<IpAddr>> {
        let listed: serde_json::Value =
            serde_json::from_str(&self.run("ip", &["-j", "addr", "show", "scope", "global"])?)?;
        let devices = listed.as_array().into_iter().flatten();
        let addresses = devices.filter_map(|device| device["addr_info"].as_array()).flatten();
        Ok(addresses.filter_map(|address| address["local"].as_str()?.parse().ok()).collect())
    }

    /// What a pod network on this node is, as CIDRs of both families.
    pub fn pod_cidrs(&self) -> [String; 2] {
        let network = plan::in_pod_network(self.number, 0);
        [format!("{}/24", network.v4), format!("{}/64", network.v6)]
    }

    /// Packets that its stack has forwarded so far.
    pub fn forwarded(&self) -> Result<u64> {
        let names = ["IpForwDatagrams", "Ip6OutForwDatagrams"];
        let counters = self.run("nstat", &["--json", "--noupdate", "--zeros", "--ignore", names[0], names[1]])?;
        let counters: serde_json::Value = serde_json::from_str(&counters)?;
        Ok(names.iter().filter_map(|name| counters["kernel"][name].as_u64()).sum())
    }

    /// Every kernel parameter below `net` that can be read here.
    pub fn sysctls(&self) -> Result<BTreeMap<String, String>> {
        sysctl::snapshot(self.namespace())
    }

    pub fn set_sysctl(&self, name: &str, value: &str) -> Result<()> {
        sysctl::set(self.namespace(), &[(name, value)])
    }

    /// Before any device is there, since devices inherit.
    pub(super) fn set_defaults(&self) -> Result<()> {
        // Strict on nodes with an odd number as on Fedora and RHEL, loose on the others as systemd has it on Debian.
        let rp_filter = if self.number % 2 == 1 { "1" } else { "2" };
        sysctl::set(
            self.namespace(),
            &[
                ("net/ipv4/ip_forward", "1"),
                ("net/ipv6/conf/all/forwarding", "1"),
                ("net/ipv4/conf/all/rp_filter", rp_filter),
                ("net/ipv4/conf/default/rp_filter", rp_filter),
                ("net/ipv6/conf/default/accept_dad", "0"),
                // Nothing but tc sees what passes between two ports of a bridge.
                ("net/bridge/bridge-nf-call-iptables", "0"),
                ("net/bridge/bridge-nf-call-ip6tables", "0"),
            ],
        )
    }

    /// The fabric has made `eth0`.
    pub(super) fn configure(&self, layout: &Layout) -> Result<()> {
        let uplink = layout.uplink();
        let (own, gateway) = (self.addresses(), plan::FABRIC);
        let mut lines = "link set lo up\nlink set eth0 up\n".to_owned();
        if let Some(vlan) = layout.vlan {
            lines += &format!("link add link eth0 name {uplink} type vlan id {vlan}\nlink set {uplink} up\n");
        }
        lines += &format!(
            "addr add {}/24 dev {uplink}
             addr add {}/64 dev {uplink} nodad
             route add default via {}
             route add default via {}
            ",
            own.v4, own.v6, gateway.v4, gateway.v6
        );
        if layout.overlay == Some(Overlay::Vxlan) {
            lines += &self.overlay(&uplink);
        }
        for peer in layout.peers(self.number) {
            let network = plan::in_pod_network(peer, 0);
            lines += &match layout.overlay {
                Some(Overlay::Vxlan) => self.overlay_peer(peer),
                None => {
                    let via = plan::node(peer);
                    format!("route add {}/24 via {}\nroute add {}/64 via {}\n", network.v4, via.v4, network.v6, via.v6)
                }
            };
        }
        if layout.cni == Cni::Bridge {
            lines += &self.bridge(layout.pod_mtu());
        }
        self.namespace().ip(&lines)
    }

    /// As flannel does it: a device without learning, whose address is the first of the pod network.
    fn overlay(&self, uplink: &str) -> String {
        let (device, own) = (Self::OVERLAY, plan::in_pod_network(self.number, 0));
        format!(
            "link add {device} address {} mtu 1450 type vxlan id 1 dev {uplink} local {} dstport 8472 nolearning
             addr add {}/32 dev {device}
             addr add {}/128 dev {device} nodad
             link set {device} up
            ",
            hardware_address(self.number),
            self.addresses().v4,
            own.v4,
            own.v6
        )
    }

    fn overlay_peer(&self, peer: u8) -> String {
        let (device, network, hardware) = (Self::OVERLAY, plan::in_pod_network(peer, 0), hardware_address(peer));
        format!(
            "neigh add {v4} lladdr {hardware} dev {device} nud permanent
             neigh add {v6} lladdr {hardware} dev {device} nud permanent
             route add {v4}/24 via {v4} dev {device} onlink
             route add {v6}/64 via {v6} dev {device} onlink
            ",
            v4 = network.v4,
            v6 = network.v6,
        )
    }

    /// As the bridge CNI does it: the gateway's address on the bridge, no hairpin mode.
    fn bridge(&self, mtu: u32) -> String {
        let (device, gateway) = (Self::BRIDGE, plan::in_pod_network(self.number, 1));
        format!(
            "link add {device} address 02:00:0a:f4:{:02x}:01 mtu {mtu} type bridge
             addr add {}/24 dev {device}
             addr add {}/64 dev {device} nodad
             link set {device} up
            ",
            self.number, gateway.v4, gateway.v6
        )
    }

    /// Where the overlay device sends what is for another node.
    pub(super) fn forwarding_entries(&self, layout: &Layout) -> String {
        if layout.overlay.is_none() {
            return String::new();
        }
        layout
            .peers(self.number)
            .map(|peer| {
                format!(
                    "fdb add {} dev {} dst {} self permanent\n",
                    hardware_address(peer),
                    Self::OVERLAY,
                    plan::node(peer).v4
                )
            })
            .collect()
    }
}

/// Of the overlay device of a node.
fn hardware_address(node: u8) -> String {
    format!("02:00:00:00:01:{node:02x}")
}

impl Place for Node {
    fn site(&self) -> &Site {
        &self.site
    }
}
