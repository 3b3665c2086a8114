//! Reads the records of one segment in order, and finds the next good one behind damage.

use std::{io, ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};

use super::{
    DiskFile, Lsn,
    disk::read_exact,
    record::{ALIGN, HEAD, Head, NUMBER_WORD, Tag, number_of},
    segment::PAGE,
};

/// Most bytes read at once, unless a record is larger.
const CHUNK: usize = 256 * 1024;

/// A part of a file in memory.
struct Window {
    file: Arc<dyn DiskFile>,
    /// Offset of `bytes` in the file.
    start: u64,
    bytes: Bytes,
}

impl Window {
    fn range(&self, offset: u64, len: usize) -> Option<Range<usize>> {
        let from = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        let to = from.checked_add(len)?;
        (to <= self.bytes.len()).then_some(from..to)
    }

    /// `len` bytes at `offset`, where `offset + len <= limit`; nothing at or behind `limit` is read.
    fn range_read(&mut self, offset: u64, len: usize, limit: u64) -> io::Result<Range<usize>> {
        if let Some(range) = self.range(offset, len) {
            return Ok(range);
        }
        let wanted = CHUNK.max(len).min(usize::try_from(limit.saturating_sub(offset)).unwrap_or(CHUNK));
        // The old chunk's memory is used again when no payload in it is alive any more.
        let mut buffer = std::mem::take(&mut self.bytes).try_into_mut().unwrap_or_default();
        if buffer.capacity() < wanted {
            buffer = BytesMut::zeroed(wanted);
        } else {
            buffer.resize(wanted, 0);
        }
        read_exact(&*self.file, offset, &mut buffer)?;
        self.start = offset;
        self.bytes = buffer.freeze();
        Ok(0..len)
    }

    fn get(&mut self, offset: u64, len: usize, limit: u64) -> io::Result<&[u8]> {
        let range = self.range_read(offset, len, limit)?;
        Ok(self.bytes.get(range).unwrap_or_default())
    }
}

/// What lies at a place in a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A record, at this offset.
    Record(Head, u64),
    /// Bytes that are no record; a good one is behind them.
    Damaged(Range<u64>),
    /// No further record, from this offset on.
    End(u64),
}

/// Reads forward from a record boundary.
pub(super) struct Scan {
    window: Window,
    salt: u64,
    at: u64,
    /// Number of the next data record when nothing is damaged.
    next: Lsn,
    /// How far the last thing reached that has the head of a record and is none.
    begun: u64,
}

impl Scan {
    /// Reads from `at`, where the next data record should be `next`.
    pub(super) fn new(file: Arc<dyn DiskFile>, salt: u64, at: u64, next: Lsn) -> Self {
        Self { window: Window { file, start: 0, bytes: Bytes::new() }, salt, at, next, begun: 0 }
    }

    /// Where the next record starts.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Gives the memory back.
    pub(super) fn release(&mut self) {
        self.window.bytes = Bytes::new();
    }

    /// What comes next in front of `limit`. Does not step over a record: [`Scan::skip`] or [`Scan::take`] does.
    pub(super) fn peek(&mut self, limit: u64) -> io::Result<Found> {
        let at = self.at;
        if let Some(head) = self.good(at, limit)? {
            return Ok(Found::Record(head, at));
        }
        let mut offset = at + ALIGN;
        while let Some(candidate) = self.candidate(offset, limit)? {
            if self.good(candidate, limit)?.is_some() {
                self.at = candidate;
                return Ok(Found::Damaged(at..candidate));
            }
            offset = candidate + ALIGN;
        }
        Ok(Found::End(at))
    }

    /// The record at `offset`, if it is a good one.
    fn good(&mut self, offset: u64, limit: u64) -> io::Result<Option<Head>> {
        if offset + HEAD as u64 > limit {
            return Ok(None);
        }
        let Some(head) = Head::decode(self.window.get(offset, HEAD, limit)?, self.salt) else {
            return Ok(None);
        };
        if head.number < self.next {
            return Ok(None);
        }
        let end = offset + head.framed();
        if end <= limit && head.verify(self.window.get(offset, HEAD + head.len, limit)?, self.salt) {
            return Ok(Some(head));
        }
        if head.number <= self.last_possible(offset) {
            self.begun = self.begun.max(end.min(limit));
        }
        Ok(None)
    }

    /// The greatest number a record at `offset` can have: between the last good record and that place, at most so many
    /// data records can have been.
    fn last_possible(&self, offset: u64) -> Lsn {
        self.next + (offset - self.at) / HEAD as u64
    }

    /// The first place from `offset` on that has a head with a possible number.
    fn candidate(&mut self, mut offset: u64, limit: u64) -> io::Result<Option<u64>> {
        let (salt, next) = (self.salt, self.next);
        while offset + HEAD as u64 <= limit {
            let count = (limit - offset).min(CHUNK as u64) / ALIGN * ALIGN;
            let behind = self.last_possible(offset + count);
            let bytes = self.window.get(offset, count as usize, limit)?;
            let words = bytes.as_chunks::<{ ALIGN as usize }>().0;
            let found = words.iter().skip(NUMBER_WORD).position(|word| {
                let word = u64::from_le_bytes(*word);
                number_of(word ^ salt).is_some_and(|number| (next..=behind).contains(&number))
            });
            if let Some(index) = found {
                return Ok(Some(offset + index as u64 * ALIGN));
            }
            offset += count - NUMBER_WORD as u64 * ALIGN;
        }
        Ok(None)
    }

    /// Steps over the record that [`Scan::peek`] found.
    pub(super) fn skip(&mut self, head: &Head) {
        self.at += head.framed();
        self.next = if head.tag == Tag::Data { head.number + 1 } else { head.number };
    }

    /// Steps over the record that [`Scan::peek`] found, and returns its payload.
    pub(super) fn take(&mut self, head: &Head) -> Bytes {
        let range = self.window.range(self.at + HEAD as u64, head.len);
        self.skip(head);
        range.map_or_else(Bytes::new, |range| self.window.bytes.slice(range))
    }

    /// When [`Scan::peek`] found the end: how many bytes behind the last good record are of writes that were not
    /// finished. Only zeros follow it up to the end of the page when there was none.
    pub(super) fn torn_bytes(&mut self, limit: u64) -> io::Result<u64> {
        let end = self.at;
        let page_end = end.next_multiple_of(PAGE).min(limit);
        let rest = self.window.get(end, (page_end - end) as usize, limit)?;
        let written = rest.iter().rposition(|byte| *byte != 0).map_or(end, |last| end + last as u64 + 1);
        Ok(written.max(self.begun) - end)
    }
}
