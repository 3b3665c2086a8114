//! The durable queue between the program and the network: two lanes, bounds, expiry, receipts, outcomes.
//!
//! Each lane is a journal of its own, so a message's number in its lane is its journal number. Memory holds the window
//! and a bounded read-ahead, never the backlog. Nothing here knows of MQTT.

mod clock;
mod codec;
mod entry;
mod ids;
mod ledger;
mod note;
mod options;
mod outcome;
mod ranges;

use std::sync::Arc;

#[cfg(feature = "testing")]
pub use clock::ManualClock;
pub use clock::{Clock, Now, SystemClock};
pub use options::{Durability, OutboxOptions, Overflow, Storage};
pub use outcome::{Account, Counters, DropReason, Outcome, ReceiptState};

use crate::{Lane, Message, Result};

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

/// A handle; clones share the outbox.
#[derive(Clone)]
pub struct Outbox {
    inner: Arc<()>,
}

impl Outbox {
    /// Opens or creates the outbox. Blocking; reads the last segment of each lane only.
    ///
    /// # Errors
    /// `InUse`, `JournalVersion`, `JournalIo`, `DiskFull`.
    pub fn open(storage: &Storage, options: OutboxOptions) -> Result<Self> {
        let _ = (storage, options);
        unimplemented!()
    }

    /// Random id made when the directory was created: with lane and number it names a message for ever.
    pub fn id(&self) -> &str {
        unimplemented!()
    }

    /// Takes a message in; returns when it is as safe as was asked for. Cancelling before leaves it either wholly in or
    /// wholly out; it is in the account if it is in.
    ///
    /// # Errors
    /// As [`Message::validate`]; `OutboxFull`, `DiskFull`, `JournalIo`, `Closed`.
    pub async fn send(&self, message: Message) -> Result<Receipt> {
        let _ = message;
        unimplemented!()
    }

    /// Takes many in, in order, with one commit. All or none.
    ///
    /// # Errors
    /// As [`Outbox::send`]; `details` names the index of an invalid message.
    pub async fn send_all(&self, messages: Vec<Message>) -> Result<Vec<Receipt>> {
        let _ = messages;
        unimplemented!()
    }

    /// The receipt of a message, also one from before a restart; `None` when it is not known (any more). Blocking when
    /// the message still waits in a large backlog.
    ///
    /// # Errors
    /// `JournalIo`.
    pub fn receipt(&self, message_id: &str) -> Result<Option<Receipt>> {
        let _ = message_id;
        unimplemented!()
    }

    /// Reads up to `limit` messages of `lane` that may be sent, from `from` on (or the first unsettled one), in order,
    /// skipping settled ones and settling expired and damaged ones on the way. Blocking when they are not in memory.
    /// Returns the sequence to go on from.
    ///
    /// # Errors
    /// `JournalIo`.
    pub fn read(&self, lane: Lane, from: Sequence, limit: usize, out: &mut Vec<Queued>) -> Result<Sequence> {
        let _ = (lane, from, limit, out);
        unimplemented!()
    }

    /// First unsettled sequence of a lane.
    pub fn head(&self, lane: Lane) -> Sequence {
        let _ = lane;
        unimplemented!()
    }

    /// Resolves when a message has become ready to be read since the last call (or at once, if one has). One waiter.
    pub async fn readable(&self) {
        unimplemented!()
    }

    /// Notes that messages were handed to the network. In memory only.
    pub fn mark_sent(&self, sent: &[(Lane, Sequence)]) {
        let _ = sent;
        unimplemented!()
    }

    /// Notes that the link is gone: what was sent and not settled is queued again.
    pub fn mark_unsent(&self) {
        unimplemented!()
    }

    /// Ends messages. Written lazily, and at once when the outbox runs empty; waiting receipts resolve now.
    ///
    /// # Errors
    /// `JournalIo`. A sequence that is settled already is ignored.
    pub fn settle(&self, settled: Vec<(Lane, Sequence, Outcome)>) -> Result<()> {
        let _ = settled;
        unimplemented!()
    }

    /// Ends every message whose time has come, as far as it is known without reading the backlog. Returns when to call
    /// again.
    ///
    /// # Errors
    /// `JournalIo`.
    pub fn expire(&self) -> Result<Option<tokio::time::Instant>> {
        unimplemented!()
    }

    /// Resolves when nothing is queued.
    pub async fn empty(&self) {
        unimplemented!()
    }

    /// The account.
    pub fn account(&self) -> Account {
        unimplemented!()
    }

    /// The figures.
    pub fn counters(&self) -> Counters {
        unimplemented!()
    }

    /// Commits everything and gives the directory free. Blocking. Later calls fail with `Closed`; open receipts fail
    /// with `Closed` and can be asked for again after reopening.
    ///
    /// # Errors
    /// `JournalIo`, `DiskFull`.
    pub fn close(&self) -> Result<()> {
        let _ = &self.inner;
        unimplemented!()
    }
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").finish_non_exhaustive()
    }
}

/// What `send` returns: the message is safe, and this is how to follow it. Cheap to clone; dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct Receipt {
    message_id: String,
}

impl Receipt {
    /// The id to find this receipt again with, also after a restart.
    pub fn message_id(&self) -> &str {
        &self.message_id
    }

    /// Where the message is now.
    pub fn state(&self) -> ReceiptState {
        unimplemented!()
    }

    /// Waits for the end. Cancelling changes nothing; call again.
    ///
    /// # Errors
    /// `Closed` when the client is closed first; `NotFound` when the outcome is no longer kept.
    pub async fn outcome(&self) -> Result<Outcome> {
        unimplemented!()
    }
}
