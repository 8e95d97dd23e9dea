//! What sockets have dialled.

use aya_ebpf::{Global, btf_maps::SkStorage, macros::btf_map};
use proxy_common::{
    datapath::{Record, socket::Remember},
    reason::{Hook, Reason},
    wire::{Peers, counter_index},
};
use proxy_ebpf::context::{SocketCall, fetch_increment};

use super::{COUNTERS, Maps};
use crate::log;

#[btf_map]
static PEERS: SkStorage<Peers> = SkStorage::new();

/// The cookie of the network namespace whose processes are served; set by the loader. 0 is none.
#[unsafe(no_mangle)]
static NAMESPACE: Global<u64> = Global::new(0);

impl<const IPV6: bool> Remember<SocketCall<IPV6>> for Maps {
    #[inline(always)]
    fn serves(&self, call: &SocketCall<IPV6>) -> bool {
        call.namespace() == NAMESPACE.load()
    }

    #[inline(always)]
    fn peers(&self, call: &SocketCall<IPV6>, make: bool) -> Option<&mut Peers> {
        // SAFETY: the socket of the call, which is locked as long as the program runs.
        unsafe {
            if make {
                PEERS.get_or_insert_ptr_mut(call.context(), None).as_mut()
            } else {
                PEERS.get_ptr_mut(call.context()).as_mut()
            }
        }
    }

    /// A call may be preempted by another one.
    #[inline(always)]
    fn count(&self, reason: Reason) {
        if let Some(counter) = COUNTERS.get_ptr_mut(counter_index(Hook::Socket, reason)) {
            // SAFETY: a live, aligned map value.
            unsafe { fetch_increment(counter) };
        }
        log::note(Hook::Socket, reason);
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        Record::random(self)
    }
}
