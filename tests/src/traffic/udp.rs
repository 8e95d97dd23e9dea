use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use nix::libc;
use serde::{Deserialize, Serialize};

use super::{Failure, Percentiles, Stop, http::pace, server::Answer};
use crate::patience::patience_ms;

#[derive(Args, Clone, Debug)]
pub struct UdpOptions {
    /// Datagrams in all; without a limit if it runs until it is told to stop.
    #[arg(long, default_value_t = 100)]
    pub requests: u64,
    /// Datagrams a second; 0 = as many as possible.
    #[arg(long, default_value_t = 1000)]
    pub rate: u64,
    /// Bytes of each datagram, at least 8.
    #[arg(long, default_value_t = 64)]
    pub size: usize,
    /// A socket, and with it a flow, for each datagram, one after the other.
    #[arg(long)]
    pub new_sockets: bool,
    /// Without a checksum, which IPv4 allows.
    #[arg(long)]
    pub no_checksum: bool,
    /// How long an answer may take.
    #[arg(long, default_value_t = 2000)]
    pub timeout_ms: u64,
}

impl Default for UdpOptions {
    fn default() -> Self {
        let timeout_ms = patience_ms(2000);
        Self { requests: 100, rate: 1000, size: 64, new_sockets: false, no_checksum: false, timeout_ms }
    }
}

impl UdpOptions {
    /// As arguments of the program.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            format!("--requests={}", self.requests),
            format!("--rate={}", self.rate),
            format!("--size={}", self.size),
            format!("--timeout-ms={}", self.timeout_ms),
        ];
        if self.new_sockets {
            arguments.push("--new-sockets".into());
        }
        if self.no_checksum {
            arguments.push("--no-checksum".into());
        }
        arguments
    }
}

/// What became of the datagrams.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct UdpReport {
    pub sent: u64,
    pub answered: u64,
    /// Sent and never answered.
    pub lost: u64,
    /// Answers to what had been answered.
    pub duplicates: u64,
    /// What the socket reported, ICMP errors among it.
    pub failures: BTreeMap<Failure, u64>,
    pub servers: BTreeMap<String, u64>,
    pub clients: BTreeMap<IpAddr, u64>,
    /// In microseconds.
    pub latency: Percentiles,
}

/// Sends datagrams until they are all sent or `stop` is set.
///
/// # Errors
/// No socket could be made.
pub fn udp(to: SocketAddr, options: &UdpOptions, stop: Option<&Stop>) -> io::Result<UdpReport> {
    let mut tally = Tally::default();
    if options.new_sockets {
        one_by_one(to, options, stop, &mut tally)?;
    } else {
        on_one_socket(to, options, stop, &mut tally)?;
    }
    Ok(tally.finish())
}

fn open(to: SocketAddr, options: &UdpOptions) -> io::Result<UdpSocket> {
    let socket = connected(to, 0)?;
    if options.no_checksum {
        omit_checksums(&socket)?;
    }
    Ok(socket)
}

/// `SO_NO_CHECK`, which no crate of ours has a name for.
fn omit_checksums(socket: &UdpSocket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open, and the kernel reads the length given of a value that lives long enough.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NO_CHECK,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A socket connected to `to`, so that ICMP errors are reported to it.
pub fn connected(to: SocketAddr, source_port: u16) -> io::Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, source_port))?;
    socket.connect(to)?;
    Ok(socket)
}

fn one_by_one(to: SocketAddr, options: &UdpOptions, stop: Option<&Stop>, tally: &mut Tally) -> io::Result<()> {
    let started = Instant::now();
    for number in 0.. {
        if stop.map_or(number >= options.requests, Stop::is_set) {
            break;
        }
        pace(started, number, options.rate);
        let socket = open(to, options)?;
        socket.set_read_timeout(Some(Duration::from_millis(options.timeout_ms)))?;
        tally.send(&socket, number, options.size);
        tally.receive(&socket);
    }
    Ok(())
}

