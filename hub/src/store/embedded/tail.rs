//! The newest events, in memory, so that readers at the end need no disk. Bounded by bytes.

use std::collections::VecDeque;

use bytes::Bytes;
use whimbrel::journal::Lsn;

/// What a run costs besides its records.
const OVERHEAD: usize = 96;

/// Events of one partition that were appended together: consecutive in the journal and in the partition.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// The first event's number.
    pub(super) first: Lsn,
    /// The last event's number.
    pub(super) last: Lsn,
    /// Per event its length in 4 bytes, little-endian, and its record.
    pub(super) records: Bytes,
}

impl Run {
    /// Numbers and records, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Lsn, Bytes)> + '_ {
        let mut at = 0;
        (self.first..=self.last).map_while(move |lsn| {
            let length = self.records.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)? as usize;
            let record = at + 4..at + 4 + length;
            at = record.end;
            (record.end <= self.records.len()).then(|| (lsn, self.records.slice(record)))
        })
    }

    fn cost(&self) -> usize {
        self.records.len() + OVERHEAD
    }
}

pub(super) struct Tail {
    limit: usize,
    bytes: usize,
    partitions: Vec<Part>,
    /// Partitions of the runs, in the order they came: the oldest run goes first.
    order: VecDeque<usize>,
}

struct Part {
    runs: VecDeque<Run>,
    /// All events of the partition from this number on are here.
    from: Lsn,
}

impl Tail {
    /// Keeps `limit` bytes of what comes from `next` on.
    pub(super) fn new(limit: usize, partitions: usize, next: Lsn) -> Self {
        let part = || Part { runs: VecDeque::new(), from: next };
        Self {
            limit,
            bytes: 0,
            partitions: std::iter::repeat_with(part).take(partitions).collect(),
            order: VecDeque::new(),
        }
    }

    /// Adds events that were appended last.
    pub(super) fn push(&mut self, partition: usize, run: Run) {
        let Some(part) = self.partitions.get_mut(partition) else { return };
        self.bytes += run.cost();
        part.runs.push_back(run);
        self.order.push_back(partition);
        while self.bytes > self.limit {
            let oldest = self.order.pop_front().and_then(|partition| self.partitions.get_mut(partition));
            let Some(part) = oldest else { return };
            if let Some(run) = part.runs.pop_front() {
                part.from = run.last + 1;
                self.bytes -= run.cost();
            }
        }
    }

    /// Runs of a partition with events from `from` on, in order; `None` when some of them are no longer here.
    pub(super) fn runs(&self, partition: usize, from: Lsn) -> Option<impl Iterator<Item = &Run>> {
        let part = self.partitions.get(partition)?;
        if from < part.from {
            return None;
        }
        let start = part.runs.partition_point(|run| run.last < from);
        Some(part.runs.range(start..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first: Lsn, records: &[&[u8]]) -> Run {
        let mut bytes = Vec::new();
        for record in records {
            bytes.extend((record.len() as u32).to_le_bytes());
            bytes.extend_from_slice(record);
        }
        Run { first, last: first + records.len() as u64 - 1, records: bytes.into() }
    }

    fn lsns(tail: &Tail, partition: usize, from: Lsn) -> Option<Vec<Lsn>> {
        tail.runs(partition, from).map(|runs| runs.flat_map(|run| run.first..=run.last).collect())
    }

    #[test]
    fn a_run_is_its_records() {
        let run = run(7, &[b"a", b"", b"long"]);
        let records: Vec<_> = run.iter().collect();
        assert_eq!(records, [(7, "a".into()), (8, "".into()), (9, "long".into())]);
        let cut = Run { records: run.records.slice(..run.records.len() - 1), ..run };
        assert_eq!(cut.iter().count(), 2);
    }

    #[test]
    fn the_oldest_goes_first_and_what_is_missing_is_known() {
        let cost = run(1, &[&[0; 100]]).cost();
        let mut tail = Tail::new(3 * cost, 2, 10);
        assert_eq!(lsns(&tail, 0, 9), None);
        assert_eq!(lsns(&tail, 0, 10), Some(vec![]));
        for (lsn, partition) in [(10, 0), (11, 1), (12, 0)] {
            tail.push(partition, run(lsn, &[&[0; 100]]));
        }
        assert_eq!(lsns(&tail, 0, 10), Some(vec![10, 12]));
        assert_eq!(lsns(&tail, 0, 11), Some(vec![12]));
        assert_eq!(lsns(&tail, 1, 10), Some(vec![11]));
        tail.push(1, run(13, &[&[0; 100]]));
        assert_eq!(lsns(&tail, 0, 10), None);
        assert_eq!(lsns(&tail, 0, 11), Some(vec![12]));
        assert_eq!(lsns(&tail, 1, 10), Some(vec![11, 13]));
        // One that is larger than everything leaves nothing behind, and nothing wrong.
        tail.push(0, run(14, &[&[0; 1_000]]));
        assert_eq!(tail.bytes, 0);
        assert_eq!(lsns(&tail, 0, 14), None);
        assert_eq!(lsns(&tail, 0, 15), Some(vec![]));
        assert_eq!(lsns(&tail, 1, 13), None);
    }
}
