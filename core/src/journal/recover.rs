//! Opening: finds the newest segment, reads it, and makes sure that what was found is on the disk, and nothing else.

use std::{
    collections::VecDeque,
    io,
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;

use super::{
    Damage, Disk, DiskFile, JournalOptions, Lsn, Recovery,
    disk::read_exact,
    prepare::{FIRST_SEGMENT, Next, Prepared},
    record::Tag,
    scan::{Found, Scan},
    segment::{self, Header, Loaded, PAGE, Segment},
    stage::Group,
    state::{Current, Durable, Shared, State, Thread, io_error},
};
use crate::{Error, ErrorKind, Result};

const OPERATION: &str = "journal.open";
const MIN_SEGMENT: u64 = 64 * 1024;
const MAX_SEGMENT: u64 = 1 << 31;
/// Bytes copied at once.
const COPY: u64 = 256 * 1024;

pub(super) fn open(disk: Arc<dyn Disk>, mut options: JournalOptions) -> Result<(Arc<Shared>, Recovery)> {
    if !(MIN_SEGMENT..=MAX_SEGMENT).contains(&options.segment_bytes) {
        let text = "the segments of a journal have 64 KiB to 2 GiB";
        return Err(Error::new(ErrorKind::InvalidArgument, OPERATION, text)
            .with("segment_bytes", options.segment_bytes));
    }
    options.segment_bytes = options.segment_bytes.next_multiple_of(PAGE);
    let journal = disk.describe();
    let guard = disk.lock().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            Error::new(ErrorKind::InUse, OPERATION, format!("the journal is {error}"))
                .with("journal", &journal)
        }
        _ => io_error(OPERATION, "locking the journal", &journal, error),
    })?;
    let opened = Opened::read(&*disk).map_err(|error| match error {
        Failed::Io(error) => io_error(OPERATION, "reading the journal", &journal, error),
        Failed::Newer(version) => {
            let text = "the journal was written by a newer version, with a format this one does not know";
            Error::new(ErrorKind::JournalVersion, OPERATION, text)
                .with("journal", &journal)
                .with("format", version)
                .with("known", segment::VERSION)
        }
    })?;
    opened.into_journal(disk, options, guard, &journal)
}

enum Failed {
    Io(io::Error),
    Newer(u32),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What is in the folder.
struct Opened {
    /// All segments of the log.
    segments: VecDeque<Arc<Segment>>,
    /// Files of segments that were prepared and never started: numbers and sizes.
    unstarted: Vec<(u64, u64)>,
    /// Files that were put by: names and sizes.
    spares: Vec<(String, u64)>,
    /// How the newest segment goes on.
    current: Option<Current>,
    contents: Contents,
    snapshot: Option<Bytes>,
    torn_bytes: u64,
}

impl Opened {
    fn read(disk: &dyn Disk) -> Result<Self, Failed> {
        let mut files: Vec<(u64, u64)> = Vec::new();
        let mut spares = Vec::new();
        for (name, size) in disk.list()? {
            match segment::number(&name) {
                Some(number) => files.push((number, size)),
                None if segment::is_spare(&name) => spares.push((name, size)),
                None => {}
            }
        }
        files.sort_unstable();
        let mut opened = Self {
            segments: VecDeque::new(),
            unstarted: Vec::new(),
            spares,
            current: None,
            contents: Contents { next: 1, ..Contents::default() },
            snapshot: None,
            torn_bytes: 0,
        };
        while let Some((number, size)) = files.pop() {
            let segment = Segment::new(number, size);
            segment.named.store(true, Ordering::Release);
            let file = segment.file(disk)?;
            match segment::load(&*file, number, true)? {
                Loaded::Started { header, snapshot, damaged } => {
                    segment.set_header(Some(header));
                    opened.segments =
                        files.iter().map(|(number, size)| Arc::new(Segment::new(*number, *size))).collect();
                    opened.snapshot = snapshot;
                    opened.read_newest(disk, Arc::new(segment), file, header, damaged)?;
                    break;
                }
                Loaded::NotStarted => opened.unstarted.push((number, size)),
                Loaded::Newer(version) => return Err(Failed::Newer(version)),
            }
        }
        Ok(opened)
    }

