//! Answers for flows that nobody can serve, built from the packet itself: what a client gets from a host where nobody
//! listens.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{
    ChecksumChange, Family, Packet, Record, Row, V4, V6,
    parse::{Headers, TCP, UDP},
    part::Code,
    rewrite::{set_ttl, swap_hardware_addresses, turn},
};
use crate::{
    checksum,
    header::{IpProto, Ipv4, Ipv6, Tcp, Udp},
    reason::Reason,
    tcp::TcpFlags,
    wire::reject_row,
};

/// TTL of what a node sends itself.
const TTL: u8 = 64;

/// Answers for a frontend that leads nowhere.
#[inline(always)]
pub fn refuse<F: Reject, P: Packet, T: Record>(packet: &mut P, tables: &T, row: &mut Row<F>, reason: Reason) -> u32 {
    let per_tick = tables.config().map_or(0, |config| config.rejects_per_tick);
    if !tables.take_reject(reject_row(&F::source(&row.headers.key)), tables.now(), per_tick) {
        return Code::drop(Reason::RejectLimited);
    }
    let answered = match row.headers.protocol() {
        TCP => reset::<F, P>(packet, &row.headers),
        UDP => F::unreachable(packet, &row.headers),
        _ => None,
    };
    if answered.is_none() || swap_hardware_addresses(packet, row.link()).is_none() {
        return Code::drop(Reason::RejectFailed);
    }
    tables.count(row.hook(), reason);
    Code::REPLY
}

/// Turns a segment into the reset that refuses it (RFC 9293, 3.10.7.1). Options and data stay where they are, which a
/// reset may carry: so the checksum changes by known differences only, and is right for packets whose checksum the
/// device has yet to fill in as well.
#[inline(always)]
fn reset<F: Family, P: Packet>(packet: &mut P, headers: &Headers<F>) -> Option<()> {
    let old: Tcp = packet.load(headers.l4)?;
    let data = usize::from(headers.length).checked_sub(headers.l4 - headers.l3 + usize::from(old.offset >> 4) * 4)?;
    // SYN and FIN count as one byte.
    let end = u32::from_be(old.sequence).wrapping_add(bit(old.flags, TcpFlags::SYN) + bit(old.flags, TcpFlags::FIN));
    // All ones for a segment that acknowledges something. A branch would have the verifier walk through all that follows
    // twice.
    let acknowledges = 0_u32.wrapping_sub(bit(old.flags, TcpFlags::ACK));
    let new = Tcp {
        sequence: old.acknowledgment & acknowledges,
        acknowledgment: end.wrapping_add(data as u32).to_be() & !acknowledges,
        flags: TcpFlags::RST | (TcpFlags::ACK & !acknowledges as u8),
        window: 0,
        ..old
    };
    let word = |tcp: &Tcp| {
        let [low, high] = tcp.window.to_ne_bytes();
        u32::from_ne_bytes([tcp.offset, tcp.flags, low, high])
    };
    let mut ports = checksum::difference(old.sequence, new.sequence);
    ports = checksum::add(ports, checksum::difference(old.acknowledgment, new.acknowledgment));
    ports = checksum::add(ports, checksum::difference(word(&old), word(&new)));
    packet.store(headers.l4, &new)?;
    let change = ChecksumChange { addresses: 0, ports, udp: false, v6: F::V6 };
    packet.fix_checksum(headers.l4 + Tcp::CHECKSUM, change)?;
    set_ttl::<F, P>(packet, headers.l3, TTL)?;
    turn::<F, P>(packet, headers)
}

/// 1 if a flag is set, else 0.
#[inline(always)]
const fn bit(flags: u8, flag: u8) -> u32 {
    (flags as u32 >> flag.trailing_zeros()) & 1
}

/// How many units of the offending packet are repeated.
#[inline(always)]
fn quoted_units<F: Reject>(headers: &Headers<F>) -> Option<usize> {
    let units = (headers.l4 - headers.l3 + Udp::LEN) / size_of::<F::Unit>();
    (units <= F::QUOTED / size_of::<F::Unit>()).then_some(units)
}

/// Moves the first `count` units at `l3` back by `gap` bytes, the last one first, and returns the sum of their words. One by
/// one, since there is no room for them all on a kernel stack.
#[inline(always)]
fn quote<F: Reject, P: Packet>(packet: &mut P, l3: usize, gap: usize, count: usize) -> Option<u32> {
    let (mut sum, mut left) = (0, count);
    for _ in 0..F::QUOTED / size_of::<F::Unit>() {
        if left == 0 {
            break;
        }
        left -= 1;
        let from = packet.conceal(l3 + left * size_of::<F::Unit>());
        let unit: F::Unit = packet.load(from)?;
        packet.store(from + gap, &unit)?;
        sum = unit.as_ref().iter().fold(sum, |sum, &word| checksum::add(sum, word));
    }
    Some(sum)
}

