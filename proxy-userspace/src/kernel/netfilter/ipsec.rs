use std::io;

use netlink_packet_core::{
    DecodeError, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, NlasIterator, parse_u32,
};

use super::{FastPath, Onlooker};
use crate::kernel::netlink::Netlink;

/// linux/xfrm.h.
const XFRM_MSG_NEWSPDINFO: u16 = 0x24;
const XFRM_MSG_GETSPDINFO: u16 = 0x25;
const XFRMA_SPD_INFO: u16 = 1;

/// Whether there are policies for packets that are forwarded, or that leave. A forwarded packet meets both.
///
/// # Errors
/// The kernel's.
pub fn look(netlink: &mut Netlink) -> io::Result<FastPath> {
    let policies = netlink.get(Policies::Get, |answer| match answer {
        Policies::Count { out, forward } => Some(out + forward),
        Policies::Get => None,
    })?;
    Ok(if policies > 0 { FastPath::closed(&Onlooker::Ipsec) } else { FastPath::OPEN })
}

/// The message that asks how many policies there are, and the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Policies {
    Get,
    /// Of both address families, without those of single sockets.
    Count {
        out: u64,
        forward: u64,
    },
}

impl NetlinkSerializable for Policies {
    fn message_type(&self) -> u16 {
        match self {
            Self::Get => XFRM_MSG_GETSPDINFO,
            Self::Count { .. } => XFRM_MSG_NEWSPDINFO,
        }
    }

    /// Flags, none of which is defined.
    fn buffer_len(&self) -> usize {
        size_of::<u32>()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

impl NetlinkDeserializable for Policies {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        if header.message_type != XFRM_MSG_NEWSPDINFO {
            return Err(format!("message {:#x} where a count of policies was expected", header.message_type).into());
        }
        for attribute in NlasIterator::new(payload.get(size_of::<u32>()..).unwrap_or_default()) {
            let attribute = attribute?;
            if attribute.kind() == XFRMA_SPD_INFO {
                // struct xfrmu_spdinfo: in, out, forward, ...
                let number = |at: usize| parse_u32(attribute.value().get(at..at + 4).unwrap_or_default());
                return Ok(Self::Count { out: number(4)?.into(), forward: number(8)?.into() });
            }
        }
        Err("no count of policies".into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::captured::answers;
    use super::*;

    #[test]
    fn policies_are_counted_by_direction() {
        let found: Vec<Policies> = answers(include_str!("captured/policies.hex"));
        assert_eq!(found, [Policies::Count { out: 3, forward: 2 }]);
    }

    #[test]
    fn another_answer_is_an_error() {
        let header = |message_type| {
            let mut header = NetlinkHeader::default();
            header.message_type = message_type;
            header
        };
        assert!(Policies::deserialize(&header(XFRM_MSG_NEWSPDINFO), &[0; 4]).is_err());
        assert!(Policies::deserialize(&header(XFRM_MSG_NEWSPDINFO), &[]).is_err());
        assert!(Policies::deserialize(&header(XFRM_MSG_GETSPDINFO), &[0; 4]).is_err());
    }
}
