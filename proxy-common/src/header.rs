//! The headers that the datapath reads, field by field as they lie in the packet: multi-byte fields are in network
//! order.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use network_types::{eth::EtherType, ip::IpProto};

/// RFC 791, without options.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ipv4 {
    pub version_ihl: u8,
    pub tos: u8,
    pub length: u16,
    pub id: u16,
    pub fragment: u16,
    pub ttl: u8,
    pub protocol: u8,
    pub checksum: u16,
    pub source: u32,
    pub destination: u32,
}

impl Ipv4 {
    pub const LEN: usize = 20;
    /// With as many options as there can be.
    pub const MAX_LEN: usize = 60;
    /// Offsets of fields that are rewritten.
    pub const TTL: usize = 8;
    pub const CHECKSUM: usize = 10;
    pub const ADDRESSES: usize = 12;
    /// More-fragments flag and fragment offset.
    pub const FRAGMENTED: u16 = 0x3fff;
}

/// RFC 8200, without extension headers.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ipv6 {
    pub version_class_label: u32,
    pub payload: u16,
    pub next: u8,
    pub hop_limit: u8,
    pub source: [u32; 4],
    pub destination: [u32; 4],
}

impl Ipv6 {
    pub const LEN: usize = 40;
    pub const HOP_LIMIT: usize = 7;
    pub const ADDRESSES: usize = 8;
}

/// The part of the TCP header that is read (RFC 9293, 3.1).
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Tcp {
    pub source_port: u16,
    pub destination_port: u16,
    pub sequence: u32,
    pub acknowledgment: u32,
    /// Header length in 4-byte words, in the upper four bits.
    pub offset: u8,
    pub flags: u8,
    pub window: u16,
}

impl Tcp {
    pub const CHECKSUM: usize = 16;
    pub const MIN_LEN: usize = 20;
    /// Length of the header of an established flow: 12 bytes of options hold the timestamps (RFC 7323).
    pub const WITH_TIMESTAMPS: usize = 32;
}

/// RFC 768.
pub struct Udp;

impl Udp {
    pub const CHECKSUM: usize = 6;
    pub const LEN: usize = 8;
}

pub const ETHERNET_LEN: usize = 14;
