//! Answers for flows that nobody can serve, built from the packet itself: what a client gets from a host where nobody
//! listens.

use super::{
    ChecksumChange, Family, Packet, Tables, V4, V6,
    ingress::At,
    parse::{Headers, TCP, UDP},
    rewrite::{rewrite, set_ttl, swap_hardware_addresses},
};
use crate::{
    checksum,
    header::{IpProto, Ipv4, Ipv6, Tcp, Udp},
    reason::Reason,
    tcp::TcpFlags,
    verdict::Verdict,
};

/// TTL of what a node sends itself.
const TTL: u8 = 64;

#[inline(always)]
pub fn reject<F: Family + Reject, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    at: At,
    headers: &Headers<F::Address>,
) -> Result<Verdict, Reason> {
    let per_tick = tables.config().map_or(0, |config| config.rejects_per_tick);
    if !tables.take_reject(tables.now(), per_tick) {
        return Err(Reason::RejectLimited);
    }
    match headers.tuple.protocol {
        TCP => reset::<F, P>(packet, headers),
        UDP => F::unreachable(packet, headers),
        _ => None,
    }
    .and_then(|()| swap_hardware_addresses(packet, at.link))
    .ok_or(Reason::RejectFailed)?;
    tables.count(at.hook, Reason::NoEndpoint);
    Ok(Verdict::Reply)
}

/// Turns a SYN into the reset that refuses it (RFC 9293, 3.10.7.1). Options and data stay where they are, which a
/// reset may carry: so the checksum changes by known differences only, and is right for packets whose checksum the
/// device has yet to fill in as well.
#[inline(always)]
fn reset<F: Family, P: Packet>(packet: &mut P, headers: &Headers<F::Address>) -> Option<()> {
    let old: Tcp = packet.load(headers.l4)?;
    let data = usize::from(headers.length).checked_sub(headers.l4 - headers.l3 + usize::from(old.offset >> 4) * 4)?;
    let new = Tcp {
        sequence: 0,
        // The SYN counts as one byte.
        acknowledgment: u32::from_be(old.sequence).wrapping_add(1 + data as u32).to_be(),
        flags: TcpFlags::RST | TcpFlags::ACK,
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
    rewrite::<F, P>(packet, headers, &headers.tuple.reversed()).ok()
}

/// Longest start of a packet that an ICMP error repeats, in words: an IPv6 header, 64 bytes of extension headers or
/// IPv4 options, and the 8 bytes that name the flow (RFC 792; RFC 4443, 2.4).
const QUOTED_WORDS: usize = (Ipv6::LEN + 64 + Udp::LEN) / 4;

/// The start of the offending packet and how many of its words are valid.
struct Quote {
    words: [u32; QUOTED_WORDS],
    count: usize,
}

impl Quote {
    #[inline(always)]
    fn take<A, P: Packet>(packet: &P, headers: &Headers<A>) -> Option<Self> {
        let count = (headers.l4 - headers.l3 + Udp::LEN) / 4;
        if count > QUOTED_WORDS {
            return None;
        }
        let mut words = [0; QUOTED_WORDS];
        for (index, word) in words.iter_mut().enumerate() {
            if index >= count {
                break;
            }
            *word = packet.load(headers.l3 + index * 4)?;
        }
        Some(Self { words, count })
    }

    #[inline(always)]
    fn sum(&self) -> u32 {
        // What lies behind the valid words is zero.
        self.words.iter().fold(0, |sum, &word| checksum::add(sum, word))
    }

    #[inline(always)]
    fn put<P: Packet>(&self, packet: &mut P, offset: usize) -> Option<()> {
        for (index, word) in self.words.iter().enumerate() {
            if index >= self.count {
                break;
            }
            packet.store(offset + index * 4, word)?;
        }
        Some(())
    }
}

/// How each family says that nobody listens.
pub trait Reject: Family {
    /// Turns the packet into an ICMP error "port unreachable" about itself.
    fn unreachable<P: Packet>(packet: &mut P, headers: &Headers<Self::Address>) -> Option<()>;
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
    #[inline(always)]
    fn unreachable<P: Packet>(packet: &mut P, headers: &Headers<u32>) -> Option<()> {
        const DESTINATION_UNREACHABLE: u8 = 3;
        const PORT: u8 = 3;
        /// RFC 1812, 4.3.2.5: errors travel with internetwork control precedence.
        const PRECEDENCE: u8 = 0xc0;

        let quote = Quote::take(packet, headers)?;
        let length = Ipv4::LEN + ICMP_LEN + quote.count * 4;
        packet.resize(headers.l3 + length)?;
        let mut ip = Ipv4 {
            version_ihl: 0x45,
            tos: PRECEDENCE,
            length: (length as u16).to_be(),
            id: 0,
            fragment: 0,
            ttl: TTL,
            protocol: IpProto::Icmp as u8,
            checksum: 0,
            source: headers.tuple.destination,
            destination: headers.tuple.source,
        };
        let words = [
            u32::from_ne_bytes([ip.version_ihl, ip.tos, ip.length.to_ne_bytes()[0], ip.length.to_ne_bytes()[1]]),
            u32::from_ne_bytes([ip.ttl, ip.protocol, 0, 0]),
            ip.source,
            ip.destination,
        ];
        ip.checksum = !checksum::fold(words.iter().fold(0, |sum, &word| checksum::add(sum, word)));
        packet.store(headers.l3, &ip)?;
        let icmp = icmp_header(DESTINATION_UNREACHABLE, PORT, quote.sum());
        packet.store(headers.l3 + Ipv4::LEN, &icmp)?;
        quote.put(packet, headers.l3 + Ipv4::LEN + ICMP_LEN)
    }
}

impl Reject for V6 {
    #[inline(always)]
    fn unreachable<P: Packet>(packet: &mut P, headers: &Headers<[u32; 4]>) -> Option<()> {
        const DESTINATION_UNREACHABLE: u8 = 1;
        const PORT: u8 = 4;

        let quote = Quote::take(packet, headers)?;
        let payload = ICMP_LEN + quote.count * 4;
        packet.resize(headers.l3 + Ipv6::LEN + payload)?;
        let ip = Ipv6 {
            version_class_label: 0x6000_0000_u32.to_be(),
            payload: (payload as u16).to_be(),
            next: IpProto::Ipv6Icmp as u8,
            hop_limit: TTL,
            source: headers.tuple.destination,
            destination: headers.tuple.source,
        };
        packet.store(headers.l3, &ip)?;
        // The pseudo header (RFC 8200, 8.1): addresses, length, protocol.
        let mut sum = checksum::add(V6::sum(ip.source), V6::sum(ip.destination));
        sum = checksum::add(sum, (payload as u32).to_be());
        sum = checksum::add(sum, u32::from(ip.next).to_be());
        let icmp = icmp_header(DESTINATION_UNREACHABLE, PORT, checksum::add(sum, quote.sum()));
        packet.store(headers.l3 + Ipv6::LEN, &icmp)?;
        quote.put(packet, headers.l3 + Ipv6::LEN + ICMP_LEN)
    }
}
