use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Address;

/// One end of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct End {
    pub address: Address,
    /// Network order.
    pub port: u16,
    pub pad: u16,
}

impl End {
    pub const fn new(address: Address, port: u16) -> Self {
        Self { address, port, pad: 0 }
    }
}

/// Whom a socket was given in place of a frontend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Peer {
    /// What the process dialled.
    pub frontend: End,
    /// Whom it talks to.
    pub backend: End,
    /// Id of the backend; 0: the place is free.
    pub id: u32,
    /// Of the backend when it was chosen.
    pub generation: u32,
    /// Tick of the last datagram that was sent to the frontend by its name.
    pub last_seen: u32,
}

/// Value of `PEERS` (SK_STORAGE): what a socket of this node has dialled. Lives and dies with the socket.
///
/// A connected socket has one peer. One that names a destination with every datagram may have many; of those the last
/// ones are remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Peers {
    pub places: [Peer; Self::PLACES],
    /// How many peers were remembered so far.
    pub taken: u32,
}

const _: () = assert!(size_of::<Peers>() == Peers::PLACES * 52 + 4);

impl Peers {
    pub const PLACES: usize = 8;

    /// The peer that a frontend has led to.
    #[inline(always)]
    pub fn of_frontend(&mut self, frontend: &End) -> Option<&mut Peer> {
        self.places.iter_mut().find(|peer| peer.id != 0 && peer.frontend == *frontend)
    }

    /// The peer with the address of a backend.
    #[inline(always)]
    pub fn of_backend(&mut self, backend: &End) -> Option<&mut Peer> {
        self.places.iter_mut().find(|peer| peer.id != 0 && peer.backend == *backend)
    }

    /// Remembers a peer, in the place of one with the same frontend or backend: what a backend sends can be told to come
    /// from one frontend only, the last one.
    #[inline(always)]
    pub fn remember(&mut self, peer: &Peer) {
        let mut found = None;
        for (place, other) in self.places.iter_mut().enumerate() {
            if other.id != 0 && (other.frontend == peer.frontend || other.backend == peer.backend) {
                other.id = 0;
                found = Some(place);
            }
        }
        let place = found.unwrap_or_else(|| {
            self.taken = self.taken.wrapping_add(1);
            self.taken as usize
        });
        self.places[place % Self::PLACES] = *peer;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(last: u32) -> End {
        End::new(Address::from_v4(last), 53)
    }

    fn peer(frontend: u32, backend: u32) -> Peer {
        Peer { frontend: end(frontend), backend: end(backend), id: backend, ..Peer::default() }
    }

    #[test]
    fn a_frontend_and_a_backend_have_one_place_each() {
        let mut peers = Peers::default();
        peers.remember(&peer(1, 101));
        peers.remember(&peer(1, 102));
        assert_eq!(peers.of_backend(&end(101)), None);
        assert_eq!(peers.of_frontend(&end(1)).map(|peer| peer.id), Some(102));
        // Two frontends with the same endpoint: its answers are told to come from the last one that was dialled.
        peers.remember(&peer(2, 102));
        assert_eq!(peers.of_frontend(&end(1)), None);
        assert_eq!(peers.of_backend(&end(102)).map(|peer| peer.frontend), Some(end(2)));
        // A frontend and a backend that had different places.
        peers.remember(&peer(3, 103));
        peers.remember(&peer(2, 103));
        assert_eq!(peers.places.iter().filter(|peer| peer.id != 0).count(), 1);
    }

    #[test]
    fn the_last_ones_are_remembered() {
        let mut peers = Peers::default();
        for number in 1..=20 {
            peers.remember(&peer(number, 100 + number));
        }
        for number in 1..=20 {
            let remembered = peers.of_frontend(&end(number)).is_some();
            assert_eq!(remembered, number > 20 - Peers::PLACES as u32, "{number}");
        }
    }
}
