use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::{Stop, Transport, http::pace, raw::Raw};
use crate::packet::{Packet, flag};

/// What a flood is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sources {
    /// Any address of [`BEHIND_NOBODY4`] or [`BEHIND_NOBODY6`], and any port.
    Random,
    /// The sender's own address, and any port.
    Own,
}

/// Where random sources are: benchmarks have it to themselves (RFC 2544, RFC 5180).
pub const BEHIND_NOBODY4: &str = "198.18.0.0/15";
pub const BEHIND_NOBODY6: &str = "2001:2::/48";

#[derive(Args, Clone, Debug)]
pub struct FloodOptions {
    /// SYNs or datagrams.
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    pub protocol: Transport,
    #[arg(long, value_enum, default_value_t = Sources::Random)]
    pub sources: Sources,
    /// The sender's own address.
    #[arg(long)]
    pub own: Option<IpAddr>,
    /// Packets from each source, one right after the other.
    #[arg(long, default_value_t = 1)]
    pub each: u32,
    /// Packets a second; 0 = as many as possible.
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    /// Packets in all; without a limit if it runs until it is told to stop.
    #[arg(long, default_value_t = 100_000)]
    pub packets: u64,
}

impl FloodOptions {
    pub fn new(protocol: Transport) -> Self {
        Self { protocol, sources: Sources::Random, own: None, each: 1, rate: 0, packets: 100_000 }
    }

    /// From the address of whoever sends.
    pub fn from_own(self, own: IpAddr) -> Self {
        Self { sources: Sources::Own, own: Some(own), ..self }
    }

