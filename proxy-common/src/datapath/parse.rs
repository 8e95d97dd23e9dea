use zerocopy::FromZeros as _;

use super::{Family, Link, Packet, Tuple, V4, V6, part::Code};
use crate::{
    header::{ETHERNET_LEN, EtherType, IpProto, Ipv4, Ipv6, Tcp, Udp},
    reason::Reason,
    tcp::Seen,
};

pub const TCP: u8 = IpProto::Tcp as u8;
pub const UDP: u8 = IpProto::Udp as u8;

/// What is known of a packet with ports.
#[repr(C)]
pub struct Headers<F: Family> {
    /// Its tuple, made as a key at once: a copy would cost a tenth of a program's stack.
    pub key: F::Key,
    /// Offset of the IP header.
    pub l3: usize,
    /// Offset of the transport header.
    pub l4: usize,
    pub ttl: u8,
    /// Length of the IP packet as its header says, in bytes.
    pub length: u16,
    /// Flags of the TCP header, 0 for UDP.
    pub tcp_flags: u8,
}

impl<F: Family> Headers<F> {
    /// To be filled by [`Parse::parse`].
    #[inline(always)]
    pub fn empty() -> Self {
        Self { key: F::Key::new_zeroed(), l3: 0, l4: 0, ttl: 0, length: 0, tcp_flags: 0 }
    }

    #[inline(always)]
    pub fn tuple(&self) -> Tuple<F::Address> {
        F::parts(&self.key)
    }

    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        self.tuple().protocol
    }

    /// What this packet shows of its flow: bits of [`Seen`].
    #[inline(always)]
    pub fn seen(&self) -> u8 {
        if self.protocol() == TCP { Seen::after(self.tcp_flags) } else { Seen::ACK }
    }
}

/// What came of reading. One number to the BPF back end, which returns no more.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The [`Headers`] are complete.
    Ports,
    /// A protocol that is not balanced: only its number and `l4` are valid.
    Other,
    LeftAlone(Reason),
}

/// The family of a packet and the offset of its IP header; `None` for what is not IP. A frame with a VLAN tag is met
/// again, without it, at the device of that VLAN.
#[inline(always)]
pub fn locate<P: Packet>(packet: &P, link: Link) -> Option<(bool, usize)> {
    match link {
        Link::Ip => {
            let version: u8 = packet.load(0)?;
            match version >> 4 {
                4 => Some((false, 0)),
                6 => Some((true, 0)),
                _ => None,
            }
        }
        Link::Ethernet => {
            let kind: u16 = packet.load(ETHERNET_LEN - 2)?;
            if kind == EtherType::Ipv4 as u16 {
                Some((false, ETHERNET_LEN))
            } else if kind == EtherType::Ipv6 as u16 {
                Some((true, ETHERNET_LEN))
            } else {
                None
            }
        }
    }
}

/// Reads the headers of one family.
pub trait Parse: Family {
    /// Fills `headers` from the IP header at `l3` on, with a key for `side`.
    fn parse<P: Packet>(packet: &P, l3: usize, side: u8, headers: &mut Headers<Self>) -> Parsed;
}

impl Parse for V4 {
    #[inline(always)]
    fn parse<P: Packet>(packet: &P, l3: usize, side: u8, headers: &mut Headers<Self>) -> Parsed {
        let Some(ip) = packet.load::<Ipv4>(l3) else { return Parsed::LeftAlone(Reason::Malformed) };
        let header = usize::from(ip.version_ihl & 0xf) * 4;
        if ip.version_ihl >> 4 != 4 || header < Ipv4::LEN {
            return Parsed::LeftAlone(Reason::Malformed);
        }
        if u16::from_be(ip.fragment) & Ipv4::FRAGMENTED != 0 {
            return Parsed::LeftAlone(Reason::Fragment);
        }
        headers.l3 = l3;
        headers.l4 = l3 + header;
        headers.ttl = ip.ttl;
        headers.length = u16::from_be(ip.length);
        transport(packet, headers, ip.source, ip.destination, ip.protocol, side)
    }
}

