use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// One row of `SERVICES` (ARRAY, memory-mapped; index = service id, 0 is never used): where the sets of a service port
/// are, by family. Each is one aligned store of 4 bytes: the switch from one state of the endpoints to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Service {
    /// Index in `SETS`; 0: none.
    pub sets4: u32,
    pub sets6: u32,
}

/// Backends that flows are spread over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Set {
    /// First slot of the set in `SLOTS`.
    pub base: u32,
    /// Number of slots; 0 = no backend.
    pub count: u32,
    /// First element of the set's lookup table in `MAGLEV`.
    pub maglev_base: u32,
    /// Elements of the lookup table, a prime; 0 = the choice is random.
    pub maglev_size: u32,
}

/// One row of `SETS` (ARRAY, memory-mapped; index 0 is never used): the sets of a service port in one family. A row
/// does not change while `SERVICES` names it, nor for a grace period after that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Sets {
    /// For [`super::Reach::Cluster`].
    pub cluster: Set,
    /// For [`super::Reach::Local`].
    pub local: Set,
    /// The service port that owns the row.
    pub service: u32,
    /// Bits of [`SetsFlags`].
    pub flags: u32,
    /// Session affinity by client address lasts for so many ticks; 0: none.
    pub affinity: u32,
    /// Of the allowed source ranges; 0: all sources.
    pub ranges: u32,
}

const _: () = assert!(size_of::<Sets>() == 48);

/// Bits of [`Sets::flags`].
pub struct SetsFlags;

impl SetsFlags {
    /// Some endpoint somewhere could serve: an empty set then means a silent drop instead of a reject
    /// (kube-proxy's rule for `Local` policies).
    pub const HAS_ENDPOINTS: u32 = 1;
}
