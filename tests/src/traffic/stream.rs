use std::io::{self, BufRead, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{Failure, Stop, http::connect, server::Answer};
use crate::patience::patience_ms;

#[derive(Args, Clone, Debug)]
pub struct StreamOptions {
    #[arg(long, default_value_t = 1)]
    pub connections: u32,
    /// Bytes to send on each connection; without a limit if it runs until it is told to stop.
    #[arg(long, default_value_t = 1 << 20)]
    pub bytes: u64,
    /// Bytes of each write.
    #[arg(long, default_value_t = 1 << 16)]
    pub block: usize,
    /// Pause between writes.
    #[arg(long, default_value_t = 0)]
    pub interval_ms: u64,
    /// For each step; no byte for so long is a failure.
    #[arg(long, default_value_t = 5000)]
    pub timeout_ms: u64,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self { connections: 1, bytes: 1 << 20, block: 1 << 16, interval_ms: 0, timeout_ms: patience_ms(5000) }
    }
}

impl StreamOptions {
    /// As arguments of the program.
    pub fn arguments(&self) -> Vec<String> {
        vec![
            format!("--connections={}", self.connections),
            format!("--bytes={}", self.bytes),
            format!("--block={}", self.block),
            format!("--interval-ms={}", self.interval_ms),
            format!("--timeout-ms={}", self.timeout_ms),
        ]
    }
}

/// What became of the connections.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StreamReport {
    pub connections: Vec<ConnectionReport>,
    pub seconds: f64,
}

impl StreamReport {
    /// Those that did not get every byte back in order.
    pub fn broken(&self) -> impl Iterator<Item = &ConnectionReport> {
        self.connections.iter().filter(|connection| connection.failure.is_some())
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ConnectionReport {
    /// Absent if the connection was not made.
    pub answer: Option<Answer>,
    pub sent: u64,
    /// Came back, and were the bytes sent.
    pub echoed: u64,
    pub failure: Option<Failure>,
}

/// Opens connections, sends on them and compares what comes back, until all is sent or `stop` is set.
pub fn stream(to: SocketAddr, options: &StreamOptions, stop: Option<&Stop>) -> StreamReport {
    let started = Instant::now();
    let connections = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.connections.max(1))
            .map(|number| scope.spawn(move || connection(to, options, stop, u64::from(number) + 1)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_default()).collect()
    });
    StreamReport { connections, seconds: started.elapsed().as_secs_f64() }
}

fn connection(to: SocketAddr, options: &StreamOptions, stop: Option<&Stop>, seed: u64) -> ConnectionReport {
    let mut report = ConnectionReport::default();
    let result = run(to, options, stop, seed, &mut report);
    report.failure = result.err().map(|error| Failure::of(&error));
    report
}

fn run(
    to: SocketAddr,
    options: &StreamOptions,
    stop: Option<&Stop>,
    seed: u64,
    report: &mut ConnectionReport,
) -> io::Result<()> {
    let mut reader = connect(to, Duration::from_millis(options.timeout_ms))?;
    let mut line = String::new();
    reader.read_line(&mut line)?;
    report.answer = Some(Answer::parse(line.as_bytes())?);
    let writer = reader.get_ref().try_clone()?;
    let broken = AtomicBool::new(false);
    let (sent, echoed) = std::thread::scope(|scope| {
        let writing = scope.spawn(|| send(&writer, options, stop, &broken, seed));
        let echoed = compare(&mut reader, seed, &mut report.echoed);
        if echoed.is_err() {
            broken.store(true, Ordering::Relaxed);
            let _ = reader.get_ref().shutdown(Shutdown::Both);
        }
        (writing.join().unwrap_or((0, Ok(()))), echoed)
    });
    report.sent = sent.0;
    // What was read tells more than a write that failed because of it.
    echoed?;
    sent.1?;
    if report.echoed < report.sent { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

/// Sends the pattern, then says that it was all; gives back how many bytes.
fn send(
    mut writer: &TcpStream,
    options: &StreamOptions,
    stop: Option<&Stop>,
    broken: &AtomicBool,
    seed: u64,
) -> (u64, io::Result<()>) {
    let mut pattern = Pattern::new(seed);
    let mut block = vec![0; options.block.max(1)];
    let mut sent = 0;
    while stop.map_or(sent < options.bytes, |stop| !stop.is_set()) && !broken.load(Ordering::Relaxed) {
        pattern.fill(&mut block);
        if let Err(error) = writer.write_all(&block) {
            return (sent, Err(error));
        }
        sent += block.len() as u64;
        if options.interval_ms > 0 {
            std::thread::sleep(Duration::from_millis(options.interval_ms));
        }
    }
    (sent, writer.shutdown(Shutdown::Write))
}

fn compare(reader: &mut impl Read, seed: u64, echoed: &mut u64) -> io::Result<()> {
    let mut pattern = Pattern::new(seed);
    let (mut got, mut expected) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let count = reader.read(&mut got)?;
        if count == 0 {
            return Ok(());
        }
        pattern.fill(&mut expected[..count]);
        if got[..count] != expected[..count] {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("other bytes after {echoed}")));
        }
        *echoed += count as u64;
    }
}

/// Bytes without a period that a lost or doubled segment could hide in (xorshift64).
struct Pattern {
    state: u64,
    word: [u8; 8],
    used: usize,
}

impl Pattern {
    fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, word: [0; 8], used: 8 }
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if self.used == self.word.len() {
                self.state ^= self.state << 13;
                self.state ^= self.state >> 7;
                self.state ^= self.state << 17;
                self.word = self.state.to_le_bytes();
                self.used = 0;
            }
            *byte = self.word[self.used];
            self.used += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_do_not_depend_on_the_blocks() {
        let (mut whole, mut pieces) = (vec![0; 1000], vec![0; 1000]);
        Pattern::new(3).fill(&mut whole);
        let mut pattern = Pattern::new(3);
        pieces.chunks_mut(7).for_each(|piece| pattern.fill(piece));
        assert_eq!(whole, pieces);
        assert!(compare(&mut whole.as_slice(), 3, &mut 0).is_ok());
        whole[500] ^= 1;
        assert!(compare(&mut whole.as_slice(), 3, &mut 0).is_err());
    }
}
