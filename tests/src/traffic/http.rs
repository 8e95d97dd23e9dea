use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{
    Failure, Percentiles, Stop,
    connect::{Dialled, dial},
    server::Answer,
};
use crate::patience::patience_ms;

#[derive(Args, Clone, Debug)]
pub struct HttpOptions {
    /// Requests in all; without a limit if it runs until it is told to stop.
    #[arg(long, default_value_t = 100)]
    pub requests: u64,
    /// Requests at a time.
    #[arg(long, default_value_t = 4)]
    pub concurrency: u64,
    /// One connection for all requests of a thread, in place of one for each request.
    #[arg(long)]
    pub keep_alive: bool,
    /// At most so many requests a second; 0 = as many as possible.
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    /// For each step of a request.
    #[arg(long, default_value_t = 5000)]
    pub timeout_ms: u64,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self { requests: 100, concurrency: 4, keep_alive: false, rate: 0, timeout_ms: patience_ms(5000) }
    }
}

impl HttpOptions {
    /// As arguments of the program.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            format!("--requests={}", self.requests),
            format!("--concurrency={}", self.concurrency),
            format!("--rate={}", self.rate),
            format!("--timeout-ms={}", self.timeout_ms),
        ];
        if self.keep_alive {
            arguments.push("--keep-alive".into());
        }
        arguments
    }
}

/// What became of the requests.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HttpReport {
    pub requests: u64,
    pub ok: u64,
    pub failures: BTreeMap<Failure, u64>,
    /// Answers by the name of the server.
    pub servers: BTreeMap<String, u64>,
    /// Answers by the address that the server saw.
    pub clients: BTreeMap<IpAddr, u64>,
    /// Of requests that were answered, connecting included, in microseconds.
    pub latency: Percentiles,
}

/// Sends requests until they are all sent or `stop` is set.
pub fn http(to: SocketAddr, options: &HttpOptions, stop: Option<&Stop>) -> HttpReport {
    let started = Instant::now();
    let next = AtomicU64::new(0);
    let report = Mutex::new((HttpReport::default(), Vec::new()));
    let worker = || {
        let mut kept = None;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if stop.map_or(number >= options.requests, Stop::is_set) {
                return;
            }
            pace(started, number, options.rate);
            let sent = Instant::now();
            let result = request(to, options, &mut kept);
            let took = sent.elapsed();
            let mut report = report.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            report.0.requests += 1;
            match result {
                Ok(answer) => {
                    report.0.ok += 1;
                    *report.0.servers.entry(answer.server).or_default() += 1;
                    *report.0.clients.entry(answer.client.ip()).or_default() += 1;
                    report.1.push(took);
                }
                Err(error) => *report.0.failures.entry(Failure::of(&error)).or_default() += 1,
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..options.concurrency.max(1) {
            scope.spawn(worker);
        }
    });
    let (report, durations) = report.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    HttpReport { latency: Percentiles::of(durations), ..report }
}

/// Waits until it is time for the `number`th of `rate` a second.
pub fn pace(started: Instant, number: u64, rate: u64) {
    if rate > 0 {
        let due = Duration::from_secs_f64(number as f64 / rate as f64);
        std::thread::sleep(due.saturating_sub(started.elapsed()));
    }
}

fn request(to: SocketAddr, options: &HttpOptions, kept: &mut Option<BufReader<TcpStream>>) -> io::Result<Answer> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => connect(to, Duration::from_millis(options.timeout_ms))?,
    };
    let answer = exchange(&mut stream, options.keep_alive)?;
    if options.keep_alive {
        *kept = Some(stream);
    }
    Ok(answer)
}

/// A SYN that is sent again more often was lost again and again: the way was closed for seconds.
const MOST_REPEATS: u32 = 2;

/// A connection on which no step takes longer than `timeout`.
pub fn connect(to: SocketAddr, timeout: Duration) -> io::Result<BufReader<TcpStream>> {
    let Dialled { result, repeats } = dial(to, 0, timeout);
    let stream = result?;
    if repeats > MOST_REPEATS {
        return Err(io::ErrorKind::TimedOut.into());
    }
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

/// One request and its answer.
pub fn exchange(stream: &mut BufReader<TcpStream>, keep_alive: bool) -> io::Result<Answer> {
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let request = format!("GET / HTTP/1.1\r\nHost: service\r\nConnection: {connection}\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes())?;
    let garbled = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut line = String::new();
    let mut length = None;
    let mut first = true;
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = line.trim_end();
        if first && !text.starts_with("HTTP/1.1 200 ") {
            return Err(garbled(text));
        }
        first = false;
        if text.is_empty() {
            break;
        }
        if let Some((name, value)) = text.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse::<usize>().ok();
        }
    }
    let mut body = vec![0; length.filter(|&length| length < 4096).ok_or_else(|| garbled("length"))?];
    stream.read_exact(&mut body)?;
    // The server is to close first: TIME_WAIT is then its burden, and the client's port is free at once.
    if !keep_alive && stream.read(&mut [0])? != 0 {
        return Err(garbled("more than the answer"));
    }
    Answer::parse(&body)
}
