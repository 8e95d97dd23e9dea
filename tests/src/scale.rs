//! How much a test does: enough to fail where something is wrong, or as much as its bar says.

/// Set by `cargo xtask test --full`.
pub const FULL: &str = "SHEAVE_TEST_FULL";

/// Whether tests are to do as much as their bars say, for minutes each.
pub fn is_full() -> bool {
    std::env::var_os(FULL).is_some_and(|value| value != "0")
}

/// `all` where tests are to do as much as their bars say, else `some`.
pub fn scaled<T>(some: T, all: T) -> T {
    if is_full() { all } else { some }
}
