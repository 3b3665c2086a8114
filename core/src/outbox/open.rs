//! What all handles of an outbox share; opening and closing.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
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
/// What calls on a suspended outbox are told.
const SUSPENDED: &str = "the client is suspended; call resume first";
const RESUME: &str = "device.resume";

pub(super) struct Shared {
    pub(super) id: OutboxId,
    /// The id as text.
    pub(super) name: String,
    /// The opening. Changes with the state held, so what was made in one is checked there before it goes into another.
    epoch: AtomicU32,
    disks: PerLane<Arc<dyn Disk>>,
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
    pub(super) phase: Phase,
    /// Bytes written to the disk before the outbox was opened last.
    pub(super) written: u64,
}

/// What may be done with an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// The folder is free; [`Shared::resume`] takes it again.
    Suspended,
    Closed,
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

    pub(super) fn written_since_opening(&self) -> u64 {
        self.lanes.iter().map(|queue| queue.journal.stats().written_bytes).sum()
    }

    fn journals(&self) -> PerLane<Journal> {
        PerLane { alert: self.lanes.alert.journal.clone(), telemetry: self.lanes.telemetry.journal.clone() }
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
        let [alert, telemetry] = read_lanes(&disks, volatile, &options)?;
        let fresh = getrandom::u64().map_err(|error| {
            Error::new(ErrorKind::Internal, "outbox.open", "no random numbers from the system")
                .caused_by(error)
        })?;
        let identity = Identity::next([alert.ledger.identity, telemetry.ledger.identity], OutboxId(fresh));
        let lanes = begin_lanes([alert, telemetry], identity)?;
        let state = State { lanes, sent: 0, refused: 0, phase: Phase::Open, written: 0 };
        info!(outbox = %identity.id, epoch = identity.epoch, queued = state.queued(), "outbox open");
        Ok(Self {
            id: identity.id,
            name: identity.id.to_string(),
            epoch: AtomicU32::new(identity.epoch),
            disks,
            options,
            volatile,
            clock: RunClock::start(clock),
            cursors: PerLane::default(),
            state: Mutex::new(state),
            arrived: Notify::new(),
            ended: Notify::new(),
        })
    }

    /// The opening, for what is made without the state.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch.load(Relaxed)
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
        let text = match state.phase {
            Phase::Open => return Ok(state),
            Phase::Suspended => SUSPENDED,
            Phase::Closed => "the outbox was closed",
        };
        Err(Error::new(ErrorKind::Closed, operation, text))
    }

    /// [`Shared::open_state`], for what was made in this opening.
    ///
    /// # Errors
    /// `Closed`, also when the outbox was suspended since, and is open again.
    pub(super) fn open_state_of(&self, epoch: u32, operation: &'static str) -> Result<MutexGuard<'_, State>> {
        let state = self.open_state(operation)?;
        if epoch != self.epoch() {
            return Err(Error::new(ErrorKind::Closed, operation, SUSPENDED));
        }
        Ok(state)
    }

    /// Commits everything and gives the folder free. Who waits for the end of a message waits on.
    pub(super) fn suspend(&self) -> Result<()> {
        let mut told = Ok(());
        let journals = {
            let mut state = self.state();
            if state.phase != Phase::Open {
                return Ok(());
            }
            state.phase = Phase::Suspended;
            for queue in state.lanes.iter_mut() {
                // The figures go on telling the age of the oldest message, from memory.
                let _ = self.look(queue, queue.ledger.head);
                told = told.and(queue.pay());
            }
            state.journals()
        };
        self.arrived.notify_one();
        let closed = journals.alert.close().and(journals.telemetry.close());
        for lane in Lane::ALL {
            // Also waits for who reads just now.
            self.cursors.get(lane).lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        told.and(closed)
    }

    /// Takes the folder again, and reads back what is there. Nothing has changed when it fails.
    pub(super) fn resume(&self) -> Result<()> {
        match self.state().phase {
            Phase::Open => return Ok(()),
            Phase::Suspended => {}
            Phase::Closed => return Err(Error::new(ErrorKind::Closed, RESUME, "the outbox was closed")),
        }
        let epoch = self.epoch();
        for lane in Lane::ALL {
            check_there(&**self.disks.get(lane))?;
        }
        let opened = read_lanes(&self.disks, self.volatile, &self.options)?;
        let found = opened.each_ref().map(|opening| opening.ledger.identity);
        let same = |identity: &Identity| identity.id == self.id && identity.epoch >= epoch;
        if !found.iter().flatten().all(same) || found.iter().all(Option::is_none) {
            for opening in &opened {
                // Frees the folder; nothing was written.
                let _ = opening.journal.close();
            }
            let text =
                "the folder does not hold the outbox that was suspended, but another one or an older copy";
            return Err(Error::new(ErrorKind::Conflict, RESUME, text).with("outbox", &self.name));
        }
        let identity = Identity::next(found, self.id);
        let journals = opened.each_ref().map(|opening| opening.journal.clone());
        let free = || journals.iter().for_each(|journal| drop(journal.close()));
        let lanes = begin_lanes(opened, identity).inspect_err(|_| free())?;
        let mut state = self.state();
        if state.phase != Phase::Suspended {
            drop(state);
            free();
            return Err(Error::new(ErrorKind::Closed, RESUME, "the outbox was closed"));
        }
        state.written += state.written_since_opening();
        let lanes = std::mem::replace(&mut state.lanes, lanes);
        state.phase = Phase::Open;
        self.clock.reopened();
        self.epoch.store(identity.epoch, Relaxed);
        info!(outbox = %identity.id, epoch = identity.epoch, queued = state.queued(), "outbox open again");
        drop(state);
        // Those who waited for the end of a message look again.
        drop(lanes);
        self.arrived.notify_one();
        self.ended.notify_waiters();
        Ok(())
    }

    pub(super) fn close(&self) -> Result<()> {
        let mut told = Ok(());
        let journals = {
            let mut state = self.state();
            let before = std::mem::replace(&mut state.phase, Phase::Closed);
            for queue in state.lanes.iter_mut() {
                queue.waiting.clear();
                if before == Phase::Open {
                    told = told.and(queue.pay());
                }
            }
            state.journals()
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

/// Alert and telemetry, as the disks have them.
fn read_lanes(
    disks: &PerLane<Arc<dyn Disk>>,
    volatile: bool,
    options: &OutboxOptions,
) -> Result<[Opening; 2]> {
    let read = |lane| {
        let journal = journal_options(options, lane, volatile);
        Opening::new(disks.get(lane).clone(), lane, journal, options)
    };
    Ok([read(Lane::Alert)?, read(Lane::Telemetry)?])
}

fn begin_lanes([alert, telemetry]: [Opening; 2], identity: Identity) -> Result<PerLane<Queue>> {
    let (mut alert, alert_told) = alert.begin(identity)?;
    let (mut telemetry, telemetry_told) = telemetry.begin(identity)?;
    // The epoch is on the disk before any message carries it, and the settlements found before they are trimmed.
    alert.journal.wait_durable(alert_told)?;
    telemetry.journal.wait_durable(telemetry_told)?;
    alert.trim_noted()?;
    telemetry.trim_noted()?;
    Ok(PerLane { alert, telemetry })
}

/// Whether a journal that was there is there: opening would make a new one where the storage is missing for the time being.
pub(crate) fn check_there(disk: &dyn Disk) -> Result<()> {
    let missing = match disk.list() {
        Ok(files) if !files.is_empty() => return Ok(()),
        Ok(_) => std::io::Error::new(std::io::ErrorKind::NotFound, "it is empty"),
        Err(error) => error,
    };
    let text = "the outbox that was suspended is not there: its storage is missing, or not available yet";
    Err(Error::new(ErrorKind::JournalIo, RESUME, text).with("folder", disk.describe()).caused_by(missing))
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
