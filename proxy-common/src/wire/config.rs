use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Address;

/// The one row of `CONFIG` (ARRAY of 1, memory-mapped).
///
/// Time in maps is counted in ticks of 2^[`Config::TICK_SHIFT`] jiffies, since reading the jiffies is free where
/// reading a clock costs 15 to 40 ns a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Config {
    /// Where pods have their addresses, IPv4 (mapped) and IPv6; see [`Config::is_pod`].
    pub pods: [Cidr; 2],
    /// Addresses that masqueraded flows get when their egress device has none of that family.
    pub node4: Address,
    pub node6: Address,
    /// Lowest and highest NodePort in use, host order; min > max: none.
    pub node_port_min: u16,
    pub node_port_max: u16,
    /// Source ports for masqueraded flows, host order, both included.
    pub masquerade_port_min: u16,
    pub masquerade_port_max: u16,
    /// Bits of [`ConfigFlags`].
    pub flags: u32,
    /// Raised by the agent after a frontend changed its owner or went, or a backend stopped serving: what a flow of UDP
    /// knows about either was looked up at the epoch that is in its entry.
    pub epoch: u32,
    pub timeouts: Timeouts,
    /// Rejects (TCP resets and ICMP errors) that one CPU may send in a tick to the clients of one row of `REJECTS`.
    pub rejects_per_tick: u32,
    /// Places in the rings of flows that have not proved themselves, on each CPU; powers of two.
    pub opening_seats4: u32,
    pub opening_seats6: u32,
    /// Places in the rings of those that have; powers of two.
    pub proven_seats4: u32,
    pub proven_seats6: u32,
}

/// For how many ticks a flow may be quiet, by what it has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Timeouts {
    /// A handshake that is not complete (conntrack: `nf_conntrack_tcp_timeout_syn_sent`).
    pub tcp_opening: u32,
    pub tcp_established: u32,
    /// One end has closed (`nf_conntrack_tcp_timeout_close_wait`).
    pub tcp_half_closed: u32,
    /// Both ends have closed (`nf_conntrack_tcp_timeout_time_wait`).
    pub tcp_closed: u32,
    /// One end has reset (`nf_conntrack_tcp_timeout_close`).
    pub tcp_reset: u32,
    /// No more than a question and an answer (`nf_conntrack_udp_timeout`).
    pub udp_opening: u32,
    /// A longer exchange (`nf_conntrack_udp_timeout_stream`).
    pub udp: u32,
    /// Where no port or no place is free: a flow that has not proved itself.
    pub pressed: u32,
}

/// Bits of [`Config::flags`].
pub struct ConfigFlags;

impl ConfigFlags {
    /// What comes by a pod link over IPv4 is a pod's if its source is in [`Config::pods`] (`detectLocalMode`
    /// `ClusterCIDR` and `NodeCIDR`). Without this and [`ConfigFlags::PODS_BY_DEVICE`], all of it is.
    pub const PODS_BY_ADDRESS4: u32 = 1;
    /// The same for IPv6.
    pub const PODS_BY_ADDRESS6: u32 = 2;
    /// What comes by a pod link is a pod's if the device is said to have pods ([`super::DeviceFlags::PODS`]).
    pub const PODS_BY_DEVICE: u32 = 4;
    /// Translated IPv4 flows may pass the stack by: nobody looks at its forward and prerouting hooks.
    pub const FAST4: u32 = 8;
    /// The same for IPv6.
    pub const FAST6: u32 = 16;
    /// NodePorts answer processes of the node at its IPv4 loopback addresses too.
    pub const LOOPBACK4: u32 = 32;
    /// The same for IPv6.
    pub const LOOPBACK6: u32 = 64;
}

/// An address prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Cidr {
    pub address: Address,
    pub mask: Address,
}

impl Config {
    /// A tick is 256 jiffies: 0.256 s at HZ=1000, 1.024 s at HZ=250, 2.56 s at HZ=100.
    pub const TICK_SHIFT: u32 = 8;

    /// Whether an address is a pod's; `None`: addresses of its family do not tell.
    #[inline(always)]
    pub fn is_pod(&self, address: &Address) -> Option<bool> {
        let [pods4, pods6] = &self.pods;
        let (flag, pods) = if address.is_v4() {
            (ConfigFlags::PODS_BY_ADDRESS4, pods4)
        } else {
            (ConfigFlags::PODS_BY_ADDRESS6, pods6)
        };
        if self.flags & flag != 0 { Some(pods.contains(address)) } else { None }
    }
}

impl Cidr {
    /// A mask of zeros contains every address.
    #[inline(always)]
    pub fn contains(&self, address: &Address) -> bool {
        let (a, b, m) = (&address.0, &self.address.0, &self.mask.0);
        // Without a branch for each word, which the verifier would follow one by one.
        ((a[0] ^ b[0]) & m[0]) | ((a[1] ^ b[1]) & m[1]) | ((a[2] ^ b[2]) & m[2]) | ((a[3] ^ b[3]) & m[3]) == 0
    }
}

const _: () = assert!(size_of::<Config>() == 2 * 32 + 32 + 8 + 8 + 32 + 20);

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    fn ip(text: &str) -> Address {
        Address::from(text.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn addresses_tell_pods_family_by_family() {
        let (four, six) = (ConfigFlags::PODS_BY_ADDRESS4, ConfigFlags::PODS_BY_ADDRESS6);
        let pods = [
            Cidr { address: ip("10.1.0.0"), mask: Address([u32::MAX, u32::MAX, u32::MAX, ip("255.255.0.0").0[3]]) },
            // Every IPv6 address, and no IPv4 address for that.
            Cidr::default(),
        ];
        for (flags, address, expected) in [
            (four, "10.1.2.3", Some(true)),
            (four, "10.2.2.3", Some(false)),
            (four, "fd00::1", None),
            (six, "fd00::1", Some(true)),
            (six, "10.2.2.3", None),
            (four | six, "10.2.2.3", Some(false)),
            (four | six, "::1", Some(true)),
            (ConfigFlags::PODS_BY_DEVICE, "10.1.2.3", None),
        ] {
            let config = Config { pods, flags, ..Config::default() };
            assert_eq!(config.is_pod(&ip(address)), expected, "{flags} {address}");
        }
    }
}
