use std::collections::BTreeMap;
use std::io::{self, BufReader};
use std::net::SocketAddr;
use std::sync::{Barrier, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{Failure, connect::dial, http::exchange};
use crate::patience::patience_ms;

#[derive(Args, Clone, Debug)]
pub struct BesideOptions {
    /// The other address.
    #[arg(long)]
    pub other: SocketAddr,
    /// Pairs of blocks: in the first of each pair, connections go to the other address as well.
    #[arg(long, default_value_t = 10)]
    pub pairs: u32,
    /// Connections to the other address in a block.
    #[arg(long, default_value_t = 200)]
    pub others: u32,
    /// Connections in the same block that are measured, among them from its beginning to its end.
    #[arg(long, default_value_t = 50)]
    pub measured: u32,
    #[arg(long, default_value_t = 16)]
    pub concurrency: u32,
    /// For each step of a connection.
    #[arg(long, default_value_t = 5000)]
    pub timeout_ms: u64,
}

impl BesideOptions {
    pub fn new(other: SocketAddr) -> Self {
        Self { other, pairs: 10, others: 200, measured: 50, concurrency: 16, timeout_ms: patience_ms(5000) }
    }

    /// As arguments of the program.
    pub fn arguments(&self) -> Vec<String> {
        vec![
            format!("--other={}", self.other),
            format!("--pairs={}", self.pairs),
            format!("--others={}", self.others),
            format!("--measured={}", self.measured),
            format!("--concurrency={}", self.concurrency),
            format!("--timeout-ms={}", self.timeout_ms),
        ]
    }
}

/// What became of connections of one kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Kind {
    pub ok: u64,
    pub failures: BTreeMap<Failure, u64>,
    /// SYNs that were sent again.
    pub repeats: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BesideReport {
    /// To the other address.
    pub others: Kind,
    /// To the first one, beside those to the other.
    pub beside: Kind,
    /// To the first one, beside as many to the first one.
    pub alone: Kind,
    /// For each pair of blocks: the rate of the measured connections beside the others, as a ratio to their rate
    /// without. Of as many connections as have been made at the same time.
    pub ratios: Vec<f64>,
}

impl BesideReport {
    /// Median of the pairs.
    pub fn ratio(&self) -> f64 {
        let mut ratios = self.ratios.clone();
        ratios.sort_by(f64::total_cmp);
        ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

/// Makes connections to `to`, in turns beside connections to another address and beside as many to `to` itself, with
/// one request on each.
pub fn beside(to: SocketAddr, options: &BesideOptions) -> BesideReport {
    let workers = options.concurrency.max(1);
    let line = Barrier::new(workers as usize);
    let blocks = Mutex::new(vec![Block::default(); options.pairs as usize * 2]);
    let timeout = Duration::from_millis(options.timeout_ms);
    let work = |worker: u32| {
        for number in 0..options.pairs as usize * 2 {
            line.wait();
            let mut block = Block::default();
            let share = |count: u32| count / workers + u32::from(worker < count % workers);
            let (others, mut measured) = (share(options.others), share(options.measured));
            let every = others.div_ceil(measured.max(1)).max(1);
            for turn in 0..others {
                let other = if number % 2 == 0 { options.other } else { to };
                block.others.add(connection(other, timeout));
                if turn % every == 0 && measured > 0 {
                    measured -= 1;
                    let began = Instant::now();
                    block.measured.add(connection(to, timeout));
                    block.time += began.elapsed();
                }
            }
            let mut blocks = blocks.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(sum) = blocks.get_mut(number) {
                sum.add(block);
            }
        }
    };
    std::thread::scope(|scope| {
        (0..workers).for_each(|worker| drop(scope.spawn(move || work(worker))));
    });
    let mut report = BesideReport::default();
    for pair in blocks.into_inner().unwrap_or_else(PoisonError::into_inner).chunks(2) {
        let [beside, alone] = pair else { continue };
        report.ratios.push(beside.rate() / alone.rate());
        report.others.merge(&beside.others);
        report.beside.merge(&beside.measured);
        report.alone.merge(&alone.measured);
        report.alone.merge(&alone.others);
    }
    report
}

#[derive(Clone, Default)]
struct Block {
    others: Kind,
    measured: Kind,
    /// That the measured ones took, one after the other.
    time: Duration,
}

impl Block {
    fn add(&mut self, more: Self) {
        self.others.merge(&more.others);
        self.measured.merge(&more.measured);
        self.time += more.time;
    }

    fn rate(&self) -> f64 {
        self.measured.ok as f64 / self.time.as_secs_f64()
    }
}

impl Kind {
    fn add(&mut self, (result, repeats): (io::Result<()>, u32)) {
        self.repeats += u64::from(repeats);
        match result {
            Ok(()) => self.ok += 1,
            Err(error) => *self.failures.entry(Failure::of(&error)).or_default() += 1,
        }
    }

    fn merge(&mut self, more: &Self) {
        self.ok += more.ok;
        self.repeats += more.repeats;
        more.failures.iter().for_each(|(failure, count)| *self.failures.entry(*failure).or_default() += count);
    }
}

fn connection(to: SocketAddr, timeout: Duration) -> (io::Result<()>, u32) {
    let dialled = dial(to, 0, timeout);
    let result = dialled.result.and_then(|stream| {
        stream.set_nodelay(true)?;
        exchange(&mut BufReader::new(stream), false).map(drop)
    });
    (result, dialled.repeats)
}