    fn read_newest(
        &mut self,
        disk: &dyn Disk,
        segment: Arc<Segment>,
        file: Arc<dyn DiskFile>,
        header: Header,
        damaged: bool,
    ) -> Result<(), Failed> {
        self.read_older(disk)?;
        let limit = segment.size - header.block();
        let scan = Scan::new(file.clone(), header.salt, header.block(), header.first);
        self.contents.next = header.first;
        self.contents.trimmed = self.contents.trimmed.max(header.trimmed);
        self.contents.commit = header.block();
        let mut scan = self.contents.read(scan, &segment, limit)?;
        let name = segment::name(segment.number);
        let next = self.contents.next;
        if damaged {
            let bytes = header.block();
            self.contents
                .damaged
                .insert(0, Damage { segment: name.clone(), offset: 0, bytes, first: next, last: next - 1 });
        }
        for damage in self.contents.damaged.iter_mut() {
            damage.segment.clone_from(&name);
            set_aside(disk, &name, &*file, damage.offset..damage.offset + damage.bytes);
        }
        self.torn_bytes = scan.torn_bytes(limit)?;
        let end = scan.at();
        settle(&*file, self.contents.commit..end, (end + self.torn_bytes).next_multiple_of(PAGE).min(limit))?;
        disk.sync_names()?;
        self.segments.push_back(segment.clone());
        self.current = Some(Current { segment, file, salt: header.salt, at: end, limit, index_at: 0 });
        Ok(())
    }

    /// When the newest snapshot cannot be read: an older one, and the notes that follow it.
    fn read_older(&mut self, disk: &dyn Disk) -> Result<(), Failed> {
        let mut chain = Vec::new();
        for segment in self.segments.iter().rev() {
            if self.snapshot.is_some() {
                break;
            }
            let file = segment.file(disk)?;
            match segment::load(&*file, segment.number, true)? {
                Loaded::Started { header, snapshot, .. } => {
                    segment.set_header(Some(header));
                    self.snapshot = snapshot;
                    chain.push((segment.clone(), file, header));
                }
                Loaded::NotStarted => segment.set_header(None),
                Loaded::Newer(version) => return Err(Failed::Newer(version)),
            }
        }
        for (segment, file, header) in chain.into_iter().rev() {
            let scan = Scan::new(file, header.salt, header.block(), header.first);
            self.contents.next = header.first;
            self.contents.read(scan, &segment, segment.size - header.block())?;
        }
        self.contents.damaged.clear(); // readers come to it
        Ok(())
    }

    fn into_journal(
        mut self,
        disk: Arc<dyn Disk>,
        options: JournalOptions,
        guard: Box<dyn Send + Sync>,
        journal: &str,
    ) -> Result<(Arc<Shared>, Recovery)> {
        let contents = std::mem::take(&mut self.contents);
        let next_segment = self.keep_prepared(&*disk, &options, journal);
        let prepared = match &next_segment {
            Next::Reserved(next) => next.segment.size,
            _ => 0,
        };
        let mut state = State {
            staged: Group::default(),
            spare: None,
            must_roll: self.current.is_some() && (self.snapshot.is_none() || !contents.damaged.is_empty()),
            next: contents.next,
            ticket: 0,
            wanted: 0,
            lazy_since: None,
            committing: false,
            thread: Thread::None,
            durable: Durable {
                ticket: 0,
                lsn: contents.next - 1,
                segment: self.current.as_ref().map_or(0, |current| current.segment.number),
                end: self.current.as_ref().map_or(0, |current| current.at),
            },
            current: self.current,
            trimmed: contents.trimmed,
            trim_staged: contents.trimmed,
            trim_durable: contents.trimmed,
            segments: self.segments,
            next_segment,
            next_wanted: None,
            spares: self.spares.into_iter().map(|(name, _)| name).collect(),
            preparing: false,
            failed: None,
            closed: false,
            ending: false,
            stats: Default::default(),
        };
        state.stats.disk_bytes = state.segments.iter().map(|segment| segment.size).sum::<u64>()
            + prepared
            + state.spares.len() as u64 * options.segment_bytes;
        let empty = state.current.is_none() && prepared == 0;
        if empty {
            state.next_wanted = Some(FIRST_SEGMENT.min(options.segment_bytes));
            state.preparing = true;
        }
        let shared = Arc::new(Shared::new(disk, options, state, guard));
        if empty {
            shared.prepare();
            let state = shared.state();
            if let Next::Failed(failure) = &state.next_segment {
                return Err(failure.passing(OPERATION, journal));
            }
        }
        let recovery = Recovery {
            first: contents.trimmed + 1,
            next: contents.next,
            snapshot: self.snapshot,
            notes: contents.notes(),
            damaged: contents.damaged,
            torn_bytes: self.torn_bytes,
        };
        Ok((shared, recovery))
    }

