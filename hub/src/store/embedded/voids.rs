//! Events that a power cut left behind out of a commit that never finished.
//!
//! Such a commit may survive in parts: what was written later may be there and what came before it not. Nobody was told
//! that any of it was stored. To keep what is behind the gap would make the high-water mark of its sender claim the
//! events in the gap, whose resend would then be taken for a repetition, and be lost. So the log ends at the gap: the
//! records behind it are void. The journal keeps the list, as notes.

use bytes::Bytes;
use whimbrel::journal::{Lsn, Recovery};

/// First and last numbers of the stretches that are void, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Voids(Vec<(Lsn, Lsn)>);

impl Voids {
    /// What the journal kept.
    pub(super) fn restore(found: &Recovery) -> Self {
        let mut voids = Self::default();
        for bytes in found.snapshot.iter().chain(&found.notes) {
            voids.read(bytes);
        }
        voids
    }

    fn read(&mut self, bytes: &Bytes) {
        let mut numbers =
            bytes.chunks_exact(8).filter_map(|chunk| chunk.try_into().ok()).map(u64::from_le_bytes);
        while let (Some(first), Some(last)) = (numbers.next(), numbers.next()) {
            self.add(first, last);
        }
    }

    /// Adds a stretch at the end.
    pub(super) fn add(&mut self, first: Lsn, last: Lsn) {
        self.0.push((first, last));
    }

    /// As a snapshot: two numbers of 8 bytes, little-endian, for each stretch that is not trimmed entirely.
    pub(super) fn write(&self, trimmed_before: Lsn, out: &mut Vec<u8>) {
        for (first, last) in self.0.iter().filter(|(_, last)| *last >= trimmed_before) {
            out.extend(first.to_le_bytes());
            out.extend(last.to_le_bytes());
        }
    }

    /// Whether the record is void.
    pub(super) fn contain(&self, lsn: Lsn) -> bool {
        let index = self.0.partition_point(|(_, last)| *last < lsn);
        self.0.get(index).is_some_and(|(first, _)| *first <= lsn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut voids = Voids::default();
        voids.add(5, 9);
        voids.add(20, 20);
        let void: Vec<Lsn> = (0..30).filter(|lsn| voids.contain(*lsn)).collect();
        assert_eq!(void, [5, 6, 7, 8, 9, 20]);
        let mut bytes = Vec::new();
        voids.write(9, &mut bytes);
        let mut read = Voids::default();
        read.read(&bytes.into());
        assert_eq!(read, voids);
        let mut bytes = Vec::new();
        voids.write(10, &mut bytes);
        assert_eq!(bytes.len(), 16);
    }
}
