use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Which side of the node's stack an entry applies to: the same tuple means different things before and behind it.
pub struct Side;

impl Side {
    pub const INGRESS: u8 = 0;
    pub const EGRESS: u8 = 1;
}

/// What an entry is: `role` of [`Flow4`] and [`Flow6`]. With client `c:p`, frontend `f`, backend `b`, and the node's
/// masquerade `n:q`; `c:p'` is the client under a port that nobody else uses towards the backend, nearly always its own:
///
/// | flow | role | side | key | becomes |
/// |---|---|---|---|---|
/// | every flow to a frontend | `CLIENT` | ingress | `c:p > f` | `c:p' > b` |
/// | | `REPLY` | egress | `b > c:p'` | `f > c:p` |
/// | masqueraded, besides | `MASK` | egress | `c:p' > b` | `n:q > b` |
/// | | `MASK_REPLY` | ingress | `b > n:q` | `b > c:p'` |
/// | hairpin (the backend is the client) | `CLIENT` | ingress | `c:p > f` | `f:p' > c:b` |
/// | | `REPLY` | ingress | `c:b > f:p'` | `f > c:p` |
/// | straight to what is a backend too | `DIRECT` | ingress | `c:p > b` | `c:p' > b` |
/// | | `REPLY` | egress | `b > c:p'` | `b > c:p` |
/// | answers to a datagram of the node itself | `OWN` | ingress | `r > n:p` | the same |
///
/// Whoever holds the reply's key owns the tuple: it is entered first, and only where it is free.
pub struct Role;

impl Role {
    pub const CLIENT: u8 = 1;
    pub const REPLY: u8 = 2;
    pub const MASK: u8 = 3;
    pub const MASK_REPLY: u8 = 4;
    pub const DIRECT: u8 = 5;
    pub const OWN: u8 = 6;

    /// The word used in output.
    pub const fn word(role: u8) -> &'static str {
        match role {
            Self::CLIENT => "client",
            Self::REPLY => "reply",
            Self::MASK => "mask",
            Self::MASK_REPLY => "mask-reply",
            Self::DIRECT => "direct",
            Self::OWN => "own",
            _ => "",
        }
    }
}

/// Bits of `flags` in [`Flow4`] and [`Flow6`].
pub struct FlowFlags;

impl FlowFlags {
    /// Both ends have answered each other: of a `CLIENT` or `DIRECT` and its `REPLY`. Nothing that a stranger opens
    /// displaces it.
    pub const PROVEN: u8 = 1;
    /// The backend is the client itself: the packet goes back out of the link it came from.
    pub const HAIRPIN: u8 = 2;
    /// May skip the stack: the egress entry is applied at once and the packet redirected to the next hop.
    pub const FAST: u8 = 4;
    /// There are a `MASK` and a `MASK_REPLY`.
    pub const MASQUERADE: u8 = 8;
}

// Aligned to double words, as the kernel's hash tables keep them: programs copy and compare no more at a time than types
// are aligned to.
macro_rules! flow_table {
    ($key:ident, $key_size:literal, $value:ident, $value_size:literal, $seat:ident, $address:ty, $name:literal) => {
        #[doc = concat!("Key of `", $name, "` (HASH): a tuple as it is seen on one side of the stack.")]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C, align(8))]
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
        #[repr(C, align(8))]
        pub struct $value {
            pub source: $address,
            pub destination: $address,
            /// Network order.
            pub source_port: u16,
            /// Network order.
            pub destination_port: u16,
            /// Of a `CLIENT`: the backend's id. Of a `REPLY`: index of the device that the client's first packet came
            /// in by.
            pub subject: u32,
            /// Of a `CLIENT`: [`super::Backend::generation`] when the flow began. Of a `REPLY`: the
            /// [`Seat4::turn`] of the seat that the flow took then.
            pub generation: u32,
            /// Of a `CLIENT`: the [`super::Config::epoch`] at which frontend and backend were looked up. Of a `REPLY`:
            /// its seat in the ring that bounds its kind of flow.
            pub stamp: u32,
            /// Tick (see [`super::Config`]) of the last packet.
            pub last_seen: u32,
            /// One of [`Role`].
            pub role: u8,
            /// Bits of [`FlowFlags`].
            pub flags: u8,
            /// Bits of [`crate::tcp::Seen`]: what this direction has sent.
            pub seen: u8,
            pub pad: u8,
        }
        const _: () = assert!(size_of::<$value>() == $value_size);

        #[doc = concat!("Value of the ring of flows in `", $name, "` that have not proved themselves (PERCPU_ARRAY).")]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct $seat {
            /// What the client's packets of the flow that took the seat last are found by.
            pub key: $key,
            /// How many seats of the ring had been taken on this CPU when it did, itself included.
            pub turn: u32,
            /// [`Self::turn`] of the last flow that left the seat for one among the proven, by whichever CPU: nobody has
            /// the seat if both are the same.
            pub left: u32,
        }
        const _: () = assert!(size_of::<$seat>() == $key_size + 8);
    };
}

flow_table!(FlowKey4, 16, Flow4, 32, Seat4, u32, "FLOWS4");
flow_table!(FlowKey6, 40, Flow6, 56, Seat6, [u32; 4], "FLOWS6");
