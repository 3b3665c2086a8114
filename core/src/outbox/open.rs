//! What all handles of an outbox share; opening and closing.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;
use tracing::{info, warn};

use super::{
    Clock, Durability, OutboxOptions, Storage, SystemClock,
    clock::RunClock,
    ids::{Identity, OutboxId},
    ledger::Ledger,
    per_lane::PerLane,
    queue::Queue,
    read::Cursor,
};
use crate::{
    Error, ErrorKind, Lane, Result,
    journal::{Disk, Journal, JournalOptions, MemoryDisk, RealDisk, Ticket},
};

/// Most outcomes kept per lane: the snapshot in each segment holds them all.
const KEPT_LIMIT: usize = 16_384;
/// A segment holds at least three of the largest messages, and trimming gives back a small part of the bound.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=8 << 20;

pub(super) struct Shared {
    /// The identity's id as text.
    pub(super) name: String,
    pub(super) identity: Identity,
    pub(super) options: OutboxOptions,
    /// Nothing survives a restart: nobody waits for the disk.
    pub(super) volatile: bool,
    pub(super) clock: RunClock,
    /// Where each lane is read on the disk. May be taken while the state is held, never the other way round.
    pub(super) cursors: PerLane<Mutex<Cursor>>,
    state: Mutex<State>,
    /// Something may have become readable.
    pub(super) arrived: Notify,
    /// Something has ended, or the outbox was closed.
    pub(super) ended: Notify,
}

pub(super) struct State {
    pub(super) lanes: PerLane<Queue>,
    pub(super) sent: u64,
    pub(super) refused: u64,
    pub(super) closed: bool,
}

impl State {
    /// How many messages wait.
    pub(super) fn queued(&self) -> u64 {
        self.lanes.iter().map(|queue| queue.ledger.queued()).sum()
    }

    /// How many bytes they take on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.lanes.iter().map(|queue| queue.bytes).sum()
    }
}

impl Shared {
    pub(super) fn open(storage: &Storage, options: OutboxOptions) -> Result<Self> {
        let volatile = *storage == Storage::Memory;
        let disk = |lane: Lane| -> Result<Arc<dyn Disk>> {
            Ok(match storage {
                Storage::Directory(folder) => real_disk(&folder.join(lane.name()))?,
                Storage::Memory => Arc::new(MemoryDisk::default()),
            })
        };
        let disks = PerLane { alert: disk(Lane::Alert)?, telemetry: disk(Lane::Telemetry)? };
        Self::open_on(disks, volatile, options, Arc::new(SystemClock))
    }

    pub(super) fn open_on(
        disks: PerLane<Arc<dyn Disk>>,
        volatile: bool,
        options: OutboxOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        check(&options)?;
        let open = |disk, lane| Opening::new(disk, lane, journal_options(&options, lane, volatile), &options);
        let alert = open(disks.alert, Lane::Alert)?;
        let telemetry = open(disks.telemetry, Lane::Telemetry)?;
        let fresh = getrandom::u64().map_err(|error| {
            Error::new(ErrorKind::Internal, "outbox.open", "no random numbers from the system")
                .caused_by(error)
        })?;
        let identity = Identity::next([alert.ledger.identity, telemetry.ledger.identity], OutboxId(fresh));
        let (mut alert, alert_told) = alert.begin(identity)?;
        let (mut telemetry, telemetry_told) = telemetry.begin(identity)?;
        // The epoch is on the disk before any message carries it, and the settlements found before they are trimmed.
        alert.journal.wait_durable(alert_told)?;
        telemetry.journal.wait_durable(telemetry_told)?;
        alert.trim_noted()?;
        telemetry.trim_noted()?;
        let lanes = PerLane { alert, telemetry };
        let state = State { lanes, sent: 0, refused: 0, closed: false };
        info!(outbox = %identity.id, epoch = identity.epoch, queued = state.queued(), "outbox open");
        Ok(Self {
            name: identity.id.to_string(),
            identity,
            options,
            volatile,
            clock: RunClock::start(clock),
            cursors: PerLane::default(),
            state: Mutex::new(state),
            arrived: Notify::new(),
            ended: Notify::new(),
        })
    }

