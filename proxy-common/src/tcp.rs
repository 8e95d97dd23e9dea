//! What the TCP flags of a flow have shown so far, as bits: enough to tell a retransmitted SYN from the reuse of a
//! port.

/// Flags of the TCP header (RFC 9293, 3.1).
pub struct TcpFlags;

impl TcpFlags {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const ACK: u8 = 0x10;
}

/// Bits of `seen` in a flow entry: what this direction of the flow has sent.
pub struct Seen;

impl Seen {
    pub const SYN: u8 = 1;
    /// Data or an acknowledgment, without SYN. Every packet of UDP counts as one.
    pub const ACK: u8 = 2;
    pub const FIN: u8 = 4;
    pub const RST: u8 = 8;

    /// The bits that a segment with `flags` adds.
    #[inline(always)]
    pub const fn after(flags: u8) -> u8 {
        if flags & TcpFlags::RST != 0 {
            Self::RST
        } else if flags & TcpFlags::SYN != 0 {
            Self::SYN
        } else if flags & TcpFlags::FIN != 0 {
            Self::ACK | Self::FIN
        } else {
            Self::ACK
        }
    }
}

/// Whether a segment opens a connection.
#[inline(always)]
pub const fn opens(flags: u8) -> bool {
    flags & (TcpFlags::SYN | TcpFlags::ACK | TcpFlags::RST | TcpFlags::FIN) == TcpFlags::SYN
}
