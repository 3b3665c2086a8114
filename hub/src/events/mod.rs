//! The event log: partitions, positions, retention, consumer groups, de-duplication of resends. No protocols.
//!
//! One log, one commit group; partitions are indexes over it. Contract `d2c.md`.

mod reader;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{sync::watch, task::JoinHandle, time::MissedTickBehavior};
use whimbrel::{Error, ErrorKind, Message, Result, journal::Ticket};

use crate::{
    access::Admitted,
    store::{Entry, Store, fnv1a},
};

pub use crate::store::{
    Event, Origin, Ownership, OwnershipClaim, PartitionState, Place, Position, ReadLimit, Retention,
};
pub use reader::EventReader;

/// Longest id of an outbox that marks are kept for, in bytes.
pub const OUTBOX_LIMIT: usize = 128;
/// Longest name of a consumer group.
const GROUP_LIMIT: usize = 50;
/// Longest id of a reader that owns a partition, in bytes.
const OWNER_LIMIT: usize = 128;
/// Longest time a reader may have a partition without saying that it still has it.
const LONGEST_CLAIM: Duration = Duration::from_secs(24 * 60 * 60);
/// How often retention and the like are looked after.
const UPKEEP_EVERY: Duration = Duration::from_secs(1);

/// An event on its way into the log.
#[derive(Debug)]
pub struct NewEvent<'a> {
    /// Who sent it, as the connection proved.
    pub sender: &'a Admitted,
    /// The message, with what the front stamped into its application properties (`mqtt-retain`, …).
    pub message: &'a Message,
    /// For senders that offer de-duplication.
    pub origin: Option<Origin<'a>>,
}

/// Settings of the event log.
#[derive(Clone, Debug, Default)]
pub struct EventOptions {
    /// How long events are kept.
    pub retention: Retention,
}

/// The event log. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    partitions: u32,
    stop: watch::Sender<bool>,
    upkeep: Mutex<Option<JoinHandle<()>>>,
}

impl Events {
    /// The event log in `store`. Has to be called in a runtime: retention works in a task of its own.
    pub fn start(store: Arc<dyn Store>, options: EventOptions) -> Self {
        let (stop, stopped) = watch::channel(false);
        let upkeep = tokio::spawn(keep_up(Arc::clone(&store), options.retention, stopped));
        let partitions = store.partition_count();
        Self { inner: Arc::new(Inner { store, partitions, stop, upkeep: Mutex::new(Some(upkeep)) }) }
    }

    /// Stops: makes what was staged durable, ends waiting readers with `Closed`, and closes the store. Does nothing the
    /// second time.
    ///
    /// # Errors
    /// `JournalIo`, `DiskFull`: what was staged last may be lost.
    pub async fn close(&self) -> Result<()> {
        self.inner.stop.send_replace(true);
        let upkeep = self.inner.upkeep.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(upkeep) = upkeep else { return Ok(()) };
        // Fails only when the task panicked, which was logged.
        let _ = upkeep.await;
        self.inner.store.close().await
    }

    /// Stages events, in order, all or none, and adds their places to `places`. Not durable before
    /// [`Events::durable`] of the ticket returns. A resend is not stored again; the ticket covers what it repeats.
    ///
    /// # Errors
    /// `DiskFull`, `JournalIo`, `Closed`, `PayloadTooLarge`; `InvalidArgument` for an outbox id over [`OUTBOX_LIMIT`]
    /// bytes: nothing was stored.
    pub fn append(&self, events: &[NewEvent<'_>], places: &mut Vec<Place>) -> Result<Ticket> {
        let mut batch = Vec::with_capacity(events.len());
        for NewEvent { sender, message, origin } in events {
            if origin.is_some_and(|origin| origin.outbox.len() > OUTBOX_LIMIT) {
                let text = "the id of an outbox is at most 128 bytes long";
                return Err(Error::new(ErrorKind::InvalidArgument, "events.append", text));
            }
            batch.push(Entry {
                partition: self.partition_of(&sender.device),
                device: &sender.device,
                module: sender.module.as_deref(),
                generation: &sender.generation,
                auth_method: &sender.auth_method,
                message,
                origin: *origin,
            });
        }
        self.inner.store.append(&batch, places)
    }

    /// Waits until everything up to `ticket` is on stable storage. Cancelling changes nothing.
    ///
    /// # Errors
    /// `JournalIo`, `DiskFull`: what was staged may be lost, and must not be acknowledged.
    pub async fn durable(&self, ticket: Ticket) -> Result<()> {
        self.inner.store.durable(ticket).await
    }

    /// Partition of a device: a stable hash of its id.
    pub fn partition_of(&self, device: &str) -> u32 {
        // The remainder is less than a u32.
        (fnv1a(device.as_bytes()) % u64::from(self.inner.partitions)) as u32
    }

    /// When the log was made.
    pub fn created_at(&self) -> SystemTime {
        self.inner.store.created_at()
    }

    /// What each partition holds, staged events included.
    pub fn partitions(&self) -> Vec<PartitionState> {
        self.inner.store.partitions()
    }

    /// Reads a partition.
    ///
    /// # Errors
    /// `NotFound` when there is no such partition.
    pub async fn reader(&self, partition: u32, from: Position) -> Result<EventReader> {
        self.inner.store.reader(partition, from).map(EventReader::new)
    }

    /// Names of the consumer groups; `$Default` is always there. Names are compared without case.
    ///
    /// # Errors
    /// `JournalIo`.
    pub async fn groups(&self) -> Result<Vec<String>> {
        self.inner.store.groups().await
    }

    /// Adds a consumer group.
    ///
    /// # Errors
    /// `Conflict` when it exists or there are 20; `InvalidArgument` for a name that is not 1 to 50 of ASCII letters,
    /// digits, `.`, `_` and `-`.
    pub async fn add_group(&self, name: &str) -> Result<()> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() || name.len() > GROUP_LIMIT || !name.bytes().all(allowed) {
            let text = "the name of a consumer group is 1 to 50 of ASCII letters, digits, '.', '_' and '-'";
            return Err(Error::new(ErrorKind::InvalidArgument, "events.add_group", text));
        }
        self.inner.store.add_group(name).await
    }

