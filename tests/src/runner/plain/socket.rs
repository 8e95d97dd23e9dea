use std::cell::UnsafeCell;
use std::collections::BTreeMap;

use proxy_common::{
    datapath::{
        SocketQuery,
        socket::{Dialled, Remember, Socket, dial, recall},
    },
    reason::{Hook, Reason},
    wire::{End, Peers},
};

use super::{Maps, Plain};

/// A call of a process on its socket.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Stands for the socket.
    pub cookie: u64,
    pub end: End,
    pub protocol: u8,
    /// The socket is in the node's network namespace.
    pub of_node: bool,
    pub is_connected: bool,
    /// Another socket is bound to exactly the address that is dialled.
    pub is_bound: bool,
}

/// What the sockets remember, by their cookies; each in memory of its own.
pub(super) type Memory = BTreeMap<u64, Box<UnsafeCell<Peers>>>;

impl Plain {
    /// `connect`.
    pub fn dial(&self, call: &mut Call) -> Dialled {
        dial(call, &self.maps, false)
    }

    /// `sendto`.
    pub fn send(&self, call: &mut Call) -> Dialled {
        dial(call, &self.maps, true)
    }

    /// `recvfrom` or `getpeername`.
    pub fn recall(&self, call: &mut Call) {
        recall(call, &self.maps);
    }
}

impl Socket for Call {
    fn end(&self) -> End {
        self.end
    }

    fn set_end(&mut self, end: &End) {
        self.end = *end;
    }

    fn protocol(&self) -> u8 {
        self.protocol
    }

    fn is_connected(&self) -> bool {
        self.is_connected
    }

    fn has_own_socket(&self, query: &SocketQuery) -> bool {
        assert_eq!((query.destination, query.destination_port), (self.end.address, self.end.port));
        self.is_bound
    }
}

impl Remember<Call> for Maps {
    fn serves(&self, call: &Call) -> bool {
        call.of_node
    }

    fn peers(&self, call: &Call, make: bool) -> Option<&mut Peers> {
        let mut memory = self.sockets.borrow_mut();
        let place = match memory.get(&call.cookie) {
            Some(place) => place.get(),
            None if make => memory.entry(call.cookie).or_default().get(),
            None => return None,
        };
        // SAFETY: it never moves or goes while the maps are there, and the datapath has one reference at a time.
        Some(unsafe { &mut *place })
    }

    fn count(&self, reason: Reason) {
        *self.counters.borrow_mut().entry((Hook::Socket, reason)).or_default() += 1;
    }

    fn random(&self) -> u32 {
        proxy_common::datapath::Record::random(self)
    }
}
