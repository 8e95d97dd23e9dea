use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

/// Why an exchange failed, as far as a client can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// A reset in answer to the SYN, or an ICMP port unreachable.
    Refused,
    /// A reset later on.
    Reset,
    /// No answer in time.
    TimedOut,
    /// An ICMP error other than port unreachable, or no route.
    Unreachable,
    /// The connection ended before the answer did.
    Closed,
    /// An answer that is not the one expected.
    Garbled,
    /// The client itself could not: no port, no descriptor.
    Client,
}

impl Failure {
    pub fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => Self::Reset,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::TimedOut,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
            io::ErrorKind::UnexpectedEof => Self::Closed,
            io::ErrorKind::InvalidData => Self::Garbled,
            _ => Self::Client,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::TimedOut => "timed-out",
            Self::Unreachable => "unreachable",
            Self::Closed => "closed",
            Self::Garbled => "garbled",
            Self::Client => "client",
        })
    }
}
