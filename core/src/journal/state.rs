//! What the handles, the committing thread and the preparing thread of one journal share.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use tokio::sync::Notify;

use super::{
    Disk, DiskFile, JournalOptions, JournalStats, Lsn, prepare::Next, segment::Segment, stage::Group,
};
use crate::{Error, ErrorKind, Result};

pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) options: JournalOptions,
    state: Mutex<State>,
    /// Wakes the committing thread.
    pub(super) work: Condvar,
    /// Wakes threads that wait for a commit.
    pub(super) committed: Condvar,
    /// Wakes tasks that wait for a commit.
    pub(super) tasks: Notify,
    /// Wakes who waits for the preparing thread.
    pub(super) prepared: Condvar,
    /// Last durable ticket: what [`State::durable`] says, without the lock.
    pub(super) durable: AtomicU64,
    /// First data record not trimmed: what [`State::trimmed`] says, without the lock.
    pub(super) first: AtomicU64,
    /// Nothing of the journal is at work any more: readers leave the files alone.
    pub(super) released: AtomicBool,
    /// Keeps other openers out.
    guard: Mutex<Option<Box<dyn Send + Sync>>>,
}

pub(super) struct State {
    /// What the next commit writes.
    pub(super) staged: Group,
    /// The buffers of the commit before last, to be used again. Gone while a commit runs.
    pub(super) spare: Option<Group>,
    /// Where records go; `None` before the first one ever.
    pub(super) current: Option<Current>,
    /// The next append starts a new segment, because something in this one is damaged.
    pub(super) must_roll: bool,
    /// Number of the next data record.
    pub(super) next: Lsn,
    /// Last ticket given out.
    pub(super) ticket: u64,
    /// Last ticket somebody wants on the disk.
    pub(super) wanted: u64,
    /// When the oldest record was staged that nobody wants on the disk yet. Kept only with a sync interval.
    pub(super) lazy_since: Option<Instant>,

    /// A commit is running.
    pub(super) committing: bool,
    pub(super) thread: Thread,
    pub(super) durable: Durable,

    /// Last data record given up; as recorded in what is staged; as recorded on the disk.
    pub(super) trimmed: Lsn,
    pub(super) trim_staged: Lsn,
    pub(super) trim_durable: Lsn,

    /// All segments of the log, the current one last.
    pub(super) segments: VecDeque<Arc<Segment>>,
    pub(super) next_segment: Next,
    /// Bytes the next segment should have, while it is to be prepared.
    pub(super) next_wanted: Option<u64>,
    /// Files of trimmed segments, all of the usual size.
    pub(super) spares: Vec<String>,
    /// The preparing thread is at work.
    pub(super) preparing: bool,

    pub(super) failed: Option<Failure>,
    pub(super) closed: bool,
    /// No handle is left, or the journal is closed: threads end when their work is done.
    pub(super) ending: bool,
    pub(super) stats: JournalStats,
}

/// The segment that is written to.
pub(super) struct Current {
    pub(super) segment: Arc<Segment>,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) salt: u64,
    /// Where the next record goes.
    pub(super) at: u64,
    /// Where records must end.
    pub(super) limit: u64,
    /// The next data record at or behind this offset goes into the index.
    pub(super) index_at: u64,
}

/// How far the disk has it all.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Durable {
    pub(super) ticket: u64,
    /// Last data record.
    pub(super) lsn: Lsn,
    /// The newest segment with durable records, and where they end.
    pub(super) segment: u64,
    pub(super) end: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thread {
    /// Not started yet, or ended.
    None,
    Awake,
    Asleep,
}

/// Why nothing more is accepted.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    what: &'static str,
    kind: io::ErrorKind,
    text: String,
}

impl Failure {
    pub(super) fn new(what: &'static str, error: &io::Error) -> Self {
        Self { what, kind: error.kind(), text: error.to_string() }
    }

    /// The error of a journal that failed for good.
    pub(super) fn poisoned(&self, operation: &'static str, journal: &str) -> Error {
        let text =
            format!("{} failed; nothing more is accepted until the journal is opened again", self.what);
        Error::new(ErrorKind::JournalIo, operation, text)
            .with("journal", journal)
            .caused_by(io::Error::new(self.kind, self.text.clone()))
    }

    /// The error of a call that can be repeated, such as for a full disk.
    pub(super) fn passing(&self, operation: &'static str, journal: &str) -> Error {
        io_error(operation, self.what, journal, io::Error::new(self.kind, self.text.clone()))
    }
}

/// What an input or output error means to the caller of `operation`.
pub(super) fn io_error(
    operation: &'static str,
    what: &'static str,
    journal: &str,
    error: io::Error,
) -> Error {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let kind = if full { ErrorKind::DiskFull } else { ErrorKind::JournalIo };
    Error::new(kind, operation, format!("{what} failed")).with("journal", journal).caused_by(error)
}

impl Shared {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        options: JournalOptions,
        state: State,
        guard: Box<dyn Send + Sync>,
    ) -> Self {
        Self {
            disk,
            options,
            durable: AtomicU64::new(state.durable.ticket),
            first: AtomicU64::new(state.trimmed + 1),
            state: Mutex::new(state),
            work: Condvar::new(),
            committed: Condvar::new(),
            tasks: Notify::new(),
            prepared: Condvar::new(),
            released: AtomicBool::new(false),
            guard: Mutex::new(Some(guard)),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A panic under the lock can only come out of an owner's snapshot, and that is taken before anything changes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `condvar`.
    pub(super) fn wait<'a>(&self, condvar: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        condvar.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_durable(&self, ticket: u64) -> bool {
        self.durable.load(Ordering::Acquire) >= ticket
    }

    /// Lets others open the journal, when nothing of it is at work any more, or will be.
    pub(super) fn let_go_if_idle(&self, state: &State) {
        let preparing = state.preparing || state.has_preparing_to_do();
        if state.ending && !state.committing && !preparing && state.is_settled() {
            self.guard.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }

    pub(super) fn journal(&self) -> String {
        self.disk.describe()
    }
}

impl State {
    /// Whether there is nothing left to commit.
    pub(super) fn is_settled(&self) -> bool {
        self.failed.is_some() || self.durable.ticket == self.ticket
    }

    /// Whether a commit is due that nobody runs yet.
    pub(super) fn is_due(&self) -> bool {
        !self.committing && self.failed.is_none() && self.wanted > self.durable.ticket
    }

    pub(super) fn check(&self, shared: &Shared, operation: &'static str) -> Result<()> {
        match &self.failed {
            Some(failure) => Err(failure.poisoned(operation, &shared.journal())),
            None => Ok(()),
        }
    }
}
