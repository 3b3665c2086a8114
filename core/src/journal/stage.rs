//! Appending: records are laid out, numbered and summed in memory, exactly as they will be on the disk.

use std::sync::Arc;

use super::{
    Appended, DiskFile, Kind, Lsn, Record, Ticket, Urgency,
    prepare::Next,
    record::{self, Tag},
    segment::{Header, PAGE, Segment, block},
    state::{Current, Shared, State},
};
use crate::{Error, ErrorKind, Result};

/// Lazy records are committed when so many bytes wait.
const LAZY_BYTES: usize = 256 * 1024;
/// An append waits for the disk when so many bytes wait already: who does not wait for its tickets must not fill the
/// memory.
const MAX_STAGED: usize = 16 * 1024 * 1024;
/// Kept free at the end of each segment, so that trimming can be recorded, and space be won, on a full disk.
const RESERVE: u64 = 512;
/// Bytes of a trim record's payload.
const TRIM: usize = 8;
/// Buffers larger than this are not kept between commits.
const KEPT_BUFFER: usize = 512 * 1024;

/// What one commit writes.
#[derive(Default)]
pub(super) struct Group {
    pub(super) bytes: Vec<u8>,
    pub(super) pieces: Vec<Piece>,
    /// Data records, notes and trims up to here are in it.
    pub(super) ticket: u64,
    pub(super) last: Lsn,
    pub(super) trimmed: Lsn,
    /// Segment and offset where it ends.
    pub(super) end: (u64, u64),
}

/// Bytes of a group that go to one place; they end where the next piece starts.
pub(super) struct Piece {
    pub(super) segment: Arc<Segment>,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) offset: u64,
    /// Where it starts in the group's bytes.
    pub(super) from: usize,
}

impl Group {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whole pages are written, so that none has to be read for it, and zeros follow the last record.
    fn fill_page(&mut self) {
        if let Some(piece) = self.pieces.last() {
            let end = piece.offset + (self.bytes.len() - piece.from) as u64;
            let padding = end.next_multiple_of(PAGE) - end;
            self.bytes.resize(self.bytes.len() + padding as usize, 0);
        }
    }

    /// Empties it for the next use.
    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.bytes.clear();
        if self.bytes.capacity() > KEPT_BUFFER {
            self.bytes = Vec::new();
        }
    }
}

impl Shared {
    /// Most bytes the records of one batch may take, framing included.
    pub(super) fn batch_limit(&self) -> u64 {
        self.options.segment_bytes - 2 * PAGE - RESERVE
    }

    pub(super) fn append(
        self: &Arc<Self>,
        records: &[Record<'_>],
        urgency: Urgency,
        snapshot: &mut dyn FnMut(&mut Vec<u8>),
    ) -> Result<Appended> {
        const OPERATION: &str = "journal.append";
        let len = |record: &Record<'_>| record.parts.iter().map(|part| part.len()).sum::<usize>();
        let bytes: u64 = records.iter().map(|record| record::framed(len(record))).sum();
        if bytes > self.batch_limit() {
            return Err(Error::new(
                ErrorKind::PayloadTooLarge,
                OPERATION,
                "the records do not fit into one segment of the journal",
            )
            .with("bytes", bytes)
            .with("limit", self.batch_limit()));
        }
        let mut taken: Option<Vec<u8>> = None;
        let mut state = self.state();
        loop {
            state.check(self, OPERATION)?;
            if state.closed {
                return Err(Error::new(ErrorKind::Closed, OPERATION, "the journal was closed"));
            }
            if state.staged.bytes.len() >= MAX_STAGED {
                state = self.hold_back(state);
                continue;
            }
            if records.is_empty() || state.fits(bytes) {
                break;
            }
            let snapshot = taken.get_or_insert_with(|| {
                let mut taken = Vec::new();
                snapshot(&mut taken);
                taken
            });
            let needed = 2 * block(snapshot.len()) + bytes + RESERVE;
            if matches!(&state.next_segment, Next::Reserved(next) if next.segment.size >= needed) {
                state.roll(snapshot, OPERATION)?;
                break;
            }
            state = self
                .demand_segment(state, needed)
                .map_err(|failure| failure.passing(OPERATION, &self.journal()))?;
        }
        let first = state.next;
        let mut payload = 0;
        for record in records {
            payload += len(record) as u64;
            state.stage(Tag::from(record.kind), record.parts);
            if record.kind == Kind::Data {
                state.next += 1;
            }
        }
        state.stats.appended_bytes += payload;
        state.ticket += 1;
        let ticket = state.ticket;
        if urgency == Urgency::Now || state.staged.bytes.len() >= LAZY_BYTES {
            state.wanted = ticket;
        }
        state.think_ahead(&self.options);
        self.see_to_it(state);
        Ok(Appended { first, ticket: Ticket(ticket) })
    }

    pub(super) fn trim(self: &Arc<Self>, up_to: Lsn) -> Result<()> {
        let mut state = self.state();
        state.check(self, "journal.trim")?;
        if state.closed {
            return Err(Error::new(ErrorKind::Closed, "journal.trim", "the journal was closed"));
        }
        let up_to = up_to.min(state.next - 1);
        if up_to <= state.trimmed {
            return Ok(());
        }
        state.trimmed = up_to;
        self.first.store(up_to + 1, std::sync::atomic::Ordering::Release);
        state.ticket += 1;
        if matches!(state.next_segment, Next::Failed(_)) {
            state.wanted = state.ticket; // the space is needed
        }
        self.see_to_it(state);
        Ok(())
    }
}

impl State {
    fn fits(&self, bytes: u64) -> bool {
        !self.must_roll
            && self.current.as_ref().is_some_and(|current| current.at + bytes + RESERVE <= current.limit)
    }

