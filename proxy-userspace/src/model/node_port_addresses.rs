use std::net::IpAddr;

use ipnet::IpNet;

use super::{Family, parse_cidr};

/// On which addresses of the node NodePorts answer (`nodePortAddresses` of kube-proxy). Packets for loopback addresses never
/// meet a NodePort; sockets of the node's own processes are a matter of their own ([`Self::allows_loopback`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// The addresses of the Node object that a kube-proxy in nftables mode would take.
    #[default]
    Primary,
    /// Every address of the node.
    All,
    /// Addresses in these prefixes. A family of which none is listed is not restricted.
    Prefixes(Vec<IpNet>),
}

/// What [`NodePortAddresses::Primary`] stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Primary {
    /// What the Node object says, or said last: its addresses, at least one, the primary one of each family first.
    Known(Vec<IpAddr>),
    /// No Node object has said anything yet. NodePorts answer on these addresses meanwhile.
    Unknown(Vec<IpAddr>),
}

/// An entry of `nodePortAddresses` that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodePortAddressError {
    #[error("{0:?} is neither an address prefix nor \"primary\" nor \"all\"")]
    Unknown(String),
    #[error("{0:?} must be the only entry")]
    NotAlone(String),
}

impl NodePortAddresses {
    /// Reads the list of the configuration. `None`: the list is empty, and the default applies.
    ///
    /// # Errors
    /// An entry that is neither a prefix nor a keyword, or a keyword beside other entries.
    pub fn parse(entries: &[String]) -> Result<Option<Self>, NodePortAddressError> {
        let keyword = |entry: &String| match entry.as_str() {
            "primary" => Some(Self::Primary),
            "all" => Some(Self::All),
            _ => None,
        };
        match entries {
            [] => return Ok(None),
            [only] if keyword(only).is_some() => return Ok(keyword(only)),
            _ => {}
        }
        if let Some(entry) = entries.iter().find(|entry| keyword(entry).is_some()) {
            return Err(NodePortAddressError::NotAlone(entry.clone()));
        }
        let prefixes = entries
            .iter()
            .map(|entry| parse_cidr(entry.trim()).ok_or_else(|| NodePortAddressError::Unknown(entry.clone())));
        Ok(Some(Self::Prefixes(prefixes.collect::<Result<_, _>>()?)))
    }

    /// Whether NodePorts answer on `address`, an address of this node. In `primary` too, a family of which the Node
    /// object has no address is not restricted, as in kube-proxy, which makes prefixes of them; but an object that is
    /// missing restricts every family.
    pub fn allows(&self, address: &IpAddr, primary: &Primary) -> bool {
        if address.is_loopback() {
            return false;
        }
        match self {
            Self::All => true,
            Self::Primary => match primary {
                Primary::Known(list) => {
                    list.iter().find(|ip| Family::of(ip) == Family::of(address)).is_none_or(|ip| ip == address)
                }
                Primary::Unknown(list) => list.contains(address),
            },
            Self::Prefixes(prefixes) => covers(prefixes, address),
        }
    }

    /// Whether processes of the node reach NodePorts at its loopback addresses of this family: unless there are prefixes
    /// that leave them out. kube-proxy in iptables mode has it for IPv4 (`iptables.localhostNodePorts`), KEP-6032 is
    /// to bring it to nftables mode.
    pub fn allows_loopback(&self, family: Family) -> bool {
        match self {
            Self::All | Self::Primary => true,
            Self::Prefixes(prefixes) => covers(prefixes, &family.loopback()),
        }
    }
}

fn covers(prefixes: &[IpNet], address: &IpAddr) -> bool {
    let mut same = prefixes.iter().filter(|net| Family::of(&net.addr()) == Family::of(address)).peekable();
    same.peek().is_none() || same.any(|net| net.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(entries: &[&str]) -> Result<Option<NodePortAddresses>, NodePortAddressError> {
        let entries: Vec<String> = entries.iter().map(|&entry| entry.to_owned()).collect();
        NodePortAddresses::parse(&entries)
    }

    #[test]
    fn row_41_a_keyword_stands_alone() {
        assert_eq!(parse(&[]), Ok(None));
        assert_eq!(parse(&["primary"]), Ok(Some(NodePortAddresses::Primary)));
        assert_eq!(parse(&["all"]), Ok(Some(NodePortAddresses::All)));
        assert_eq!(parse(&["10.0.0.0/8", "primary"]), Err(NodePortAddressError::NotAlone("primary".into())));
        assert_eq!(parse(&["eth0"]), Err(NodePortAddressError::Unknown("eth0".into())));
    }

    #[test]
    fn row_41_which_addresses_answer() {
        let primary = Primary::Known(["10.0.0.1", "10.0.0.2", "fd00::1"].map(|ip| ip.parse().unwrap()).into());
        for (entries, address, expected) in [
            (&["primary"][..], "10.0.0.1", true),
            (&["primary"], "10.0.0.2", false),
            (&["primary"], "fd00::1", true),
            (&["all"], "192.0.2.9", true),
            (&["all"], "127.0.0.1", false),
            (&["10.0.0.0/24"], "10.0.0.7", true),
            (&["10.0.0.0/24"], "10.0.1.7", false),
            (&["10.0.0.0/24"], "fd00::7", true),
            (&["10.0.0.0/24", "fd00::/120"], "fd00::7", true),
            (&["10.0.0.0/24", "fd00::/120"], "fd00::1:7", false),
            (&["0.0.0.0/0"], "192.0.2.9", true),
            (&["0.0.0.0/0"], "127.0.0.1", false),
        ] {
            let addresses = parse(entries).unwrap().unwrap();
            assert_eq!(addresses.allows(&address.parse().unwrap(), &primary), expected, "{entries:?} {address}");
        }
    }

    #[test]
    fn row_41_a_family_is_open_only_if_the_object_is_there() {
        let allows =
            |address: &str, primary: &Primary| NodePortAddresses::Primary.allows(&address.parse().unwrap(), primary);
        let only_v4 = Primary::Known(vec!["10.0.0.1".parse().unwrap()]);
        assert!(allows("fd00::7", &only_v4));
        let nothing = Primary::Unknown(Vec::new());
        assert!(!allows("10.0.0.1", &nothing) && !allows("fd00::7", &nothing));
        let open_before = Primary::Unknown(vec!["10.0.0.1".parse().unwrap()]);
        assert!(allows("10.0.0.1", &open_before));
        assert!(!allows("10.0.0.2", &open_before) && !allows("fd00::7", &open_before));
    }
}
