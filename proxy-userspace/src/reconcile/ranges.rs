use std::collections::{BTreeMap, BTreeSet};

/// The free places of an array in which sets of any length lie.
///
/// The smallest hole that is long enough is taken: a set is mostly replaced by one of about its length, and long holes
/// stay long.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    /// Start and length of every hole; no two touch.
    holes: BTreeMap<u32, u32>,
    /// The same as length and start.
    by_length: BTreeSet<(u32, u32)>,
}

impl Ranges {
    pub fn new(places: u32) -> Self {
        let mut ranges = Self::default();
        ranges.add(0, places);
        ranges
    }

    /// The start of `length` places, or `None` where no hole is that long.
    pub fn take(&mut self, length: u32) -> Option<u32> {
        let &(hole, start) = self.by_length.range((length, 0)..).next()?;
        self.remove(start, hole);
        self.add(start + length, hole - length);
        Some(start)
    }

    /// Takes these very places; `false`: they are not all free.
    pub fn take_at(&mut self, start: u32, length: u32) -> bool {
        let Some(end) = start.checked_add(length) else { return false };
        let Some((&hole_start, &hole)) = self.holes.range(..=start).next_back() else { return false };
        let hole_end = hole_start + hole;
        if end > hole_end {
            return false;
        }
        self.remove(hole_start, hole);
        self.add(hole_start, start - hole_start);
        self.add(end, hole_end - end);
        true
    }

    /// Makes taken places free again.
    pub fn give_back(&mut self, mut start: u32, mut length: u32) {
        if let Some((&before, &hole)) = self.holes.range(..start).next_back()
            && before + hole == start
        {
            self.remove(before, hole);
            start = before;
            length += hole;
        }
        if let Some(&hole) = self.holes.get(&(start + length)) {
            self.remove(start + length, hole);
            length += hole;
        }
        self.add(start, length);
    }

    /// Start and length of every hole.
    pub fn holes(&self) -> impl Iterator<Item = (u32, u32)> {
        self.holes.iter().map(|(&start, &length)| (start, length))
    }

    fn add(&mut self, start: u32, length: u32) {
        if length != 0 {
            self.holes.insert(start, length);
            self.by_length.insert((length, start));
        }
    }

    fn remove(&mut self, start: u32, length: u32) {
        self.holes.remove(&start);
        self.by_length.remove(&(length, start));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_smallest_hole_that_fits_is_taken() {
        let mut ranges = Ranges::new(100);
        let taken: Vec<u32> = [10, 20, 5, 30].into_iter().map(|length| ranges.take(length).unwrap()).collect();
        assert_eq!(taken, [0, 10, 30, 35]);
        ranges.give_back(10, 20);
        ranges.give_back(30, 5);
        assert_eq!(ranges.holes().collect::<Vec<_>>(), [(10, 25), (65, 35)]);
        assert_eq!(ranges.take(25), Some(10));
        assert_eq!(ranges.take(36), None);
    }

    proptest! {
        #[test]
        fn no_place_is_taken_twice_or_lost(
            steps in prop::collection::vec((any::<bool>(), 1..20_u32, 0..110_u32), 0..80),
        ) {
            let mut ranges = Ranges::new(100);
            let mut taken: Vec<(u32, u32)> = Vec::new();
            for (give, length, at) in steps {
                if give && !taken.is_empty() {
                    let (start, length) = taken.swap_remove(at as usize % taken.len());
                    ranges.give_back(start, length);
                } else if at % 2 == 0 {
                    taken.extend(ranges.take(length).map(|start| (start, length)));
                } else if ranges.take_at(at, length) {
                    taken.push((at, length));
                }
                let mut uses = [0; 100];
                for (start, length) in taken.iter().copied().chain(ranges.holes()) {
                    uses[start as usize..(start + length) as usize].iter_mut().for_each(|uses| *uses += 1);
                }
                prop_assert_eq!(uses, [1; 100]);
            }
        }
    }
}
