use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An IP address of either family: 16 bytes in network order, IPv4 as `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2).
///
/// Held as four words, since comparing words costs the verifier and the CPU a quarter of comparing bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Address(pub [u32; 4]);

impl Address {
    /// The key address of a frontend that answers on every NodePort address.
    pub const ANY: Self = Self([0; 4]);

    /// `address` holds the four bytes of an IPv4 address in network order.
    #[inline(always)]
    pub const fn from_v4(address: u32) -> Self {
        Self([0, 0, 0xffff_u32.to_be(), address])
    }

    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0xffff_u32.to_be()
    }

    /// The address as the standard library knows it; an IPv4-mapped one comes back as IPv4.
    pub fn ip(&self) -> IpAddr {
        if self.is_v4() {
            return IpAddr::V4(Ipv4Addr::from(u32::from_be(self.0[3])));
        }
        let word = |at: usize| u128::from(u32::from_be(self.0[at]));
        IpAddr::V6(Ipv6Addr::from(word(0) << 96 | word(1) << 64 | word(2) << 32 | word(3)))
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self::from_v4(u32::from_ne_bytes(v4.octets())),
            IpAddr::V6(v6) => {
                let bits = v6.to_bits();
                let word = |shift: u32| ((bits >> shift) as u32).to_be();
                Self([word(96), word(64), word(32), word(0)])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_round_trip() {
        for text in ["10.96.0.1", "255.255.255.255", "fd00:96::1", "::", "::1"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(Address::from(ip).ip(), ip);
        }
        assert_eq!(Address::from("1.2.3.4".parse::<IpAddr>().unwrap()).as_bytes()[12..], [1, 2, 3, 4]);
    }
}
