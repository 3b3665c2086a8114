//! Reading the log forward.

use std::{
    io,
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use super::{
    Damage, Journal, Lsn, Read,
    record::Tag,
    recover::set_aside,
    scan::{Found, Scan},
    segment::{self, Segment},
    state::{Shared, io_error},
};
use crate::{Error, ErrorKind, Result};

/// Reads forward. Keeps a read buffer only between calls that returned a record.
pub struct Reader {
    journal: Journal,
    place: Place,
}

struct Place {
    /// What the next call looks for.
    next: Lsn,
    /// Last durable record, as far as known.
    durable: Lsn,
    cursor: Option<Cursor>,
}

/// A place in a segment.
struct Cursor {
    segment: Arc<Segment>,
    scan: Scan,
    /// Where its durable records end, at the latest.
    limit: u64,
    /// Last durable data record in front of the next readable segment.
    last: Lsn,
    /// The next data record at or behind this offset goes into the index.
    index_at: u64,
}

impl Reader {
    pub(super) fn new(journal: Journal, from: Lsn) -> Self {
        Self { journal, place: Place { next: from, durable: 0, cursor: None } }
    }

    /// The next durable record, or `None` at the durable end (call again later). Records trimmed meanwhile are skipped.
    ///
    /// # Errors
    /// `JournalIo` when the disk cannot be read; `Closed`.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Read>> {
        self.place.next(self.journal.shared())
    }
}

impl Place {
    fn next(&mut self, shared: &Shared) -> Result<Option<Read>> {
        loop {
            if shared.released.load(Ordering::Acquire) {
                return Err(Error::new(ErrorKind::Closed, "journal.read", "the journal was closed"));
            }
            self.next = self.next.max(shared.first.load(Ordering::Acquire));
            if self.next > self.durable {
                self.durable = shared.state().durable.lsn;
                if self.next > self.durable {
                    if let Some(cursor) = &mut self.cursor {
                        cursor.scan.release();
                    }
                    return Ok(None);
                }
            }
            let step = self.step(shared);
            // What was trimmed meanwhile may have been overwritten: then it only looks damaged.
            let trimmed = |next: Lsn| next < shared.first.load(Ordering::Acquire);
            match step {
                Ok(Step::Record(read)) => return Ok(Some(read)),
                Ok(Step::On) => {}
                Ok(Step::Lost { range, last }) => {
                    if trimmed(self.next) {
                        self.cursor = None;
                    } else if let Some(damage) = self.lose(shared, range, last) {
                        return Ok(Some(Read::Damaged(damage)));
                    }
                }
                Err(error) => {
                    self.cursor = None;
                    if !trimmed(self.next) {
                        return Err(io_error(
                            "journal.read",
                            "reading the journal",
                            &shared.journal(),
                            error,
                        ));
                    }
                }
            }
        }
    }

    fn step(&mut self, shared: &Shared) -> io::Result<Step> {
        let here = match &mut self.cursor {
            Some(cursor) => self.next <= cursor.last || cursor.refresh(shared, self.next)?,
            None => false,
        };
        if !here {
            self.cursor = Cursor::find(shared, self.next)?;
        }
        let Some(cursor) = &mut self.cursor else {
            return Ok(Step::Lost { range: 0..0, last: self.durable });
        };
        match cursor.scan.peek(cursor.limit)? {
            Found::Record(head, _) if head.tag != Tag::Data || head.number < self.next => {
                cursor.scan.skip(&head);
                Ok(Step::On)
            }
            Found::Record(head, at) if head.number == self.next => {
                if at >= cursor.index_at {
                    cursor.index_at = cursor.segment.note(head.number, at);
                }
                self.next += 1;
                Ok(Step::Record(Read::Record(head.number, cursor.scan.take(&head))))
            }
            Found::Record(head, at) => Ok(Step::Lost { range: at..at, last: head.number - 1 }),
            Found::Damaged(range) => match cursor.scan.peek(cursor.limit)? {
                Found::Record(head, _) => Ok(Step::Lost { range, last: head.number - 1 }),
                Found::Damaged(_) | Found::End(_) => Ok(Step::On),
            },
            Found::End(at) => Ok(Step::Lost { range: at..cursor.limit, last: cursor.last }),
        }
    }

