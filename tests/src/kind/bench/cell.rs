use std::fmt;

use serde::Serialize;

use crate::cluster::Family;
use crate::comparison::{Placement, Turn};

/// One thing to be measured. More is better in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cell {
    pub work: Work,
    pub placement: Placement,
    pub family: Family,
}

/// What the client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// iperf3 with so many streams at a time, in bits a second that arrive.
    Tcp(u8),
    /// Datagrams as fast as they go, the same.
    Udp(u8),
    /// A connection with one HTTP request, a second.
    Connections,
}

impl Work {
    const ALL: [Self; 5] = [Self::Tcp(1), Self::Tcp(8), Self::Udp(1), Self::Udp(8), Self::Connections];
}

impl Cell {
    pub fn all() -> Vec<Self> {
        let mut cells = Vec::new();
        for work in Work::ALL {
            for placement in Placement::BOTH {
                cells.extend(Family::BOTH.map(|family| Self { work, placement, family }));
            }
        }
        cells
    }

    /// With its unit.
    pub fn amount(&self, value: f64) -> String {
        match self.work {
            Work::Tcp(_) | Work::Udp(_) => format!("{:.2} Gbit/s", value / 1e9),
            Work::Connections => format!("{value:.0} /s"),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.work {
            Work::Tcp(1) => write!(f, "TCP, 1 stream")?,
            Work::Tcp(streams) => write!(f, "TCP, {streams} streams")?,
            Work::Udp(1) => write!(f, "UDP, 1 stream")?,
            Work::Udp(streams) => write!(f, "UDP, {streams} streams")?,
            Work::Connections => write!(f, "new connections")?,
        }
        let placement = match self.placement {
            Placement::SameNode => "same node",
            Placement::AcrossNodes => "across nodes",
        };
        let family = match self.family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        write!(f, ", {placement}, {family}")
    }
}

/// By which address the client asks. Each has a port of the server's for itself: a client's port that was just used by one
/// way would otherwise be refused by what the server remembers of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// The pod's own.
    Direct,
    /// The same again.
    Control,
    ClusterIp,
    /// Of the client's own node.
    NodePort,
}

impl Way {
    pub const ALL: [Self; 4] = [Self::Direct, Self::Control, Self::ClusterIp, Self::NodePort];
    /// Those that a proxy carries.
    pub const COMPARED: [Self; 2] = [Self::ClusterIp, Self::NodePort];

    pub fn of(turn: Turn) -> Self {
        match turn {
            Turn::Direct => Self::Direct,
            Turn::Control => Self::Control,
            Turn::Compared(0) => Self::ClusterIp,
            Turn::Compared(_) => Self::NodePort,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "pod",
            Self::Control => "pod again",
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
        })
    }
}
