//! Why a packet was translated anew, left alone, rejected or dropped. One definition is the index of the counter, the
//! word in logs and the label of metrics.

macro_rules! closed_list {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum $name { $($(#[$item_doc])* $item),+ }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$item),+];

            /// The word used in output.
            pub const fn word(self) -> &'static str {
                match self { $($name::$item => $word),+ }
            }
        }
    };
}

closed_list! {
    /// Where a program is attached.
    Hook {
        PodIngress = "pod-ingress",
        PodEgress = "pod-egress",
        UplinkIngress = "uplink-ingress",
        UplinkEgress = "uplink-egress",
        OverlayIngress = "overlay-ingress",
        OverlayEgress = "overlay-egress",
        Xdp = "xdp",
        Socket = "socket",
    }
}

closed_list! {
    /// Why a packet was not simply passed on.
    Reason {
        /// A flow was given a backend.
        NewFlow = "new-flow",
        /// The first packet of a flow passed the stack by.
        FastPath = "fast-path",
        /// A reply was sent out by the device that its request came in by, where routing would have sent it elsewhere.
        Detour = "detour",
        /// A flow straight to what is a backend too was entered, so that no other flow takes its tuple.
        DirectFlow = "direct-flow",
        /// For a socket of the node that is bound to exactly this address.
        OwnSocket = "own-socket",
        /// A flow that had not proved itself lost its place to a newer one.
        Displaced = "displaced",
        /// Headers that end early or contradict themselves.
        Malformed = "malformed",
        /// An IP fragment: the ports are not in every one of them.
        Fragment = "fragment",
        /// More IPv6 extension headers than are followed.
        ExtensionHeaders = "extension-headers",
        /// TCP to a frontend in the middle of a flow that is not known here.
        MidFlow = "mid-flow",
        /// The same on its way out, so that connection tracking knows nothing of it either: reset.
        UnknownFlow = "unknown-flow",
        /// No endpoint of the service port can serve, on any node.
        NoEndpoint = "no-endpoint",
        /// No endpoint, and more rejects than are sent in a tick.
        RejectLimited = "reject-limited",
        /// No endpoint, and the packet could not be turned into a reject.
        RejectFailed = "reject-failed",
        /// Endpoints exist, but none that the traffic policy allows on this node.
        NoLocalEndpoint = "no-local-endpoint",
        /// The tables changed under the packet; its retransmission will see them whole.
        StaleTables = "stale-tables",
        /// The flow table took no further entry.
        FlowTableFull = "flow-table-full",
        /// No free source port towards the backend.
        PortsExhausted = "ports-exhausted",
        /// The node has no address of the family to masquerade with.
        NoNodeAddress = "no-node-address",
        /// The packet could not be rewritten.
        RewriteFailed = "rewrite-failed",
        /// An ICMP redirect about a translated flow, which would teach the client a wrong route.
        IcmpRedirect = "icmp-redirect",
    }
}

/// What became of the packets that a reason counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Translated,
    LeftAlone,
    Rejected,
    Dropped,
    Forgotten,
}

impl Outcome {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Translated => "translated",
            Self::LeftAlone => "left-alone",
            Self::Rejected => "rejected",
            Self::Dropped => "dropped",
            Self::Forgotten => "forgotten",
        }
    }
}

impl Reason {
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::NewFlow | Self::FastPath | Self::Detour => Outcome::Translated,
            Self::DirectFlow
            | Self::OwnSocket
            | Self::Malformed
            | Self::Fragment
            | Self::ExtensionHeaders
            | Self::MidFlow => Outcome::LeftAlone,
            Self::Displaced => Outcome::Forgotten,
            Self::UnknownFlow | Self::NoEndpoint => Outcome::Rejected,
            Self::RejectLimited
            | Self::RejectFailed
            | Self::NoLocalEndpoint
            | Self::StaleTables
            | Self::FlowTableFull
            | Self::PortsExhausted
            | Self::NoNodeAddress
            | Self::RewriteFailed
            | Self::IcmpRedirect => Outcome::Dropped,
        }
    }
}
