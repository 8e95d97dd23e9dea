use serde::{Deserialize, Serialize};

/// A median with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Estimate {
    /// Of samples, by the bootstrap: medians of many samples drawn from the sample. `None` without samples.
    pub fn of(samples: &[f64]) -> Option<Self> {
        const DRAWS: usize = 2000;
        let median = median(samples.to_vec())?;
        // The same samples give the same interval.
        let mut random = fastrand::Rng::with_seed(1);
        let mut draw =
            || (0..samples.len()).filter_map(|_| samples.get(random.usize(..samples.len())).copied()).collect();
        let mut medians: Vec<f64> = (0..DRAWS).filter_map(|_| self::median(draw())).collect();
        medians.sort_by(f64::total_cmp);
        let at = |share: f64| medians.get((share * DRAWS as f64) as usize).copied().unwrap_or(median);
        Some(Self { median, low: at(0.025), high: at(0.975) })
    }
}

fn median(mut samples: Vec<f64>) -> Option<f64> {
    samples.sort_by(f64::total_cmp);
    let middle = samples.len() / 2;
    let upper = *samples.get(middle)?;
    if samples.len() % 2 == 1 { Some(upper) } else { Some((samples.get(middle - 1)? + upper) / 2.0) }
}

/// What a bar says of a ratio, and of the control that was measured along with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Judgement {
    Pass,
    Fail,
    /// The machine is too noisy to say.
    Inconclusive,
}

/// How far the control's interval may reach from 1: two equal paths that differ by more say that the machine, and not
/// the path, is what was measured.
const TOLERANCE: f64 = 0.03;

/// Judges `ratio` against a lower bar.
pub fn judge(ratio: &Estimate, control: &Estimate, bar: f64) -> Judgement {
    let noisy = control.low < 1.0 - TOLERANCE || control.high > 1.0 + TOLERANCE;
    match () {
        () if noisy => Judgement::Inconclusive,
        () if ratio.low >= bar => Judgement::Pass,
        () if ratio.high < bar => Judgement::Fail,
        () => Judgement::Inconclusive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(median: f64, spread: f64) -> Estimate {
        Estimate { median, low: median - spread, high: median + spread }
    }

    #[test]
    fn the_interval_holds_the_median_and_narrows() {
        assert_eq!(Estimate::of(&[]), None);
        let few = Estimate::of(&[0.9, 1.0, 1.1]).unwrap();
        let many: Vec<f64> = (0..300).map(|n| 0.9 + 0.1 * f64::from(n % 3)).collect();
        let many = Estimate::of(&many).unwrap();
        assert!(few.low <= few.median && few.median <= few.high);
        assert!((many.median - 1.0).abs() < 1e-9 && many.high - many.low < few.high - few.low);
    }

    #[test]
    fn noise_is_no_judgement() {
        let quiet = estimate(1.0, 0.01);
        assert_eq!(judge(&estimate(0.99, 0.01), &quiet, 0.95), Judgement::Pass);
        assert_eq!(judge(&estimate(0.90, 0.01), &quiet, 0.95), Judgement::Fail);
        assert_eq!(judge(&estimate(0.95, 0.01), &quiet, 0.95), Judgement::Inconclusive);
        assert_eq!(judge(&estimate(0.90, 0.01), &estimate(1.0, 0.05), 0.95), Judgement::Inconclusive);
        assert_eq!(judge(&estimate(0.99, 0.01), &estimate(0.9, 0.01), 0.95), Judgement::Inconclusive);
    }
}
