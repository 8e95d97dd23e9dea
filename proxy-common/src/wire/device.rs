use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Address;

/// Addresses of one family that are kept of a device.
pub const NETWORKS: usize = 4;

/// An address of a device and the network that it is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Network4 {
    /// Network order; 0: none, and none behind it.
    pub address: u32,
    pub mask: u32,
}

/// See [`Network4`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Network6 {
    pub address: Address,
    pub mask: Address,
}

/// Value of `DEVICES` (HASH, key = interface index as u32).
///
/// The addresses are those that a flow masqueraded on its way out may get, in the kernel's order; an address that has no
/// scope beyond the link is left out. What is not there is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Device {
    pub networks4: [Network4; NETWORKS],
    pub networks6: [Network6; NETWORKS],
    /// Bits of [`DeviceFlags`].
    pub flags: u32,
}

/// Bits of [`Device::flags`].
pub struct DeviceFlags;

impl DeviceFlags {
    /// What comes in by it is a pod's, where the configuration tells pods by their devices (`detectLocalMode`
    /// `BridgeInterface` and `InterfaceNamePrefix`).
    pub const PODS: u32 = 1;
}

impl Device {
    /// The address that the kernel would masquerade with towards `next_hop`: the first in a network with it, else the
    /// first (`inet_select_addr`, net/ipv4/devinet.c). [`Address::ANY`] where there is none.
    #[inline(always)]
    pub fn towards(&self, next_hop: &Address, v6: bool) -> Address {
        if v6 { self.towards6(next_hop) } else { self.towards4(next_hop.0[3]) }
    }

    #[inline(always)]
    fn towards4(&self, next_hop: u32) -> Address {
        let [first, ..] = &self.networks4;
        if first.address == 0 {
            return Address::ANY;
        }
        let near = |network: &&Network4| network.address != 0 && (network.address ^ next_hop) & network.mask == 0;
        Address::from_v4(self.networks4.iter().find(near).unwrap_or(first).address)
    }

    #[inline(always)]
    fn towards6(&self, next_hop: &Address) -> Address {
        let near = |network: &&Network6| {
            let (a, b, m) = (&network.address.0, &next_hop.0, &network.mask.0);
            (a[0] ^ b[0]) & m[0] == 0
                && (a[1] ^ b[1]) & m[1] == 0
                && (a[2] ^ b[2]) & m[2] == 0
                && (a[3] ^ b[3]) & m[3] == 0
                && network.address != Address::ANY
        };
        let [first, ..] = &self.networks6;
        self.networks6.iter().find(near).unwrap_or(first).address
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    fn ip(text: &str) -> Address {
        Address::from(text.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn the_network_of_the_next_hop_decides_which_address_masquerades() {
        let mut device = Device::default();
        assert_eq!(device.towards(&ip("172.18.0.1"), false), Address::ANY);
        assert_eq!(device.towards(&ip("fd00::1"), true), Address::ANY);
        let network = |address: &str, mask: &str| Network4 { address: ip(address).0[3], mask: ip(mask).0[3] };
        device.networks4[0] = network("192.168.50.5", "255.255.255.0");
        device.networks4[1] = network("172.18.0.11", "255.255.255.0");
        assert_eq!(device.towards(&ip("172.18.0.1"), false), ip("172.18.0.11"));
        assert_eq!(device.towards(&ip("192.168.50.1"), false), ip("192.168.50.5"));
        assert_eq!(device.towards(&ip("10.0.0.1"), false), ip("192.168.50.5"));
        device.networks6[0] = Network6 { address: ip("fd00:1::5"), mask: ip("ffff:ffff::") };
        device.networks6[1] = Network6 { address: ip("fd00:2::5"), mask: ip("ffff:ffff::") };
        assert_eq!(device.towards(&ip("fd00:2::1"), true), ip("fd00:2::5"));
        assert_eq!(device.towards(&ip("fe80::1"), true), ip("fd00:1::5"));
    }
}
