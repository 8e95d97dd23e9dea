use super::Address;
use crate::digest::Digest;

/// `FRONTEND_FILTER` and `TARGET_FILTER` (ARRAY of words, memory-mapped): sets of addresses in one bit each, since most
/// packets of a node are for none of them and a bit is looked up in 3 ns where an element of a hash map takes 25 and
/// more. A bit that is set says "perhaps", one that is not says "no". The agent counts how many set each bit.
pub struct Filter;

impl Filter {
    /// Bits of `FRONTEND_FILTER`: one or two for each frontend, so that with 10,000 of them a stranger meets one in 26.
    pub const FRONTENDS: u32 = 1 << 18;
    /// Bits of `TARGET_FILTER`: one for each endpoint.
    pub const TARGETS: u32 = 1 << 20;

    /// Words of a filter of `bits`.
    pub const fn words(bits: u32) -> u32 {
        bits / u32::BITS
    }

    /// The number that stands for an address that is, or may be, that of a frontend. All NodePorts of an address are
    /// one.
    #[inline(always)]
    pub const fn frontend(address: &Address) -> u32 {
        Digest::new(0).words(&address.0).value() & (Self::FRONTENDS - 1)
    }

    /// The number that stands for an endpoint. `port` is in network order.
    #[inline(always)]
    pub const fn target(address: &Address, port: u16, protocol: u8) -> u32 {
        let ports = port as u32 | (protocol as u32) << 16;
        Digest::new(ports).words(&address.0).value() & (Self::TARGETS - 1)
    }

    /// The word of a filter in which a number's bit is, and the bit.
    #[inline(always)]
    pub const fn place(number: u32) -> (u32, u32) {
        (number / u32::BITS, 1 << (number % u32::BITS))
    }
}
