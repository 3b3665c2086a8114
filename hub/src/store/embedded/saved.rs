//! What is known of the event log, as it is saved: opening reads the log from there on only.

use whimbrel::journal::Lsn;

use super::{
    log::{Partition, State},
    points::{Point, Points},
};

const VERSION: u64 = 1;

/// The state of the log as of one record.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Saved {
    pub(super) next: Lsn,
    pub(super) clock_ms: u64,
    pub(super) bytes: u64,
    pub(super) partitions: Vec<Partition>,
    pub(super) points: Points,
}

impl Saved {
    /// A log without events.
    pub(super) fn empty(partitions: usize) -> Self {
        let first = Point { lsn: 1, time_ms: 0, bytes: 0, next: vec![0; partitions].into() };
        Self {
            next: 1,
            clock_ms: 0,
            bytes: 0,
            partitions: vec![Partition::default(); partitions],
            points: Points::new(first),
        }
    }

    /// As it is now.
    pub(super) fn of(state: &State) -> Self {
        Self {
            next: state.next,
            clock_ms: state.clock_ms,
            bytes: state.bytes,
            partitions: state.partitions.iter().map(|part| Partition { ticket: None, ..*part }).collect(),
            points: state.points.clone(),
        }
    }

    /// As numbers of 8 bytes, little-endian: version, partitions, next, clock, bytes; per partition next, last, its time;
    /// number of points; per point its record, time, bytes, and per partition next.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut numbers = vec![VERSION, self.partitions.len() as u64, self.next, self.clock_ms, self.bytes];
        for partition in &self.partitions {
            numbers.extend([partition.next, partition.last, partition.last_ms]);
        }
        numbers.push(1 + self.points.later().len() as u64);
        for point in std::iter::once(self.points.first()).chain(self.points.later()) {
            numbers.extend([point.lsn, point.time_ms, point.bytes]);
            numbers.extend(&point.next);
        }
        numbers.into_iter().flat_map(u64::to_le_bytes).collect()
    }

    /// Reads what [`Saved::encode`] wrote; `None` when it is something else.
    pub(super) fn decode(bytes: &[u8], partitions: usize) -> Option<Self> {
        let mut numbers =
            bytes.chunks_exact(8).filter_map(|chunk| chunk.try_into().ok()).map(u64::from_le_bytes);
        let mut next = || numbers.next();
        if next()? != VERSION || next()? != partitions as u64 {
            return None;
        }
        let mut saved = Self { next: next()?, clock_ms: next()?, bytes: next()?, ..Self::empty(partitions) };
        for partition in &mut saved.partitions {
            *partition = Partition { next: next()?, last: next()?, last_ms: next()?, ticket: None };
        }
        let count = next()?;
        for index in 0..count {
            let (lsn, time_ms, bytes) = (next()?, next()?, next()?);
            let sequences: Option<Box<[u64]>> = (0..partitions).map(|_| next()).collect();
            let point = Point { lsn, time_ms, bytes, next: sequences? };
            if index == 0 {
                saved.points = Points::new(point);
            } else {
                saved.points.push(point);
            }
        }
        Some(saved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved() -> Saved {
        let point = |index: u64| Point { lsn: index, time_ms: 7, bytes: 8, next: [index, 9].into() };
        let mut points = Points::new(point(3));
        points.push(point(5));
        points.push(point(6));
        let part = |next| Partition { next, last: 10, last_ms: 11, ticket: None };
        Saved { next: 12, clock_ms: 13, bytes: 14, partitions: vec![part(15), part(16)], points }
    }

    #[test]
    fn what_is_saved_is_read() {
        assert_eq!(Saved::decode(&saved().encode(), 2), Some(saved()));
        let empty = Saved::empty(32);
        assert_eq!(Saved::decode(&empty.encode(), 32), Some(empty));
    }

    #[test]
    fn anything_else_is_not() {
        let bytes = saved().encode();
        assert_eq!(Saved::decode(&bytes, 3), None);
        for end in 0..bytes.len() {
            assert_eq!(Saved::decode(&bytes[..end], 2), None, "cut at {end}");
        }
        let mut newer = bytes;
        newer[0] += 1;
        assert_eq!(Saved::decode(&newer, 2), None);
    }
}
