//! The append-only durable log under outbox and hub. It knows nothing of messages.
//!
//! A journal is a folder of segments. Records are appended, made durable in groups (one write and one sync for
//! everything that is ready, never waiting for more), read in order, and given back by trimming from the front.

mod commit;
mod disk;
mod memory;
mod prepare;
mod reader;
mod real;
mod record;
mod recover;
mod scan;
mod segment;
mod stage;
mod state;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use self::state::Shared;
pub use self::{
    disk::{Disk, DiskFile},
    memory::MemoryDisk,
    reader::Reader,
    real::RealDisk,
};
use crate::Result;

/// Number of a data record: 1 for the first one ever, then without gaps, never used twice.
pub type Lsn = u64;

/// Sizes and timing of a journal.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// Bytes of one segment file. Default 8 MiB; 64 KiB to 2 GiB. A batch of records has to fit into one segment. The
    /// first segments of a journal are smaller.
    pub segment_bytes: u64,
    /// Trimmed segments kept for reuse. Default 2.
    pub spare_segments: usize,
    /// When set, lazily appended records are committed at least this often.
    pub sync_interval: Option<Duration>,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self { segment_bytes: 8 * 1024 * 1024, spare_segments: 2, sync_interval: None }
    }
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Counts: takes the next [`Lsn`], is read back by a [`Reader`] until trimmed.
    Data,
    /// A change of the owner's own state: takes no number, is given back by [`Journal::open`] until the next snapshot.
    Note,
}

/// One record to append; its payload is the parts in order.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Data or note.
    pub kind: Kind,
    /// Parts of the payload, written one after the other without an extra copy.
    pub parts: &'a [&'a [u8]],
}

/// When appended records reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Commit as soon as the disk is free.
    Now,
    /// With the next commit that somebody asks for, the sync interval, or when 256 KiB are waiting.
    Lazy,
}

/// Where an append ended; wait for it with [`Journal::durable`]. Later tickets include earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub(crate) u64);

/// What [`Journal::append`] did.
#[derive(Clone, Copy, Debug)]
pub struct Appended {
    /// Number of the first data record of the batch (the next free number when it had none).
    pub first: Lsn,
    /// To wait for.
    pub ticket: Ticket,
}

/// What opening found.
#[derive(Debug)]
pub struct Recovery {
    /// First data record that is not trimmed.
    pub first: Lsn,
    /// Number the next data record gets.
    pub next: Lsn,
    /// The newest snapshot, when there is one.
    pub snapshot: Option<Bytes>,
    /// Notes appended after it, in order.
    pub notes: Vec<Bytes>,
    /// Damage found while opening; damage further back is found by readers.
    pub damaged: Vec<Damage>,
    /// Bytes of an unfinished write that were cut off at the end.
    pub torn_bytes: u64,
}

/// Bytes that could not be read back. They were copied to the journal's `damaged/` folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Name of the segment file.
    pub segment: String,
    /// Offset of the first damaged byte in it.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// First missing data record.
    pub first: Lsn,
    /// Last missing data record; less than `first` when only notes were lost.
    pub last: Lsn,
}

/// What a [`Reader`] found next.
#[derive(Debug)]
pub enum Read {
    /// A data record.
    Record(Lsn, Bytes),
    /// Missing data records; reading goes on behind them.
    Damaged(Damage),
}

/// Figures of a journal since it was opened, and its sizes now.
#[derive(Clone, Copy, Debug, Default)]
pub struct JournalStats {
    /// Payload bytes appended.
    pub appended_bytes: u64,
    /// Bytes handed to the disk, framing and padding included, preparing of segments not.
    pub written_bytes: u64,
    /// Bytes written to prepare segments.
    pub prepared_bytes: u64,
    /// Commits.
    pub commits: u64,
    /// Bytes of all segment files.
    pub disk_bytes: u64,
    /// Bytes from the first record that is not trimmed to the end; up to a segment more where that is not known without
    /// reading.
    pub live_bytes: u64,
}

/// A handle; clones share the journal. Dropping the last one stops the committing thread after a last commit.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

