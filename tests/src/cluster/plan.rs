use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the agents get as `--cluster-cidr`.
pub const CLUSTER_CIDRS: &str = "10.244.0.0/16,fd00:244::/48";

/// Where ClusterIPs come from.
pub const SERVICE_CIDRS: &str = "10.96.0.0/16,fd00:96::/112";

/// An IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];
}

/// One address of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

impl Addresses {
    pub fn of(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }
}

/// The fabric's side of the node network.
pub const FABRIC: Addresses =
    Addresses { v4: Ipv4Addr::new(172, 18, 0, 1), v6: Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 1) };

/// The fabric's side of the client's network.
pub const CLIENT_GATEWAY: Addresses =
    Addresses { v4: Ipv4Addr::new(198, 51, 100, 1), v6: Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 1) };

pub const CLIENT: Addresses =
    Addresses { v4: Ipv4Addr::new(198, 51, 100, 10), v6: Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 0x10) };

/// Of the node with this number, in the node network (/24 and /64).
pub fn node(number: u8) -> Addresses {
    Addresses {
        v4: Ipv4Addr::new(172, 18, 0, 10 + number),
        v6: Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 0x10 + u16::from(number)),
    }
}

/// In the pod networks (/24 and /64) of a node: host 0 is the overlay device, host 1 the gateway of a bridge, pods come
/// after.
pub fn in_pod_network(node: u8, host: u8) -> Addresses {
    Addresses {
        v4: Ipv4Addr::new(10, 244, node, host),
        v6: Ipv6Addr::new(0xfd00, 0x244, 0, u16::from(node), 0, 0, 0, u16::from(host)),
    }
}

/// The `number`th pair of ClusterIPs; from 1 to 65,534.
pub fn service_addresses(number: u16) -> Addresses {
    let [high, low] = number.to_be_bytes();
    Addresses { v4: Ipv4Addr::new(10, 96, high, low), v6: Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, number) }
}
