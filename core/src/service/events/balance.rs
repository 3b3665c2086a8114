//! Which partitions a reader should take, seen from one reader. Pure.
//!
//! Every reader of a group looks at the same table of owners and decides alone. What makes it safe is the store's
//! compare-and-swap: of two readers that want the same partition one gets it. What makes it settle is that a partition
//! moves only where that brings the shares closer together, so a table whose shares differ by at most one is left alone.

use std::collections::BTreeMap;

use crate::delivery::Jitter;

/// A partition and its owner, if it has one whose time is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen<'a> {
    pub(super) partition: u32,
    pub(super) owner: Option<&'a str>,
}

/// What a reader should try to take now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Moves {
    /// Partitions that belong to nobody.
    pub(super) free: Vec<u32>,
    /// Partitions of readers that have more than their share.
    pub(super) steal: Vec<u32>,
}

impl Moves {
    pub(super) fn is_empty(&self) -> bool {
        self.free.is_empty() && self.steal.is_empty()
    }
}

/// What `me` should try to take. `jitter` keeps readers that start together from all wanting the same.
pub(super) fn moves(me: &str, seen: &[Seen<'_>], jitter: &mut Jitter) -> Moves {
    let mut owned: BTreeMap<&str, Vec<u32>> = BTreeMap::from([(me, Vec::new())]);
    let mut free = Vec::new();
    for Seen { partition, owner } in seen {
        match owner {
            Some(owner) => owned.entry(owner).or_default().push(*partition),
            None => free.push(*partition),
        }
    }
    let readers = owned.len();
    let (least, most) = (seen.len() / readers, seen.len().div_ceil(readers));
    let mut mine = owned.remove(me).map_or(0, |partitions| partitions.len());

    shuffle(&mut free, jitter);
    free.truncate(most.saturating_sub(mine));
    mine += free.len();

    // Half of what is missing at a time: another newcomer, not to be seen yet, may be taking the other half.
    let wanted = match least.saturating_sub(mine) {
        0 => usize::from(mine < most),
        missing => missing.div_ceil(2),
    };
    let mut steal = Vec::new();
    for _ in 0..wanted {
        let share = if mine < least { least } else { most };
        let richest = owned.values_mut().max_by_key(|partitions| partitions.len());
        let Some(from) = richest.filter(|partitions| partitions.len() > share) else { break };
        steal.push(from.swap_remove(jitter.index(from.len())));
        mine += 1;
    }
    Moves { free, steal }
}

/// Fisher and Yates.
fn shuffle(partitions: &mut [u32], jitter: &mut Jitter) {
    for end in (1..partitions.len()).rev() {
        partitions.swap(end, jitter.index(end + 1));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The store: owner, etag and the round in which the ownership ends.
    #[derive(Clone, Default)]
    struct Row {
        owner: Option<usize>,
        etag: u64,
        ends: u64,
    }

    struct Group {
        rows: Vec<Row>,
        round: u64,
        jitter: Jitter,
        taken: usize,
    }

    /// Ownerships last so many rounds.
    const LASTS: u64 = 3;

    impl Group {
        fn new(partitions: usize, seed: u64) -> Self {
            Self { rows: vec![Row::default(); partitions], round: 0, jitter: Jitter::new(seed), taken: 0 }
        }

        /// What a reader would do, from the table as it is now.
        fn look(&mut self, reader: usize) -> Vec<(usize, u64)> {
            let names: Vec<String> = self
                .rows
                .iter()
                .map(|row| row.owner.map(|owner| format!("r{owner}")).unwrap_or_default())
                .collect();
            let seen: Vec<Seen<'_>> = self
                .rows
                .iter()
                .enumerate()
                .map(|(partition, row)| Seen {
                    partition: partition as u32,
                    owner: (row.owner.is_some() && row.ends > self.round)
                        .then_some(names[partition].as_str()),
                })
                .collect();
            let moves = moves(&format!("r{reader}"), &seen, &mut self.jitter);
            let wanted = moves.free.iter().chain(&moves.steal);
            wanted.map(|partition| (*partition as usize, self.rows[*partition as usize].etag)).collect()
        }

        /// Compare and swap.
        fn claim(&mut self, reader: usize, (partition, etag): (usize, u64)) {
            let ends = self.round + LASTS;
            let row = &mut self.rows[partition];
            if row.etag == etag {
                *row = Row { owner: Some(reader), etag: etag + 1, ends };
                self.taken += 1;
            }
        }

        /// One round: all readers that live renew and look in the order given; then what they decided is done, mixed.
        fn round(&mut self, order: &[usize]) {
            self.round += 1;
            let ends = self.round + LASTS;
            for row in &mut self.rows {
                if row.owner.is_some_and(|owner| order.contains(&owner)) && row.ends >= self.round {
                    row.ends = ends;
                    row.etag += 1;
                }
            }
            let mut wanted: Vec<(usize, (usize, u64))> = Vec::new();
            for (place, reader) in order.iter().enumerate() {
                let looked = self.look(*reader);
                wanted.extend(looked.into_iter().map(|claim| (*reader, claim)));
                // Every other reader acts before the next one looks.
                if place % 2 == 0 {
                    wanted.drain(..).for_each(|(reader, claim)| self.claim(reader, claim));
                }
            }
            while !wanted.is_empty() {
                let (reader, claim) = wanted.swap_remove(self.jitter.index(wanted.len()));
                self.claim(reader, claim);
            }
        }

        fn shares(&self, readers: &[usize]) -> Vec<usize> {
            readers
                .iter()
                .map(|reader| {
                    self.rows.iter().filter(|row| row.owner == Some(*reader) && row.ends > self.round).count()
                })
                .collect()
        }
    }

    proptest! {
        /// Readers come and go; once they stay, every partition has an owner among them, shares differ by at most one
        /// (also when there are more readers than partitions), and nothing moves any more.
        #[test]
        fn shares_even_out_and_stay(
            partitions in 1usize..33,
            changes in prop::collection::vec((any::<bool>(), 0usize..8, 1usize..4), 1..12),
            seed: u64,
        ) {
            let mut group = Group::new(partitions, seed);
            let mut readers: Vec<usize> = vec![0];
            let mut next = 1;
            for (comes, which, rounds) in changes {
                if comes || readers.len() == 1 {
                    readers.push(next);
                    next += 1;
                } else {
                    readers.remove(which % readers.len());
                }
                for round in 0..rounds {
                    let turn = round % readers.len();
                    readers.rotate_left(turn);
                    group.round(&readers);
                }
            }
            for _ in 0..LASTS + 24 {
                readers.rotate_left(1);
                group.round(&readers);
            }
            let shares = group.shares(&readers);
            prop_assert_eq!(shares.iter().sum::<usize>(), partitions, "{:?}", shares);
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            prop_assert!(most - least <= 1, "{:?}", shares);
            let taken = group.taken;
            for _ in 0..20 {
                readers.rotate_left(1);
                group.round(&readers);
            }
            prop_assert_eq!(group.taken, taken, "something moved although the shares were even");
        }
    }

    #[test]
    fn one_reader_takes_all_and_a_second_one_gets_half() {
        let mut jitter = Jitter::new(1);
        let alone: Vec<Seen<'_>> = (0..4).map(|partition| Seen { partition, owner: None }).collect();
        let mut all = moves("a", &alone, &mut jitter).free;
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3]);
        let taken: Vec<Seen<'_>> = (0..4).map(|partition| Seen { partition, owner: Some("a") }).collect();
        assert!(moves("a", &taken, &mut jitter).is_empty());
        assert_eq!(moves("b", &taken, &mut jitter).steal.len(), 1, "half of the two that are missing");
    }

    #[test]
    fn a_reader_that_is_too_many_takes_nothing() {
        let owners = ["a", "b", "c"];
        let seen: Vec<Seen<'_>> =
            (0..3).map(|partition| Seen { partition, owner: Some(owners[partition as usize]) }).collect();
        assert!(moves("d", &seen, &mut Jitter::new(3)).is_empty());
    }

    #[test]
    fn without_partitions_there_is_nothing_to_do() {
        assert!(moves("a", &[], &mut Jitter::new(3)).is_empty());
    }
}