/// Ends the threads when the last handle goes.
struct Inner {
    shared: Arc<Shared>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl Journal {
    /// Opens or creates the journal in `disk` and recovers it. Reads the last segment only (and, when that one's header
    /// is damaged, the one before).
    ///
    /// # Errors
    /// `InUse` naming the process that holds the lock; `JournalVersion`; `JournalIo`; `DiskFull`; `InvalidArgument` for
    /// options out of bounds. Never fails for torn or damaged records.
    pub fn open(disk: Arc<dyn Disk>, options: JournalOptions) -> Result<(Self, Recovery)> {
        let (shared, recovery) = recover::open(disk, options)?;
        Ok((Self { inner: Arc::new(Inner { shared }) }, recovery))
    }

    /// Stages `records`, in order, all or none. Returns at once: the batch is durable when [`Journal::durable`] of the
    /// ticket returns. `snapshot` is called only when this append starts a new segment, and writes the owner's whole
    /// state as of just before this batch: recovery starts from it and applies the notes that follow. It must not call
    /// the journal.
    ///
    /// Waits only when the next segment is needed before it has been prepared, or when more than 16 MiB wait for the
    /// disk, which a caller that waits for its tickets does not see.
    ///
    /// # Errors
    /// `PayloadTooLarge` when the batch is over [`Journal::batch_limit`]; `DiskFull` when no space could be reserved
    /// (nothing was staged, later appends may succeed); `JournalIo` after a failed write or sync, until reopened;
    /// `Closed`.
    pub fn append(
        &self,
        records: &[Record<'_>],
        urgency: Urgency,
        snapshot: &mut dyn FnMut(&mut Vec<u8>),
    ) -> Result<Appended> {
        self.shared().append(records, urgency, snapshot)
    }

    /// Most bytes one batch may have, where each record counts with its payload and up to 23 bytes more.
    pub fn batch_limit(&self) -> u64 {
        self.shared().batch_limit()
    }

    /// Waits until everything up to `ticket` is on stable storage, and makes that happen now if it was lazy.
    /// Cancelling changes nothing.
    ///
    /// # Errors
    /// `JournalIo` when the write or sync failed.
    pub async fn durable(&self, ticket: Ticket) -> Result<()> {
        self.shared().durable(ticket.0, "journal.durable").await
    }

    /// [`Journal::durable`] for threads outside a runtime. The thread commits by itself when no commit runs, so append
    /// lazily in front of it.
    ///
    /// # Errors
    /// As there.
    pub fn wait_durable(&self, ticket: Ticket) -> Result<()> {
        self.shared().wait_durable(ticket.0, "journal.durable")
    }

    /// Whether `ticket` is durable already, without waiting.
    pub fn is_durable(&self, ticket: Ticket) -> bool {
        self.shared().is_durable(ticket.0)
    }

    /// The ticket that covers everything appended and trimmed so far.
    pub fn latest(&self) -> Ticket {
        Ticket(self.shared().state().ticket)
    }

    /// Number the next data record will get. Stable only while the caller is the one who appends.
    pub fn next_lsn(&self) -> Lsn {
        self.shared().state().next
    }

    /// First data record that is not trimmed.
    pub fn first_lsn(&self) -> Lsn {
        self.shared().state().trimmed + 1
    }

    /// Last data record that is durable; `first_lsn() - 1` when none is.
    pub fn durable_lsn(&self) -> Lsn {
        let state = self.shared().state();
        state.durable.lsn.max(state.trimmed)
    }

    /// Gives up all data records up to and including `up_to`. Lazy: recorded with the next commit; segments are reused
    /// only after that commit, so that a crash never finds a state older than the records left.
    ///
    /// # Errors
    /// `JournalIo` when the journal is poisoned; `Closed`.
    pub fn trim(&self, up_to: Lsn) -> Result<()> {
        self.shared().trim(up_to)
    }

    /// Reads durable data records from `from` (or the first one that is left). Blocking disk reads.
    pub fn reader(&self, from: Lsn) -> Reader {
        Reader::new(self.clone(), from)
    }

    /// Figures.
    pub fn stats(&self) -> JournalStats {
        let state = self.shared().state();
        JournalStats { live_bytes: state.live_bytes(), ..state.stats }
    }

    /// Commits everything and stops; later appends fail with `Closed`. Blocking. When it returns, also with an error,
    /// the folder can be opened again.
    ///
    /// # Errors
    /// As [`Journal::durable`].
    pub fn close(&self) -> Result<()> {
        self.shared().close()
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").finish_non_exhaustive()
    }
}