    /// Sorts out the files that were prepared for later; those of another size than usual go.
    fn keep_prepared(&mut self, disk: &dyn Disk, options: &JournalOptions, journal: &str) -> Next {
        let number = self.segments.back().map_or(1, |segment| segment.number + 1);
        let mut next = Next::Idle;
        let mut unwanted = Vec::new();
        self.spares.retain(|(name, size)| {
            let keep = *size == options.segment_bytes;
            if !keep {
                unwanted.push(name.clone());
            }
            keep
        });
        for (found, size) in self.unstarted.drain(..) {
            let name = segment::name(found);
            let spare = segment::spare_name(found);
            if size == options.segment_bytes
                && found == number
                && let Ok(file) = disk.open(&name, false)
            {
                let segment = Segment::new(number, size);
                segment.set_file(&file);
                next = Next::Reserved(Prepared { segment: Arc::new(segment), file });
            } else if size == options.segment_bytes && disk.rename(&name, &spare).is_ok() {
                self.spares.retain(|(name, _)| *name != spare);
                self.spares.push((spare, size));
            } else {
                unwanted.push(name);
            }
        }
        unwanted
            .extend(self.spares.drain(self.spares.len().min(options.spare_segments)..).map(|(name, _)| name));
        for name in unwanted {
            if let Err(error) = disk.remove(&name) {
                tracing::warn!(journal, name, %error, "cannot remove a file of the journal that is not needed");
            }
        }
        next
    }
}

/// What the records of one or more segments say.
#[derive(Default)]
struct Contents {
    next: Lsn,
    trimmed: Lsn,
    notes: Vec<u8>,
    /// Where each note ends in `notes`.
    note_ends: Vec<usize>,
    /// Where the last commit starts in the segment read last.
    commit: u64,
    damaged: Vec<Damage>,
}

impl Contents {
    /// Reads a segment up to its last good record.
    fn read(&mut self, mut scan: Scan, segment: &Segment, limit: u64) -> io::Result<Scan> {
        let mut index_at = 0;
        let mut hole: Option<Range<u64>> = None;
        loop {
            let (head, at) = match scan.peek(limit)? {
                Found::Record(head, at) => (head, at),
                Found::Damaged(range) => {
                    hole = Some(range);
                    continue;
                }
                Found::End(at) => {
                    segment.seal(at);
                    return Ok(scan);
                }
            };
            if let Some(hole) = hole.take() {
                self.damaged.push(Damage {
                    segment: String::new(),
                    offset: hole.start,
                    bytes: hole.end - hole.start,
                    first: self.next,
                    last: head.number - 1,
                });
            }
            if head.opens_commit {
                self.commit = at;
            }
            self.next = head.number;
            match head.tag {
                Tag::Data => {
                    self.next += 1;
                    if at >= index_at {
                        index_at = segment.note(head.number, at);
                    }
                    scan.skip(&head);
                }
                Tag::Note => {
                    self.notes.extend_from_slice(&scan.take(&head));
                    self.note_ends.push(self.notes.len());
                }
                Tag::Trim => {
                    let payload = scan.take(&head);
                    if let Ok(trimmed) = payload.as_ref().try_into().map(u64::from_le_bytes) {
                        self.trimmed = self.trimmed.max(trimmed);
                    }
                }
            }
        }
    }

    fn notes(&self) -> Vec<Bytes> {
        let all = Bytes::copy_from_slice(&self.notes);
        let mut start = 0;
        let note = |end: &usize| all.slice(std::mem::replace(&mut start, *end)..*end);
        self.note_ends.iter().map(note).collect()
    }
}

/// Makes the last commit durable, and zeros behind it up to `to`. Its bytes are written again: when the process that
/// wrote them ended because its sync failed, the system may show them without ever having stored them.
fn settle(file: &dyn DiskFile, commit: Range<u64>, to: u64) -> io::Result<()> {
    let mut at = commit.start;
    let mut buffer = Vec::new();
    while at < to {
        let count = (to - at).min(COPY);
        let kept = commit.end.saturating_sub(at).min(count);
        buffer.clear();
        buffer.resize(kept as usize, 0);
        read_exact(file, at, &mut buffer)?;
        buffer.resize(count as usize, 0);
        file.write_at(at, &buffer)?;
        at += count;
    }
    file.sync()
}

/// Copies damaged bytes to where somebody can look at them, once.
pub(super) fn set_aside(disk: &dyn Disk, name: &str, file: &dyn DiskFile, range: Range<u64>) {
    let copy = || -> io::Result<()> {
        let aside = format!("damaged/{name}-{}", range.start);
        if disk.open(&aside, false).is_ok() {
            return Ok(());
        }
        tracing::warn!(
            journal = disk.describe(),
            segment = name,
            offset = range.start,
            bytes = range.end - range.start,
            "a part of the journal is damaged"
        );
        let target = disk.open(&aside, true)?;
        let mut at = range.start;
        let mut buffer = Vec::new();
        while at < range.end {
            buffer.resize((range.end - at).min(COPY) as usize, 0);
            read_exact(file, at, &mut buffer)?;
            target.write_at(at - range.start, &buffer)?;
            at += buffer.len() as u64;
        }
        target.sync()
    };
    if let Err(error) = copy() {
        tracing::warn!(journal = disk.describe(), segment = name, %error, "cannot copy damaged bytes");
    }
}
