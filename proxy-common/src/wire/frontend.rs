use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Address, Policy};
use crate::digest::Digest;

/// Key of `FRONTENDS` (HASH).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FrontendKey {
    /// The address dialled; [`Address::ANY`] in [`Scope::NODE_PORT4`] and [`Scope::NODE_PORT6`].
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

/// Value of `FRONTENDS`: whose frontend it is. Written when a frontend comes, goes or changes its owner, never for a
/// change of endpoints.
///
/// An element of a hash map that is removed is given to the next key at once, while a reader may still be copying it
/// (`htab_map_update_elem`, kernel/bpf/hashtab.c). The check lets that reader notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Frontend {
    /// Id of the service port.
    pub service: u32,
    pub policy: Policy,
    /// Of key and value, see [`Frontend::is_of`].
    check: u32,
}

const _: () = assert!(size_of::<Frontend>() == 12);

impl Frontend {
    pub fn new(key: &FrontendKey, service: u32, policy: Policy) -> Self {
        Self { service, policy, check: Self::check(key, service, policy) }
    }

    /// Whether this is, whole, what was written for `key`: by chance one in 2³² of what was not is taken for it.
    #[inline(always)]
    pub fn is_of(&self, key: &FrontendKey) -> bool {
        self.check == Self::check(key, self.service, self.policy)
    }

    #[inline(always)]
    fn check(key: &FrontendKey, service: u32, policy: Policy) -> u32 {
        let ports = u32::from(key.port) | u32::from(key.protocol) << 16 | u32::from(key.scope) << 24;
        Digest::new(ports).words(&key.address.0).pair(service, policy.0).value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_for_another_key_or_is_a_mix_of_two_is_noticed() {
        let key = |last: u32, port: u16| FrontendKey {
            address: Address::from_v4(last),
            port,
            protocol: 6,
            scope: Scope::ADDRESS,
        };
        let (a, b) = (key(1, 80), key(2, 80));
        let (one, other) = (Frontend::new(&a, 7, Policy::default()), Frontend::new(&b, 8, Policy(3)));
        assert!(one.is_of(&a) && other.is_of(&b));
        assert!(!one.is_of(&b) && !one.is_of(&key(1, 81)));
        assert!(!Frontend { service: other.service, ..one }.is_of(&a));
        assert!(!Frontend { policy: other.policy, ..one }.is_of(&a));
        assert!(!Frontend { check: other.check, ..one }.is_of(&a));
    }
}
