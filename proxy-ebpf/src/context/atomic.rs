use core::arch::asm;

/// Adds one at once and returns what was there before (Linux 5.12). An instruction of its own, since the BPF targets of
/// rustc say that they have no such atomics.
///
/// # Safety
/// `place` is a live, aligned map value.
#[inline(always)]
pub unsafe fn fetch_increment(place: *mut u64) -> u64 {
    let mut value = 1;
    // SAFETY: touches the one word that the caller has.
    unsafe {
        asm!(
            "{value} = atomic_fetch_add((u64 *)({place} + 0), {value})",
            value = inout(reg) value, place = in(reg) place,
            options(nostack, preserves_flags),
        );
    }
    value
}
