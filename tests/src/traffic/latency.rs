use std::io::{self, BufRead, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::{
    Percentiles,
    http::{connect, exchange},
    udp,
};

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Exchange {
    /// Requests of one byte on one TCP connection, to the echo port.
    Rr,
    /// A connection, one HTTP request, its answer, the end.
    Crr,
    /// Only the making of a connection.
    Connect,
    /// Datagrams on one socket.
    Udp,
}

#[derive(Args, Clone, Debug)]
pub struct LatencyOptions {
    #[arg(long, value_enum, default_value_t = Exchange::Rr)]
    pub exchange: Exchange,
    /// How long.
    #[arg(long, default_value_t = 1000)]
    pub millis: u64,
    /// Exchanges at a time.
    #[arg(long, default_value_t = 1)]
    pub concurrency: u32,
}

impl LatencyOptions {
    /// One at a time.
    pub fn new(exchange: Exchange, duration: Duration) -> Self {
        Self { exchange, millis: duration.as_millis() as u64, concurrency: 1 }
    }

    /// As arguments of the program.
    pub fn arguments(&self) -> Vec<String> {
        let exchange = match self.exchange {
            Exchange::Rr => "rr",
            Exchange::Crr => "crr",
            Exchange::Connect => "connect",
            Exchange::Udp => "udp",
        };
        vec![
            format!("--exchange={exchange}"),
            format!("--millis={}", self.millis),
            format!("--concurrency={}", self.concurrency),
        ]
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LatencyReport {
    pub exchanges: u64,
    pub failures: u64,
    pub seconds: f64,
    pub per_second: f64,
    /// In microseconds.
    pub latency: Percentiles,
}

/// Exchanges as fast as they go, for as long as the options say.
pub fn latency(to: SocketAddr, options: &LatencyOptions) -> LatencyReport {
    let started = Instant::now();
    let deadline = started + Duration::from_millis(options.millis);
    let results: Vec<(Vec<Duration>, u64)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.concurrency.max(1))
            .map(|_| scope.spawn(move || until(deadline, to, options.exchange)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or((Vec::new(), 1))).collect()
    });
    let seconds = started.elapsed().as_secs_f64();
    let failures = results.iter().map(|(_, failures)| failures).sum();
    let durations: Vec<Duration> = results.into_iter().flat_map(|(durations, _)| durations).collect();
    let exchanges = durations.len() as u64;
    LatencyReport {
        exchanges,
        failures,
        seconds,
        per_second: exchanges as f64 / seconds,
        latency: Percentiles::of(durations),
    }
}

fn until(deadline: Instant, to: SocketAddr, exchange: Exchange) -> (Vec<Duration>, u64) {
    let (mut durations, mut failures) = (Vec::new(), 0);
    while Instant::now() < deadline {
        // Comes back before the deadline only if the connection broke.
        if session(deadline, to, exchange, &mut durations).is_err() {
            failures += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    (durations, failures)
}

/// For each step: what takes longer is a failure.
const TIMEOUT: Duration = Duration::from_secs(10);

fn session(deadline: Instant, to: SocketAddr, kind: Exchange, durations: &mut Vec<Duration>) -> io::Result<()> {
    let mut timed = |work: &mut dyn FnMut() -> io::Result<()>| -> io::Result<()> {
        while Instant::now() < deadline {
            let started = Instant::now();
            work()?;
            durations.push(started.elapsed());
        }
        Ok(())
    };
    match kind {
        Exchange::Rr => {
            let mut stream = connect(to, TIMEOUT)?;
            stream.read_line(&mut String::new())?;
            timed(&mut || {
                stream.get_mut().write_all(&[1])?;
                stream.read_exact(&mut [0])
            })
        }
        Exchange::Crr => timed(&mut || exchange(&mut connect(to, TIMEOUT)?, false).map(drop)),
        Exchange::Connect => timed(&mut || connect(to, TIMEOUT).map(drop)),
        Exchange::Udp => {
            let socket = udp::connected(to, 0)?;
            socket.set_read_timeout(Some(TIMEOUT))?;
            let mut buffer = [0; 2048];
            timed(&mut || {
                socket.send(&[1; 8])?;
                socket.recv(&mut buffer).map(drop)
            })
        }
    }
}
