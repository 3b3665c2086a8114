//! A compact set of numbers.

use std::collections::VecDeque;

/// Numbers as sorted ranges, inclusive at both ends, that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges(VecDeque<(u64, u64)>);

impl Ranges {
    pub(super) fn contains(&self, number: u64) -> bool {
        self.end_of(number).is_some()
    }

    /// The last number of the range that `number` is in.
    pub(super) fn end_of(&self, number: u64) -> Option<u64> {
        let at = self.0.partition_point(|&(_, last)| last < number);
        self.0.get(at).filter(|(first, _)| *first <= number).map(|&(_, last)| last)
    }

    /// How many of `first..=last` are in the set.
    pub(super) fn overlap(&self, first: u64, last: u64) -> u64 {
        let from = self.0.partition_point(|&(_, end)| end < first);
        let ranges = self.0.iter().skip(from).take_while(|(start, _)| *start <= last);
        ranges.map(|&(start, end)| end.min(last) - start.max(first) + 1).sum()
    }

    /// Adds `first..=last`.
    pub(super) fn insert(&mut self, first: u64, last: u64) {
        // All ranges in from..to overlap or touch the new one and become one with it.
        let from = self.0.partition_point(|&(_, end)| end.saturating_add(1) < first);
        let to = self.0.partition_point(|&(start, _)| start <= last.saturating_add(1));
        let (mut start, mut end) = (first, last);
        for (old_first, old_last) in self.0.drain(from..to) {
            (start, end) = (start.min(old_first), end.max(old_last));
        }
        self.0.insert(from, (start, end));
    }

    /// Removes every number before `number`.
    pub(super) fn cut_before(&mut self, number: u64) {
        while self.0.pop_front_if(|(_, last)| *last < number).is_some() {}
        if let Some((first, _)) = self.0.front_mut() {
            *first = number.max(*first);
        }
    }

    /// Takes the first range out if it begins at `number`, and returns its end.
    pub(super) fn take_from(&mut self, number: u64) -> Option<u64> {
        self.0.pop_front_if(|(first, _)| *first == number).map(|(_, last)| last)
    }

    /// Removes every number from `from` on and returns how many there were.
    pub(super) fn cut(&mut self, from: u64) -> u64 {
        let mut removed = 0;
        while let Some(&(first, last)) = self.0.back().filter(|(_, last)| *last >= from) {
            self.0.pop_back();
            removed += last - first.max(from) + 1;
            if first < from {
                self.0.push_back((first, from - 1));
            }
        }
        removed
    }

    /// How many numbers.
    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// How many ranges, which is what memory is needed for.
    pub(super) fn pieces(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (u64, u64)> {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_set(ops in prop::collection::vec((1..60u64, 0..6u64, 0..10u8), 1..60)) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for (first, length, op) in ops {
                match op {
                    0 => {
                        let before = model.len();
                        model.retain(|&number| number < first + 20);
                        prop_assert_eq!(ranges.cut(first + 20), (before - model.len()) as u64);
                    }
                    1 => {
                        let run: Vec<u64> = (first..).take_while(|number| model.contains(number)).collect();
                        if first == 1 || !model.contains(&(first - 1)) {
                            let expected = run.last().copied().filter(|_| model.first() == Some(&first));
                            prop_assert_eq!(ranges.take_from(first), expected);
                            if expected.is_some() {
                                run.iter().for_each(|number| { model.remove(number); });
                            }
                        }
                    }
                    2 => {
                        model.retain(|&number| number >= first);
                        ranges.cut_before(first);
                    }
                    _ => {
                        let known = (first..=first + length).filter(|&number| !model.insert(number)).count();
                        prop_assert_eq!(ranges.overlap(first, first + length), known as u64);
                        ranges.insert(first, first + length);
                    }
                }
                prop_assert_eq!(ranges.count(), model.len() as u64);
                prop_assert!((0..90).all(|number| ranges.contains(number) == model.contains(&number)));
                let pieces: Vec<_> = ranges.iter().collect();
                prop_assert!(pieces.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{:?}", pieces);
            }
        }
    }
}
