use std::time::Duration;

use proxy_common::wire::Timeouts;

use crate::config::ConntrackTimeouts;
use crate::kernel::tick::Tick;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// For how long flows may be quiet: what the configuration says, else as conntrack has it. See [`Timeouts`] for its names.
///
/// Two are shorter or longer. The established get a day in place of five, as with kube-proxy. Conntrack has no time for
/// what is opening under pressure; ours is longer than a handshake takes round the world.
pub fn timeouts(configured: &ConntrackTimeouts, tick: Tick) -> Timeouts {
    let ticks = |configured: Option<Duration>, default: Duration| tick.ticks(configured.unwrap_or(default));
    Timeouts {
        tcp_opening: ticks(None, 120 * SECOND),
        tcp_established: ticks(configured.tcp_established, 24 * HOUR),
        tcp_half_closed: ticks(configured.tcp_close_wait, HOUR),
        tcp_closed: ticks(None, 120 * SECOND),
        tcp_reset: ticks(None, 10 * SECOND),
        udp_opening: ticks(configured.udp, 30 * SECOND),
        udp: ticks(configured.udp_stream, 120 * SECOND),
        pressed: ticks(None, 5 * SECOND),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configured_takes_the_place_of_the_defaults() {
        let tick = Tick::detect().unwrap();
        let default = timeouts(&ConntrackTimeouts::default(), tick);
        assert!(default.pressed < default.tcp_reset && default.udp_opening < default.udp);
        assert_eq!(default.tcp_established, tick.ticks(24 * HOUR));
        let configured = ConntrackTimeouts {
            tcp_established: Some(2 * HOUR),
            tcp_close_wait: Some(60 * SECOND),
            udp: Some(7 * SECOND),
            udp_stream: Some(300 * SECOND),
        };
        let expected = Timeouts {
            tcp_established: tick.ticks(2 * HOUR),
            tcp_half_closed: tick.ticks(60 * SECOND),
            udp_opening: tick.ticks(7 * SECOND),
            udp: tick.ticks(300 * SECOND),
            ..default
        };
        assert_eq!(timeouts(&configured, tick), expected);
    }
}
