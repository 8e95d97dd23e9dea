use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Instant;

use anyhow::Result;

/// Says what begins, does it, and says how long it took.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    print!("\x1b[1m▸ {what}\x1b[0m ");
    let _ = std::io::stdout().flush();
    let start = Instant::now();
    let done = work();
    match &done {
        Ok(_) => println!("\x1b[32m✓\x1b[0m {:.2} s", start.elapsed().as_secs_f64()),
        Err(_) => println!("\x1b[31m✗\x1b[0m"),
    }
    done
}

pub fn title(text: &str) {
    println!("\n\x1b[1;4m{text}\x1b[0m");
}

/// Indented, as a program printed it.
pub fn block(text: &str) {
    for line in text.lines() {
        println!("    {line}");
    }
}

/// Who answered how often, as bars.
pub fn shares(counts: &BTreeMap<String, u64>) {
    let total: u64 = counts.values().sum();
    for (name, count) in counts {
        let share = if total == 0 { 0.0 } else { *count as f64 / total as f64 };
        let bar = "█".repeat((share * 40.0).round() as usize);
        println!("    {name:<10} {count:>5}  {:>5.1} %  {bar}", share * 100.0);
    }
}
