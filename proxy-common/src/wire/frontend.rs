use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Address;

/// Key of `FRONTENDS` (HASH).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FrontendKey {
    /// The address dialled; [`Address::ANY`] in [`Scope::NODE_PORT`].
    pub address: Address,
    /// Network order.
    pub port: u16,
    pub protocol: u8,
    /// One of [`Scope`].
    pub scope: u8,
}

const _: () = assert!(size_of::<FrontendKey>() == 20);

/// Values of [`FrontendKey::scope`].
pub struct Scope;

impl Scope {
    /// ClusterIP, external IP or load balancer VIP: the key has the address.
    pub const ADDRESS: u8 = 0;
    /// NodePort on the IPv4 addresses of the node that `LOCAL_ADDRESSES` allows.
    pub const NODE_PORT4: u8 = 4;
    /// NodePort on the IPv6 addresses of the node that `LOCAL_ADDRESSES` allows.
    pub const NODE_PORT6: u8 = 6;
}

/// The backends that one source class may be sent to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Set {
    /// First slot of the set in `SLOTS`.
    pub base: u32,
    /// Number of slots; 0 = no backend for this class.
    pub count: u32,
    /// First element of the set's lookup table in `MAGLEV`.
    pub maglev_base: u32,
    /// Elements of the lookup table, a prime; 0 = the choice is random.
    pub maglev_size: u32,
}

/// Value of `FRONTENDS`. Replacing it switches the service port from one set of backends to the next at once:
/// a packet sees the old one or the new one, never a mix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Frontend {
    pub service: u32,
    /// Bits of [`FrontendFlags`].
    pub flags: u32,
    /// For sources inside the cluster (pods).
    pub inside: Set,
    /// For all other sources.
    pub outside: Set,
}

const _: () = assert!(size_of::<Frontend>() == 40);

/// Bits of [`Frontend::flags`]. The traffic policies of Kubernetes are resolved into sets and these bits by the
/// agent: the datapath knows no policy.
pub struct FrontendFlags;

impl FrontendFlags {
    /// Some endpoint somewhere could serve: an empty set then means a silent drop instead of a reject
    /// (kube-proxy's rule for `Local` policies).
    pub const HAS_ENDPOINTS: u32 = 1;
    /// Sources inside the cluster are masqueraded.
    pub const MASQUERADE_INSIDE: u32 = 2;
}
