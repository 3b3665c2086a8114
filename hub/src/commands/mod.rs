//! Commands: one durable queue per device, locks, expiry, delivery count, outcomes, feedback, dead letters. No protocols.
//! Contract `c2d.md`.

mod feedback;
mod outcomes;
mod queue;
mod receiver;
mod send;
mod slot;
#[cfg(test)]
mod tests;
mod token;
mod upkeep;
mod writer;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::sync::{Notify, Semaphore, broadcast, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use whimbrel::{
    Error, ErrorKind, Message, Result,
    outbox::{Clock, SystemClock},
    wire::record,
};
pub use whimbrel::{
    transport::Settlement,
    wire::feedback::{CommandOutcome, Feedback, FeedbackWanted},
};

use crate::{
    access::Admitted,
    registry::Registry,
    store::{DeadLetterRow, Store},
};
use feedback::FeedbackQueue;
use queue::Rules;
use receiver::{closed, deliver, lost, settle};
use slot::Directory;
use upkeep::Timers;
use writer::Write;

pub use feedback::FeedbackReader;
pub use outcomes::OutcomeReader;
pub use receiver::Receiver;
pub use token::LockToken;

/// Outcomes that a slow reader may be behind before it is told that it missed some.
const OUTCOMES: usize = 8_192;
/// After the disk failed, how long until what time made due is tried again.
const PATIENCE: Duration = Duration::from_secs(1);

/// Settings of the queues. The defaults are those of Azure IoT Hub where it has one.
#[derive(Clone, Debug)]
pub struct CommandOptions {
    /// Commands waiting or locked in one queue, at most. Default 50.
    pub depth: usize,
    /// How long a delivered command is locked. Default 60 s.
    pub lock: Duration,
    /// Time to live of commands that bring no expiry time. Default 1 h.
    pub time_to_live: Duration,
    /// Longest time to live; a command that asks for more is refused. Default 48 h.
    pub longest_time_to_live: Duration,
    /// Deliveries that count before a command is dead-lettered, 1 to 100. Default 10.
    pub max_delivery_count: u32,
    /// Whether a lock that runs out counts as a delivery, as abandoning does. Default no.
    pub count_lock_expiry: bool,
    /// How long dead-lettered commands are kept. Default 7 days.
    pub dead_letter_retention: Duration,
    /// How long outcomes are kept. Default 7 days.
    pub outcome_retention: Duration,
    /// Feedback records in one message to contract readers. Default 64.
    pub feedback_batch: usize,
    /// Longest wait for a full batch, since the one before. Default 15 s.
    pub feedback_linger: Duration,
    /// How long a feedback message is locked, 5 to 300 s. Default 60 s.
    pub feedback_lock: Duration,
    /// How long feedback is kept. Default 1 h, 1 min to 48 h.
    pub feedback_time_to_live: Duration,
    /// Deliveries of a feedback message before it is dropped, 1 to 100. Default 10.
    pub feedback_max_delivery_count: u32,
}

impl Default for CommandOptions {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(3_600);
        Self {
            depth: 50,
            lock: Duration::from_secs(60),
            time_to_live: HOUR,
            longest_time_to_live: 48 * HOUR,
            max_delivery_count: 10,
            count_lock_expiry: false,
            dead_letter_retention: 7 * 24 * HOUR,
            outcome_retention: 7 * 24 * HOUR,
            feedback_batch: 64,
            feedback_linger: Duration::from_secs(15),
            feedback_lock: Duration::from_secs(60),
            feedback_time_to_live: HOUR,
            feedback_max_delivery_count: 10,
        }
    }
}

/// All queues of the hub. Cheap to clone.
#[derive(Clone)]
pub struct Commands {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    registry: Registry,
    options: CommandOptions,
    clock: Arc<dyn Clock>,
    directory: Directory,
    timers: Arc<Timers>,
    feedback: FeedbackQueue,
    writes: mpsc::UnboundedSender<Write>,
    /// Kibibytes of commands that may wait for the disk.
    room: Arc<Semaphore>,
    outcomes: broadcast::Sender<CommandStatus>,
    /// Has the store asked for expired commands.
    look: Arc<Notify>,
    numbers: AtomicU64,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What [`Commands::send`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Number in the device's queue.
    pub sequence: u64,
}

/// A command, locked for whoever received it.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// To settle it by.
    pub lock: LockToken,
    /// Number in the device's queue.
    pub sequence: u64,
    /// When it was taken in.
    pub enqueued_at: SystemTime,
    /// How many deliveries counted before this one.
    pub delivery_count: u32,
    /// The command. `expiry_time` is always set; `to` is the device's own address.
    pub message: Message,
}

