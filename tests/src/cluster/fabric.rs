use anyhow::Result;

use super::{Namespace, Node, Place, SERVICE_CIDRS, Site, identity::Identity, plan, require_root, sysctl};

/// The network between the nodes and to the outside: a switch for the nodes, and a router.
pub struct Fabric {
    pub(super) site: Site,
}

impl Fabric {
    /// Makes the switch, its ports, and the devices at their other ends: `eth0` of the nodes and of the client.
    pub(super) fn configure(&self, nodes: &[Node], client: &Namespace, vlan: Option<u16>) -> Result<()> {
        sysctl::set(
            self.namespace(),
            &[
                ("net/ipv4/ip_forward", "1"),
                ("net/ipv6/conf/all/forwarding", "1"),
                ("net/ipv4/conf/all/rp_filter", "0"),
                ("net/ipv4/conf/default/rp_filter", "0"),
                ("net/ipv6/conf/default/accept_dad", "0"),
                ("net/bridge/bridge-nf-call-iptables", "0"),
                ("net/bridge/bridge-nf-call-ip6tables", "0"),
            ],
        )?;
        let (own, gateway) = (self.addresses(), plan::CLIENT_GATEWAY);
        let mut lines = format!(
            "link set lo up
             link add switch address 02:00:00:00:00:01 type bridge
             addr add {}/24 dev switch
             addr add {}/64 dev switch nodad
             link set switch up
             link add client type veth peer name eth0 netns {}
             addr add {}/24 dev client
             addr add {}/64 dev client nodad
             link set client up
            ",
            own.v4,
            own.v6,
            client.name(),
            gateway.v4,
            gateway.v6
        );
        for node in nodes {
            let (port, peer) = (node.name(), node.namespace().name());
            lines += &format!("link add {port} type veth peer name eth0 netns {peer}\nlink set {port} up\n");
            lines += &match vlan {
                None => format!("link set {port} master switch\n"),
                Some(vlan) => format!(
                    "link add link {port} name {port}.{vlan} type vlan id {vlan}
                     link set {port}.{vlan} master switch up
                    "
                ),
            };
        }
        self.namespace().ip(&lines)
    }

    /// Sends what is for service addresses to this node, as a router that was told so by BGP does.
    pub fn route_services_to(&self, node: &Node) -> Result<()> {
        let lines: String = SERVICE_CIDRS
            .split(',')
            .zip(super::Family::BOTH)
            .map(|(cidr, family)| format!("route replace {cidr} via {}\n", node.ip(family)))
            .collect();
        self.namespace().ip(&lines)
    }
}

/// Why [`super::ClusterBuilder::vlan`] cannot be had, if so: not every kernel is built with 802.1Q devices.
///
/// # Errors
/// Not root.
pub fn why_no_vlans() -> Result<Option<String>> {
    require_root()?;
    let namespaces = Namespace::create(&[Identity::unique().namespace("vlan")])?;
    let probe = "link add name veth0 type veth peer name veth1\nlink add link veth0 name veth0.1 type vlan id 1\n";
    Ok(namespaces.iter().find_map(|namespace| namespace.ip(probe).err()).map(|error| format!("{error:#}")))
}

impl Place for Fabric {
    fn site(&self) -> &Site {
        &self.site
    }
}
