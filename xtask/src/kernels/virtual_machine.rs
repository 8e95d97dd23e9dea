//! One run of qemu: what the machine says, line by line, and what became of its suites.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// What the first process puts before its own lines.
const MARK: &str = "kernels: ";

/// Boots `kernel` and prints what comes, each line behind `name`, until the machine powers off. Returns the exit status
/// of every suite that ended.
///
/// The processor is emulated: a machine in the cloud is itself virtual, and often lends no KVM.
///
/// # Errors
/// qemu is missing, or the machine has not powered off after `limit`.
pub fn run(name: &str, kernel: &Path, initramfs: &Path, limit: Duration) -> Result<BTreeMap<String, i32>> {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048", "-nic", "none"]);
    // Not -nographic: with that the firmware would use the console too, and clear the screen of whoever looks on.
    qemu.args(["-display", "none", "-vga", "none", "-monitor", "none", "-serial", "stdio"]);
    // The kernel would give its clock up where the machine is so busy that emulated interrupts come late.
    qemu.args(["-no-reboot", "-append", "console=ttyS0 quiet panic=-1 no_timer_check"]);
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
    let child = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("start qemu-system-x86_64")?;
    let mut machine = Machine(child);
    let console = machine.0.stdout.take().context("console of the machine")?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            // The other side hangs up when time is over.
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });

    let deadline = Instant::now() + limit;
    let mut ended = BTreeMap::new();
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                let line = line.trim_end();
                println!("{name} | {line}");
                if let Some((suite, status)) = end_of_suite(line) {
                    ended.insert(suite.to_owned(), status);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(ended),
            Err(RecvTimeoutError::Timeout) => bail!("the machine with {name} did not finish within {limit:?}"),
        }
    }
}

fn end_of_suite(line: &str) -> Option<(&str, i32)> {
    let (suite, status) = line.strip_prefix(MARK)?.strip_prefix("end ")?.split_once(' ')?;
    Some((suite, status.parse().ok()?))
}

/// Ends with the value, whatever happens.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ends_of_suites_are_taken_for_such() {
        assert_eq!(end_of_suite("kernels: end rows 0"), Some(("rows", 0)));
        assert_eq!(end_of_suite("kernels: end rows 101"), Some(("rows", 101)));
        for other in ["kernels: begin rows", "kernels: end rows", "end rows 0", "kernels: end rows x"] {
            assert_eq!(end_of_suite(other), None, "{other}");
        }
    }
}
