use super::{Family, Link, Packet, Tuple, V4, V6};
use crate::{
    header::{ETHERNET_LEN, EtherType, IpProto, Ipv4, Ipv6, Tcp, Udp, VLAN_LEN},
    reason::Reason,
    tcp::Seen,
};

pub const TCP: u8 = IpProto::Tcp as u8;
pub const UDP: u8 = IpProto::Udp as u8;

/// What is known of a packet with ports.
#[derive(Clone, Copy, Debug)]
pub struct Headers<A> {
    /// Offset of the IP header.
    pub l3: usize,
    /// Offset of the transport header.
    pub l4: usize,
    pub tuple: Tuple<A>,
    pub ttl: u8,
    /// Length of the IP packet as its header says, in bytes.
    pub length: u16,
    /// Flags of the TCP header, 0 for UDP.
    pub tcp_flags: u8,
}

impl<A> Headers<A> {
    /// What this packet shows of its flow: bits of [`Seen`].
    #[inline(always)]
    pub fn seen(&self) -> u8 {
        if self.tuple.protocol == TCP { Seen::after(self.tcp_flags) } else { Seen::ESTABLISHED }
    }
}

/// Why there is no [`Headers`].
pub enum Unparsed {
    /// A protocol that is not balanced; the value is its number and the offset of its header.
    Other(u8, usize),
    LeftAlone(Reason),
}

/// The family of a packet and the offset of its IP header; `None` for what is not IP. Up to two VLAN tags are skipped.
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
            let mut l3 = ETHERNET_LEN;
            let mut kind: u16 = packet.load(ETHERNET_LEN - 2)?;
            if is_vlan(kind) {
                l3 += VLAN_LEN;
                kind = packet.load(l3 - 2)?;
                if is_vlan(kind) {
                    l3 += VLAN_LEN;
                    kind = packet.load(l3 - 2)?;
                }
            }
            if kind == EtherType::Ipv4 as u16 {
                Some((false, l3))
            } else if kind == EtherType::Ipv6 as u16 {
                Some((true, l3))
            } else {
                None
            }
        }
    }
}

#[inline(always)]
fn is_vlan(kind: u16) -> bool {
    kind == EtherType::Ieee8021q as u16 || kind == EtherType::Ieee8021ad as u16
}

/// Reads the headers of one family.
pub trait Parse: Family {
    fn parse<P: Packet>(packet: &P, l3: usize) -> Result<Headers<Self::Address>, Unparsed>;
}

const MALFORMED: Unparsed = Unparsed::LeftAlone(Reason::Malformed);

impl Parse for V4 {
    #[inline(always)]
    fn parse<P: Packet>(packet: &P, l3: usize) -> Result<Headers<u32>, Unparsed> {
        let ip: Ipv4 = packet.load(l3).ok_or(MALFORMED)?;
        let header = usize::from(ip.version_ihl & 0xf) * 4;
        if ip.version_ihl >> 4 != 4 || header < Ipv4::LEN {
            return Err(MALFORMED);
        }
        if u16::from_be(ip.fragment) & Ipv4::FRAGMENTED != 0 {
            return Err(Unparsed::LeftAlone(Reason::Fragment));
        }
        let network = Network {
            l3,
            l4: l3 + header,
            protocol: ip.protocol,
            ttl: ip.ttl,
            length: u16::from_be(ip.length),
        };
        transport(packet, network, ip.source, ip.destination)
    }
}

impl Parse for V6 {
    #[inline(always)]
    fn parse<P: Packet>(packet: &P, l3: usize) -> Result<Headers<[u32; 4]>, Unparsed> {
        let ip: Ipv6 = packet.load(l3).ok_or(MALFORMED)?;
        let (protocol, l4) = skip_extensions(packet, ip.next, l3 + Ipv6::LEN)?;
        let length = u16::from_be(ip.payload).saturating_add(Ipv6::LEN as u16);
        transport(packet, Network { l3, l4, protocol, ttl: ip.hop_limit, length }, ip.source, ip.destination)
    }
}

struct Network {
    l3: usize,
    l4: usize,
    protocol: u8,
    ttl: u8,
    length: u16,
}

#[inline(always)]
fn transport<P: Packet, A>(packet: &P, network: Network, source: A, destination: A) -> Result<Headers<A>, Unparsed> {
    let Network { l3, l4, protocol, ttl, length } = network;
    let (ports, tcp_flags): ([u16; 2], u8) = match protocol {
        TCP => {
            let tcp: Tcp = packet.load(l4).ok_or(MALFORMED)?;
            if usize::from(tcp.offset >> 4) * 4 < Tcp::MIN_LEN {
                return Err(MALFORMED);
            }
            ([tcp.source_port, tcp.destination_port], tcp.flags)
        }
        UDP => {
            let udp: [u16; Udp::LEN / 2] = packet.load(l4).ok_or(MALFORMED)?;
            ([udp[0], udp[1]], 0)
        }
        other => return Err(Unparsed::Other(other, l4)),
    };
    let tuple = Tuple { source, destination, source_port: ports[0], destination_port: ports[1], protocol };
    Ok(Headers { l3, l4, tuple, ttl, length, tcp_flags })
}

/// Extension headers that are followed (RFC 8200, 4): more than a host sends.
const EXTENSIONS: usize = 6;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// The transport protocol and its offset.
#[inline(always)]
fn skip_extensions<P: Packet>(packet: &P, first: u8, offset: usize) -> Result<(u8, usize), Unparsed> {
    let (mut next, mut at) = (first, offset);
    for _ in 0..EXTENSIONS {
        match next {
            TCP | UDP => return Ok((next, at)),
            HOP_BY_HOP | ROUTING | DESTINATION => {
                let [following, length]: [u8; 2] = packet.load(at).ok_or(MALFORMED)?;
                next = following;
                at += (usize::from(length) + 1) * 8;
            }
            // RFC 4302: counts 4-byte words, less two.
            AUTHENTICATION => {
                let [following, length]: [u8; 2] = packet.load(at).ok_or(MALFORMED)?;
                next = following;
                at += (usize::from(length) + 2) * 4;
            }
            FRAGMENT => {
                let [first, second]: [u16; 2] = packet.load(at).ok_or(MALFORMED)?;
                // An atomic fragment is a whole packet (RFC 6946).
                if u16::from_be(second) & 0xfff9 != 0 {
                    return Err(Unparsed::LeftAlone(Reason::Fragment));
                }
                next = first.to_ne_bytes()[0];
                at += 8;
            }
            other => return Ok((other, at)),
        }
    }
    Err(Unparsed::LeftAlone(Reason::ExtensionHeaders))
}
