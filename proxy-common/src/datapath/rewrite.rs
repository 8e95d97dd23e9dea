use super::{
    ChecksumChange, Family, Link, Packet, Tuple,
    parse::{Headers, UDP},
};
use crate::{
    checksum,
    header::{Ipv4, Ipv6, Tcp, Udp},
};

/// Puts the tuple of an entry in the place of the packet's. `false`: not all of it could be written.
#[inline(always)]
pub fn translate<F: Family, P: Packet>(packet: &mut P, headers: &Headers<F>, flow: &F::Flow) -> bool {
    write::<F, P>(packet, headers, || F::tuple(flow, headers.protocol())).is_some()
}

/// Turns the tuple of the packet round.
#[inline(always)]
pub fn turn<F: Family, P: Packet>(packet: &mut P, headers: &Headers<F>) -> Option<()> {
    write::<F, P>(packet, headers, || headers.tuple().reversed())
}

/// What does not change is not written. Both tuples are read where they lie each time: IPv6 addresses kept in
/// registers would be spilled in twice their size.
#[inline(always)]
fn write<F: Family, P: Packet>(
    packet: &mut P,
    headers: &Headers<F>,
    new: impl Fn() -> Tuple<F::Address>,
) -> Option<()> {
    let old = || headers.tuple();
    let mut addresses = 0;
    if new().source != old().source {
        addresses = checksum::difference(F::sum(old().source), F::sum(new().source));
        packet.store(headers.l3 + F::ADDRESSES, &new().source)?;
    }
    if new().destination != old().destination {
        let change = checksum::difference(F::sum(old().destination), F::sum(new().destination));
        addresses = checksum::add(addresses, change);
        packet.store(headers.l3 + F::ADDRESSES + size_of::<F::Address>(), &new().destination)?;
    }
    if !F::V6 && addresses != 0 {
        fix_ipv4_checksum(packet, headers.l3, addresses)?;
    }
    let mut ports = 0;
    if new().ports() != old().ports() {
        ports = checksum::difference(word(old().ports()), word(new().ports()));
        packet.store(headers.l4, &new().ports())?;
    }
    let udp = old().protocol == UDP;
    let offset = headers.l4 + if udp { Udp::CHECKSUM } else { Tcp::CHECKSUM };
    packet.fix_checksum(offset, ChecksumChange { addresses, ports, udp, v6: F::V6 })
}

/// Two halves as they lie in memory: the carries of ones' complement addition make the order irrelevant.
#[inline(always)]
fn word(ports: [u16; 2]) -> u32 {
    u32::from(ports[0]) | u32::from(ports[1]) << 16
}

#[inline(always)]
fn fix_ipv4_checksum<P: Packet>(packet: &mut P, l3: usize, difference: u32) -> Option<()> {
    let checksum: u16 = packet.load(l3 + Ipv4::CHECKSUM)?;
    packet.store(l3 + Ipv4::CHECKSUM, &checksum::update(checksum, difference))
}

/// Sets the TTL or hop limit.
#[inline(always)]
pub fn set_ttl<F: Family, P: Packet>(packet: &mut P, l3: usize, ttl: u8) -> Option<()> {
    if F::V6 {
        return packet.store(l3 + Ipv6::HOP_LIMIT, &ttl);
    }
    // The TTL shares a checksum word with the protocol.
    let old: [u8; 2] = packet.load(l3 + Ipv4::TTL)?;
    let new = [ttl, old[1]];
    packet.store(l3 + Ipv4::TTL, &ttl)?;
    let word = |bytes| u32::from(u16::from_ne_bytes(bytes));
    fix_ipv4_checksum(packet, l3, checksum::difference(word(old), word(new)))
}

/// Turns the packet round on its link.
#[inline(always)]
pub fn swap_hardware_addresses<P: Packet>(packet: &mut P, link: Link) -> Option<()> {
    if link == Link::Ip {
        return Some(());
    }
    let [a, b, c, d, e, f]: [u16; 6] = packet.load(0)?;
    packet.store(0, &[d, e, f, a, b, c])
}
