use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{
    Failure, Stop,
    http::{connect, exchange, pace},
    server::Answer,
};
use crate::patience::patience_ms;

#[derive(Args, Clone, Debug)]
pub struct OpenOptions {
    /// Connections a second.
    #[arg(long, default_value_t = 400)]
    pub rate: u64,
    /// Connections at a time.
    #[arg(long, default_value_t = 4)]
    pub concurrency: u64,
    /// For each step of a request.
    #[arg(long, default_value_t = 5000)]
    pub timeout_ms: u64,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { rate: 400, concurrency: 4, timeout_ms: patience_ms(5000) }
    }
}

impl OpenOptions {
    /// As arguments of the program.
    pub fn arguments(&self) -> Vec<String> {
        vec![
            format!("--rate={}", self.rate),
            format!("--concurrency={}", self.concurrency),
            format!("--timeout-ms={}", self.timeout_ms),
        ]
    }
}

/// One connection with one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Just before its first packet, in microseconds since the epoch.
    pub began_us: u64,
    /// Absent if it failed.
    pub server: Option<String>,
    pub failure: Option<Failure>,
}

/// Opens connections until `stop` is set, and tells of each as soon as it is over.
pub fn open(to: SocketAddr, options: &OpenOptions, stop: &Stop, tell: impl Fn(&Opened) + Sync) {
    let started = Instant::now();
    let next = AtomicU64::new(0);
    let timeout = Duration::from_millis(options.timeout_ms);
    let worker = || {
        while !stop.is_set() {
            pace(started, next.fetch_add(1, Ordering::Relaxed), options.rate);
            let began_us = now_us();
            let (server, failure) = match request(to, timeout) {
                Ok(answer) => (Some(answer.server), None),
                Err(error) => (None, Some(Failure::of(&error))),
            };
            tell(&Opened { began_us, server, failure });
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..options.concurrency.max(1) {
            scope.spawn(worker);
        }
    });
}

fn request(to: SocketAddr, timeout: Duration) -> io::Result<Answer> {
    exchange(&mut connect(to, timeout)?, false)
}

/// By the clock that all programs of a machine share, and that logs show; it may be set.
pub fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}