    /// Lays out one record behind the last one. There is room for it.
    fn stage(&mut self, tag: Tag, parts: &[&[u8]]) {
        let Some(current) = &mut self.current else { return };
        let group = &mut self.staged;
        let opens_commit = group.bytes.is_empty();
        if opens_commit {
            group.pieces.push(Piece {
                segment: current.segment.clone(),
                file: current.file.clone(),
                offset: current.at,
                from: 0,
            });
        }
        let before = group.bytes.len();
        record::encode(&mut group.bytes, current.salt, tag, opens_commit, self.next, parts);
        if tag == Tag::Data && current.at >= current.index_at {
            current.index_at = current.segment.note(self.next, current.at);
        }
        current.at += (group.bytes.len() - before) as u64;
    }

    /// Goes on in the segment that was prepared. Its header is part of the group.
    fn roll(&mut self, snapshot: &[u8], operation: &'static str) -> Result<()> {
        let salt = getrandom::u64().map_err(|error| {
            Error::new(ErrorKind::Internal, operation, "no random numbers from the system").caused_by(error)
        })?;
        let Next::Reserved(next) = std::mem::replace(&mut self.next_segment, Next::Idle) else {
            return Ok(());
        };
        if let Some(current) = &self.current {
            current.segment.seal(current.at);
        }
        let header = Header::new(next.segment.number, salt, self.next, self.trimmed, snapshot);
        next.segment.set_header(Some(header));
        let group = &mut self.staged;
        group.fill_page();
        let limit = next.segment.size - header.block();
        let piece =
            |offset, from| Piece { segment: next.segment.clone(), file: next.file.clone(), offset, from };
        group.pieces.push(piece(limit, group.bytes.len()));
        header.encode_last(snapshot, &mut group.bytes);
        group.pieces.push(piece(0, group.bytes.len()));
        header.encode_first(snapshot, &mut group.bytes);
        self.trim_staged = self.trimmed;
        self.must_roll = false;
        self.segments.push_back(next.segment.clone());
        self.current = Some(Current {
            segment: next.segment,
            file: next.file,
            salt,
            at: header.block(),
            limit,
            index_at: 0,
        });
        Ok(())
    }

    /// Takes what is staged, with the newest trim, for a commit.
    pub(super) fn take_group(&mut self) -> Group {
        let room =
            self.current.as_ref().is_some_and(|current| current.at + record::framed(TRIM) <= current.limit);
        if self.trim_staged < self.trimmed && room {
            self.stage(Tag::Trim, &[&self.trimmed.to_le_bytes()]);
            self.trim_staged = self.trimmed;
        }
        let mut group = std::mem::replace(&mut self.staged, self.spare.take().unwrap_or_default());
        group.fill_page();
        group.ticket = self.ticket;
        group.last = self.next - 1;
        group.trimmed = self.trim_staged;
        group.end = self.current.as_ref().map_or((0, 0), |current| (current.segment.number, current.at));
        group
    }

    /// The bytes between the first record that is not trimmed and the end, as far as known without reading.
    pub(super) fn live_bytes(&self) -> u64 {
        let end = self.current.as_ref().map_or(0, |current| current.at);
        let mut segments = self.segments.iter().rev();
        let Some(newest) = segments.next() else { return 0 };
        let mut live = 0;
        let mut to = end;
        let mut segment = newest;
        loop {
            let header = segment.known_header();
            let from = header.map_or(0, |header| header.block());
            if header.is_some_and(|header| header.first <= self.trimmed + 1) {
                let offset = segment.seek(self.trimmed + 1).map_or(from, |(_, offset)| offset);
                let offset = if self.trimmed + 1 == self.next { to } else { offset };
                return live + to.saturating_sub(offset);
            }
            live += to.saturating_sub(from);
            match segments.next() {
                Some(older) => {
                    segment = older;
                    to = older.end();
                }
                None => return live,
            }
        }
    }
}
