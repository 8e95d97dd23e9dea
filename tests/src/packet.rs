//! Packets by their fields. All bytes and checksums come from etherparse, so that none of them is checked by the code
//! that is under test.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpFragOffset, IpNumber, Ipv4Header, Ipv6Header, NetHeaders,
    PacketHeaders, TcpHeader, TransportHeader, UdpHeader, icmpv4, icmpv6,
};
use proxy_common::datapath::Link;

pub type Mac = [u8; 6];

const SENDER: Mac = [2, 0, 0, 0, 0, 1];
const RECEIVER: Mac = [2, 0, 0, 0, 0, 2];

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

#[derive(Clone, Debug)]
pub enum Transport {
    Tcp {
        flags: u8,
        sequence: u32,
        acknowledgment: u32,
        window: u16,
        options: Vec<u8>,
    },
    /// `checksum` false: the field is zero, which says that there is none.
    Udp {
        checksum: bool,
    },
    /// "Port unreachable", about the packet that the payload begins with.
    PortUnreachable,
    /// Any other ICMP message, by its bytes up to the payload, checksum left zero.
    Raw {
        protocol: u8,
        header: Vec<u8>,
    },
}

/// A packet from `source` to `destination`.
#[derive(Clone, Debug)]
pub struct Packet {
    pub link: Link,
    /// Sender and receiver.
    pub macs: (Mac, Mac),
    /// Ethernet type and VLAN id of each tag, outermost first.
    pub tags: Vec<(u16, u16)>,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub ttl: u8,
    pub tos: u8,
    pub identification: u16,
    /// Options of the IPv4 header.
    pub options: Vec<u8>,
    /// Numbers and bytes of IPv6 extension headers; the first byte of each is filled in.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// Offset in units of 8 bytes, and whether more fragments follow.
    pub fragment: (u16, bool),
    pub transport: Transport,
    pub payload: Vec<u8>,
}

/// Flags of the TCP header.
pub mod flag {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const ACK: u8 = 0x10;
}

impl Packet {
    fn new(source: SocketAddr, destination: SocketAddr, transport: Transport) -> Self {
        Self {
            link: Link::Ethernet,
            macs: (SENDER, RECEIVER),
            tags: Vec::new(),
            source,
            destination,
            ttl: 64,
            tos: 0,
            identification: 0x1234,
            options: Vec::new(),
            extensions: Vec::new(),
            fragment: (0, false),
            transport,
            payload: b"sheave".to_vec(),
        }
    }

    pub fn tcp(source: SocketAddr, destination: SocketAddr, flags: u8) -> Self {
        let transport =
            Transport::Tcp { flags, sequence: 0xdead_0001, acknowledgment: 0x1111, window: 64240, options: Vec::new() };
        Self::new(source, destination, transport)
    }

    pub fn udp(source: SocketAddr, destination: SocketAddr) -> Self {
        Self::new(source, destination, Transport::Udp { checksum: true })
    }

    /// An ICMP error about the packet whose bytes from the IP header on are `about`.
    pub fn port_unreachable(source: IpAddr, destination: IpAddr, about: &[u8]) -> Self {
        let (source, destination) = (SocketAddr::new(source, 0), SocketAddr::new(destination, 0));
        Self { payload: about.to_vec(), ..Self::new(source, destination, Transport::PortUnreachable) }
    }

    pub fn from(self, source: SocketAddr) -> Self {
        Self { source, ..self }
    }

    pub fn to(self, destination: SocketAddr) -> Self {
        Self { destination, ..self }
    }

    /// The hardware addresses the other way round.
    pub fn turned(mut self) -> Self {
        self.macs = (self.macs.1, self.macs.0);
        self
    }

    pub fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    pub fn tagged(mut self, kind: u16, id: u16) -> Self {
        self.tags.push((kind, id));
        self
    }

    pub fn payload(self, payload: Vec<u8>) -> Self {
        Self { payload, ..self }
    }

    pub fn without_checksum(self) -> Self {
        Self { transport: Transport::Udp { checksum: false }, ..self }
    }

    /// Without a link layer header.
    pub fn bare(self) -> Self {
        Self { link: Link::Ip, ..self }
    }

    /// The reset that refuses this segment (RFC 9293, 3.10.7.1).
    pub fn refusal(mut self) -> Self {
        let length = self.payload.len() as u32;
        if let Transport::Tcp { flags, sequence, acknowledgment, window, .. } = &mut self.transport {
            if *flags & flag::ACK != 0 {
                (*sequence, *acknowledgment, *flags) = (*acknowledgment, 0, flag::RST);
            } else {
                // SYN and FIN count as one byte.
                let turns = (*flags & (flag::SYN | flag::FIN)).count_ones();
                (*sequence, *acknowledgment) = (0, sequence.wrapping_add(turns + length));
                *flags = flag::RST | flag::ACK;
            }
            *window = 0;
        }
        (self.source, self.destination) = (self.destination, self.source);
        self.ttl(64).turned()
    }

    /// Offset of the IP header.
    pub fn l3(&self) -> usize {
        if self.link == Link::Ip { 0 } else { 14 + 4 * self.tags.len() }
    }

