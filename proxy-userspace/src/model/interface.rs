use std::net::IpAddr;

/// A network device of this node, with the addresses that it has now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interface {
    pub index: u32,
    pub name: String,
    /// In the order in which the kernel lists them: the first of a family is the one it masquerades with. Tentative,
    /// link-local and deprecated addresses are among them only if there is no other of the family.
    pub addresses: Vec<IpAddr>,
}
