use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
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
    /// How long to go on asking whether what is not answered is late or lost.
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
    /// Sent and never answered, while later datagrams were.
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
    hold_more(&socket)?;
    socket.connect(to)?;
    Ok(socket)
}

/// A socket that every datagram has to name its destination to.
pub fn unconnected(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0))
}

/// Room for what arrives while this process waits for the processor, which the kernel would otherwise drop: seconds of
/// the highest rates in use. Pods have not the right to as much (`CAP_NET_ADMIN`), and take what they get.
pub fn hold_more(socket: &UdpSocket) -> io::Result<()> {
    const ROOM: usize = 16 << 20;
    match setsockopt(socket, sockopt::RcvBufForce, &ROOM) {
        Err(nix::Error::EPERM) => Ok(setsockopt(socket, sockopt::RcvBuf, &ROOM)?),
        done => Ok(done?),
    }
}

fn one_by_one(to: SocketAddr, options: &UdpOptions, stop: Option<&Stop>, tally: &mut Tally) -> io::Result<()> {
    let started = Instant::now();
    for number in 0.. {
        if stop.map_or(number >= options.requests, Stop::is_set) {
            break;
        }
        pace(started, number, options.rate);
        let socket = open(to, options)?;
        let mut answers = Tally::default();
        tally.send(&socket, number, options.size);
        receive_all(&socket, options, &AtomicU64::new(1), &mut answers)?;
        tally.merge(answers);
    }
    Ok(())
}

fn on_one_socket(to: SocketAddr, options: &UdpOptions, stop: Option<&Stop>, tally: &mut Tally) -> io::Result<()> {
    let socket = open(to, options)?;
    let receiving = socket.try_clone()?;
    let sent = AtomicU64::new(NOT_YET);
    let mut answers = Tally::default();
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| receive_all(&receiving, options, &sent, &mut answers));
        let started = Instant::now();
        for number in 0.. {
            if stop.map_or(number >= options.requests, Stop::is_set) {
                break;
            }
            pace(started, number, options.rate);
            tally.send(&socket, number, options.size);
        }
        sent.store(tally.report.sent, Ordering::Release);
        receiver.join().unwrap_or_else(|_| Err(io::Error::other("the receiver panicked")))
    })?;
    tally.merge(answers);
    Ok(())
}

/// Of how many were sent, as long as that is not known.
const NOT_YET: u64 = u64::MAX;
/// Numbers of datagrams that are sent only to see whether something comes back after what is missing: this one and
/// those above it.
const MARKER: u64 = 1 << 63;
/// Between markers; also how soon the end is noticed.
const BEAT: Duration = Duration::from_millis(50);
/// So many markers have to be answered before what is missing counts as lost. One would do if all packets of a flow
/// took turns on one processor.
const MARKERS: usize = 20;

/// Receives until `sent` datagrams are answered or have failed, or what is missing is lost: markers that were sent after
/// it are answered.
fn receive_all(socket: &UdpSocket, options: &UdpOptions, sent: &AtomicU64, tally: &mut Tally) -> io::Result<()> {
    socket.set_read_timeout(Some(BEAT))?;
    let mut markers = BTreeSet::new();
    // Since when all are sent, and since the last marker.
    let mut waiting: Option<(Instant, Instant)> = None;
    loop {
        let all = sent.load(Ordering::Acquire);
        let failed: u64 = tally.report.failures.values().sum();
        if tally.received.len() as u64 + failed >= all || markers.len() >= MARKERS {
            return Ok(());
        }
        match tally.take(socket) {
            Ok(number) => markers.extend(number),
            Err(error) if Failure::of(&error) == Failure::TimedOut => {}
            Err(error) => tally.fail(&error),
        }
        if all == NOT_YET {
            continue;
        }
        let now = Instant::now();
        let (began, last) = *waiting.get_or_insert((now, now));
        if now - began > Duration::from_millis(options.timeout_ms) {
            return Ok(());
        }
        if now - last >= BEAT {
            waiting = Some((began, now));
            let number = MARKER + (now - began).as_micros() as u64;
            if let Err(error) = socket.send(&number.to_be_bytes()) {
                tally.fail(&error);
            }
        }
    }
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

    /// Takes an answer in; gives back its number if it is a marker's.
    fn take(&mut self, socket: &UdpSocket) -> io::Result<Option<u64>> {
        let mut buffer = [0; 2048];
        let count = socket.recv(&mut buffer)?;
        let now = Instant::now();
        let (number, answer) = parse(&buffer[..count])?;
        if number >= MARKER {
            return Ok(Some(number));
        }
        *self.report.servers.entry(answer.server).or_default() += 1;
        *self.report.clients.entry(answer.client.ip()).or_default() += 1;
        self.received.push((number, now));
        Ok(None)
    }

    fn fail(&mut self, error: &io::Error) {
        *self.report.failures.entry(Failure::of(error)).or_default() += 1;
    }

    fn merge(&mut self, answers: Self) {
        self.received.extend(answers.received);
        for (server, count) in answers.report.servers {
            *self.report.servers.entry(server).or_default() += count;
        }
        for (client, count) in answers.report.clients {
            *self.report.clients.entry(client).or_default() += count;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers all but some numbers, the first of them late.
    fn with_server(unanswered: &'static [u64], late: Duration, client: impl FnOnce(SocketAddr)) {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = server.local_addr().unwrap();
        let stop = Stop::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                server.set_read_timeout(Some(BEAT)).unwrap();
                let mut buffer = [0; 2048];
                while !stop.is_set() {
                    let Ok((count, from)) = server.recv_from(&mut buffer) else { continue };
                    let number = u64::from_be_bytes(*buffer[..count].first_chunk().unwrap());
                    if number == 0 {
                        std::thread::sleep(late);
                    }
                    if !unanswered.contains(&number) {
                        let answer = Answer { server: "s".into(), client: from };
                        let answer = [&number.to_be_bytes()[..], &serde_json::to_vec(&answer).unwrap()].concat();
                        server.send_to(&answer, from).unwrap();
                    }
                }
            });
            client(to);
            stop.set();
        });
    }

    fn report(to: SocketAddr, new_sockets: bool) -> UdpReport {
        udp(to, &UdpOptions { requests: 10, new_sockets, ..UdpOptions::default() }, None).unwrap()
    }

    #[test]
    fn what_is_late_is_not_lost() {
        with_server(&[], Duration::from_millis(1500), |to| {
            for new_sockets in [false, true] {
                let report = report(to, new_sockets);
                assert_eq!((report.sent, report.answered, report.lost), (10, 10, 0), "{report:?}");
                assert!(report.failures.is_empty() && report.servers["s"] == 10, "{report:?}");
            }
        });
    }

    #[test]
    fn what_is_lost_is_found_by_what_is_answered_after_it() {
        with_server(&[3, 9], Duration::ZERO, |to| {
            for new_sockets in [false, true] {
                let report = report(to, new_sockets);
                assert_eq!((report.answered, report.lost, report.duplicates), (8, 2, 0), "{report:?}");
            }
        });
    }

    #[test]
    fn nobody_there_is_a_failure_and_does_not_take_long() {
        let to = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let report = report(to, true);
        assert_eq!((report.answered, report.lost), (0, 10), "{report:?}");
        assert_eq!(report.failures.get(&Failure::Refused), Some(&10), "{report:?}");
    }
}
