//! What becomes of a flow to a frontend: pure, reads only. The programs, the hooks at sockets and whoever wants to
//! explain a packet ask the same function.

use super::Lookup;
use crate::wire::{Backend, BackendFlags, Class, Frontend, Masquerade, Reach, Set, SetsFlags};

/// Where a flow comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    pub class: Class,
    /// By the link of a pod: its replies find their way without us.
    pub by_pod_link: bool,
    /// From an address of the cluster's pods, whichever way it came.
    pub pod_address: bool,
    pub v6: bool,
}

/// What becomes of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    To {
        id: u32,
        backend: Backend,
        masquerade: bool,
    },
    /// No endpoint of the service port can serve, on any node.
    Reject,
    /// Endpoints exist, but none that the policy allows.
    NoLocalEndpoint,
    /// The tables changed under the reader.
    Stale,
}

/// How one backend of several is chosen.
pub trait Pick {
    /// Any number, each as likely as another.
    fn random(&self) -> u32;
    /// The same number for the same flow on every node: [`super::flow_hash`].
    fn hash(&self) -> u32;
}

/// The set that flows from `origin` are spread over, and whether there is an endpoint anywhere. `None`: the tables
/// changed under the reader.
#[inline(always)]
pub fn set_of<'a, L: Lookup>(lookup: &'a L, frontend: &Frontend, origin: &Origin) -> Option<(&'a Set, bool)> {
    let sets = lookup.sets(frontend.service, origin.v6)?;
    if sets.service != frontend.service {
        return None;
    }
    let set = match frontend.policy.rule(origin.class).reach {
        Reach::Cluster => &sets.cluster,
        Reach::Local => &sets.local,
    };
    Some((set, sets.flags & SetsFlags::HAS_ENDPOINTS != 0))
}

/// Whether the node's address takes the client's place towards a backend.
#[inline(always)]
pub fn masquerades(frontend: &Frontend, origin: &Origin, backend: &Backend) -> bool {
    let remote = backend.flags & BackendFlags::LOCAL == 0;
    // A pod of another node gets its answer from the address that it dialled only if it comes back through here, whichever
    // way the network plugin routes.
    if origin.pod_address && frontend.policy.rule(Class::Pod).masquerade == Masquerade::Always {
        return true;
    }
    match frontend.policy.rule(origin.class).masquerade {
        Masquerade::Always => true,
        Masquerade::Remote => remote,
        // Whoever did not come by a pod's link gets his replies through this node, which a backend of another node
        // would pass by.
        Masquerade::Never => remote && !origin.by_pod_link,
    }
}

#[inline(always)]
pub fn decide<L: Lookup>(lookup: &L, frontend: &Frontend, origin: &Origin, pick: &impl Pick) -> Decision {
    let Some((set, has_endpoints)) = set_of(lookup, frontend, origin) else { return Decision::Stale };
    if set.count == 0 {
        return if has_endpoints { Decision::NoLocalEndpoint } else { Decision::Reject };
    }
    let id = if set.maglev_size != 0 {
        lookup.maglev(set.maglev_base.wrapping_add(pick.hash() % set.maglev_size))
    } else {
        // The upper half of the product is uniform over 0..count without a division.
        let choice = (u64::from(pick.random()) * u64::from(set.count)) >> 32;
        lookup.slot(set.base.wrapping_add(choice as u32))
    };
    let Some(id) = id else { return Decision::Stale };
    match lookup.backend(id) {
        Some(backend) if backend.service == frontend.service => {
            Decision::To { id, backend, masquerade: masquerades(frontend, origin, &backend) }
        }
        _ => Decision::Stale,
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
