use core::hint::black_box;

use aya_log_ebpf::{
    debug,
    macro_support::{Level, level_enabled},
};
use proxy_common::reason::{Hook, Reason};

/// Says what is counted. The level is a constant to the verifier, which removes what is below it: silence is free.
#[inline(always)]
pub fn note(hook: Hook, reason: Reason) {
    if level_enabled(Level::Debug) {
        write(hook as u32, reason as u32);
    }
}

#[inline(never)]
fn write(hook: u32, reason: u32) {
    // The optimizer knows the bounds of both and takes the checks out; the verifier does not know them.
    let hook = bounded(Hook::ALL.get(black_box(hook) as usize).map_or("", |hook| hook.word()));
    let reason = bounded(Reason::ALL.get(black_box(reason) as usize).map_or("", |reason| reason.word()));
    debug!((), "{} {}", hook, reason);
}

/// A word whose length the verifier knows to be small: it knows nothing of what it reads from a table of words.
#[inline(always)]
fn bounded(word: &'static str) -> &'static str {
    const LONGEST: usize = 31;
    word.get(..black_box(word.len()) & LONGEST).unwrap_or_default()
}
