use std::net::IpAddr;

use wildmatch::WildMatch;

use super::LinkOptions;
use super::device::{Device, Kind};
use super::inventory::Inventory;

/// Which programs a device gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The host side of a pod's link.
    PodLink,
    /// Leads to other machines.
    Uplink,
    /// Leads to other nodes through a tunnel.
    Overlay,
}

impl Role {
    /// The word used in output.
    pub const fn word(self) -> &'static str {
        match self {
            Self::PodLink => "pod link",
            Self::Uplink => "uplink",
            Self::Overlay => "overlay",
        }
    }
}

/// The role of a device, if it has one, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub role: Option<Role>,
    pub reason: &'static str,
}

const fn role(role: Role, reason: &'static str) -> Decision {
    Decision { role: Some(role), reason }
}

const fn none(reason: &'static str) -> Decision {
    Decision { role: None, reason }
}

/// Decides by what holds addresses, not by names: Sheave follows whatever the CNI and the operator set up.
///
/// A packet may pass two devices with programs, such as an uplink and a VLAN on top of it, or an overlay and the uplink
/// that carries it. That is harmless: a flow entry names a tuple *before* its translation, so the second program does
/// not know what the first has translated. Ports are left out where their bridge or bond takes part, since one
/// of the two is enough.
pub fn decide(device: &Device, inventory: &Inventory, options: &LinkOptions) -> Decision {
    if device.kind == Kind::Loopback {
        return none("loopback: the node's own sockets");
    }
    let named = |patterns: &[String]| patterns.iter().any(|pattern| WildMatch::new(pattern).matches(&device.name));
    if named(&options.exclude) {
        return none("excluded by configuration");
    }
    if device.link.is_none() {
        return none("its packets begin with a header that is not understood");
    }
    if named(&options.pod_links) {
        return role(Role::PodLink, "configured");
    }
    if named(&options.uplinks) {
        return role(Role::Uplink, "configured");
    }
    if named(&options.overlays) {
        return role(Role::Overlay, "configured");
    }
    let surroundings = Surroundings { device, inventory, node_addresses: &options.node_addresses };
    match device.kind {
        Kind::Loopback | Kind::Other => none("does not lead to another machine or a pod"),
        Kind::Tunnel => role(Role::Overlay, "a tunnel"),
        Kind::Veth | Kind::Tap => surroundings.pair(),
        Kind::Bridge => surroundings.bridge(),
        Kind::Hardware | Kind::Bond | Kind::Stacked => surroundings.outward(),
    }
}

struct Surroundings<'a> {
    device: &'a Device,
    inventory: &'a Inventory,
    node_addresses: &'a [IpAddr],
}

impl Surroundings<'_> {
    /// One end of a pair (or a tap): a pod is behind it, unless it is the node's own way out, as on nodes that are
    /// containers themselves.
    fn pair(&self) -> Decision {
        if self.is_bridge_port() {
            return role(Role::PodLink, "a port of a bridge, with its other end elsewhere")
                .when(self.leads_elsewhere(), "a port of a bridge, and both ends are in this network namespace");
        }
        if self.holds_node_address() {
            return role(Role::Uplink, "holds the address of the node");
        }
        if self.device.has_outward_address() && self.device.gateway {
            return role(Role::Uplink, "has an address and a route with a gateway");
        }
        role(Role::PodLink, "its other end is elsewhere")
            .when(self.leads_elsewhere(), "both ends are in this network namespace")
    }

    fn bridge(&self) -> Decision {
        if self.holds_node_address() {
            return role(Role::Uplink, "a bridge that holds the address of the node");
        }
        let has_address = self.device.global_addresses().next().is_some();
        if has_address && self.device.gateway {
            return role(Role::Uplink, "a bridge with an address and a route with a gateway");
        }
        let outward = |port: &Device| matches!(port.kind, Kind::Hardware | Kind::Bond | Kind::Stacked);
        if has_address && self.inventory.ports(self.device.index).any(outward) {
            return role(Role::Uplink, "a bridge with an address and a port that leads out");
        }
        none("a bridge without a way out: its ports carry the programs")
    }

    fn outward(&self) -> Decision {
        match self.inventory.controller(self.device).map(|controller| &controller.kind) {
            Some(Kind::Bond) => return none("a port of a bond, which carries the programs"),
            Some(Kind::Bridge) if self.device.peer_elsewhere => {}
            Some(Kind::Bridge) => return none("a port of a bridge, which carries the programs if it leads out"),
            _ => {}
        }
        if self.holds_node_address() {
            return role(Role::Uplink, "holds the address of the node");
        }
        if self.device.global_addresses().next().is_some() {
            return role(Role::Uplink, "has an address");
        }
        if self.device.gateway {
            return role(Role::Uplink, "has a route with a gateway");
        }
        none("has no address")
    }

    fn is_bridge_port(&self) -> bool {
        self.inventory.controller(self.device).is_some_and(|controller| controller.kind == Kind::Bridge)
    }

    fn leads_elsewhere(&self) -> bool {
        self.device.peer_elsewhere || self.device.kind == Kind::Tap
    }

    /// Some CNIs put the node's address on the host side of every pod link as well: then it marks none of them.
    fn holds_node_address(&self) -> bool {
        self.node_addresses.iter().any(|ip| {
            self.device.addresses.iter().any(|address| address.ip == *ip)
                && self.inventory.holders(*ip, self.device.kind) == 1
        })
    }
}

impl Decision {
    fn when(self, condition: bool, otherwise: &'static str) -> Self {
        if condition { self } else { none(otherwise) }
    }
}

#[cfg(test)]
#[path = "role_tests.rs"]
mod tests;