/// Where a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandState {
    /// In its queue.
    Enqueued,
    /// Delivered and not settled yet.
    Locked,
    /// Over.
    Ended {
        /// How.
        outcome: CommandOutcome,
        /// When.
        at: SystemTime,
    },
}

/// What is known of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandStatus {
    /// Device it was for.
    pub device: Arc<str>,
    /// Generation of that device.
    pub generation: Arc<str>,
    /// Number in the device's queue.
    pub sequence: u64,
    /// Its id, where the service gave one.
    pub message_id: Option<String>,
    /// Where it is.
    pub state: CommandState,
}

/// A command that did not get to its end.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Names it among the dead letters of the hub; rises with time.
    pub id: u64,
    /// Device it was for.
    pub device: Arc<str>,
    /// Number in the device's queue.
    pub sequence: u64,
    /// Why it is dead: any outcome but `Completed` and `Purged`.
    pub outcome: CommandOutcome,
    /// When it was taken in.
    pub enqueued_at: SystemTime,
    /// When it ended.
    pub ended_at: SystemTime,
    /// How many deliveries counted.
    pub delivery_count: u32,
    /// The command.
    pub message: Message,
}

/// Some feedback records, locked for whoever received them.
#[derive(Clone, Debug)]
pub struct FeedbackBatch {
    /// To settle it by.
    pub lock: LockToken,
    /// When the newest record was made.
    pub enqueued_at: SystemTime,
    /// How many deliveries counted before this one.
    pub delivery_count: u32,
    /// The records, oldest first.
    pub records: Vec<Feedback>,
}

/// How long a reader of feedback waits for a full batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// As the contract has it: until the batch is full or the linger time is over.
    Contract,
    /// Not at all.
    None,
}

impl Commands {
    /// The queues in `store`. Has to be called in a runtime: expiry works in a task of its own.
    pub fn start(store: Arc<dyn Store>, registry: Registry, options: CommandOptions) -> Self {
        Self::start_at(store, registry, options, Arc::new(SystemClock))
    }