fn on_one_socket(to: SocketAddr, options: &UdpOptions, stop: Option<&Stop>, tally: &mut Tally) -> io::Result<()> {
    let socket = open(to, options)?;
    let receiving = socket.try_clone()?;
    // Short, so that the receiver notices the end.
    receiving.set_read_timeout(Some(Duration::from_millis(50)))?;
    // How many were sent, once that is known.
    let sent = AtomicU64::new(u64::MAX);
    let mut answers = Tally::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut deadline = None;
            while (answers.received.len() as u64) < sent.load(Ordering::Acquire)
                && deadline.is_none_or(|deadline| Instant::now() < deadline)
            {
                answers.receive_quietly(&receiving);
                if deadline.is_none() && sent.load(Ordering::Acquire) != u64::MAX {
                    deadline = Some(Instant::now() + Duration::from_millis(options.timeout_ms));
                }
            }
        });
        let started = Instant::now();
        for number in 0.. {
            if stop.map_or(number >= options.requests, Stop::is_set) {
                break;
            }
            pace(started, number, options.rate);
            tally.send(&socket, number, options.size);
        }
        sent.store(tally.report.sent, Ordering::Release);
    });
    tally.merge(answers);
    Ok(())
}

#[derive(Default)]
struct Tally {
    report: UdpReport,
    sent: BTreeMap<u64, Instant>,
    received: Vec<(u64, Instant)>,
}

impl Tally {
    fn send(&mut self, socket: &UdpSocket, number: u64, size: usize) {
        let mut datagram = vec![0x5a; size.max(8)];
        datagram[..8].copy_from_slice(&number.to_be_bytes());
        let now = Instant::now();
        // A pending ICMP error is reported by the next call, which then sends nothing.
        let result = socket.send(&datagram).or_else(|error| {
            self.fail(&error);
            socket.send(&datagram)
        });
        match result {
            Ok(_) => {
                self.report.sent += 1;
                self.sent.insert(number, now);
            }
            Err(error) => self.fail(&error),
        }
    }

    fn receive(&mut self, socket: &UdpSocket) {
        if let Err(error) = self.take(socket) {
            self.fail(&error);
        }
    }

    /// No answer yet is no failure.
    fn receive_quietly(&mut self, socket: &UdpSocket) {
        match self.take(socket) {
            Err(error) if Failure::of(&error) != Failure::TimedOut => self.fail(&error),
            _ => {}
        }
    }

    fn take(&mut self, socket: &UdpSocket) -> io::Result<()> {
        let mut buffer = [0; 2048];
        let count = socket.recv(&mut buffer)?;
        let now = Instant::now();
        let (number, answer) = parse(&buffer[..count])?;
        *self.report.servers.entry(answer.server).or_default() += 1;
        *self.report.clients.entry(answer.client.ip()).or_default() += 1;
        self.received.push((number, now));
        Ok(())
    }

    fn fail(&mut self, error: &io::Error) {
        *self.report.failures.entry(Failure::of(error)).or_default() += 1;
    }

    fn merge(&mut self, answers: Self) {
        self.received = answers.received;
        self.report.servers = answers.report.servers;
        self.report.clients = answers.report.clients;
        for (failure, count) in answers.report.failures {
            *self.report.failures.entry(failure).or_default() += count;
        }
    }

    fn finish(mut self) -> UdpReport {
        let mut durations = Vec::with_capacity(self.received.len());
        for (number, received) in self.received {
            match self.sent.remove(&number) {
                Some(sent) => durations.push(received.duration_since(sent)),
                None => self.report.duplicates += 1,
            }
        }
        self.report.answered = durations.len() as u64;
        self.report.lost = self.report.sent - self.report.answered;
        self.report.latency = Percentiles::of(durations);
        self.report
    }
}

/// The number of the request, and the answer.
pub fn parse(datagram: &[u8]) -> io::Result<(u64, Answer)> {
    let (number, answer) =
        datagram.split_first_chunk::<8>().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok((u64::from_be_bytes(*number), Answer::parse(answer)?))
}
