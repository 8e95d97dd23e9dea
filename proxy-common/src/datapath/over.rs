//! When a flow has ended: one judgement for programs that need a place or a port and for the agent that clears up.

use super::parse::TCP;
use crate::{tcp::Seen, wire::Timeouts};

/// What is known of one direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Half {
    /// Bits of [`Seen`].
    pub seen: u8,
    /// Tick of the last packet.
    pub last_seen: u32,
}

/// A flow as both of its directions know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    pub protocol: u8,
    /// Both ends have answered each other.
    pub proven: bool,
    pub client: Half,
    pub reply: Half,
}

impl Life {
    /// For how many ticks the flow may be quiet. `pressed`: a port or a place is wanted and none is free, so that what is
    /// finished or has proved nothing gets less time, and so do datagrams. What is established never does.
    #[inline(always)]
    pub fn lifetime(&self, pressed: bool, timeouts: &Timeouts) -> u32 {
        let under_pressure = |calm: u32, wanted: u32| if pressed && wanted < calm { wanted } else { calm };
        if self.protocol != TCP {
            return if self.proven {
                under_pressure(timeouts.udp, timeouts.udp_opening)
            } else {
                // A question may be on its way to a slow answer.
                under_pressure(timeouts.udp_opening, timeouts.udp_opening / 2)
            };
        }
        let (either, both) = (self.client.seen | self.reply.seen, self.client.seen & self.reply.seen);
        if either & Seen::RST != 0 {
            under_pressure(timeouts.tcp_reset, 1)
        } else if both & Seen::FIN != 0 {
            under_pressure(timeouts.tcp_closed, 1)
        } else if !self.is_answered() {
            under_pressure(timeouts.tcp_opening, timeouts.pressed)
        } else if either & Seen::FIN != 0 {
            timeouts.tcp_half_closed
        } else {
            timeouts.tcp_established
        }
    }

    /// Whether both ends have shown that they are there: the backend by an answer, the client by what only somebody who
    /// got it sends.
    #[inline(always)]
    pub fn is_answered(&self) -> bool {
        self.proven || (self.reply.seen & (Seen::SYN | Seen::ACK) != 0 && self.client.seen & Seen::ACK != 0)
    }

    /// Ticks since the last packet that counts. Answers to a handshake that the client never completes do not: a server
    /// repeats them for a minute and more.
    #[inline(always)]
    pub fn quiet(&self, now: u32) -> u32 {
        let client = since(self.client.last_seen, now);
        let reply = since(self.reply.last_seen, now);
        if (self.protocol == TCP && !self.is_answered()) || client < reply { client } else { reply }
    }

    #[inline(always)]
    pub fn is_over(&self, now: u32, pressed: bool, timeouts: &Timeouts) -> bool {
        self.quiet(now) > self.lifetime(pressed, timeouts)
    }
}

/// Ticks from `then` to `now`. An entry that another CPU marked with the next tick is of this very moment.
#[inline(always)]
pub fn since(then: u32, now: u32) -> u32 {
    let passed = now.wrapping_sub(then);
    if (passed as i32) < 0 { 0 } else { passed }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UDP: u8 = 17;
    const TIMEOUTS: Timeouts = Timeouts {
        tcp_opening: 120,
        tcp_established: 86_400,
        tcp_half_closed: 3_600,
        tcp_closed: 110,
        tcp_reset: 10,
        udp_opening: 30,
        udp: 125,
        pressed: 5,
    };
    const NONE: u8 = 0;
    const S: u8 = Seen::SYN;
    const SA: u8 = Seen::SYN | Seen::ACK;
    const SAF: u8 = SA | Seen::FIN;
    const SR: u8 = Seen::SYN | Seen::RST;
    const SAR: u8 = SA | Seen::RST;
    const A: u8 = Seen::ACK;

    #[test]
    fn what_both_ends_have_shown_decides_how_long_a_flow_lasts() {
        // Protocol, proven, seen of the client and of the replies; ticks when calm and when pressed.
        for (what, protocol, proven, client, reply, calm, pressed) in [
            ("a SYN", 6, false, S, NONE, 120, 5),
            ("a SYN and its answer", 6, false, S, S, 120, 5),
            ("an ACK that answers nothing", 6, false, SA, NONE, 120, 5),
            ("a complete handshake and not a byte", 6, false, SA, S, 86_400, 86_400),
            ("the same, seen by us", 6, true, SA, S, 86_400, 86_400),
            ("data both ways", 6, true, SA, SA, 86_400, 86_400),
            ("the client has closed", 6, true, SAF, SA, 3_600, 3_600),
            ("the server has closed", 6, true, SA, SAF, 3_600, 3_600),
            ("both have closed", 6, true, SAF, SAF, 110, 1),
            ("the client has reset", 6, true, SAR, SA, 10, 1),
            ("the server has reset", 6, true, SA, SAR, 10, 1),
            ("refused", 6, false, S, Seen::RST, 10, 1),
            ("the client resets the answer", 6, false, SR, S, 10, 1),
            ("taken up in the middle, one way", 6, false, A, NONE, 120, 5),
            ("taken up in the middle", 6, false, A, A, 86_400, 86_400),
            ("a question", UDP, false, A, NONE, 30, 15),
            ("a question and an answer", UDP, false, A, A, 30, 15),
            ("an exchange", UDP, true, A, A, 125, 30),
        ] {
            let half = |seen| Half { seen, last_seen: 0 };
            let life = Life { protocol, proven, client: half(client), reply: half(reply) };
            assert_eq!((life.lifetime(false, &TIMEOUTS), life.lifetime(true, &TIMEOUTS)), (calm, pressed), "{what}");
        }
    }

    #[test]
    fn either_direction_keeps_a_flow_but_the_answers_of_a_server_keep_no_handshake() {
        for (what, protocol, proven, client, reply, quiet) in [
            ("the server streams", UDP, true, (A, 100), (A, 990), 10),
            ("the client sends", UDP, true, (A, 990), (A, 100), 10),
            ("an idle connection gets data", 6, true, (SA, 100), (SA, 990), 10),
            ("a SYN-ACK is repeated", 6, false, (S, 100), (S, 990), 900),
            ("another CPU is a tick ahead", UDP, true, (A, 1001), (A, 100), 0),
            ("both are ahead", 6, true, (SA, 1001), (SA, 1002), 0),
        ] {
            let half = |(seen, last_seen)| Half { seen, last_seen };
            let life = Life { protocol, proven, client: half(client), reply: half(reply) };
            assert_eq!(life.quiet(1000), quiet, "{what}");
        }
    }

    #[test]
    fn ticks_wrap() {
        assert_eq!(since(u32::MAX - 4, 5), 10);
        assert_eq!(since(6, 5), 0);
    }
}
