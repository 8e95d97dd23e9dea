//! `BPF_PROG_TEST_RUN` for tc and XDP programs.

use std::time::Duration;

use aya::programs::{ProgramError, SchedClassifier, TestRun, TestRunOptions, TestRunResult, Xdp};

/// `struct __sk_buff` of linux/bpf.h: its size and the fields that a test may set.
const SKB_SIZE: usize = 192;
const SKB_INGRESS_IFINDEX: usize = 36;
const SKB_IFINDEX: usize = 40;
const SKB_GSO_SIZE: usize = 176;

/// Room for what a program may add.
const SLACK: usize = 256;

/// What a program did.
pub struct Outcome {
    pub action: i32,
    pub bytes: Vec<u8>,
    /// Mean of the repetitions, whole nanoseconds.
    pub duration: Duration,
}

/// Runs a tc program on a packet that came through `device`, or leaves by it and came through another.
///
/// # Errors
/// Of the system call.
pub fn tc(
    program: &SchedClassifier,
    device: u32,
    bytes: &[u8],
    segment: usize,
    repeat: u32,
) -> Result<Outcome, ProgramError> {
    let mut context = [0; SKB_SIZE];
    context[SKB_INGRESS_IFINDEX..][..4].copy_from_slice(&device.to_ne_bytes());
    context[SKB_IFINDEX..][..4].copy_from_slice(&device.to_ne_bytes());
    context[SKB_GSO_SIZE..][..4].copy_from_slice(&(segment as u32).to_ne_bytes());
    run(bytes, Some(&context), repeat, |options| program.test_run(options))
}

/// Runs an XDP program on a packet that came through the loopback device, the only one whose receive queue the kernel
/// has for this.
///
/// # Errors
/// Of the system call.
pub fn xdp(program: &Xdp, bytes: &[u8], repeat: u32) -> Result<Outcome, ProgramError> {
    run(bytes, None, repeat, |options| program.test_run(options))
}

fn run<'a>(
    bytes: &'a [u8],
    context: Option<&'a [u8]>,
    repeat: u32,
    run: impl FnOnce(TestRunOptions<'_>) -> Result<TestRunResult, ProgramError>,
) -> Result<Outcome, ProgramError> {
    let mut out = vec![0; bytes.len() + SLACK];
    let mut options = TestRunOptions::new();
    options.data_in = Some(bytes);
    options.data_out = Some(&mut out);
    options.ctx_in = context;
    options.repeat = repeat;
    let result = run(options)?;
    out.truncate(result.data_size_out as usize);
    Ok(Outcome { action: result.return_value as i32, bytes: out, duration: result.duration })
}
