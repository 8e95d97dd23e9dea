use std::net::IpAddr;

use ipnet::IpNet;

/// A network device of this node, with the addresses that it has now.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interface {
    pub index: u32,
    pub name: String,
    /// Index of the bridge, bond or VRF that it is a port of.
    pub controller: Option<u32>,
    /// In the order in which the kernel lists them. Tentative, link-local and deprecated addresses are among them only
    /// if there is no other of the family.
    pub addresses: Vec<IpAddr>,
    /// Addresses that the kernel itself would masquerade with, in its order, and the networks that they are in: valid
    /// beyond the link, for IPv4 no secondary ones, for IPv6 none that is tentative, deprecated or temporary.
    pub networks: Vec<IpNet>,
}
