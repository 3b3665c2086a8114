//! The durable queue between the program and the network: two lanes, bounds, expiry, receipts, outcomes.
//!
//! Each lane is a journal of its own, so a message's number in its lane is its journal number. Memory holds the window
//! and a bounded read-ahead, never the backlog. Nothing here knows of MQTT.

mod accept;
mod accepted;
mod clock;
pub(crate) mod codec;
mod deadlines;
mod entry;
mod figures;
mod handed;
mod ids;
mod ledger;
mod note;
mod open;
mod options;
mod outcome;
mod per_lane;
mod queue;
mod ranges;
mod read;
mod receipt;
mod room;
mod settle;
mod tail;

use std::{fmt, sync::Arc};

pub use accepted::Accepted;
#[cfg(feature = "testing")]
pub use clock::ManualClock;
pub use clock::{Clock, Now, SystemClock};
pub use options::{Durability, OutboxOptions, Overflow, Storage};
pub use outcome::{Account, Counters, DropReason, Outcome, ReceiptState};
pub use receipt::{Receipt, ReceiptKey};

pub(crate) use self::open::{check_there, real_disk};
use self::{open::Shared, per_lane::PerLane};
use crate::{Lane, Message, Result, journal::Disk};

/// Number of a message in its lane: rises by one, never used twice.
pub type Sequence = u64;

/// A message waiting in a lane, ready to be sent.
#[derive(Clone, Debug)]
pub struct Queued {
    /// Its lane.
    pub lane: Lane,
    /// Its place in the lane.
    pub sequence: Sequence,
    /// The number that travels with it for de-duplication: rises with `sequence`, and never repeats even when the
    /// outbox lost unsynced messages in a crash.
    pub number: u64,
    /// The message.
    pub message: Message,
}

/// A handle; clones share the outbox. Safe to use from any thread or task; no call waits for the network.
#[derive(Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
}

impl Outbox {
    /// Opens or creates the outbox. Blocking; reads the last segment of each lane only.
    ///
    /// # Errors
    /// `InvalidArgument` for a bound or interval of zero; `InUse` naming the process that has the folder open;
    /// `JournalVersion`, `JournalIo`, `DiskFull`.
    pub fn open(storage: &Storage, options: OutboxOptions) -> Result<Self> {
        Ok(Self { shared: Arc::new(Shared::open(storage, options)?) })
    }

