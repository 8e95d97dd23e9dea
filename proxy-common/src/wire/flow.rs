use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Which side of the node's stack an entry applies to: the same tuple means different things before and behind it.
pub struct Side;

impl Side {
    pub const INGRESS: u8 = 0;
    pub const EGRESS: u8 = 1;
}

/// Bits of `flags` in [`Flow4`] and [`Flow6`].
pub struct FlowFlags;

impl FlowFlags {
    /// Client to backend; the others carry replies.
    pub const FORWARD: u8 = 1;
    /// The backend is the client itself: the packet goes back out of the link it came from.
    pub const HAIRPIN: u8 = 2;
    /// May skip the stack: the egress entry is applied at once and the packet redirected to the next hop.
    pub const FAST: u8 = 4;
    /// A second entry masquerades the flow at egress.
    pub const MASQUERADE: u8 = 8;
    /// Straight to a pod, under another source port, since a flow through a frontend has the client's.
    pub const DIRECT: u8 = 16;
}

macro_rules! flow_table {
    ($key:ident, $key_size:literal, $value:ident, $value_size:literal, $address:ty, $name:literal) => {
        #[doc = concat!("Key of `", $name, "` (LRU_HASH): a tuple as it is seen on one side of the stack.")]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct $key {
            pub source: $address,
            pub destination: $address,
            /// Network order.
            pub source_port: u16,
            /// Network order.
            pub destination_port: u16,
            pub protocol: u8,
            /// One of [`Side`].
            pub side: u8,
            pub pad: [u8; 2],
        }
        const _: () = assert!(size_of::<$key>() == $key_size);

        #[doc = concat!("Value of `", $name, "`: the whole tuple that takes the key's place, and the state of the flow.")]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct $value {
            pub source: $address,
            pub destination: $address,
            /// Network order.
            pub source_port: u16,
            /// Network order.
            pub destination_port: u16,
            pub backend: u32,
            /// [`super::Backend::generation`] when the flow began.
            pub generation: u32,
            pub service: u32,
            /// Tick (see [`super::Config`]) of the last packet.
            pub last_seen: u32,
            /// Tick of the first packet.
            pub created: u32,
            /// Bits of [`FlowFlags`].
            pub flags: u8,
            /// Bits of [`crate::tcp::Seen`]: what this direction has sent.
            pub seen: u8,
            pub pad: [u8; 2],
        }
        const _: () = assert!(size_of::<$value>() == $value_size);
    };
}

flow_table!(FlowKey4, 16, Flow4, 36, u32, "FLOWS4");
flow_table!(FlowKey6, 40, Flow6, 60, [u32; 4], "FLOWS6");