    /// Position a group stored for a partition: the sequence number of the last event it has dealt with.
    ///
    /// # Errors
    /// `NotFound` when there is no such group or partition.
    pub async fn checkpoint(&self, group: &str, partition: u32) -> Result<Option<u64>> {
        self.state("events.checkpoint", partition)?;
        self.inner.store.checkpoint(group, partition).await
    }

    /// Stores the sequence number of the last event a group has dealt with. It may go back.
    ///
    /// # Errors
    /// As [`Events::checkpoint`]; `InvalidArgument` beyond the end.
    pub async fn set_checkpoint(&self, group: &str, partition: u32, sequence: u64) -> Result<()> {
        const OPERATION: &str = "events.set_checkpoint";
        let next = self.state(OPERATION, partition)?.next;
        if sequence >= next {
            let text = "the partition has no event of that sequence number yet";
            return Err(Error::new(ErrorKind::InvalidArgument, OPERATION, text)
                .with("sequence", sequence)
                .with("next", next));
        }
        self.inner.store.set_checkpoint(group, partition, sequence).await
    }

    /// Which reader of a group has which partition, past owners included.
    ///
    /// # Errors
    /// `NotFound` when there is no such group.
    pub async fn ownerships(&self, group: &str) -> Result<Vec<Ownership>> {
        self.inner.store.ownerships(group, SystemTime::now()).await
    }

    /// Takes, renews or gives up a partition for a reader; `None` when the etag is no longer the current one: somebody
    /// was faster. The hub keeps the account; what detaches a reader is the epoch its link names.
    ///
    /// # Errors
    /// `NotFound` when there is no such group or partition; `InvalidArgument` for an owner that is not 1 to 128
    /// characters, an epoch over 2^63 - 1, or one that is to last over a day.
    pub async fn claim(&self, group: &str, claim: OwnershipClaim) -> Result<Option<Ownership>> {
        const OPERATION: &str = "events.claim";
        self.state(OPERATION, claim.partition)?;
        if !(1..=OWNER_LIMIT).contains(&claim.owner.len())
            || i64::try_from(claim.epoch).is_err()
            || claim.lasts > LONGEST_CLAIM
        {
            let text = "the owner is 1 to 128 bytes, the epoch at most 2^63 - 1, and it lasts a day at most";
            return Err(Error::new(ErrorKind::InvalidArgument, OPERATION, text));
        }
        self.inner.store.claim_ownership(group, claim, SystemTime::now()).await
    }

    fn state(&self, operation: &'static str, partition: u32) -> Result<PartitionState> {
        self.partitions().into_iter().find(|state| state.partition == partition).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, operation, "there is no such partition")
                .with("partition", partition)
        })
    }
}

/// Looks after the store until told to stop.
async fn keep_up(store: Arc<dyn Store>, retention: Retention, mut stopped: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(UPKEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_well = true;
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return,
            _ = ticks.tick() => {}
        }
        let outcome = store.maintain(retention, SystemTime::now()).await;
        if let Err(error) = &outcome
            && was_well
        {
            tracing::warn!(%error, "old events could not be removed or the index not saved; trying again");
        }
        was_well = outcome.is_ok();
    }
}
