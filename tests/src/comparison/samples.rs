use anyhow::{Context, Result};

use super::machine::ProcessorTime;
use super::ratio::Estimate;

/// Rounds in which more was stolen are left out.
const STOLEN: f64 = 0.01;

/// A visit of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The direct path.
    Direct,
    /// Another one that is its equal.
    Control,
    /// What is compared with the two of them, by its number.
    Compared(usize),
}

/// What the rounds so far came to: each visits every path once, in random order.
#[derive(Debug)]
pub struct Samples {
    directs: Vec<f64>,
    controls: Vec<f64>,
    ratios: Vec<Vec<f64>>,
    disturbed: usize,
    random: fastrand::Rng,
}

/// Medians of the rounds.
#[derive(Clone, Debug)]
pub struct Estimates {
    /// Of the direct paths, in the metric's unit.
    pub direct: Estimate,
    /// One direct path over the other, in the same rounds: what noise alone makes of 1.
    pub control: Estimate,
    /// What is compared, over the mean of the two direct paths.
    pub ratios: Vec<Estimate>,
}

impl Samples {
    /// For so many paths that are compared with the direct one.
    pub fn of(compared: usize) -> Self {
        Self {
            directs: Vec::new(),
            controls: Vec::new(),
            ratios: vec![Vec::new(); compared],
            disturbed: 0,
            random: fastrand::Rng::new(),
        }
    }

    /// One more round.
    ///
    /// # Errors
    /// A path cannot be measured.
    pub fn add(&mut self, mut measure: impl FnMut(Turn) -> Result<f64>) -> Result<()> {
        let before = ProcessorTime::now()?;
        let mut order = vec![Turn::Direct, Turn::Control];
        order.extend((0..self.ratios.len()).map(Turn::Compared));
        self.random.shuffle(&mut order);
        let (mut direct, mut control, mut compared) = (0.0, 0.0, vec![0.0; self.ratios.len()]);
        for turn in order {
            let value = measure(turn)?;
            match turn {
                Turn::Direct => direct = value,
                Turn::Control => control = value,
                Turn::Compared(number) => compared[number] = value,
            }
        }
        if ProcessorTime::now()?.stolen_since(&before) > STOLEN {
            self.disturbed += 1;
            return Ok(());
        }
        // Which of two servers is the control is drawn, so that one that is always faster widens the control's interval
        // and does not shift it.
        if self.random.bool() {
            std::mem::swap(&mut direct, &mut control);
        }
        let mean = (direct + control) / 2.0;
        self.directs.push(mean);
        self.controls.push(control / direct);
        for (ratios, value) in self.ratios.iter_mut().zip(compared) {
            ratios.push(value / mean);
        }
        Ok(())
    }

    /// Rounds that count.
    pub fn rounds(&self) -> usize {
        self.directs.len()
    }

    /// Rounds that were left out, since the hypervisor took processor time away.
    pub fn disturbed(&self) -> usize {
        self.disturbed
    }

    /// # Errors
    /// All rounds were disturbed.
    pub fn estimates(&self) -> Result<Estimates> {
        let of = |samples: &[f64]| {
            Estimate::of(samples).with_context(|| format!("all of {} rounds were disturbed", self.disturbed))
        };
        let ratios = self.ratios.iter().map(|ratios| of(ratios)).collect::<Result<_>>()?;
        Ok(Estimates { direct: of(&self.directs)?, control: of(&self.controls)?, ratios })
    }
}