    /// The state, also of a closed outbox.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of an open outbox.
    ///
    /// # Errors
    /// `Closed`.
    pub(super) fn open_state(&self, operation: &'static str) -> Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.closed {
            return Err(Error::new(ErrorKind::Closed, operation, "the outbox was closed"));
        }
        Ok(state)
    }

    pub(super) fn close(&self) -> Result<()> {
        let mut told = Ok(());
        let journals = {
            let mut state = self.state();
            if !state.closed {
                state.closed = true;
                for queue in state.lanes.iter_mut() {
                    queue.waiting.clear();
                    told = told.and(queue.pay());
                }
            }
            PerLane {
                alert: state.lanes.alert.journal.clone(),
                telemetry: state.lanes.telemetry.journal.clone(),
            }
        };
        self.arrived.notify_one();
        self.ended.notify_waiters();
        let (alert, telemetry) = (journals.alert.close(), journals.telemetry.close());
        told.and(alert).and(telemetry)
    }
}

/// A lane that was read back and not used yet.
struct Opening {
    lane: Lane,
    journal: Journal,
    ledger: Ledger,
    corrected: bool,
}

impl Opening {
    fn new(
        disk: Arc<dyn Disk>,
        lane: Lane,
        journal: JournalOptions,
        options: &OutboxOptions,
    ) -> Result<Self> {
        let (journal, found) = Journal::open(disk, journal)?;
        let notes = found.notes.iter().map(|note| note.as_ref());
        let keep = options.kept_outcomes.min(KEPT_LIMIT);
        let mut ledger = Ledger::restore(found.snapshot.as_deref(), notes, keep)?;
        let corrected = ledger.reconcile(found.first, found.next);
        if found.torn_bytes > 0 {
            info!(lane = lane.name(), bytes = found.torn_bytes, "an unfinished write was cut off");
        }
        for damage in &found.damaged {
            warn!(
                lane = lane.name(),
                segment = damage.segment,
                offset = damage.offset,
                "damage was set aside"
            );
        }
        Ok(Self { lane, journal, ledger, corrected })
    }

    /// Starts a new epoch; it is on the disk with the ticket.
    fn begin(self, identity: Identity) -> Result<(Queue, Ticket)> {
        let mut queue = Queue::new(self.lane, identity, self.journal, self.ledger);
        let told = queue.tell_opened(self.corrected)?;
        Ok((queue, told))
    }
}

pub(crate) fn real_disk(folder: &Path) -> Result<Arc<dyn Disk>> {
    match RealDisk::create(folder) {
        Ok(disk) => Ok(Arc::new(disk)),
        Err(error) => {
            let full =
                matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
            let kind = if full { ErrorKind::DiskFull } else { ErrorKind::JournalIo };
            let error = Error::new(kind, "outbox.open", "the folder cannot be created").caused_by(error);
            Err(error.with("folder", folder.display()))
        }
    }
}

fn check(options: &OutboxOptions) -> Result<()> {
    let wrong = [
        (options.max_bytes == 0, "max_bytes has to be at least 1"),
        (options.max_messages == 0, "max_messages has to be at least 1"),
        (options.sync_interval.is_zero(), "sync_interval has to be longer than zero"),
        (options.max_age.is_some_and(|age| age.is_zero()), "max_age has to be longer than zero"),
    ];
    match wrong.into_iter().find(|(wrong, _)| *wrong) {
        Some((_, text)) => Err(Error::new(ErrorKind::InvalidArgument, "outbox.open", text)),
        None => Ok(()),
    }
}

fn journal_options(options: &OutboxOptions, lane: Lane, volatile: bool) -> JournalOptions {
    let segment_bytes = match lane {
        // Alerts are few: a bound for millions of measurements should not cost them disk.
        Lane::Alert => *SEGMENT_BYTES.start(),
        Lane::Telemetry if volatile => *SEGMENT_BYTES.start(),
        Lane::Telemetry => (options.max_bytes / 32).clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end()),
    };
    let by_chance = volatile || options.durability == Durability::Memory;
    JournalOptions {
        segment_bytes: segment_bytes.next_multiple_of(4_096),
        spare_segments: usize::from(!volatile),
        sync_interval: (!by_chance).then_some(options.sync_interval),
    }
}
