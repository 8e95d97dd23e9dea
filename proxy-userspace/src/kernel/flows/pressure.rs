//! When a sweep gives flows less time, as the programs do where they find no place: after a flood, what nobody answered is
//! to be gone before its time, which is minutes.

use proxy_common::datapath::over::Life;
use proxy_common::datapath::parse::TCP;
use proxy_common::datapath::{Family, Seats, is_clients};
use proxy_common::wire::{FlowFlags, Role};

/// Which kinds of flows are so many that they get less time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Those that have not proved themselves.
    pub opening: bool,
    /// Datagrams that have.
    pub datagrams: bool,
}

impl Pressure {
    /// Never on connections that have been established: what has closed rests, since its backend remembers it too.
    pub fn is_on(self, life: &Life) -> bool {
        if life.protocol == TCP {
            self.opening && !life.is_answered()
        } else if life.proven {
            self.datagrams
        } else {
            self.opening
        }
    }
}

/// Places in the rings of a family.
#[derive(Clone, Copy, Debug)]
pub struct Rings {
    /// Of flows that have not proved themselves, on all CPUs together.
    pub opening: u32,
    /// Of connections that have; datagrams have their share besides.
    pub connections: u32,
}

impl Rings {
    /// From a quarter on: one CPU may get most of the packets, and has only a part of the places.
    /// Before a configuration has told how many there are, there is none.
    pub fn pressure(self, census: &Census) -> Pressure {
        if self.opening == 0 || self.connections == 0 {
            return Pressure::default();
        }
        let datagrams = Seats::all(self.connections) - self.connections;
        Pressure { opening: census.opening > self.opening / 4, datagrams: census.datagrams > datagrams / 4 }
    }
}

/// How many flows there are of the kinds that pressure can be on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Census {
    opening: u32,
    datagrams: u32,
}

impl Census {
    /// Counts an entry if it is the one of its flow that stands for it.
    pub fn count<F: Family>(&mut self, key: &F::Key, flow: &F::Flow) {
        let state = F::state(flow);
        if is_clients(state.role) || state.role == Role::OWN {
            let is_proven = state.flags & FlowFlags::PROVEN != 0;
            self.opening += u32::from(!is_proven);
            self.datagrams += u32::from(is_proven && F::parts(key).protocol != TCP);
        }
    }
}

#[cfg(test)]
mod tests {
    use proxy_common::datapath::over::Half;
    use proxy_common::tcp::Seen;

    use super::*;

    #[test]
    fn many_of_a_kind_press_on_that_kind_alone() {
        let rings = Rings { opening: 400, connections: 1600 };
        let pressure = |opening, datagrams| rings.pressure(&Census { opening, datagrams });
        assert_eq!(pressure(100, 100), Pressure::default());
        let unknown = Rings { opening: 0, connections: 0 };
        assert_eq!(unknown.pressure(&Census { opening: 1, datagrams: 1 }), Pressure::default());
        assert_eq!(pressure(101, 100), Pressure { opening: true, datagrams: false });
        assert_eq!(pressure(100, 101), Pressure { opening: false, datagrams: true });
    }

    #[test]
    fn established_connections_are_never_pressed() {
        let half = |seen| Half { seen, last_seen: 0 };
        let life =
            |protocol, proven, client, reply| Life { protocol, proven, client: half(client), reply: half(reply) };
        let (opening, datagrams) =
            (Pressure { opening: true, datagrams: false }, Pressure { opening: false, datagrams: true });
        let fin = Seen::SYN | Seen::ACK | Seen::FIN;
        for (what, life, by_opening, by_datagrams) in [
            ("a SYN", life(TCP, false, Seen::SYN, 0), true, false),
            ("established", life(TCP, true, Seen::SYN | Seen::ACK, Seen::SYN | Seen::ACK), false, false),
            ("closed", life(TCP, true, fin, fin), false, false),
            ("closed without a lasting place", life(TCP, false, fin, fin), false, false),
            ("a question", life(17, false, Seen::ACK, 0), true, false),
            ("an exchange", life(17, true, Seen::ACK, Seen::ACK), false, true),
        ] {
            assert_eq!((opening.is_on(&life), datagrams.is_on(&life)), (by_opening, by_datagrams), "{what}");
        }
    }
}
