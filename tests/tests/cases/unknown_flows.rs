//! TCP to an address of a Service in the middle of a flow that nobody knows.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket};
use proxy_tests::cluster::{Family, Place, Service, Stage};
use proxy_tests::packet::{Packet, flag};
use proxy_tests::patience::patience;
use std::os::fd::AsRawFd as _;

use crate::{external, is_counted, route_external, stage, with_external};

/// The stream of a Service whose external addresses a router sends to the first node.
fn routed() -> Result<Stage> {
    stage(&[(&with_external(Service::new("web", 1)), "b")], route_external)
}

fn stream(family: Family) -> SocketAddr {
    (external(family), Service::STREAM).into()
}

/// Sends a packet as it is.
fn send(from: &impl Place, packet: Packet) -> Result<()> {
    let to = packet.destination;
    let bytes = packet.bare().bytes();
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    from.namespace().enter(|| -> Result<()> {
        let raw = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
        let to = SockaddrStorage::from(SocketAddr::new(to.ip(), 0));
        sendto(raw.as_raw_fd(), &bytes, &to, MsgFlags::empty())?;
        Ok(())
    })?
}

/// Between the router and the node it would go to and fro until its TTL is gone.
#[test]
fn a_segment_for_a_routed_address_does_not_loop() -> Result<()> {
    let stage = routed()?;
    let (client, node) = (stage.cluster.client(), stage.cluster.node(1));
    let before = node.forwarded()?;
    const SEGMENTS: u16 = 20;
    for family in Family::BOTH {
        for port in 0..SEGMENTS {
            let from = SocketAddr::new(client.ip(family), 21_000 + port);
            send(client, Packet::tcp(from, stream(family), flag::ACK))?;
            send(client, Packet::tcp(from, stream(family), flag::RST))?;
        }
        // Behind them on the same way.
        stage.expect(client, SocketAddr::new(external(family), Service::HTTP), "b", |_| true)?;
    }
    let passed = node.forwarded()? - before;
    // Each once on its way out, and the reset back; the rest is what the last requests took.
    ensure!(passed < u64::from(SEGMENTS) * 2 * 3 + 100, "{passed} packets for {SEGMENTS} of each kind");
    is_counted(&stage, "unknown-flow")
}

/// Whoever has a connection that the tables have lost connects anew at once, and not after a quarter of an hour.
#[test]
fn a_connection_that_nobody_knows_is_reset() -> Result<()> {
    let mut stage = routed()?;
    let web = Service::new("web", 1);
    let mut open: Vec<(String, TcpStream)> = Vec::new();
    for family in Family::BOTH {
        let (client, pod) = (stage.cluster.client(), stage.cluster.pod("a"));
        open.push((format!("{family:?} outside"), connect(client, stream(family))?));
        open.push((format!("{family:?} pod"), connect(pod, web.stream(family))?));
    }
    let agent = stage.agent(1);
    agent.terminate()?;
    agent.cleanup()?;
    agent.start_again()?;
    for (whose, mut stream) in open {
        stream.write_all(b"?")?;
        let end = stream.read(&mut [0; 8]).map(|count| format!("{count} bytes"));
        let kind = end.as_ref().err().map(std::io::Error::kind);
        ensure!(kind == Some(std::io::ErrorKind::ConnectionReset), "{whose}: {end:?}\n{}", stage.evidence());
    }
    is_counted(&stage, "unknown-flow")
}

/// A stream whose first line was read.
fn connect(from: &impl Place, to: SocketAddr) -> Result<TcpStream> {
    let connected = from.namespace().enter(|| TcpStream::connect_timeout(&to, patience(Duration::from_secs(5))))?;
    let mut stream = connected.with_context(|| format!("{} to {to}", from.name()))?;
    stream.set_read_timeout(Some(patience(Duration::from_secs(5))))?;
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte)?;
    }
    Ok(stream)
}
