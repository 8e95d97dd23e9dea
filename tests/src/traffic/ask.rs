use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use serde::{Deserialize, Serialize};

use super::{
    Failure,
    http::{self, exchange},
    server::Answer,
    udp,
};
use crate::patience::patience_ms;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    pub const BOTH: [Self; 2] = [Self::Tcp, Self::Udp];
}

#[derive(Args, Clone, Debug)]
pub struct AskOptions {
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    pub protocol: Transport,
    /// Own port; 0 = any.
    #[arg(long, default_value_t = 0)]
    pub source_port: u16,
    #[arg(long, default_value_t = 2000)]
    pub timeout_ms: u64,
}

impl AskOptions {
    pub fn new(protocol: Transport) -> Self {
        Self { protocol, source_port: 0, timeout_ms: patience_ms(2000) }
    }

    /// As arguments of the program.
    pub fn arguments(&self) -> Vec<String> {
        let protocol = match self.protocol {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        vec![
            format!("--protocol={protocol}"),
            format!("--source-port={}", self.source_port),
            format!("--timeout-ms={}", self.timeout_ms),
        ]
    }
}

/// What became of one request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EchoReport {
    /// Absent if it failed.
    pub answer: Option<Answer>,
    pub failure: Option<Failure>,
    /// Until the answer or the failure.
    pub micros: u64,
}

/// One request.
pub fn ask(to: SocketAddr, options: &AskOptions) -> EchoReport {
    let started = Instant::now();
    let timeout = Duration::from_millis(options.timeout_ms);
    let result = match options.protocol {
        Transport::Tcp => ask_tcp(to, options.source_port, timeout),
        Transport::Udp => ask_udp(to, options.source_port, timeout),
    };
    let micros = started.elapsed().as_micros() as u64;
    match result {
        Ok(answer) => EchoReport { answer: Some(answer), failure: None, micros },
        Err(error) => EchoReport { answer: None, failure: Some(Failure::of(&error)), micros },
    }
}

fn ask_tcp(to: SocketAddr, source_port: u16, timeout: Duration) -> io::Result<Answer> {
    let mut stream = if source_port == 0 {
        http::connect(to, timeout)?
    } else {
        let stream = connect_from(to, source_port, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        io::BufReader::new(stream)
    };
    exchange(&mut stream, false)
}

/// The standard library binds no socket before it connects.
fn connect_from(to: SocketAddr, source_port: u16, timeout: Duration) -> io::Result<TcpStream> {
    let (family, any) = if to.is_ipv4() {
        (AddressFamily::Inet, SocketAddr::from(([0; 4], source_port)))
    } else {
        (AddressFamily::Inet6, SocketAddr::from(([0; 16], source_port)))
    };
    let descriptor = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&descriptor, sockopt::ReuseAddr, &true)?;
    // Limits connect(2) as well.
    let limit = TimeVal::new(timeout.as_secs() as i64, timeout.subsec_micros().into());
    setsockopt(&descriptor, sockopt::SendTimeout, &limit)?;
    bind(descriptor.as_raw_fd(), &SockaddrStorage::from(any))?;
    connect(descriptor.as_raw_fd(), &SockaddrStorage::from(to)).map_err(|error| match error {
        nix::Error::EINPROGRESS => io::ErrorKind::TimedOut.into(),
        other => io::Error::from(other),
    })?;
    Ok(descriptor.into())
}

fn ask_udp(to: SocketAddr, source_port: u16, timeout: Duration) -> io::Result<Answer> {
    let socket = udp::connected(to, source_port)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.send(&1u64.to_be_bytes())?;
    let mut buffer = [0; 2048];
    let count = socket.recv(&mut buffer)?;
    Ok(udp::parse(&buffer[..count])?.1)
}