    /// As arguments of the program.
    pub fn arguments(&self) -> Vec<String> {
        let sources = match self.sources {
            Sources::Random => "random",
            Sources::Own => "own",
        };
        let mut arguments = vec![
            format!("--protocol={}", self.protocol.word()),
            format!("--sources={sources}"),
            format!("--each={}", self.each),
            format!("--rate={}", self.rate),
            format!("--packets={}", self.packets),
        ];
        arguments.extend(self.own.map(|own| format!("--own={own}")));
        arguments
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FloodReport {
    pub sent: u64,
    pub seconds: f64,
    /// What the kernel did not take, by its error.
    pub errors: BTreeMap<String, u64>,
}

/// Sends first packets of flows that never go on, from one thread.
///
/// # Errors
/// No raw socket, or own sources without an own address.
pub fn flood(to: SocketAddr, options: &FloodOptions, stop: Option<&Stop>) -> io::Result<FloodReport> {
    let started = Instant::now();
    let mut report = FloodReport::default();
    let mut raw = Raw::towards(to)?;
    let mut template = Template::new(to, options)?;
    let each = (options.each.max(1) as usize).min(Raw::BATCH);
    let mut batch = vec![template.packet.clone(); Raw::BATCH / each];
    while stop.map_or(report.sent < options.packets, |stop| !stop.is_set()) {
        pace(started, report.sent, options.rate);
        for packet in &mut batch {
            template.vary();
            packet.copy_from_slice(&template.packet);
        }
        let packets: Vec<&[u8]> =
            batch.iter().flat_map(|packet| std::iter::repeat_n(packet.as_slice(), each)).collect();
        match raw.send(&packets) {
            Ok(count) => report.sent += count as u64,
            Err(error) => *report.errors.entry(error.to_string()).or_default() += 1,
        }
    }
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// A packet whose source changes.
struct Template {
    packet: Vec<u8>,
    /// Of the packet without its source, not yet complemented.
    sum: u32,
    /// Where the source address is, without what stays of it, the source port, and the checksum of TCP or UDP.
    host: std::ops::Range<usize>,
    port: usize,
    checksum: usize,
    /// Bits of the first byte of `host` that stay.
    fixed: u8,
    varies_address: bool,
}

impl Template {
    fn new(to: SocketAddr, options: &FloodOptions) -> io::Result<Self> {
        let network = if to.is_ipv4() { BEHIND_NOBODY4 } else { BEHIND_NOBODY6 };
        let network = network.split('/').next().and_then(|address| address.parse::<IpAddr>().ok());
        let source = match options.sources {
            Sources::Random => network,
            Sources::Own => options.own,
        };
        let source = source.filter(|source| source.is_ipv4() == to.is_ipv4());
        let source = SocketAddr::new(source.ok_or_else(|| io::Error::other("no address to send from"))?, 0);
        let packet = match options.protocol {
            Transport::Tcp => Packet::tcp(source, to, flag::SYN).payload(Vec::new()),
            Transport::Udp => Packet::udp(source, to).payload(vec![0; 8]),
        };
        let packet = packet.bare().bytes();
        let (l4, host) = if to.is_ipv4() { (20, 13..16) } else { (40, 18..24) };
        let checksum = l4 + if options.protocol == Transport::Tcp { 16 } else { 6 };
        let word = |at: usize| packet.get(at..at + 2).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
        let sum = u32::from(!word(checksum));
        let fixed = packet[host.start];
        let varies_address = options.sources == Sources::Random;
        Ok(Self { sum, host, port: l4, checksum, fixed, varies_address, packet })
    }

    /// Another source, with the checksum that goes with it (RFC 1624).
    fn vary(&mut self) {
        let mut sum = self.sum;
        let port = fastrand::u16(1024..);
        self.packet[self.port..self.port + 2].copy_from_slice(&port.to_be_bytes());
        sum += u32::from(port);
        if self.varies_address {
            for at in self.host.clone() {
                // An IPv4 network of 15 bits; the 48 bits of the IPv6 one end before `host`.
                let keep = if at == self.host.start && self.host.len() == 3 { 0xfe } else { 0 };
                let byte = (self.fixed & keep) | (fastrand::u8(..) & !keep);
                self.packet[at] = byte;
                let added = byte - (self.fixed & keep);
                sum += u32::from(added) << if at % 2 == 0 { 8 } else { 0 };
            }
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let checksum = match !(sum as u16) {
            // Of UDP, it says that there is none.
            0 => 0xffff,
            other => other,
        };
        self.packet[self.checksum..self.checksum + 2].copy_from_slice(&checksum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{NetHeaders, PacketHeaders, TransportHeader};

    use super::*;

    #[test]
    fn sources_vary_and_checksums_are_right() {
        for to in ["10.0.0.1:80", "[fd00::1]:80"] {
            for protocol in Transport::BOTH {
                let mut template = Template::new(to.parse().unwrap(), &FloodOptions::new(protocol)).unwrap();
                let mut sources = std::collections::BTreeSet::new();
                for _ in 0..200 {
                    template.vary();
                    let headers = PacketHeaders::from_ip_slice(&template.packet).unwrap();
                    let payload = headers.payload.slice();
                    let (got, right, source) = match (headers.net.unwrap(), headers.transport.unwrap()) {
                        (NetHeaders::Ipv4(ip, _), TransportHeader::Tcp(tcp)) => {
                            (tcp.checksum, tcp.calc_checksum_ipv4(&ip, payload).unwrap(), IpAddr::from(ip.source))
                        }
                        (NetHeaders::Ipv4(ip, _), TransportHeader::Udp(udp)) => {
                            (udp.checksum, udp.calc_checksum_ipv4(&ip, payload).unwrap(), IpAddr::from(ip.source))
                        }
                        (NetHeaders::Ipv6(ip, _), TransportHeader::Tcp(tcp)) => {
                            (tcp.checksum, tcp.calc_checksum_ipv6(&ip, payload).unwrap(), IpAddr::from(ip.source))
                        }
                        (NetHeaders::Ipv6(ip, _), TransportHeader::Udp(udp)) => {
                            (udp.checksum, udp.calc_checksum_ipv6(&ip, payload).unwrap(), IpAddr::from(ip.source))
                        }
                        other => panic!("{other:?}"),
                    };
                    assert_eq!(got, right, "{to} {protocol:?} from {source}");
                    match source {
                        IpAddr::V4(v4) => assert!(v4.octets()[0] == 198 && v4.octets()[1] & 0xfe == 18, "{v4}"),
                        IpAddr::V6(v6) => assert_eq!(v6.segments()[..3], [0x2001, 2, 0], "{v6}"),
                    }
                    sources.insert(source);
                }
                assert!(sources.len() > 190, "{}", sources.len());
            }
        }
    }
}
