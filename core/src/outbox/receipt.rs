//! Following a message to its end.

use std::{
    fmt,
    ops::Range,
    sync::{Arc, OnceLock, Weak},
};

use tokio::sync::oneshot;

use super::{
    Outcome, ReceiptState, Sequence,
    entry::Entry,
    ids::{self, Key, OutboxId},
    open::{Phase, Shared},
    queue::Queue,
};
use crate::{
    Error, ErrorKind, Lane, Result,
    journal::{Journal, Read, Ticket},
};

const OPERATION: &str = "outbox.receipt";

/// What `send` returns: the message is safe, and this is how to follow it. Cheap to clone; dropping it changes nothing.
#[derive(Clone)]
pub struct Receipt {
    outbox: Weak<Shared>,
    outbox_id: OutboxId,
    lane: Lane,
    epoch: u32,
    sequence: Sequence,
    /// Made when somebody asks, unless the program chose it.
    id: OnceLock<Box<str>>,
    /// The outcome, where it was known when the receipt was made.
    ended: Option<Outcome>,
}

/// What a [`Receipt`] comes down to while its outbox is open: numbers, for those who cannot keep the receipt itself, such as
/// another language. [`Outbox::receipt_at`](super::Outbox::receipt_at) leads back to it, but for a message id that the program
/// chose, which the program knows. Across restarts the message id leads back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReceiptKey {
    lane: Lane,
    epoch: u32,
    sequence: Sequence,
}

impl ReceiptKey {
    /// As two numbers, each below 2^53.
    pub fn to_parts(self) -> [u64; 2] {
        let lane = u64::from(self.lane == Lane::Alert);
        [lane << 32 | u64::from(self.epoch), self.sequence]
    }

    /// From what [`ReceiptKey::to_parts`] gave. Other numbers make a key that no message has.
    pub fn from_parts([place, sequence]: [u64; 2]) -> Self {
        let lane = if place >> 32 == 0 { Lane::Telemetry } else { Lane::Alert };
        Self { lane, epoch: place as u32, sequence }
    }
}

impl Receipt {
    pub(super) fn queued(
        outbox: &Arc<Shared>,
        lane: Lane,
        epoch: u32,
        sequence: Sequence,
        id: Option<&str>,
    ) -> Self {
        let id = id.map_or_else(OnceLock::new, |id| OnceLock::from(Box::from(id)));
        let outbox_id = outbox.id;
        Self { outbox: Arc::downgrade(outbox), outbox_id, lane, epoch, sequence, id, ended: None }
    }

    pub(super) fn ended(outbox: &Arc<Shared>, lane: Lane, id: String, outcome: Outcome) -> Self {
        Self { ended: Some(outcome), ..Self::queued(outbox, lane, 0, 0, Some(&id)) }
    }

    /// The key of this receipt; `None` when the message had ended before the receipt was made, which the receipt itself
    /// tells.
    pub fn key(&self) -> Option<ReceiptKey> {
        let Self { lane, epoch, sequence, .. } = *self;
        self.ended.is_none().then_some(ReceiptKey { lane, epoch, sequence })
    }

    /// The id to find this receipt again with, also after a restart.
    pub fn message_id(&self) -> &str {
        self.id.get_or_init(|| ids::generated(self.outbox_id, self.lane, self.epoch, self.sequence).into())
    }

    /// Where the message is now.
    pub fn state(&self) -> ReceiptState {
        if let Some(outcome) = &self.ended {
            return ReceiptState::Settled(outcome.clone());
        }
        let Some(shared) = self.outbox.upgrade() else { return ReceiptState::Unknown };
        let state = shared.state();
        let queue = state.lanes.get(self.lane);
        if self.is_lost(queue) {
            return ReceiptState::Unknown;
        }
        if !queue.ledger.is_queued(self.sequence) {
            let ended = queue.ledger.ended(self.sequence);
            return ended.map_or(ReceiptState::Unknown, |ended| ReceiptState::Settled(ended.outcome.clone()));
        }
        if self.sequence <= queue.sent_to { ReceiptState::Sent } else { ReceiptState::Queued }
    }

    /// Waits for the end, also while the client is suspended. Cancelling changes nothing; call again.
    ///
    /// # Errors
    /// `Closed` when the client is closed first; `NotFound` when the outcome is no longer kept.
    pub async fn outcome(&self) -> Result<Outcome> {
        const OPERATION: &str = "receipt.outcome";
        let closed = || {
            let text = "the outbox was closed before the message ended; ask again by its id after opening";
            Error::new(ErrorKind::Closed, OPERATION, text)
        };
        if let Some(outcome) = &self.ended {
            return Ok(outcome.clone());
        }
        loop {
            let ended = {
                let shared = self.outbox.upgrade().ok_or_else(closed)?;
                let mut state = shared.state();
                let is_closed = state.phase == Phase::Closed;
                let queue = state.lanes.get_mut(self.lane);
                if self.is_lost(queue) || !queue.ledger.is_queued(self.sequence) {
                    let kept = queue.ledger.ended(self.sequence).filter(|_| !self.is_lost(queue));
                    return kept.map(|ended| ended.outcome.clone()).ok_or_else(|| {
                        let text = "the message ended so long ago that its outcome is no longer kept";
                        Error::new(ErrorKind::NotFound, OPERATION, text)
                    });
                }
                if is_closed {
                    return Err(closed());
                }
                let (sender, ended) = oneshot::channel();
                let waiting = queue.waiting.entry(self.sequence).or_default();
                waiting.retain(|sender| !sender.is_closed());
                waiting.push(sender);
                ended
            };
            // Otherwise the outbox was closed, or suspended and opened again: that is told by another look.
            if let Ok(outcome) = ended.await {
                return Ok(outcome);
            }
        }
    }

