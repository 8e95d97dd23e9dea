//! The memory of this process.

/// Gives back to the kernel what has been freed. The allocator keeps it otherwise, for as long as anything that lies
/// above it is in use; for work that takes much for a moment and comes once.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: any thread may call it at any time (malloc_trim(3), MT-Safe).
    unsafe {
        libc::malloc_trim(0);
    }
    #[cfg(target_env = "musl")]
    // SAFETY: any thread may call it at any time: it works on the caller's own heap and on those of threads that have
    // ended.
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}
