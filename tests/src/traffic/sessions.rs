use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use super::{
    Failure, Stop,
    connect::{dial, repeats},
    server::Answer,
};
use crate::patience::patience_ms;

#[derive(Args, Clone, Debug)]
pub struct SessionsOptions {
    #[arg(long, default_value_t = 100)]
    pub connections: u32,
    /// Pause between an answer and the next question, on each connection.
    #[arg(long, default_value_t = 10)]
    pub interval_ms: u64,
    /// No answer for so long is a failure.
    #[arg(long, default_value_t = 5000)]
    pub timeout_ms: u64,
}

impl Default for SessionsOptions {
    fn default() -> Self {
        Self { connections: 100, interval_ms: 10, timeout_ms: patience_ms(5000) }
    }
}

impl SessionsOptions {
    /// Connections on which nothing is said but one question when they are made, and one at the end.
    pub fn idle(connections: u32) -> Self {
        Self { connections, interval_ms: 24 * 3600 * 1000, ..Self::default() }
    }

    /// As arguments of the program.
    pub fn arguments(&self) -> Vec<String> {
        vec![
            format!("--connections={}", self.connections),
            format!("--interval-ms={}", self.interval_ms),
            format!("--timeout-ms={}", self.timeout_ms),
        ]
    }
}

/// What became of the connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionsReport {
    /// Connections that were made.
    pub opened: u32,
    /// Questions that were answered with what was asked.
    pub exchanges: u64,
    /// Connections that did not come about, or ended.
    pub failures: BTreeMap<Failure, u64>,
    /// Of each connection, by the name of the server.
    pub servers: BTreeMap<String, u64>,
    /// Longest time between a question and its answer, in microseconds.
    pub longest_us: u64,
    /// Answers that took longer than a second.
    pub slow: u64,
    /// Segments that were sent again.
    pub repeats: u64,
}

/// Written when all connections are made, or have failed.
pub const OPEN: &str = "open";

/// Opens connections to an echo port and asks on each, one question at a time, until `stop` is set: on each
/// at least once when it is made, and once at the end.
pub fn sessions(to: SocketAddr, options: &SessionsOptions, stop: &Stop, opened: impl Fn() + Sync) -> SessionsReport {
    let threads = options.connections.div_ceil(64).clamp(1, 16);
    let waiting = AtomicU32::new(threads);
    let run = |number: u32| {
        let mut crew = Crew { report: SessionsReport::default(), sessions: Vec::new() };
        let share = (number..options.connections).step_by(threads as usize);
        share.for_each(|number| crew.open(to, u64::from(number), options));
        crew.round(options);
        if waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
            opened();
        }
        while !stop.is_set() {
            let next = Instant::now() + Duration::from_millis(options.interval_ms);
            while !stop.is_set() && Instant::now() < next {
                std::thread::sleep(next.saturating_duration_since(Instant::now()).min(Duration::from_millis(50)));
            }
            crew.round(options);
        }
        crew.finish()
    };
    std::thread::scope(|scope| {
        let crews: Vec<_> = (0..threads).map(|number| scope.spawn(move || run(number))).collect();
        crews.into_iter().map(|crew| crew.join().unwrap_or_default()).fold(SessionsReport::default(), add)
    })
}

fn add(mut sum: SessionsReport, more: SessionsReport) -> SessionsReport {
    sum.opened += more.opened;
    sum.exchanges += more.exchanges;
    more.failures.into_iter().for_each(|(failure, count)| *sum.failures.entry(failure).or_default() += count);
    more.servers.into_iter().for_each(|(server, count)| *sum.servers.entry(server).or_default() += count);
    sum.longest_us = sum.longest_us.max(more.longest_us);
    sum.slow += more.slow;
    sum.repeats += more.repeats;
    sum
}

/// The connections of one thread.
struct Crew {
    report: SessionsReport,
    sessions: Vec<Session>,
}

struct Session {
    stream: TcpStream,
    number: u64,
    asked: u64,
    /// What has come of the answer.
    got: Vec<u8>,
}

impl Session {
    /// Unlike that of any other connection, and of any other time.
    fn question(&self) -> [u8; 16] {
        (u128::from(self.number) << 64 | u128::from(self.asked)).to_be_bytes()
    }

    fn ask(&mut self) -> io::Result<()> {
        self.asked += 1;
        self.got.clear();
        let question = self.question();
        self.stream.write_all(&question)
    }

    /// Reads what is there; `true`: that was all of the answer.
    fn listen(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 32];
        let count = self.stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.got.extend_from_slice(&buffer[..count]);
        let question = self.question();
        if !question.starts_with(&self.got) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "another answer"));
        }
        Ok(self.got.len() == question.len())
    }
}

impl Crew {
    fn open(&mut self, to: SocketAddr, number: u64, options: &SessionsOptions) {
        let mut open = || {
            let stream = dial(to, 0, Duration::from_millis(options.timeout_ms)).result?;
            stream.set_nodelay(true)?;
            let mut line = String::new();
            // The server says no more before it is asked.
            BufReader::new(&stream).read_line(&mut line)?;
            let answer = Answer::parse(line.as_bytes())?;
            *self.report.servers.entry(answer.server).or_default() += 1;
            Ok(Session { stream, number, asked: 0, got: Vec::new() })
        };
        match open() {
            Ok(session) => {
                self.sessions.push(session);
                self.report.opened += 1;
            }
            Err(error) => self.fail(&error),
        }
    }

    /// One question on each connection, all of them at the same time.
    fn round(&mut self, options: &SessionsOptions) {
        let began = Instant::now();
        let mut waiting: Vec<(Session, Instant)> = Vec::new();
        for mut session in std::mem::take(&mut self.sessions) {
            let asked = Instant::now();
            match session.ask() {
                Ok(()) => waiting.push((session, asked)),
                Err(error) => self.fail(&error),
            }
        }
        while !waiting.is_empty() {
            let mut ready: Vec<PollFd<'_>> =
                waiting.iter().map(|(session, _)| PollFd::new(session.stream.as_fd(), PollFlags::POLLIN)).collect();
            let _ = poll(&mut ready, PollTimeout::from(100_u16));
            let ready: Vec<bool> = ready.iter().map(|fd| fd.any().unwrap_or(false)).collect();
            let is_late = began.elapsed() > Duration::from_millis(options.timeout_ms);
            for ((mut session, asked), is_ready) in std::mem::take(&mut waiting).into_iter().zip(ready) {
                match if is_ready { session.listen() } else { Ok(false) } {
                    Ok(true) => {
                        let took = asked.elapsed();
                        self.report.exchanges += 1;
                        self.report.slow += u64::from(took > Duration::from_secs(1));
                        self.report.longest_us = self.report.longest_us.max(took.as_micros() as u64);
                        self.sessions.push(session);
                    }
                    Ok(false) if is_late => self.fail(&io::ErrorKind::TimedOut.into()),
                    Ok(false) => waiting.push((session, asked)),
                    Err(error) => self.fail(&error),
                }
            }
        }
    }

    fn fail(&mut self, error: &io::Error) {
        *self.report.failures.entry(Failure::of(error)).or_default() += 1;
    }

    fn finish(mut self) -> SessionsReport {
        self.report.repeats =
            self.sessions.iter().filter_map(|session| repeats(&session.stream).ok()).map(u64::from).sum();
        self.report
    }
}
