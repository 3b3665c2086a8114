//! When messages end whose time to live is known, the first to end first. Bounded: messages that find it full end when
//! they are reached.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::{Sequence, handed::Handed};

/// Most messages watched in a lane.
const LIMIT: usize = 2_048;

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    watched: BinaryHeap<Reverse<Watched>>,
    /// Their time came while they were on their way: the hub decides, unless the link breaks first.
    overtaken: Vec<Watched>,
    /// How many messages ended, for whatever reason, since they were last forgotten here.
    ended: usize,
}

/// A message and when it ends, in milliseconds of the run clock.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) deadline: u64,
    pub(super) sequence: Sequence,
    pub(super) handed: Handed,
}

impl Deadlines {
    pub(super) fn watch(&mut self, deadline: u64, sequence: Sequence, handed: Handed) {
        if self.watched.len() < LIMIT {
            self.watched.push(Reverse(Watched { deadline, sequence, handed }));
        }
    }

    /// When the next one ends.
    pub(super) fn next(&self) -> Option<u64> {
        self.watched.peek().map(|Reverse(watched)| watched.deadline)
    }

    /// The next one that has ended.
    pub(super) fn take_due(&mut self, now_ms: u64) -> Option<Watched> {
        let due = self.next().is_some_and(|deadline| deadline <= now_ms);
        due.then(|| self.watched.pop().map(|Reverse(watched)| watched)).flatten()
    }

    /// Keeps what came due on its way.
    pub(super) fn set_aside(&mut self, watched: Watched) {
        if self.overtaken.len() < LIMIT {
            self.overtaken.push(watched);
        }
    }

    /// The link broke: what was on its way is waiting again.
    pub(super) fn bring_back(&mut self) {
        let overtaken = std::mem::take(&mut self.overtaken);
        self.watched.extend(overtaken.into_iter().map(Reverse));
    }

    /// Told that `count` messages have ended, forgets them from time to time.
    pub(super) fn ended(&mut self, count: usize, is_queued: impl Fn(Sequence) -> bool) {
        self.ended += count;
        if self.ended >= LIMIT / 2 {
            self.ended = 0;
            self.watched.retain(|Reverse(watched)| is_queued(watched.sequence));
            self.overtaken.retain(|watched| is_queued(watched.sequence));
        }
    }
}

impl PartialEq for Watched {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Watched {}

impl PartialOrd for Watched {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Watched {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.deadline, self.sequence).cmp(&(other.deadline, other.sequence))
    }
}
