use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Address;

/// The one row of `CONFIG` (ARRAY of 1).
///
/// Time in maps is counted in ticks of 2^[`Config::TICK_SHIFT`] jiffies, since reading the jiffies is free where
/// reading a clock costs 15 to 40 ns a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Config {
    /// Cluster CIDRs (IPv4 mapped), as address and mask; a mask of zeros matches nothing.
    pub cluster: [Cidr; 2],
    /// Addresses that masqueraded flows get when their egress device has none of that family.
    pub node4: Address,
    pub node6: Address,
    /// Lowest and highest NodePort in use, host order; min > max: none.
    pub node_port_min: u16,
    pub node_port_max: u16,
    /// Source ports for masqueraded flows, host order, both included.
    pub masquerade_port_min: u16,
    pub masquerade_port_max: u16,
    /// UDP flows idle for more ticks than this start anew.
    pub udp_timeout: u32,
    /// TCP flows that were closed or never answered, and idle for more ticks than this, leave their source port to
    /// others.
    pub tcp_timeout: u32,
    /// Rejects (TCP resets and ICMP errors) that one CPU may send in a tick.
    pub rejects_per_tick: u32,
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
}

impl Cidr {
    #[inline(always)]
    pub fn contains(&self, address: &Address) -> bool {
        let (a, b, m) = (&address.0, &self.address.0, &self.mask.0);
        m[3] | m[2] | m[1] | m[0] != 0
            && (a[0] ^ b[0]) & m[0] == 0
            && (a[1] ^ b[1]) & m[1] == 0
            && (a[2] ^ b[2]) & m[2] == 0
            && (a[3] ^ b[3]) & m[3] == 0
    }
}

const _: () = assert!(size_of::<Config>() == 2 * 32 + 32 + 20);
