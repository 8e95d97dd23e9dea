use anyhow::Result;

use super::{Cni, Node, Place, Site, node::Layout, plan, sysctl};

/// A pod: one device, `eth0`.
pub struct Pod {
    pub(super) site: Site,
    /// Name of its node.
    pub(super) node: String,
    pub(super) node_number: u8,
}

/// Of the host side of a routed pod's link, in every pod, as Calico has it; the link-local address follows from it.
const HOST_SIDE: &str = "ee:ee:ee:ee:ee:ee";
const HOST_SIDE_LINK_LOCAL: &str = "fe80::ecee:eeff:feee:eeee";
/// A gateway that exists nowhere: the host side answers for it by proxy ARP.
const GATEWAY: &str = "169.254.1.1";

impl Pod {
    /// Name of the node that it is on.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Name of the host side of its link.
    pub fn host_device(&self) -> String {
        format!("veth-{}", self.name())
    }

    /// Makes its link from the node's side, then its own side.
    pub(super) fn configure(&self, node: &Node, layout: &Layout) -> Result<()> {
        sysctl::set(self.namespace(), &[("net/ipv6/conf/default/accept_dad", "0")])?;
        match layout.cni {
            Cni::Routed => self.configure_routed(node, layout.pod_mtu()),
            Cni::Bridge => self.configure_bridged(node, layout.pod_mtu()),
        }
    }

    /// The host side has no address; a host route points at the pod.
    fn configure_routed(&self, node: &Node, mtu: u32) -> Result<()> {
        let (device, own, peer) = (self.host_device(), self.addresses(), self.namespace().name());
        node.namespace().ip(&format!(
            "link add {device} address {HOST_SIDE} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {peer}
             link set {device} up
            "
        ))?;
        sysctl::set(
            node.namespace(),
            &[
                (&format!("net/ipv4/conf/{device}/proxy_arp"), "1"),
                // Else the kernel waits for up to 0.8 s before it answers.
                (&format!("net/ipv4/neigh/{device}/proxy_delay"), "0"),
                (&format!("net/ipv4/conf/{device}/rp_filter"), "1"),
            ],
        )?;
        node.namespace().ip(&format!(
            "route add {}/32 dev {device} scope link
             route add {}/128 dev {device}
            ",
            own.v4, own.v6
        ))?;
        self.namespace().ip(&format!(
            "link set lo up
             addr add {}/32 dev eth0
             addr add {}/128 dev eth0 nodad
             link set eth0 up
             route add {GATEWAY} dev eth0 scope link
             route add default via {GATEWAY} dev eth0
             route add default via {HOST_SIDE_LINK_LOCAL} dev eth0
            ",
            own.v4, own.v6
        ))
    }

    /// A port of the node's bridge.
    fn configure_bridged(&self, node: &Node, mtu: u32) -> Result<()> {
        let (device, own, peer) = (self.host_device(), self.addresses(), self.namespace().name());
        let gateway = plan::in_pod_network(self.node_number, 1);
        let bridge = Node::BRIDGE;
        node.namespace().ip(&format!(
            "link add {device} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {peer}
             link set {device} master {bridge} up
            "
        ))?;
        self.namespace().configure_host(own, &gateway)
    }
}

impl Place for Pod {
    fn site(&self) -> &Site {
        &self.site
    }
}
