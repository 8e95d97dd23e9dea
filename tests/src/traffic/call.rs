use std::io::{self, BufReader};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::{Failure, Stop, ask::Transport, http::exchange, open::now_us, server::Answer, udp};
use crate::patience::patience_ms;

/// How a process uses its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Manner {
    /// `connect` waits, and a datagram goes to whom the socket is connected to.
    Connected,
    /// `connect` does not wait; TCP only.
    NonBlocking,
    /// Every datagram names its destination; UDP only.
    Unconnected,
}

impl Manner {
    /// Those that there are for a transport.
    pub const fn of(transport: Transport) -> [Self; 2] {
        match transport {
            Transport::Tcp => [Self::Connected, Self::NonBlocking],
            Transport::Udp => [Self::Connected, Self::Unconnected],
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::NonBlocking => "non-blocking",
            Self::Unconnected => "unconnected",
        }
    }
}

#[derive(Args, Clone, Debug)]
pub struct CallOptions {
    #[arg(long, value_enum)]
    pub protocol: Transport,
    #[arg(long, value_enum)]
    pub manner: Manner,
    /// Sockets, one after the other.
    #[arg(long, default_value_t = 1)]
    pub sockets: u32,
    /// Questions on each socket; only the first on each TCP connection.
    #[arg(long, default_value_t = 1)]
    pub questions: u32,
    #[arg(long)]
    pub timeout_ms: u64,
}

impl CallOptions {
    pub fn new(protocol: Transport, manner: Manner) -> Self {
        Self { protocol, manner, sockets: 1, questions: 1, timeout_ms: patience_ms(2000) }
    }

    /// As arguments of the program.
    pub fn arguments(&self) -> Vec<String> {
        vec![
            format!("--protocol={}", self.protocol.word()),
            format!("--manner={}", self.manner.word()),
            format!("--sockets={}", self.sockets),
            format!("--questions={}", self.questions),
            format!("--timeout-ms={}", self.timeout_ms),
        ]
    }
}

/// What a process learned by one question.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Called {
    /// Which of the sockets.
    pub socket: u32,
    /// Absent if it failed.
    pub answer: Option<Answer>,
    /// Who is at the other end, by `getpeername` or by `recvfrom`.
    pub told: Option<SocketAddr>,
    pub failure: Option<Failure>,
    /// It failed before anything was sent.
    pub at_once: bool,
}

/// Asks by the sockets' own calls.
pub fn call(to: SocketAddr, options: &CallOptions) -> Vec<Called> {
    let timeout = Duration::from_millis(options.timeout_ms);
    let mut called = Vec::new();
    for socket in 0..options.sockets {
        let mut tell = |told, result: io::Result<Answer>, at_once| {
            let failure = result.as_ref().err().map(Failure::of);
            called.push(Called { socket, answer: result.ok(), told, failure, at_once });
        };
        match options.protocol {
            Transport::Tcp => match dial(to, options.manner, timeout) {
                Ok(stream) => {
                    let told = stream.peer_addr().ok();
                    tell(told, exchange(&mut BufReader::new(stream), false), false);
                }
                Err(error) => tell(None, Err(error), true),
            },
            Transport::Udp => {
                let connected = options.manner == Manner::Connected;
                let opened = if connected { udp::connected(to, 0) } else { udp::unconnected(to) };
                match opened {
                    Ok(opened) => {
                        for _ in 0..options.questions {
                            let (told, result, at_once) = question(&opened, (!connected).then_some(to), timeout);
                            tell(told, result, at_once);
                        }
                    }
                    Err(error) => tell(None, Err(error), true),
                }
            }
        }
    }
    called
}

fn dial(to: SocketAddr, manner: Manner, timeout: Duration) -> io::Result<TcpStream> {
    let stream = match manner {
        Manner::NonBlocking => TcpStream::connect_timeout(&to, timeout)?,
        _ => super::connect::dial(to, 0, timeout).result?,
    };
    stream.set_read_timeout(Some(timeout))?;
    Ok(stream)
}

/// One datagram and its answer.
fn question(
    socket: &UdpSocket,
    to: Option<SocketAddr>,
    timeout: Duration,
) -> (Option<SocketAddr>, io::Result<Answer>, bool) {
    let sent = match to {
        Some(to) => socket.send_to(&[0; 8], to),
        None => socket.send(&[0; 8]),
    };
    if let Err(error) = sent.and_then(|_| socket.set_read_timeout(Some(timeout))) {
        return (None, Err(error), true);
    }
    let mut buffer = [0; 2048];
    match socket.recv_from(&mut buffer) {
        Ok((count, from)) => {
            // A connected socket can be asked in two ways, which have to agree.
            let agrees = to.is_some() || socket.peer_addr().is_ok_and(|peer| peer == from);
            (agrees.then_some(from), udp::parse(&buffer[..count]).map(|(_, answer)| answer), false)
        }
        Err(error) => (None, Err(error), false),
    }
}

#[derive(Args, Clone, Debug)]
pub struct ResolveOptions {
    /// Between two questions.
    #[arg(long, default_value_t = 100)]
    pub period_ms: u64,
    /// After so long without an answer the next question is asked.
    #[arg(long, default_value_t = 100)]
    pub timeout_ms: u64,
}

impl Default for ResolveOptions {
    fn default() -> Self {
        Self { period_ms: 100, timeout_ms: 100 }
    }
}

impl ResolveOptions {
    /// As arguments of the program.
    pub fn arguments(&self) -> Vec<String> {
        vec![format!("--period-ms={}", self.period_ms), format!("--timeout-ms={}", self.timeout_ms)]
    }
}

/// A question of a resolver.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Resolved {
    /// When it was over, in microseconds since the epoch.
    pub at_us: u64,
    /// Absent if it failed.
    pub server: Option<String>,
    pub failure: Option<Failure>,
}

/// All that a resolver learned.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Resolutions {
    pub resolved: Vec<Resolved>,
}

/// Asks again and again as a resolver does that keeps its socket connected as long as that works, and dials again only
/// after an error of the socket; silence is none.
pub fn resolve(to: SocketAddr, options: &ResolveOptions, stop: &Stop) -> Resolutions {
    let (period, timeout) = (Duration::from_millis(options.period_ms), Duration::from_millis(options.timeout_ms));
    let mut socket = None;
    let mut resolved = Vec::new();
    while !stop.is_set() {
        let began = Instant::now();
        let result = match socket.take() {
            Some(socket) => Ok(socket),
            None => udp::connected(to, 0),
        };
        let result = result.and_then(|opened| {
            let (_, result, _) = question(&opened, None, timeout);
            if result.as_ref().err().is_none_or(|error| Failure::of(error) == Failure::TimedOut) {
                socket = Some(opened);
            }
            result
        });
        let failure = result.as_ref().err().map(Failure::of);
        let server = result.ok().map(|answer| answer.server);
        resolved.push(Resolved { at_us: now_us(), server, failure });
        std::thread::sleep(period.saturating_sub(began.elapsed()));
    }
    Resolutions { resolved }
}
