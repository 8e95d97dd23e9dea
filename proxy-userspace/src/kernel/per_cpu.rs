use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use super::KernelError;
use super::raw::map;
use super::specs::{Pinned, Spec};

/// How many CPUs this machine may have at most.
pub(super) fn possible_cpus() -> Result<usize, KernelError> {
    aya::util::nr_cpus().map_err(|(path, cause)| KernelError::path("reading", path.as_ref())(cause))
}

/// A pinned PERCPU_ARRAY of u64.
pub(super) struct CpuCounters {
    pinned: Pinned,
    cpus: usize,
}

impl CpuCounters {
    /// Opens the pin of `spec` in `directory`.
    pub fn open(directory: &Path, spec: &Spec) -> Result<Self, KernelError> {
        Ok(Self { pinned: spec.pinned::<u32, u64>(directory)?, cpus: possible_cpus()? })
    }

    /// The sum over all CPUs of each element.
    pub fn sums(&self) -> io::Result<Vec<u64>> {
        let mut values = vec![0_u64; self.cpus];
        (0..self.pinned.max_entries)
            .map(|index| {
                // SAFETY: keys and values have been checked, and there is a place for each possible CPU.
                unsafe { map::lookup(self.pinned.map.fd().as_fd(), &index, &mut values) }?;
                Ok(values.iter().fold(0, |sum: u64, value| sum.wrapping_add(*value)))
            })
            .collect()
    }
}
