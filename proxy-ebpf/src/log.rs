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
    let hook = Hook::ALL.get(hook as usize).map_or("", |hook| hook.word());
    let reason = Reason::ALL.get(reason as usize).map_or("", |reason| reason.word());
    debug!((), "{} {}", hook, reason);
}
