//! Whether counts look as chance would have them.

/// Pearson's chi-square statistic of `counts` against an even distribution; the degrees of freedom are one less than
/// the counts.
pub fn chi_square(counts: &[u64]) -> f64 {
    let total: u64 = counts.iter().sum();
    let expected = total as f64 / counts.len().max(1) as f64;
    if expected == 0.0 {
        return 0.0;
    }
    counts.iter().map(|&count| (count as f64 - expected).powi(2) / expected).sum()
}

/// The value that the statistic exceeds with probability 0.001 if the distribution is even, for 1 to 9 degrees of
/// freedom. A fair program fails a test against it once in a thousand runs.
pub fn critical_value(degrees_of_freedom: usize) -> Option<f64> {
    const P_001: [f64; 9] = [10.828, 13.816, 16.266, 18.467, 20.515, 22.458, 24.322, 26.124, 27.877];
    P_001.get(degrees_of_freedom.checked_sub(1)?).copied()
}

/// Whether an even distribution is not rejected at p = 0.001.
///
/// # Panics
/// For fewer than 2 or more than 10 counts.
pub fn is_even(counts: &[u64]) -> bool {
    let critical = critical_value(counts.len().saturating_sub(1)).expect("2 to 10 counts");
    chi_square(counts) <= critical
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statistic_is_pearsons() {
        assert_eq!(chi_square(&[10, 10, 10]), 0.0);
        assert!((chi_square(&[20, 10]) - 10.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn uneven_counts_are_rejected() {
        assert!(is_even(&[333, 333, 334]));
        assert!(is_even(&[310, 340, 350]));
        assert!(!is_even(&[500, 250, 250]));
        assert!(!is_even(&[1000, 0, 0]));
    }
}
