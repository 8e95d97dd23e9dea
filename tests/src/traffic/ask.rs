use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::{
    Failure,
    connect::{Dialled, dial},
    http::exchange,
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

    /// As the program's arguments have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

#[derive(Args, Clone, Debug)]
pub struct AskOptions {
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    pub protocol: Transport,
    /// Own port; 0 = any.
    #[arg(long, default_value_t = 0)]
    pub source_port: u16,
    /// For each step of a TCP request, and for a UDP request as a whole.
    #[arg(long, default_value_t = 2000)]
    pub timeout_ms: u64,
}

impl AskOptions {
    pub fn new(protocol: Transport) -> Self {
        Self { protocol, source_port: 0, timeout_ms: patience_ms(2000) }
    }

    /// As arguments of the program.
    pub fn arguments(&self) -> Vec<String> {
        vec![
            format!("--protocol={}", self.protocol.word()),
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
    /// How often the first packet was sent again before one got through: by the kernel, or by us, who do so every
    /// second. An answer that is late is none to a repetition.
    pub repeats: u32,
    /// Until the answer or the failure.
    pub micros: u64,
}

/// One request.
pub fn ask(to: SocketAddr, options: &AskOptions) -> EchoReport {
    let started = Instant::now();
    let timeout = Duration::from_millis(options.timeout_ms);
    let (result, repeats) = match options.protocol {
        Transport::Tcp => ask_tcp(to, options.source_port, timeout),
        Transport::Udp => ask_udp(to, options.source_port, timeout),
    };
    let micros = started.elapsed().as_micros() as u64;
    let (answer, failure) = match result {
        Ok(answer) => (Some(answer), None),
        Err(error) => (None, Some(Failure::of(&error))),
    };
    EchoReport { answer, failure, repeats, micros }
}

fn ask_tcp(to: SocketAddr, source_port: u16, timeout: Duration) -> (io::Result<Answer>, u32) {
    let Dialled { result, repeats } = dial(to, source_port, timeout);
    (result.and_then(|stream| exchange(&mut io::BufReader::new(stream), false)), repeats)
}

/// Between two datagrams.
const AGAIN: Duration = Duration::from_secs(1);

fn ask_udp(to: SocketAddr, source_port: u16, timeout: Duration) -> (io::Result<Answer>, u32) {
    let mut repeats = 0;
    let result = udp::connected(to, source_port).and_then(|socket| {
        let deadline = Instant::now() + timeout;
        socket.set_read_timeout(Some(AGAIN.min(timeout)))?;
        let mut buffer = [0; 2048];
        loop {
            socket.send(&u64::from(repeats).to_be_bytes())?;
            match socket.recv(&mut buffer) {
                Ok(count) => {
                    let (number, answer) = udp::parse(&buffer[..count])?;
                    // Datagrams of a flow do not overtake each other: those before the first one answered are lost.
                    repeats = number as u32;
                    return Ok(answer);
                }
                Err(error) if Failure::of(&error) == Failure::TimedOut && Instant::now() < deadline => repeats += 1,
                Err(error) => return Err(error),
            }
        }
    });
    (result, repeats)
}
