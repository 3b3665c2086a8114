//! Reads the records of one segment in order, and finds the next good one behind damage.

use std::{io, ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};

use super::{
    DiskFile, Lsn,
    disk::read_exact,
    record::{ALIGN, HEAD, Head},
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
}

impl Scan {
    /// Reads from `at`, where the next data record should be `next`.
    pub(super) fn new(file: Arc<dyn DiskFile>, salt: u64, at: u64, next: Lsn) -> Self {
        Self { window: Window { file, start: 0, bytes: Bytes::new() }, salt, at, next }
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
        if let Some(head) = self.good(at, limit, |head, next| head.number >= next)? {
            return Ok(Found::Record(head, at));
        }
        // Between here and a record at `offset` at most so many data records can have been.
        let mut offset = at + ALIGN;
        while offset + HEAD as u64 <= limit {
            let room = (offset - at) / HEAD as u64;
            if self.good(offset, limit, |head, next| (next..=next + room).contains(&head.number))?.is_some() {
                self.at = offset;
                return Ok(Found::Damaged(at..offset));
            }
            offset += ALIGN;
        }
        Ok(Found::End(at))
    }

    /// The record at `offset`, if it is a good one.
    fn good(
        &mut self,
        offset: u64,
        limit: u64,
        plausible: impl Fn(&Head, Lsn) -> bool,
    ) -> io::Result<Option<Head>> {
        if offset + HEAD as u64 > limit {
            return Ok(None);
        }
        let (salt, next) = (self.salt, self.next);
        let Some(head) = Head::decode(self.window.get(offset, HEAD, limit)?, salt) else { return Ok(None) };
        if !plausible(&head, next) || offset + head.framed() > limit {
            return Ok(None);
        }
        let record = self.window.get(offset, HEAD + head.len, limit)?;
        Ok(head.verify(record, salt).then_some(head))
    }

    /// Steps over the record that [`Scan::peek`] found.
    pub(super) fn skip(&mut self, head: &Head) {
        self.at += head.framed();
        self.next = match head.tag {
            super::record::Tag::Data => head.number + 1,
            _ => head.number,
        };
    }

    /// Steps over the record that [`Scan::peek`] found, and returns its payload.
    pub(super) fn take(&mut self, head: &Head) -> Bytes {
        let range = self.window.range(self.at + HEAD as u64, head.len);
        self.skip(head);
        range.map_or_else(Bytes::new, |range| self.window.bytes.slice(range))
    }

    /// Whether something that was begun as a record, or anything but zeros up to the end of the page, is behind the
    /// last good record: how many bytes were cut off.
    pub(super) fn torn_bytes(&mut self, limit: u64) -> io::Result<u64> {
        let end = self.at;
        let page_end = end.next_multiple_of(super::segment::PAGE).min(limit);
        let mut torn = end;
        let rest = self.window.get(end, (page_end - end) as usize, limit)?;
        if let Some(last) = rest.iter().rposition(|byte| *byte != 0) {
            torn = end + last as u64 + 1;
        }
        let mut offset = end;
        while offset + HEAD as u64 <= limit {
            let room = (offset - end) / HEAD as u64;
            let salt = self.salt;
            let head = Head::decode(self.window.get(offset, HEAD, limit)?, salt);
            if let Some(head) = head.filter(|head| (self.next..=self.next + room).contains(&head.number)) {
                torn = torn.max((offset + head.framed()).min(limit));
            }
            offset += ALIGN;
        }
        Ok(torn - end)
    }
}
