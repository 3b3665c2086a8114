//! Commands: one durable queue per device, locks, expiry, delivery count, outcomes, feedback, dead letters. No protocols.
//! Contract `c2d.md`.

use std::{
    fmt,
    future::Future,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use whimbrel::{Message, Result};
pub use whimbrel::{
    transport::Settlement,
    wire::feedback::{CommandOutcome, Feedback, FeedbackWanted},
};

use crate::{access::Admitted, registry::Registry, store::Store};

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
pub struct Commands {}

/// Names one delivery of a command, or of a feedback message. A GUID; a new one for each delivery.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LockToken([u8; 16]);

impl LockToken {
    /// The bytes in .NET's order (the first three fields little-endian), as they stand in an AMQP delivery tag.
    pub fn to_bytes_le(self) -> [u8; 16] {
        todo!()
    }

    /// The token in a delivery tag; `None` unless it is 16 bytes long.
    pub fn from_bytes_le(bytes: &[u8]) -> Option<Self> {
        todo!()
    }

    /// The token in a text: a GUID, in quotes or not.
    pub fn parse(text: &str) -> Option<Self> {
        todo!()
    }
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
        todo!()
    }

    /// Stops: ends waiting receivers and readers with `Closed`. What was accepted is stored.
    pub async fn close(&self) {
        todo!()
    }

    /// The settings.
    pub fn options(&self) -> &CommandOptions {
        todo!()
    }

    /// Puts a command into the queue of a device; returns when it is on stable storage. The application property
    /// `iothub-ack` says which feedback is wanted, the expiry time how long it lives. Cancelling leaves it in or out.
    ///
    /// # Errors
    /// `NotFound` for a device that is unknown or disabled; `QueueFull`; `PayloadTooLarge`; `InvalidArgument` for what
    /// [`Message::validate_command`] finds, an unknown `iothub-ack`, and an expiry time too far away (detail
    /// `part: expiry`); `DiskFull`, `JournalIo`, `Closed`.
    pub async fn send(&self, device: &str, message: Message) -> Result<Sent> {
        todo!()
    }

    /// Somebody who receives the commands of a device, such as a connection or a link. Dropping it returns what it has
    /// locked to the queue at once, without counting.
    pub fn receiver(&self, device: &Admitted) -> Receiver {
        todo!()
    }

    /// Locks the first waiting command of a device, if there is one. The lock ends by settling or by time.
    ///
    /// # Errors
    /// `JournalIo`, `Closed`.
    pub async fn take(&self, device: &Admitted) -> Result<Option<Delivery>> {
        todo!()
    }

    /// Settles a command that [`Commands::take`] locked; durable when it returns.
    ///
    /// # Errors
    /// `LockLost` for a token that is unknown or over; `DiskFull`, `JournalIo`, `Closed`: it is still locked.
    pub async fn settle(&self, device: &Admitted, lock: LockToken, settlement: Settlement) -> Result<()> {
        todo!()
    }

    /// Ends all commands of a device, locked ones included, as purged; returns how many.
    ///
    /// # Errors
    /// `NotFound` for an unknown device; `DiskFull`, `JournalIo`, `Closed`.
    pub async fn purge(&self, device: &str) -> Result<u64> {
        todo!()
    }

    /// Commands waiting or locked in the queue of a device now.
    ///
    /// # Errors
    /// `JournalIo`, `Closed`.
    pub async fn pending(&self, device: &str) -> Result<u64> {
        todo!()
    }

    /// What is known of the newest command with this message id; `None` when there is none (any more).
    ///
    /// # Errors
    /// `JournalIo`, `Closed`.
    pub async fn status(&self, device: &str, message_id: &str) -> Result<Option<CommandStatus>> {
        todo!()
    }

    /// Every outcome from now on, as soon as it is durable, whatever feedback was asked for.
    pub fn outcomes(&self) -> OutcomeReader {
        todo!()
    }

    /// Dead-lettered commands with ids after `after`, oldest first; of one device or of all.
    ///
    /// # Errors
    /// `JournalIo`, `Closed`.
    pub async fn dead_letters(
        &self,
        device: Option<&str>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>> {
        todo!()
    }

    /// One dead-lettered command.
    ///
    /// # Errors
    /// `NotFound`; `JournalIo`, `Closed`.
    pub async fn dead_letter(&self, id: u64) -> Result<DeadLetter> {
        todo!()
    }

    /// Puts a dead-lettered command into its queue again, with the default time to live, and removes it from the dead
    /// letters, in one step.
    ///
    /// # Errors
    /// As [`Commands::send`]; `NotFound` also for the dead letter.
    pub async fn resend(&self, id: u64) -> Result<Sent> {
        todo!()
    }

    /// Somebody who reads feedback. Readers compete: a record goes to one of them. Dropping it returns what it has locked.
    pub fn feedback(&self, patience: Patience) -> FeedbackReader {
        todo!()
    }

    /// Locks the feedback that is ready for a contract reader, if there is some. The lock ends by settling or by time.
    ///
    /// # Errors
    /// `JournalIo`, `Closed`.
    pub async fn take_feedback(&self) -> Result<Option<FeedbackBatch>> {
        todo!()
    }

    /// Settles feedback; durable when it returns. Rejecting removes it, as completing does.
    ///
    /// # Errors
    /// As [`Commands::settle`].
    pub async fn settle_feedback(&self, lock: LockToken, settlement: Settlement) -> Result<()> {
        todo!()
    }
}

/// Receives the commands of one device; see [`Commands::receiver`].
#[derive(Debug)]
pub struct Receiver {}

impl Receiver {
    /// Locks up to `limit` waiting commands, in order of their numbers, and adds them to `out`; waits when there are
    /// none. One waiter at a time.
    ///
    /// # Errors
    /// `NotFound` when the device was deleted; `JournalIo`; `Closed` when the hub stops.
    pub fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
        out: &mut Vec<Delivery>,
    ) -> Poll<Result<()>> {
        todo!()
    }

    /// [`Receiver::poll_next`] as a future. Cancelling loses nothing.
    ///
    /// # Errors
    /// As there.
    pub async fn next(&mut self, limit: usize, out: &mut Vec<Delivery>) -> Result<()> {
        std::future::poll_fn(|cx| self.poll_next(cx, limit, out)).await
    }

    /// Settles a command this receiver has locked. It is decided when this returns; the future resolves when it is
    /// durable. Dropping the future does not undo it.
    ///
    /// # Errors
    /// As [`Commands::settle`].
    pub fn settle(
        &mut self,
        lock: LockToken,
        settlement: Settlement,
    ) -> impl Future<Output = Result<()>> + Send + use<> {
        std::future::ready(todo!())
    }
}

