//! The programs in the kernel object, by the names of their functions: 14 bytes at most, since the kernel keeps 15.

use crate::{datapath::Link, reason::Hook};

/// A tc classifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcProgram {
    pub name: &'static str,
    pub hook: Hook,
    /// What the packets of its devices begin with.
    pub link: Link,
}

const fn tc(name: &'static str, hook: Hook, link: Link) -> TcProgram {
    TcProgram { name, hook, link }
}

/// Every tc program: one for each hook and kind of link.
pub const TC: [TcProgram; 12] = [
    tc("pod_in", Hook::PodIngress, Link::Ethernet),
    tc("pod_out", Hook::PodEgress, Link::Ethernet),
    tc("uplink_in", Hook::UplinkIngress, Link::Ethernet),
    tc("uplink_out", Hook::UplinkEgress, Link::Ethernet),
    tc("overlay_in", Hook::OverlayIngress, Link::Ethernet),
    tc("overlay_out", Hook::OverlayEgress, Link::Ethernet),
    tc("pod_in_l3", Hook::PodIngress, Link::Ip),
    tc("pod_out_l3", Hook::PodEgress, Link::Ip),
    tc("uplink_in_l3", Hook::UplinkIngress, Link::Ip),
    tc("uplink_out_l3", Hook::UplinkEgress, Link::Ip),
    tc("overlay_in_l3", Hook::OverlayIngress, Link::Ip),
    tc("overlay_out_l3", Hook::OverlayEgress, Link::Ip),
];

/// The XDP program, for uplinks.
pub const XDP: &str = "uplink_xdp";

/// The iterator over what sockets have dialled: for each a cookie and a [`crate::wire::Peers`].
pub const LIST_PEERS: &str = "list_peers";

/// What a process asks of its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    Connect4,
    Connect6,
    SendMsg4,
    SendMsg6,
    RecvMsg4,
    RecvMsg6,
    GetPeerName4,
    GetPeerName6,
}

impl Call {
    pub const ALL: [Self; 8] = [
        Self::Connect4,
        Self::Connect6,
        Self::SendMsg4,
        Self::SendMsg6,
        Self::RecvMsg4,
        Self::RecvMsg6,
        Self::GetPeerName4,
        Self::GetPeerName6,
    ];

    /// The name of the program, which is that of the call.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::SendMsg4 => "sendmsg4",
            Self::SendMsg6 => "sendmsg6",
            Self::RecvMsg4 => "recvmsg4",
            Self::RecvMsg6 => "recvmsg6",
            Self::GetPeerName4 => "getpeername4",
            Self::GetPeerName6 => "getpeername6",
        }
    }
}

/// The name of the tc program for a hook and a kind of link; `None` for the other hooks.
pub fn tc_name(hook: Hook, link: Link) -> Option<&'static str> {
    TC.iter().find(|program| program.hook == hook && program.link == link).map(|program| program.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hook_has_a_program_for_every_link_and_no_name_is_cut() {
        for &hook in Hook::ALL {
            for link in [Link::Ethernet, Link::Ip] {
                let elsewhere = matches!(hook, Hook::Xdp | Hook::Socket);
                assert_eq!(tc_name(hook, link).is_some(), !elsewhere, "{hook:?} {link:?}");
            }
        }
        assert!(TC.iter().all(|program| program.name.len() <= 15));
        assert!(Call::ALL.iter().all(|call| call.program().len() <= 15));
    }
}