    /// # Panics
    /// Where the addresses are of two families, or the packet is too long for its headers.
    pub fn bytes(&self) -> Vec<u8> {
        let v6 = self.source.is_ipv6();
        let mut bytes = Vec::new();
        if self.link == Link::Ethernet {
            bytes.extend(self.macs.1);
            bytes.extend(self.macs.0);
            for (kind, id) in &self.tags {
                bytes.extend(kind.to_be_bytes());
                bytes.extend(id.to_be_bytes());
            }
            bytes.extend(if v6 { 0x86dd_u16 } else { 0x0800 }.to_be_bytes());
        }
        let (protocol, segment) = self.segment();
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let length = (segment.len() + self.options.len()) as u16;
                let mut ip = Ipv4Header::new(
                    length - self.options.len() as u16,
                    self.ttl,
                    IpNumber(protocol),
                    source.octets(),
                    destination.octets(),
                )
                .expect("fits");
                ip.options = self.options.as_slice().try_into().expect("a multiple of 4, up to 40");
                ip.set_payload_len(segment.len()).expect("fits");
                ip.dscp = (self.tos >> 2).try_into().expect("6 bits");
                ip.identification = self.identification;
                ip.dont_fragment = false;
                ip.fragment_offset = IpFragOffset::try_new(self.fragment.0).expect("13 bits");
                ip.more_fragments = self.fragment.1;
                ip.header_checksum = ip.calc_header_checksum();
                bytes.extend_from_slice(&ip.to_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut chain = Vec::new();
                let mut first = protocol;
                for (number, header) in self.extensions.iter().rev() {
                    let mut header = header.clone();
                    header[0] = first;
                    first = *number;
                    chain.splice(0..0, header);
                }
                let ip = Ipv6Header {
                    traffic_class: self.tos,
                    payload_length: (chain.len() + segment.len()) as u16,
                    next_header: IpNumber(first),
                    hop_limit: self.ttl,
                    source: source.octets(),
                    destination: destination.octets(),
                    ..Ipv6Header::default()
                };
                ip.write(&mut bytes).expect("writing to memory");
                bytes.extend(chain);
            }
            _ => panic!("{} and {} are of two families", self.source, self.destination),
        }
        bytes.extend(segment);
        bytes
    }

    /// The number of the transport protocol, and what lies behind the IP headers.
    fn segment(&self) -> (u8, Vec<u8>) {
        let addresses = (self.source.ip(), self.destination.ip());
        let (ports, payload) = ((self.source.port(), self.destination.port()), &self.payload);
        let mut bytes = Vec::new();
        let protocol = match &self.transport {
            Transport::Tcp { flags, sequence, acknowledgment, window, options } => {
                let mut tcp = TcpHeader::new(ports.0, ports.1, *sequence, *window);
                tcp.acknowledgment_number = *acknowledgment;
                tcp.fin = flags & flag::FIN != 0;
                tcp.syn = flags & flag::SYN != 0;
                tcp.rst = flags & flag::RST != 0;
                tcp.ack = flags & flag::ACK != 0;
                tcp.set_options_raw(options).expect("a multiple of 4, up to 40");
                tcp.checksum = match addresses {
                    (IpAddr::V4(a), IpAddr::V4(b)) => tcp.calc_checksum_ipv4_raw(a.octets(), b.octets(), payload),
                    (IpAddr::V6(a), IpAddr::V6(b)) => tcp.calc_checksum_ipv6_raw(a.octets(), b.octets(), payload),
                    _ => panic!("two families"),
                }
                .expect("fits");
                tcp.write(&mut bytes).expect("writing to memory");
                TCP
            }
            Transport::Udp { checksum } => {
                let length = 8 + payload.len() as u16;
                let mut udp = UdpHeader { source_port: ports.0, destination_port: ports.1, length, checksum: 0 };
                if *checksum {
                    udp.checksum = match addresses {
                        (IpAddr::V4(a), IpAddr::V4(b)) => udp.calc_checksum_ipv4_raw(a.octets(), b.octets(), payload),
                        (IpAddr::V6(a), IpAddr::V6(b)) => udp.calc_checksum_ipv6_raw(a.octets(), b.octets(), payload),
                        _ => panic!("two families"),
                    }
                    .expect("fits");
                }
                bytes.extend(udp.to_bytes());
                UDP
            }
            Transport::PortUnreachable => match addresses {
                (IpAddr::V6(a), IpAddr::V6(b)) => {
                    let kind = Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port);
                    let icmp = Icmpv6Header::with_checksum(kind, a.octets(), b.octets(), payload).expect("fits");
                    bytes.extend_from_slice(&icmp.to_bytes());
                    ICMPV6
                }
                _ => {
                    let kind = Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port);
                    bytes.extend_from_slice(&Icmpv4Header::with_checksum(kind, payload).to_bytes());
                    1
                }
            },
            Transport::Raw { protocol, header } => {
                bytes.extend(header);
                *protocol
            }
        };
        bytes.extend(payload);
        (protocol, bytes)
    }
}

/// Source and destination of a TCP or UDP packet whose IP header comes first.
pub fn ends(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let headers = PacketHeaders::from_ip_slice(bytes).ok()?;
    let (source, destination): (IpAddr, IpAddr) = match headers.net? {
        NetHeaders::Ipv4(ip, _) => (ip.source.into(), ip.destination.into()),
        NetHeaders::Ipv6(ip, _) => (ip.source.into(), ip.destination.into()),
        NetHeaders::Arp(_) => return None,
    };
    let ports = match headers.transport? {
        TransportHeader::Tcp(tcp) => (tcp.source_port, tcp.destination_port),
        TransportHeader::Udp(udp) => (udp.source_port, udp.destination_port),
        TransportHeader::Icmpv4(_) | TransportHeader::Icmpv6(_) | TransportHeader::Igmp(_) => return None,
    };
    Some(((source, ports.0).into(), (destination, ports.1).into()))
}
