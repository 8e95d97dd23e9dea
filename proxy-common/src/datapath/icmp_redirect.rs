//! When client and backend share a subnet the node sees a translated packet leave the way it came and tells the client
//! of a shorter way: true for the backend's address, wrong for the flow.

use super::{
    Family, Lookup, Packet, V4, V6,
    parse::{Headers, Parse, Parsed},
};
use crate::{header::IpProto, wire::Side};

pub trait IcmpRedirect: Family {
    /// The protocol number of the family's ICMP.
    const ICMP: u8;
    /// Type of a redirect (RFC 792; RFC 4861, 4.5).
    const REDIRECT: u8;

    /// Offset of the packet that the redirect is about.
    fn embedded<P: Packet>(packet: &P, icmp: usize) -> Option<usize>;
}

impl IcmpRedirect for V4 {
    const ICMP: u8 = IpProto::Icmp as u8;
    const REDIRECT: u8 = 5;

    #[inline(always)]
    fn embedded<P: Packet>(_: &P, icmp: usize) -> Option<usize> {
        Some(icmp + 8)
    }
}

impl IcmpRedirect for V6 {
    const ICMP: u8 = IpProto::Ipv6Icmp as u8;
    const REDIRECT: u8 = 137;

    /// Type, code, checksum, reserved and two addresses; then options (RFC 4861, 4.6), of which the one of type 4
    /// holds the packet, 8 bytes in.
    #[inline(always)]
    fn embedded<P: Packet>(packet: &P, icmp: usize) -> Option<usize> {
        const REDIRECTED_HEADER: u8 = 4;
        let mut option = icmp + 40;
        for _ in 0..3 {
            packet.reach(option + 8);
            let [kind, length]: [u8; 2] = packet.load(option)?;
            if kind == REDIRECTED_HEADER {
                return Some(option + 8);
            }
            option += usize::from(length) * 8;
        }
        None
    }
}

/// Bytes of the quoted packet that are looked at, without extension headers.
const QUOTED: usize = 80;

/// Whether the ICMP message at `icmp` is a redirect about a flow that was translated here.
#[inline(never)]
pub fn is_redirect_about_a_flow<F: Parse + IcmpRedirect, P: Packet, T: Lookup>(
    packet: &P,
    tables: &T,
    icmp: usize,
) -> bool {
    if packet.load::<u8>(icmp) != Some(F::REDIRECT) {
        return false;
    }
    let Some(l3) = F::embedded(packet, icmp) else { return false };
    packet.reach(l3 + QUOTED);
    let mut headers = Headers::<F>::empty();
    F::parse(packet, l3, Side::EGRESS, &mut headers) == Parsed::Ports
        && tables.has::<F>(&F::key(&headers.tuple().reversed(), Side::EGRESS))
}
