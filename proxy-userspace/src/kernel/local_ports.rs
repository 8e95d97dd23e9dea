use std::ops::RangeInclusive;

use tracing::warn;

use super::KernelError;

const PATH: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Source ports for masqueraded flows: the larger range of unprivileged ports outside of the one from which the kernel
/// takes ports for the connections of this network namespace (both address families share that one). Where it leaves
/// none, all unprivileged ports, with a warning.
///
/// # Errors
/// If the setting cannot be read.
pub fn masquerade_ports() -> Result<RangeInclusive<u16>, KernelError> {
    let text = std::fs::read_to_string(PATH).map_err(KernelError::path("reading", PATH.as_ref()))?;
    let mut numbers = text.split_whitespace().filter_map(|number| number.parse().ok());
    Ok(match (numbers.next(), numbers.next()) {
        (Some(low), Some(high)) => {
            let ports = outside(low, high);
            if ports == ALL {
                warn!(
                    "net.ipv4.ip_local_port_range is {low} to {high}, which leaves no ports for masquerading: a \
                     connection of this node to an endpoint may meet one of a client outside"
                );
            }
            ports
        }
        _ => ALL,
    })
}

const ALL: RangeInclusive<u16> = 1024..=u16::MAX;

fn outside(low: u16, high: u16) -> RangeInclusive<u16> {
    let below = 1024..=low.saturating_sub(1);
    let above = high.saturating_add(1).max(1024)..=u16::MAX;
    match (below.len(), if high == u16::MAX { 0 } else { above.len() }) {
        (0, 0) => ALL,
        (lower, upper) if lower >= upper => below,
        _ => above,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_taken_outside_of_the_kernels_range() {
        for (low, high, expected) in [
            (32768, 60999, 1024..=32767),
            (1024, 32767, 32768..=u16::MAX),
            (10000, u16::MAX, 1024..=9999),
            (1024, u16::MAX, ALL),
            (1, u16::MAX, ALL),
            (1, 900, ALL),
        ] {
            assert_eq!(outside(low, high), expected, "{low} {high}");
        }
    }
}