    /// [`Outbox::open`] on disks and with a clock of the caller's, for tests.
    ///
    /// # Errors
    /// As there.
    #[doc(hidden)]
    pub fn open_on(
        alert: Arc<dyn Disk>,
        telemetry: Arc<dyn Disk>,
        options: OutboxOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let shared = Shared::open_on(PerLane { alert, telemetry }, false, options, clock)?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Random id made when the outbox was created: with lane and number it names a message for ever.
    pub fn id(&self) -> &str {
        &self.shared.name
    }

    /// Takes a message in; returns when it is as safe as was asked for. Cancelling before leaves it either wholly in or
    /// wholly out; it is in the account if it is in.
    ///
    /// When the wait for the disk fails, the message counts as queued until the outbox is closed, but is not sent;
    /// whether it is there after opening again depends on what reached the disk.
    ///
    /// # Errors
    /// As [`Message::validate`]; `OutboxFull`, `DiskFull`, `JournalIo`, `Closed`.
    pub async fn send(&self, message: Message) -> Result<Receipt> {
        self.accept(message)?.stored().await
    }

    /// Takes a message in without waiting for the disk: the first half of [`Outbox::send`], for callers that cannot await
    /// at every call. The message is in the account, and safe once [`Accepted::stored`] says so.
    ///
    /// # Errors
    /// As [`Outbox::send`], but for the wait.
    pub fn accept(&self, message: Message) -> Result<Accepted> {
        let told = Tell(self.shared.clone());
        let (receipt, commit) = self.shared.accept(message)?;
        Ok(Accepted::new(receipt, commit, told))
    }

    /// Takes many in, in order within each lane, with one wait. All or none: when the disk is full half-way, those
    /// that were stored already end as `Dropped`. A power cut while it runs may leave any number of the first ones of
    /// each lane.
    ///
    /// # Errors
    /// As [`Outbox::send`]; the detail `index` names an invalid message.
    pub async fn send_all(&self, messages: Vec<Message>) -> Result<Vec<Receipt>> {
        let _told = Tell(self.shared.clone());
        let (receipts, commits) = self.shared.accept_all(messages)?;
        for (journal, ticket) in commits.iter().flatten() {
            journal.durable(*ticket).await?;
        }
        Ok(receipts)
    }

    /// The receipt of a message, also one from before a restart; `None` when it is not known (any more). Where several
    /// messages share an id it is one of them. Blocking: an id that the program chose is looked for in the whole
    /// backlog.
    ///
    /// # Errors
    /// `JournalIo`, `Closed`.
    pub fn receipt(&self, message_id: &str) -> Result<Option<Receipt>> {
        self.shared.receipt(message_id)
    }

    /// The receipt that `key` is the key of. Nothing is looked up: a key of another outbox gives a receipt whose state is
    /// unknown.
    pub fn receipt_at(&self, key: ReceiptKey) -> Receipt {
        self.shared.receipt_with(key)
    }

    /// Reads up to `limit` messages of `lane` that may be sent, from `from` on (or the first unsettled one), in order,
    /// skipping settled ones and settling expired and damaged ones on the way. Appends them to `out` and returns the
    /// sequence to go on from. Blocking when they are not in memory.
    ///
    /// # Errors
    /// `JournalIo`, `JournalVersion` for a message that a newer version stored, `Closed`.
    pub fn read(&self, lane: Lane, from: Sequence, limit: usize, out: &mut Vec<Queued>) -> Result<Sequence> {
        self.shared.read(lane, from, limit, out)
    }

    /// Whether [`Outbox::read`] needs no disk there: the message is in memory, or there is none yet.
    pub fn is_at_hand(&self, lane: Lane, from: Sequence) -> bool {
        self.shared.is_at_hand(lane, from)
    }

    /// First unsettled sequence of a lane.
    pub fn head(&self, lane: Lane) -> Sequence {
        self.shared.state().lanes.get(lane).ledger.head
    }

    /// Resolves when a message has become ready to be read since the last call or the last [`Outbox::read`] that came
    /// to the end (at once, if one has), and when the outbox is closed. One waiter. Cancelling changes nothing.
    pub async fn readable(&self) {
        self.shared.readable().await;
    }

    /// Notes that messages were handed to the network, in the order of their lanes. In memory only.
    pub fn mark_sent(&self, sent: &[(Lane, Sequence)]) {
        self.shared.mark_sent(sent);
    }

    /// Notes that the link is gone: what was sent and not settled is queued again.
    pub fn mark_unsent(&self) {
        self.shared.mark_unsent();
    }

    /// Ends messages. Written lazily, and at once when the outbox runs empty; waiting receipts resolve now. A sequence
    /// that is settled already is ignored. On a full disk it is written when there is space again.
    ///
    /// # Errors
    /// `JournalIo`: the messages have ended, but after opening again those not yet written are sent again. `Closed`.
    pub fn settle(&self, settled: Vec<(Lane, Sequence, Outcome)>) -> Result<()> {
        self.shared.settle(settled)
    }

    /// Ends messages whose time has come: the first ones that are not on their way, and those behind them whose time to
    /// live is known from memory. The others end when they are reached. Returns when to call again, as far as that is
    /// known; new messages can make it earlier. Reads a little from the disk while the link is down.
    ///
    /// # Errors
    /// `JournalIo`, `JournalVersion`, `Closed`.
    pub fn expire(&self) -> Result<Option<tokio::time::Instant>> {
        self.shared.expire()
    }

    /// Resolves when nothing is queued, or the outbox is closed. Cancelling changes nothing.
    pub async fn empty(&self) {
        self.shared.empty().await;
    }

    /// The account.
    pub fn account(&self) -> Account {
        self.shared.account()
    }

    /// The figures. May read one record of each lane from the disk, for the age of the oldest.
    pub fn counters(&self) -> Counters {
        self.shared.counters()
    }

    /// Commits everything and gives the directory free, until [`Outbox::resume`]. Blocking. Until then calls fail with
    /// `Closed`, but for the figures, which stay as they are; receipts wait on. An outbox in memory keeps its messages.
    /// Suspending twice is fine.
    ///
    /// # Errors
    /// `JournalIo`, `DiskFull`. It is suspended all the same.
    pub fn suspend(&self) -> Result<()> {
        self.shared.suspend()
    }

    /// Opens the outbox again after [`Outbox::suspend`], as it is found on the disk. Blocking. Nothing has changed when it
    /// fails: call again. Never makes a new outbox where the old one is missing. Resuming twice is fine.
    ///
    /// # Errors
    /// `JournalIo` when the storage is not available; `Conflict` when another outbox, or an older copy, is there now;
    /// `InUse`, `JournalVersion`, `DiskFull`; `Closed`.
    pub fn resume(&self) -> Result<()> {
        self.shared.resume()
    }

    /// Fails with `Closed` unless the outbox is open.
    pub(crate) fn check_open(&self, operation: &'static str) -> Result<()> {
        self.shared.open_state(operation).map(drop)
    }

    /// Commits everything and gives the directory free. Blocking. Later calls fail with `Closed`; open receipts fail
    /// with `Closed` and can be asked for again after reopening. Closing twice is fine.
    ///
    /// # Errors
    /// `JournalIo`, `DiskFull`.
    pub fn close(&self) -> Result<()> {
        self.shared.close()
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// Tells the reader of new messages when `send` is done with them, or is cancelled: one wake-up, when they can be read.
struct Tell(Arc<Shared>);

impl Drop for Tell {
    fn drop(&mut self) {
        self.0.arrived.notify_one();
    }
}
