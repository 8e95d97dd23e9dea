use std::net::{Ipv4Addr, SocketAddr};

use proxy_common::wire::{Flow4, FlowKey4};

use super::pair4;

/// Flows that translate into each other in a circle of random order, and where a packet sets out that is to go round: each
/// of its runs looks up another entry, which no cache holds.
pub fn circle(flows: u32) -> (SocketAddr, Vec<(FlowKey4, Flow4)>) {
    // The same circle each time.
    let mut random = fastrand::Rng::with_seed(1);
    let mut ends: Vec<SocketAddr> = (0..flows).map(|number| end(number, random.u16(1..))).collect();
    random.shuffle(&mut ends);
    let next = ends.iter().cycle().skip(1);
    (ends[0], ends.iter().zip(next).map(|(&from, &to)| pair4(from, to)).collect())
}

/// One of the addresses of 100.64.0.0/10, each for one flow.
fn end(number: u32, port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from_bits(0x6440_0000 + number), port))
}