    /// Records up to `last` cannot be read because of `range`. `None` when none of them was to be read.
    fn lose(&mut self, shared: &Shared, mut range: Range<u64>, last: Lsn) -> Option<Damage> {
        let mut name = String::new();
        if let Some(cursor) = &self.cursor {
            let disk = &*shared.disk;
            name = segment::name(cursor.segment.number);
            if range.start < range.end
                && let Ok(file) = cursor.segment.file(disk)
            {
                set_aside(disk, &name, &*file, range.clone());
            }
            if last == cursor.last {
                for lost in cursor.headless(shared) {
                    name = segment::name(lost.number);
                    range = 0..lost.size;
                    if let Ok(file) = lost.file(disk) {
                        set_aside(disk, &name, &*file, range.clone());
                    }
                }
            }
        }
        let first = self.next;
        if last < first {
            return None;
        }
        self.next = last + 1;
        Some(Damage { segment: name, offset: range.start, bytes: range.end - range.start, first, last })
    }
}

/// What one look at the log gave.
enum Step {
    Record(Read),
    /// Look again.
    On,
    /// Everything up to `last` that was not read yet is gone.
    Lost {
        range: Range<u64>,
        last: Lsn,
    },
}

impl Cursor {
    /// Goes to where data record `lsn` is, or to the last place in front of it that can be read, or to the first at
    /// all. `lsn` is durable.
    fn find(shared: &Shared, lsn: Lsn) -> io::Result<Option<Self>> {
        let disk = &*shared.disk;
        let segments: Vec<Arc<Segment>> = {
            let state = shared.state();
            let durable = state.durable.segment;
            state.segments.iter().take_while(|segment| segment.number <= durable).cloned().collect()
        };
        // The nearest segment at or in front of `at` whose header can be read.
        let readable = |at: usize| -> io::Result<Option<usize>> {
            for (at, segment) in segments.iter().enumerate().take(at + 1).rev() {
                if segment.header(disk)?.is_some() {
                    return Ok(Some(at));
                }
            }
            Ok(None)
        };
        let (mut low, mut high) = (0, segments.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let first = readable(middle)?.and_then(|at| segments.get(at)?.known_header());
            if first.is_none_or(|header| header.first <= lsn) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let at = match low.checked_sub(1).map_or(Ok(None), readable)? {
            Some(at) => Some(at),
            None => segments.iter().position(|segment| segment.known_header().is_some()),
        };
        let Some(segment) = at.and_then(|at| segments.get(at)) else { return Ok(None) };
        let Some(header) = segment.known_header() else { return Ok(None) };
        let (next, at) = segment.seek(lsn).unwrap_or((header.first, header.block()));
        let scan = Scan::new(segment.file(disk)?, header.salt, at, next);
        let mut cursor = Self { segment: segment.clone(), scan, limit: 0, last: 0, index_at: 0 };
        cursor.refresh(shared, lsn)?;
        Ok(Some(cursor))
    }

    /// Looks how far this segment reaches by now; whether `lsn` is in it, or lost behind it.
    fn refresh(&mut self, shared: &Shared, lsn: Lsn) -> io::Result<bool> {
        let mut from = self.segment.number;
        loop {
            let following = {
                let state = shared.state();
                let durable = state.durable;
                let at = state.segments.partition_point(|segment| segment.number <= from);
                match state.segments.get(at).filter(|segment| segment.number <= durable.segment) {
                    Some(following) => following.clone(),
                    None => {
                        self.last = durable.lsn;
                        let here = durable.segment == self.segment.number;
                        self.limit = if here { durable.end } else { self.segment.end() };
                        return Ok(lsn <= self.last);
                    }
                }
            };
            from = following.number;
            if let Some(header) = following.header(&*shared.disk)? {
                self.last = header.first - 1;
                self.limit = self.segment.end();
                return Ok(lsn <= self.last);
            }
        }
    }

    /// The unreadable segments directly behind this one.
    fn headless(&self, shared: &Shared) -> Vec<Arc<Segment>> {
        let state = shared.state();
        let behind = state.segments.iter().skip_while(|segment| segment.number <= self.segment.number);
        behind.take_while(|segment| segment.is_headless()).cloned().collect()
    }
}