/// Reads feedback; see [`Commands::feedback`].
#[derive(Debug)]
pub struct FeedbackReader {}

impl FeedbackReader {
    /// The next batch; waits for one. Cancelling loses nothing.
    ///
    /// # Errors
    /// `JournalIo`; `Closed` when the hub stops.
    pub async fn next(&mut self) -> Result<FeedbackBatch> {
        todo!()
    }

    /// As [`Receiver::settle`].
    ///
    /// # Errors
    /// As there.
    pub fn settle(
        &mut self,
        lock: LockToken,
        settlement: Settlement,
    ) -> impl Future<Output = Result<()>> + Send + use<> {
        std::future::ready(todo!())
    }
}

/// Hears of outcomes; see [`Commands::outcomes`].
#[derive(Debug)]
pub struct OutcomeReader {}

impl OutcomeReader {
    /// The next outcomes, at least one; waits for it. Cancelling loses nothing.
    ///
    /// # Errors
    /// `Conflict` when it was too slow and missed some; it goes on with the newer ones. `Closed` when the hub stops.
    pub async fn next(&mut self, limit: usize, out: &mut Vec<CommandStatus>) -> Result<()> {
        todo!()
    }
}

impl fmt::Display for LockToken {
    /// As a GUID in lower case, without braces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}

impl fmt::Debug for LockToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