/// How each family says that nobody listens.
pub trait Reject: Family {
    /// Words of which every header of the family is a multiple. The longer it is, the less the verifier walks through.
    type Unit: AsRef<[u32]> + FromBytes + IntoBytes + Immutable;
    /// Longest start of a packet that an ICMP error repeats, in bytes: the IP header with its options, or 64 bytes of
    /// extension headers, and the 8 bytes that name the flow (RFC 792; RFC 4443, 2.4).
    const QUOTED: usize;

    /// Turns the packet into an ICMP error "port unreachable" about itself.
    fn unreachable<P: Packet>(packet: &mut P, headers: &Headers<Self>) -> Option<()>;
}

/// Type, code, checksum, unused.
const ICMP_LEN: usize = 8;

/// An ICMP header as two words with its checksum over `sum`, the sum of all else that it covers.
#[inline(always)]
fn icmp_header(kind: u8, code: u8, sum: u32) -> [u32; 2] {
    let [low, high] = (!checksum::fold(checksum::add(sum, u32::from_ne_bytes([kind, code, 0, 0])))).to_ne_bytes();
    [u32::from_ne_bytes([kind, code, low, high]), 0]
}

impl Reject for V4 {
    type Unit = [u32; 1];
    const QUOTED: usize = Ipv4::MAX_LEN + Udp::LEN;

    #[inline(always)]
    fn unreachable<P: Packet>(packet: &mut P, headers: &Headers<Self>) -> Option<()> {
        const DESTINATION_UNREACHABLE: u8 = 3;
        const PORT: u8 = 3;
        /// RFC 1812, 4.3.2.5: errors travel with internetwork control precedence.
        const PRECEDENCE: u8 = 0xc0;

        const GAP: usize = Ipv4::LEN + ICMP_LEN;

        let count = quoted_units(headers)?;
        let length = GAP + count * size_of::<Self::Unit>();
        packet.resize(headers.l3 + length)?;
        let quoted = quote::<Self, P>(packet, headers.l3, GAP, count)?;
        let mut ip = Ipv4 {
            version_ihl: 0x45,
            tos: PRECEDENCE,
            length: (length as u16).to_be(),
            id: 0,
            fragment: 0,
            ttl: TTL,
            protocol: IpProto::Icmp as u8,
            checksum: 0,
            source: headers.tuple().destination,
            destination: headers.tuple().source,
        };
        let words = [
            u32::from_ne_bytes([ip.version_ihl, ip.tos, ip.length.to_ne_bytes()[0], ip.length.to_ne_bytes()[1]]),
            u32::from_ne_bytes([ip.ttl, ip.protocol, 0, 0]),
            ip.source,
            ip.destination,
        ];
        ip.checksum = !checksum::fold(words.iter().fold(0, |sum, &word| checksum::add(sum, word)));
        packet.store(headers.l3, &ip)?;
        packet.store(headers.l3 + Ipv4::LEN, &icmp_header(DESTINATION_UNREACHABLE, PORT, quoted))
    }
}

impl Reject for V6 {
    type Unit = [u32; 2];
    const QUOTED: usize = Ipv6::LEN + 64 + Udp::LEN;

    #[inline(always)]
    fn unreachable<P: Packet>(packet: &mut P, headers: &Headers<Self>) -> Option<()> {
        const DESTINATION_UNREACHABLE: u8 = 1;
        const PORT: u8 = 4;

        let count = quoted_units(headers)?;
        let payload = ICMP_LEN + count * size_of::<Self::Unit>();
        packet.resize(headers.l3 + Ipv6::LEN + payload)?;
        let quoted = quote::<Self, P>(packet, headers.l3, Ipv6::LEN + ICMP_LEN, count)?;
        let ip = Ipv6 {
            version_class_label: 0x6000_0000_u32.to_be(),
            payload: (payload as u16).to_be(),
            next: IpProto::Ipv6Icmp as u8,
            hop_limit: TTL,
            source: headers.tuple().destination,
            destination: headers.tuple().source,
        };
        packet.store(headers.l3, &ip)?;
        // The pseudo header (RFC 8200, 8.1): addresses, length, protocol.
        let mut sum = checksum::add(V6::sum(ip.source), V6::sum(ip.destination));
        sum = checksum::add(sum, (payload as u32).to_be());
        sum = checksum::add(sum, u32::from(ip.next).to_be());
        let icmp = icmp_header(DESTINATION_UNREACHABLE, PORT, checksum::add(sum, quoted));
        packet.store(headers.l3 + Ipv6::LEN, &icmp)
    }
}
