use std::collections::VecDeque;

/// Free ids, from 1 on. Those that were never used go first, then the one that has been free the longest: whoever
/// still shows an old id should not see a new owner.
#[derive(Debug, Default)]
pub(super) struct Ids {
    next: u32,
    end: u32,
    freed: VecDeque<u32>,
}

impl Ids {
    /// Ids below `end`, except those that `is_taken`.
    pub fn new(end: u32, is_taken: impl Fn(u32) -> bool) -> Self {
        let next = (1..end).rev().find(|&id| is_taken(id)).map_or(1, |last| last + 1);
        Self { next, end, freed: (1..next).filter(|&id| !is_taken(id)).collect() }
    }

    pub fn take(&mut self) -> Option<u32> {
        if self.next < self.end {
            self.next += 1;
            return Some(self.next - 1);
        }
        self.freed.pop_front()
    }

    pub fn give_back(&mut self, id: u32) {
        self.freed.push_back(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_ids_go_first_then_the_longest_free() {
        let mut ids = Ids::new(6, |id| id == 2);
        assert_eq!([(); 4].map(|()| ids.take()), [Some(3), Some(4), Some(5), Some(1)]);
        assert_eq!(ids.take(), None);
        ids.give_back(4);
        ids.give_back(2);
        assert_eq!([ids.take(), ids.take(), ids.take()], [Some(4), Some(2), None]);
    }
}
