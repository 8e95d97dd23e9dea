//! Steps that take time: which one of how many, how long it took the last time, and how much is left.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::cache;

/// How often a long step says that it goes on.
const REMINDER: Duration = Duration::from_secs(30);

/// A step, and how long it took on two idle cores, in seconds: what is said until it was measured on this machine.
#[derive(Clone, Copy)]
pub struct Step {
    pub name: &'static str,
    pub seconds: u64,
}

/// The steps that are to be done, in their order.
pub struct Progress {
    steps: Vec<Step>,
    done: usize,
    measured: BTreeMap<String, f64>,
    began: Instant,
}

impl Progress {
    pub fn new(steps: Vec<Step>) -> Self {
        // A file that cannot be read is one without measurements.
        let measured = fs::read(file()).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Self { steps, done: 0, measured, began: Instant::now() }
    }

    /// Whether a step is among them.
    pub fn has(&self, step: Step) -> bool {
        self.steps.iter().any(|known| known.name == step.name)
    }

    /// Says what is about to be done in all.
    pub fn announce(&self) {
        let measured = |step: &Step| self.measured.contains_key(step.name);
        let source = match (self.steps.iter().any(measured), self.steps.iter().all(measured)) {
            (_, true) => "as measured the last time",
            (true, false) => "as measured the last time, or estimated for two idle cores where nothing was",
            (false, false) => "estimated for two idle cores",
        };
        let names: Vec<&str> = self.steps.iter().map(|step| step.name).collect();
        say(&format!("{} steps, about {} ({source}): {}", names.len(), spoken(self.left()), names.join(", ")));
    }

    /// Does the next step, which must be `step`.
    pub fn run<T>(&mut self, step: Step, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let place = format!("[{}/{}] {}", self.done + 1, self.steps.len(), step.name);
        let (usual, left) = (self.usual(step), self.left());
        let how = if self.measured.contains_key(step.name) { "took" } else { "estimated at" };
        say(&format!("{place}: {how} {}; about {} left in all", spoken(usual), spoken(left)));
        let began = Instant::now();
        let result = remind(&place, usual, left.saturating_sub(usual), work)?;
        let took = began.elapsed();
        say(&format!("{place}: done in {}", spoken(took)));
        self.done += 1;
        self.record(step.name, took);
        Ok(result)
    }

    /// Since the first step.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    fn usual(&self, step: Step) -> Duration {
        self.measured.get(step.name).map_or(Duration::from_secs(step.seconds), |seconds| {
            Duration::try_from_secs_f64(*seconds).unwrap_or(Duration::from_secs(step.seconds))
        })
    }

    fn left(&self) -> Duration {
        self.steps.iter().skip(self.done).map(|step| self.usual(*step)).sum()
    }

    /// What is not remembered is estimated the next time.
    fn record(&mut self, name: &str, took: Duration) {
        self.measured.insert(name.to_owned(), took.as_secs_f64());
        if let Ok(text) = serde_json::to_vec_pretty(&self.measured) {
            let _ = fs::create_dir_all(cache::folder()).and_then(|()| fs::write(file(), text));
        }
    }
}

/// One line of the verb's own.
pub fn say(text: &str) {
    eprintln!("kind: {text}");
}

/// Does the work, and says now and then how far it should be.
fn remind<T>(place: &str, usual: Duration, after: Duration, work: impl FnOnce() -> T) -> T {
    let (finished, waits) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let began = Instant::now();
            while waits.recv_timeout(REMINDER) == Err(RecvTimeoutError::Timeout) {
                let since = began.elapsed();
                let rest = match usual.checked_sub(since) {
                    Some(rest) => format!("about {} left, {} in all", spoken(rest), spoken(rest + after)),
                    None => format!("longer than expected ({}); {} of others are left", spoken(usual), spoken(after)),
                };
                say(&format!("{place}: {} so far, {rest}", spoken(since)));
            }
        });
        let result = work();
        drop(finished);
        result
    })
}

/// Keeps what was measured.
fn file() -> PathBuf {
    cache::folder().join("times.json")
}

/// `45 s`, `3 min 20 s`.
pub fn spoken(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [Step; 2] = [Step { name: "a", seconds: 60 }, Step { name: "b", seconds: 30 }];

    #[test]
    fn what_was_measured_takes_the_place_of_estimates() {
        let measured = BTreeMap::from([("b".to_owned(), 5.0)]);
        let progress = Progress { steps: STEPS.to_vec(), done: 0, measured, began: Instant::now() };
        assert_eq!(progress.left(), Duration::from_secs(65));
        let progress = Progress { done: 1, ..progress };
        assert_eq!(progress.left(), Duration::from_secs(5));
    }

    #[test]
    fn times_are_spoken_in_minutes_and_seconds() {
        assert_eq!(spoken(Duration::from_millis(59_400)), "59 s");
        assert_eq!(spoken(Duration::from_millis(59_600)), "1 min 0 s");
        assert_eq!(spoken(Duration::from_secs(200)), "3 min 20 s");
    }
}
