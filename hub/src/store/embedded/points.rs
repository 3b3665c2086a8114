//! The sparse index of the event log: what lay before some of its records. It finds where to start reading and what to
//! trim, and stays small however large the log is.

use whimbrel::journal::Lsn;

/// Points kept; beyond it every other one goes.
const LIMIT: usize = 4_096;
/// Least bytes between two points.
const LEAST_STRIDE: u64 = 256 << 10;

/// Sums over all events before a record.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Point {
    /// The record. Every event before it has a smaller number.
    pub(super) lsn: Lsn,
    /// When the newest event before it was taken in; milliseconds since 1970.
    pub(super) time_ms: u64,
    /// Bytes of all events before it, ever.
    pub(super) bytes: u64,
    /// Per partition, sequence number of its first event from here on.
    pub(super) next: Box<[u64]>,
}

/// Points in order; the first one is the beginning of the log.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Points {
    first: Point,
    later: Vec<Point>,
}

impl Points {
    /// A log that begins here.
    pub(super) fn new(first: Point) -> Self {
        Self { first, later: Vec::new() }
    }

    /// The beginning of the log.
    pub(super) fn first(&self) -> &Point {
        &self.first
    }

    /// The newest point.
    pub(super) fn last(&self) -> &Point {
        self.later.last().unwrap_or(&self.first)
    }

    /// All points after the first.
    pub(super) fn later(&self) -> &[Point] {
        &self.later
    }

    /// Whether enough lies between the last point and an end at `bytes` for another one.
    pub(super) fn is_due(&self, bytes: u64) -> bool {
        let kept = bytes.saturating_sub(self.first.bytes);
        let stride = LEAST_STRIDE.max(kept / (LIMIT as u64 / 2));
        bytes.saturating_sub(self.last().bytes) >= stride
    }

    /// Adds a point behind the last one.
    pub(super) fn push(&mut self, point: Point) {
        if point.lsn <= self.last().lsn {
            return;
        }
        self.later.push(point);
        if self.later.len() > LIMIT {
            let mut keep = false;
            self.later.retain(|_| {
                keep = !keep;
                keep
            });
        }
    }

    /// The last point before which all events of the partition have smaller sequence numbers.
    pub(super) fn before_sequence(&self, partition: usize, sequence: u64) -> &Point {
        self.last_where(|point| point.next.get(partition).is_some_and(|next| *next <= sequence))
    }

    /// The last point before which all events were taken in earlier.
    pub(super) fn before_time(&self, time_ms: u64) -> &Point {
        self.last_where(|point| point.time_ms < time_ms)
    }

    /// The first point behind which at most `bytes` lie, when the log ends at `end`.
    pub(super) fn within_bytes(&self, end: u64, bytes: u64) -> &Point {
        let over = |point: &Point| end.saturating_sub(point.bytes) > bytes;
        if !over(&self.first) {
            return &self.first;
        }
        let index = self.later.partition_point(over);
        self.later.get(index).unwrap_or(self.last())
    }

    /// Makes a point the first one. It has to be one of the list, or lie between two of them.
    pub(super) fn trim_to(&mut self, first: Point) {
        self.later.retain(|point| point.lsn > first.lsn);
        self.first = first;
    }

    /// Drops the points behind a log that ends before `end`.
    pub(super) fn cut(&mut self, end: Lsn) {
        self.later.retain(|point| point.lsn <= end);
    }

    fn last_where(&self, holds: impl Fn(&Point) -> bool) -> &Point {
        let count = self.later.partition_point(holds);
        count.checked_sub(1).and_then(|index| self.later.get(index)).unwrap_or(&self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(index: u64) -> Point {
        Point {
            lsn: 1 + index * 10,
            time_ms: index * 100,
            bytes: index << 20,
            next: [index * 4, index * 6].into(),
        }
    }

    fn points(count: u64) -> Points {
        let mut points = Points::new(point(0));
        (1..count).for_each(|index| points.push(point(index)));
        points
    }

    #[test]
    fn finds_the_last_point_before() {
        let points = points(100);
        assert_eq!(points.before_sequence(0, 0), &point(0));
        assert_eq!(points.before_sequence(0, 43), &point(10));
        assert_eq!(points.before_sequence(0, 44), &point(11));
        assert_eq!(points.before_sequence(1, 65), &point(10));
        assert_eq!(points.before_sequence(1, u64::MAX), &point(99));
        assert_eq!(points.before_time(0), &point(0));
        assert_eq!(points.before_time(1_000), &point(9));
        assert_eq!(points.before_time(1_001), &point(10));
        assert_eq!(points.before_time(u64::MAX), &point(99));
        let end = 100 << 20;
        assert_eq!(points.within_bytes(end, u64::MAX), &point(0));
        assert_eq!(points.within_bytes(end, 10 << 20), &point(90));
        assert_eq!(points.within_bytes(end, (10 << 20) - 1), &point(91));
        assert_eq!(points.within_bytes(end, 0), &point(99));
    }

    #[test]
    fn trimming_and_cutting() {
        let mut points = points(100);
        points.trim_to(point(40));
        assert_eq!(points.first(), &point(40));
        assert_eq!(points.before_sequence(0, 0), &point(40));
        points.cut(point(60).lsn);
        assert_eq!(points.last(), &point(60));
        points.push(point(50));
        assert_eq!(points.last(), &point(60), "never goes back");
        points.trim_to(point(70));
        assert_eq!(points.last(), &point(70));
    }

    #[test]
    fn stays_small_and_in_order() {
        let mut points = points(1);
        for index in 1..1_000_000 {
            if points.is_due(index << 14) {
                points.push(Point { bytes: index << 14, ..point(index) });
            }
        }
        assert!((1_000..=LIMIT).contains(&points.later().len()), "{}", points.later().len());
        assert!(points.later().is_sorted_by(|a, b| a.lsn < b.lsn && a.next[0] < b.next[0]));
        assert_eq!(points.first(), &point(0));
    }
}