    /// Whether the message did not reach the disk before the outbox was suspended: its number is, or will be, that of
    /// another one.
    fn is_lost(&self, queue: &Queue) -> bool {
        self.epoch < queue.identity.epoch && self.sequence >= queue.begun
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("message_id", &self.message_id()).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn receipt_with(self: &Arc<Self>, key: ReceiptKey) -> Receipt {
        Receipt::queued(self, key.lane, key.epoch, key.sequence, None)
    }

    /// Finds a message by its id.
    pub(super) fn receipt(self: &Arc<Self>, id: &str) -> Result<Option<Receipt>> {
        match ids::parse(self.id, id) {
            Some((lane, epoch, sequence)) => self.receipt_at(lane, epoch, sequence),
            None => self.receipt_of(id),
        }
    }

    /// By an id that says where the message is. The epoch tells it from one that a crash took back.
    fn receipt_at(self: &Arc<Self>, lane: Lane, epoch: u32, sequence: Sequence) -> Result<Option<Receipt>> {
        let key = Key::Generated(epoch);
        let receipt = Receipt::queued(self, lane, epoch, sequence, None);
        let backlog = {
            let state = self.open_state(OPERATION)?;
            let queue = state.lanes.get(lane);
            if !queue.ledger.is_queued(sequence) {
                let ended = queue.ledger.ended(sequence).filter(|ended| ended.key == key);
                return Ok(ended.map(|ended| Receipt { ended: Some(ended.outcome.clone()), ..receipt }));
            }
            if let Some(handed) = queue.known(sequence) {
                return Ok((handed.key == key).then_some(receipt));
            }
            Backlog::of(queue, sequence..sequence + 1)
        };
        Ok(backlog.find(|entry| entry.key() == key)?.map(|_| receipt))
    }

    /// By an id that the program chose: memory first, then the whole backlog.
    fn receipt_of(self: &Arc<Self>, id: &str) -> Result<Option<Receipt>> {
        let key = Key::chosen(id);
        let (epoch, backlogs) = {
            let state = self.open_state(OPERATION)?;
            for queue in state.lanes.iter() {
                let handed = queue.handed.find(key).filter(|sequence| queue.ledger.is_queued(*sequence));
                if let Some(sequence) = handed.or_else(|| queue.tail.find(id)) {
                    return Ok(Some(Receipt::queued(
                        self,
                        queue.lane,
                        queue.identity.epoch,
                        sequence,
                        Some(id),
                    )));
                }
                if let Some(ended) = queue.ledger.ended_as(key) {
                    return Ok(Some(Receipt::ended(self, queue.lane, id.into(), ended.outcome.clone())));
                }
            }
            let backlog = |queue: &Queue| Backlog::of(queue, queue.ledger.head..queue.ledger.next);
            (self.epoch(), [backlog(&state.lanes.alert), backlog(&state.lanes.telemetry)])
        };
        let is_it = |entry: &Entry| entry.message.system().message_id.as_deref() == Some(id);
        for backlog in backlogs {
            if let Some(sequence) = backlog.find(is_it)? {
                return Ok(Some(Receipt::queued(self, backlog.lane, epoch, sequence, Some(id))));
            }
        }
        Ok(None)
    }
}

/// Waiting messages of a lane, to be searched on the disk.
struct Backlog {
    lane: Lane,
    journal: Journal,
    written: Ticket,
    range: Range<Sequence>,
}

impl Backlog {
    fn of(queue: &Queue, range: Range<Sequence>) -> Self {
        Self { lane: queue.lane, journal: queue.journal.clone(), written: queue.journal.latest(), range }
    }

    fn find(&self, is_it: impl Fn(&Entry) -> bool) -> Result<Option<Sequence>> {
        if self.range.is_empty() {
            return Ok(None);
        }
        self.journal.wait_durable(self.written)?;
        let mut reader = self.journal.reader(self.range.start);
        while let Some(read) = reader.next()? {
            let Read::Record(sequence, record) = read else { continue };
            if sequence >= self.range.end {
                break;
            }
            if Entry::decode(&record).is_ok_and(|entry| is_it(&entry)) {
                return Ok(Some(sequence));
            }
        }
        Ok(None)
    }
}