    /// [`Commands::start`] with a clock of the caller's.
    fn start_at(
        store: Arc<dyn Store>,
        registry: Registry,
        options: CommandOptions,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (writes, waiting) = mpsc::unbounded_channel();
        let changes = registry.changes();
        let inner = Arc::new(Inner {
            store: Arc::clone(&store),
            registry,
            options,
            clock,
            directory: Directory::default(),
            timers: Arc::default(),
            feedback: FeedbackQueue::default(),
            writes,
            room: Arc::new(Semaphore::new(send::ROOM)),
            outcomes: broadcast::Sender::new(OUTCOMES),
            look: Arc::default(),
            numbers: AtomicU64::new(0),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let weak = || Arc::downgrade(&inner);
        let stop = || inner.stop.clone();
        inner.tasks.spawn(writer::run(store, weak(), waiting));
        inner.tasks.spawn(upkeep::ring(Arc::clone(&inner.timers), weak(), stop()));
        inner.tasks.spawn(upkeep::sweep(weak(), Arc::clone(&inner.look), stop()));
        inner.tasks.spawn(upkeep::follow_registry(changes, weak(), stop()));
        Self { inner }
    }

    /// Stops: ends waiting receivers and readers with `Closed`. What was accepted is stored. To be called before the
    /// store is closed; does nothing the second time.
    pub async fn close(&self) {
        let inner = &self.inner;
        inner.stop.cancel();
        inner.end_all();
        inner.write(Write::Stop);
        inner.tasks.close();
        inner.tasks.wait().await;
    }

    /// The settings.
    pub fn options(&self) -> &CommandOptions {
        &self.inner.options
    }

    /// Puts a command into the queue of a device; returns when it is on stable storage. The application property
    /// `iothub-ack` says which feedback is wanted, the expiry time how long it lives; without one, the message's time to
    /// live or the default counts from now. An expiry time that is over already is accepted: the command expires at once.
    /// Cancelling leaves it in or out.
    ///
    /// # Errors
    /// `NotFound` for a device that is unknown or disabled; `QueueFull`; `PayloadTooLarge`; `InvalidArgument` for what
    /// [`Message::validate_command`] finds, an unknown `iothub-ack`, and an expiry time too far away (detail
    /// `part: expiry`); `DiskFull`, `JournalIo`, `Closed`.
    pub async fn send(&self, device: &str, message: Message) -> Result<Sent> {
        self.inner.send(device.into(), message, None).await
    }

    /// Somebody who receives the commands of a device, such as a connection or a link. Dropping it returns what it has
    /// locked to the queue at once, without counting.
    pub fn receiver(&self, device: &Admitted) -> Receiver {
        Receiver::new(self.inner.enter(&device.device, &device.generation))
    }

    /// Locks the first waiting command of a device, if there is one. The lock ends by settling or by time.
    ///
    /// # Errors
    /// `NotFound` when the device was deleted; `JournalIo`, `Closed`.
    pub async fn take(&self, device: &Admitted) -> Result<Option<Delivery>> {
        let user = self.inner.enter(&device.device, &device.generation);
        user.loaded().await?;
        let mut taken = Vec::new();
        let taking = user.with(|queue, now, _| deliver(queue, now, None, 1, &mut taken));
        taking.unwrap_or_else(|| Err(user.fault()))?;
        Ok(taken.pop())
    }

    /// Settles a command that [`Commands::take`] locked; durable when it returns. It is decided when the future is
    /// first polled: dropping it after that does not undo it.
    ///
    /// # Errors
    /// `LockLost` for a token that is unknown or over; `DiskFull`, `JournalIo`, `Closed`: it is still locked.
    pub async fn settle(&self, device: &Admitted, lock: LockToken, settlement: Settlement) -> Result<()> {
        let settled = {
            // Nothing is locked in a queue that is not in memory.
            if self.inner.loaded(&device.device, &device.generation).is_none() {
                self.inner.check_open("commands.settle")?;
                return Err(lost(&device.device));
            }
            settle(&self.inner.enter(&device.device, &device.generation), lock, settlement)
        };
        settled.await
    }

    /// Ends all commands of a device, locked ones included, as purged; returns how many.
    ///
    /// # Errors
    /// `NotFound` for an unknown device; `DiskFull`, `JournalIo`, `Closed`.
    pub async fn purge(&self, device: &str) -> Result<u64> {
        self.inner.check_open("commands.purge")?;
        let known = self.inner.registry.known(device)?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "commands.purge", "there is no such device")
                .with("device", device)
        })?;
        let user = self.inner.enter(&known.id, &known.generation);
        user.loaded().await?;
        let answers = user
            .with(|queue, now, wanted| {
                let known = wanted.steps.len();
                queue.purge(now, &mut wanted.steps);
                let purged = wanted.steps.split_off(known);
                let answered = purged.into_iter().map(|step| {
                    let (reply, answer) = oneshot::channel();
                    wanted.answered.push((step, reply));
                    answer
                });
                answered.collect::<Vec<_>>()
            })
            .ok_or_else(|| user.fault())?;
        let mut purged = 0;
        let mut failure = None;
        for answer in answers {
            match answer.await {
                Ok(Ok(())) => purged += 1,
                // Its device was deleted meanwhile.
                Ok(Err(error)) if error.kind() == ErrorKind::LockLost => {}
                Ok(Err(error)) => failure = Some(error),
                Err(_) => failure = Some(closed("commands.purge")),
            }
        }
        failure.map_or(Ok(purged), Err)
    }

    /// Commands waiting or locked in the queue of a device now.
    ///
    /// # Errors
    /// `JournalIo`, `Closed`.
    pub async fn pending(&self, device: &str) -> Result<u64> {
        self.inner.store.command_count(device).await
    }

    /// What is known of the newest command with this message id; `None` when there is none (any more).
    ///
    /// # Errors
    /// `JournalIo`, `Closed`.
    pub async fn status(&self, device: &str, message_id: &str) -> Result<Option<CommandStatus>> {
        let Some(row) = self.inner.store.command_status(device, message_id).await? else { return Ok(None) };
        let is_locked = || {
            let slot = self.inner.loaded(device, &row.generation)?;
            slot.is_locked(row.sequence)
        };
        let state = match row.ended {
            Some((outcome, at)) => CommandState::Ended { outcome, at },
            None if is_locked() == Some(true) => CommandState::Locked,
            None => CommandState::Enqueued,
        };
        Ok(Some(CommandStatus {
            device: device.into(),
            generation: row.generation,
            sequence: row.sequence,
            message_id: Some(message_id.to_owned()),
            state,
        }))
    }

    /// Every outcome from now on, as soon as it is durable, whatever feedback was asked for.
    pub fn outcomes(&self) -> OutcomeReader {
        OutcomeReader::new(self.inner.outcomes.subscribe(), self.inner.stop.clone())
    }

    /// Dead-lettered commands with ids after `after`, oldest first; of one device or of all. One that cannot be read any
    /// more is left out.
    ///
    /// # Errors
    /// `JournalIo`, `Closed`.
    pub async fn dead_letters(
        &self,
        device: Option<&str>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>> {
        let rows = self.inner.store.dead_letters(device, after.unwrap_or(0), limit).await?;
        let readable = |row: DeadLetterRow| {
            let id = row.id;
            DeadLetter::read(row)
                .inspect_err(|error| tracing::warn!(%error, id, "a dead letter cannot be read"))
                .ok()
        };
        Ok(rows.into_iter().filter_map(readable).collect())
    }

    /// One dead-lettered command.
    ///
    /// # Errors
    /// `NotFound`; `JournalIo`, `Closed`; `JournalCorrupt` when it cannot be read any more.
    pub async fn dead_letter(&self, id: u64) -> Result<DeadLetter> {
        let none = || {
            let text = "there is no such dead letter";
            Error::new(ErrorKind::NotFound, "commands.dead_letter", text).with("id", id)
        };
        let before = id.checked_sub(1).ok_or_else(none)?;
        let mut rows = self.inner.store.dead_letters(None, before, 1).await?;
        DeadLetter::read(rows.pop().filter(|row| row.id == id).ok_or_else(none)?)
    }

    /// Puts a dead-lettered command into its queue again, with the default time to live, and removes it from the dead
    /// letters, in one step.
    ///
    /// # Errors
    /// As [`Commands::send`]; `NotFound` also for the dead letter.
    pub async fn resend(&self, id: u64) -> Result<Sent> {
        let DeadLetter { device, mut message, .. } = self.dead_letter(id).await?;
        message.system_mut().expiry_time = None;
        self.inner.send(device, message, Some(id)).await
    }

    /// Somebody who reads feedback. Readers compete: a record goes to one of them. Dropping it returns what it has locked.
    pub fn feedback(&self, patience: Patience) -> FeedbackReader {
        FeedbackReader::new(Arc::clone(&self.inner), patience)
    }

    /// Locks the feedback that is ready for a reader of this patience, if there is some. The lock ends by settling or by time.
    ///
    /// # Errors
    /// `JournalIo`, `Closed`.
    pub async fn take_feedback(&self, patience: Patience) -> Result<Option<FeedbackBatch>> {
        self.inner.take_feedback(patience, None).await
    }

    /// Settles feedback; durable when it returns. Rejecting removes it, as completing does.
    ///
    /// # Errors
    /// As [`Commands::settle`].
    pub async fn settle_feedback(&self, lock: LockToken, settlement: Settlement) -> Result<()> {
        self.inner.settle_feedback(lock, settlement).await
    }
}

impl Inner {
    /// A number nobody had before.
    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Hands a change to the writer. After the end it goes nowhere, and whoever waits for it hears so.
    fn write(&self, write: Write) {
        let _ = self.writes.send(write);
    }

    fn look_for_expired(&self) {
        self.look.notify_one();
    }

    fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.stop.is_cancelled() { Err(closed(operation)) } else { Ok(()) }
    }
}

impl Drop for Inner {
    /// Whoever forgot to close it leaves no tasks behind.
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl From<&CommandOptions> for Rules {
    fn from(options: &CommandOptions) -> Self {
        Self {
            lock: options.lock,
            max_delivery_count: options.max_delivery_count,
            count_lock_expiry: options.count_lock_expiry,
        }
    }
}

impl DeadLetter {
    fn read(row: DeadLetterRow) -> Result<Self> {
        Ok(Self {
            id: row.id,
            device: row.device,
            sequence: row.sequence,
            outcome: row.outcome,
            enqueued_at: row.enqueued_at,
            ended_at: row.ended_at,
            delivery_count: row.delivery_count,
            message: record::decode(row.record)?,
        })
    }
}