impl Parse for V6 {
    #[inline(always)]
    fn parse<P: Packet>(packet: &P, l3: usize, side: u8, headers: &mut Headers<Self>) -> Parsed {
        let Some(ip) = packet.load::<Ipv6>(l3) else { return Parsed::LeftAlone(Reason::Malformed) };
        if ip.version_class_label.to_ne_bytes()[0] >> 4 != 6 {
            return Parsed::LeftAlone(Reason::Malformed);
        }
        headers.l3 = l3;
        headers.ttl = ip.hop_limit;
        headers.length = u16::from_be(ip.payload).saturating_add(Ipv6::LEN as u16);
        let (mut protocol, mut l4) = (ip.next, l3 + Ipv6::LEN);
        if protocol != TCP && protocol != UDP {
            let found = behind_extensions(packet, protocol, l4);
            if found & FOUND == 0 {
                return Parsed::LeftAlone(Code::reason(found));
            }
            (protocol, l4) = ((found >> 16) as u8, (found & 0xffff) as usize);
        }
        headers.l4 = packet.conceal(l4);
        transport(packet, headers, ip.source, ip.destination, protocol, side)
    }
}

#[inline(always)]
fn transport<F: Family, P: Packet>(
    packet: &P,
    headers: &mut Headers<F>,
    source: F::Address,
    destination: F::Address,
    protocol: u8,
    side: u8,
) -> Parsed {
    let mut tuple = Tuple { source, destination, source_port: 0, destination_port: 0, protocol };
    headers.tcp_flags = 0;
    let parsed = match protocol {
        TCP => {
            let Some(tcp) = packet.load::<Tcp>(headers.l4) else { return Parsed::LeftAlone(Reason::Malformed) };
            if usize::from(tcp.offset >> 4) * 4 < Tcp::MIN_LEN {
                return Parsed::LeftAlone(Reason::Malformed);
            }
            headers.tcp_flags = tcp.flags;
            [tuple.source_port, tuple.destination_port] = [tcp.source_port, tcp.destination_port];
            Parsed::Ports
        }
        UDP => {
            let Some([source_port, destination_port, ..]) = packet.load::<[u16; Udp::LEN / 2]>(headers.l4) else {
                return Parsed::LeftAlone(Reason::Malformed);
            };
            [tuple.source_port, tuple.destination_port] = [source_port, destination_port];
            Parsed::Ports
        }
        _ => Parsed::Other,
    };
    headers.key = F::key(&tuple, side);
    parsed
}

/// Extension headers that are followed (RFC 8200, 4): more than a host sends.
const EXTENSIONS: usize = 6;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// In the answer of [`behind_extensions`]: there is a transport header.
const FOUND: u32 = 1 << 31;

/// What comes behind extension headers, of which the first is a `next` at offset `at`: [`FOUND`] with the number of the
/// protocol from bit 16 on and the offset below, or what is wrong as [`Code::drop`] makes it.
///
/// A function of its own: hardly a packet has any, and its loop would fill the frame that all others hang on.
#[inline(never)]
fn behind_extensions<P: Packet>(packet: &P, mut next: u8, mut at: usize) -> u32 {
    match skip_extensions(packet, &mut next, &mut at) {
        Ok(()) => {
            packet.reach(at + Tcp::MIN_LEN);
            FOUND | u32::from(next) << 16 | at as u32
        }
        Err(reason) => Code::drop(reason),
    }
}

/// Moves `next` and `at` from the first header behind the IPv6 header to that of the transport protocol.
#[inline(always)]
fn skip_extensions<P: Packet>(packet: &P, next: &mut u8, at: &mut usize) -> Result<(), Reason> {
    for _ in 0..EXTENSIONS {
        let here = *at;
        packet.reach(here + 4);
        *at += match *next {
            HOP_BY_HOP | ROUTING | DESTINATION => {
                let [following, length]: [u8; 2] = packet.load(here).ok_or(Reason::Malformed)?;
                *next = following;
                (usize::from(length) + 1) * 8
            }
            // RFC 4302: counts 4-byte words, less two.
            AUTHENTICATION => {
                let [following, length]: [u8; 2] = packet.load(here).ok_or(Reason::Malformed)?;
                *next = following;
                (usize::from(length) + 2) * 4
            }
            FRAGMENT => {
                let [first, second]: [u16; 2] = packet.load(here).ok_or(Reason::Malformed)?;
                // An atomic fragment is a whole packet (RFC 6946).
                if u16::from_be(second) & 0xfff9 != 0 {
                    return Err(Reason::Fragment);
                }
                *next = first.to_ne_bytes()[0];
                8
            }
            _ => return Ok(()),
        };
        *at = packet.conceal(*at);
    }
    match *next {
        HOP_BY_HOP | ROUTING | DESTINATION | AUTHENTICATION | FRAGMENT => Err(Reason::ExtensionHeaders),
        _ => Ok(()),
    }
}
