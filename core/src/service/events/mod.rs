//! Reading events: from a position, with checkpoints, alone or sharing the partitions with other readers.

mod balance;
mod partition;
mod position;
mod sharing;
mod source;
mod store;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration, time::SystemTime};

use tokio::sync::mpsc;

use partition::{Alive, Item};
use sharing::Crew;
use source::Log;

pub use position::Position;
pub use store::{
    Checkpoint, CheckpointStore, Claim, FileCheckpoints, HubCheckpoints, MemoryCheckpoints, Ownership,
};

use super::{Inner, random_id, stop::Task};
use crate::{Error, ErrorKind, Message, Result};

/// How to read events; made by [`ServiceClient::events`](super::ServiceClient::events).
///
/// With a checkpoint store, and unless partitions are chosen, all readers of a consumer group share the partitions: each
/// takes its part, takes over what others leave, and gives up what newcomers are due. A partition has one reader at a
/// time; when it changes hands, the events since the last checkpoint come again.
///
/// Without a store, or with chosen partitions, the reader reads what it was told to beside whoever else does; Azure allows
/// five of these for a partition and group.
#[must_use]
pub struct EventsBuilder {
    client: Arc<Inner>,
    group: String,
    from: Position,
    store: Option<Arc<dyn CheckpointStore>>,
    partitions: Option<Vec<u32>>,
    prefetch: u32,
    renew: Duration,
    lasts: Duration,
}

/// A stream of events, in order within each partition. Reconnects by itself and goes on behind the last event it handed
/// out, without a gap.
#[derive(Debug)]
pub struct EventReader {
    items: mpsc::Receiver<Item>,
    name: Arc<str>,
    task: Task,
}

/// A message of a device, as it was stored.
#[derive(Clone)]
pub struct Event {
    partition: u32,
    sequence: u64,
    offset: String,
    enqueued_at: SystemTime,
    device: String,
    module: Option<String>,
    generation: Option<String>,
    auth_method: Option<String>,
    source: Option<String>,
    message: Message,
    handed: Arc<Handed>,
}

/// What the events of a partition have in common while this reader has it.
#[derive(Debug)]
struct Handed {
    store: Store,
    group: Arc<str>,
    alive: Alive,
}

#[derive(Clone)]
struct Store(Option<Arc<dyn CheckpointStore>>);

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Store(..)" } else { "Store(none)" })
    }
}

impl EventsBuilder {
    pub(super) fn new(client: Arc<Inner>) -> Self {
        Self {
            client,
            group: "$Default".to_owned(),
            from: Position::default(),
            store: None,
            partitions: None,
            prefetch: 300,
            renew: Duration::from_secs(10),
            lasts: Duration::from_secs(60),
        }
    }

    /// The consumer group. Default `$Default`.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = group.into();
        self
    }

    /// Where to begin in partitions without a checkpoint. Default [`Position::Beginning`].
    pub fn from(mut self, position: Position) -> Self {
        self.from = position;
        self
    }

    /// Begins behind the checkpoints in this store, and makes [`Event::checkpoint`] possible.
    pub fn checkpoints(mut self, store: impl CheckpointStore) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Reads these partitions only, and shares them with nobody. Default: all there are.
    pub fn partitions(mut self, partitions: impl IntoIterator<Item = u32>) -> Self {
        self.partitions = Some(partitions.into_iter().collect());
        self
    }

    /// Events of a partition that are fetched before they are asked for, at most. Default 300.
    pub fn prefetch(mut self, events: u32) -> Self {
        self.prefetch = events;
        self
    }

    /// How often a reader says that it still has its partitions, and how long others believe it. The first bounds how
    /// soon partitions move when readers come and go properly, the second how soon when one dies. Default 10 s and 60 s.
    pub fn ownership(mut self, renew: Duration, lasts: Duration) -> Self {
        self.renew = renew;
        self.lasts = lasts;
        self
    }

    /// Finds the event log and begins to read. When it returns, [`Position::End`] is fixed: events stored from now on are
    /// seen. Cancelling leaves nothing behind.
    ///
    /// # Errors
    /// `InvalidArgument` for settings that cannot be, `NotFound` for a partition there is not, `Unauthorized`,
    /// `Unreachable`, `Protocol`, `Closed`, and the checkpoint store's.
    pub async fn open(self) -> Result<EventReader> {
        let Self { client, group, from, store, partitions, prefetch, renew, lasts } = self;
        client.check_open()?;
        check(
            !group.is_empty() && !group.contains('/'),
            "the consumer group's name is empty or holds a slash",
        )?;
        check(prefetch >= 1, "the prefetch is 0")?;
        check(!renew.is_zero() && renew < lasts, "ownership has to be renewed before it ends")?;
        let shared = store.is_some() && partitions.is_none();
        let log = Log::find(&client.events).await?;
        let there = log.partitions().await?;
        let partitions = match partitions {
            None => there,
            Some(mut chosen) => {
                chosen.sort_unstable();
                chosen.dedup();
                if let Some(unknown) = chosen.iter().find(|partition| !there.contains(partition)) {
                    let error = Error::new(ErrorKind::NotFound, OPEN, "there is no such partition");
                    return Err(error.with("partition", unknown));
                }
                chosen
            }
        };
        let mut from_each = BTreeMap::new();
        for partition in &partitions {
            let from = match &from {
                // Said as a number, so that nothing is missed when the connection is lost before the first event.
                Position::End => match log.last(*partition).await? {
                    Some(last) => Position::Sequence(last + 1),
                    None => Position::Beginning,
                },
                other => other.clone(),
            };
            from_each.insert(*partition, from);
        }
        let name: Arc<str> = random_id(OPEN)?.into();
        let (out, items) = mpsc::channel(usize::try_from(prefetch).unwrap_or(usize::MAX).min(4_096));
        let crew = Crew {
            log: Arc::new(log),
            group: group.into(),
            name: name.clone(),
            from: from_each,
            store: Store(store),
            prefetch,
            renew,
            lasts,
            backoff: client.backoff,
            out,
        };
        client.check_open()?;
        let task = client.stop.spawn(|stopped| async move {
            if shared { crew.share(stopped).await } else { crew.read_all(stopped).await }
        });
        Ok(EventReader { items, name, task })
    }
}

impl fmt::Debug for EventsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventsBuilder")
            .field("group", &self.group)
            .field("from", &self.from)
            .field("partitions", &self.partitions)
            .finish_non_exhaustive()
    }
}

impl EventReader {
    /// The next event; waits for it. `None` after the client was closed. Cancelling loses nothing.
    ///
    /// # Errors
    /// What will not pass by itself: `Unauthorized`, `NotFound` for the consumer group, `Protocol` for an event that
    /// cannot be read and is passed over, the checkpoint store's errors. The reader goes on, so the next call may succeed.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            match self.items.recv().await {
                None => return Ok(None),
                Some(Item::Failed(error)) => return Err(error),
                // Another reader has the partition now, and hands this one out.
                Some(Item::Event(event)) if !event.handed.alive.is_alive() => {}
                Some(Item::Event(event)) => return Ok(Some(event)),
            }
        }
    }

    /// What this reader is called among those that share partitions; random.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Stops reading and gives up its partitions, so that others take over at once. Events that were not handed out are
    /// not lost: their partition has no checkpoint behind them.
    pub async fn close(self) {
        drop(self.items);
        self.task.end().await;
    }
}

impl Event {
    /// The device that sent it, as the hub knows it; empty when the hub does not say.
    pub fn device_id(&self) -> &str {
        &self.device
    }

    /// The module that sent it.
    pub fn module_id(&self) -> Option<&str> {
        self.module.as_deref()
    }

    /// The generation of the device that sent it: another one is another device of the same name.
    pub fn generation(&self) -> Option<&str> {
        self.generation.as_deref()
    }

    /// How the sender proved itself, as JSON: `{"scope":"device","type":"sas","issuer":"iothub"}`.
    pub fn auth_method(&self) -> Option<&str> {
        self.auth_method.as_deref()
    }

    /// What kind of event it is; `Telemetry` for messages of devices.
    pub fn source(&self) -> Option<&str> {
        self.source.as_deref()
    }

    /// Its partition.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// Its number in the partition; each is one higher than the one before.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Its offset in the partition, for [`Position::Offset`].
    pub fn offset(&self) -> &str {
        &self.offset
    }

    /// When it was stored, by the hub's clock.
    pub fn enqueued_at(&self) -> SystemTime {
        self.enqueued_at
    }

    /// What was sent.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// What was sent, taken out.
    pub fn into_message(self) -> Message {
        self.message
    }

    /// Stores that this event, and all before it in its partition, were dealt with: readers of the group begin behind it.
    /// Every few events or seconds is often enough; what came since is read again after a restart.
    ///
    /// # Errors
    /// `Unsupported` for a reader without a checkpoint store; `Conflict` when another reader has the partition now: it
    /// gets this event again; and the store's own.
    pub async fn checkpoint(&self) -> Result<()> {
        let Handed { store, group, alive } = &*self.handed;
        let Some(store) = &store.0 else {
            return Err(Error::new(
                ErrorKind::Unsupported,
                CHECKPOINT,
                "this reader has no checkpoint store",
            ));
        };
        if !alive.is_alive() {
            return Err(Error::new(ErrorKind::Conflict, CHECKPOINT, "another reader has this partition now")
                .with("partition", self.partition));
        }
        let offset = Some(self.offset.clone()).filter(|offset| !offset.is_empty());
        let checkpoint = Checkpoint { sequence: self.sequence, offset };
        store.set_checkpoint(group, self.partition, checkpoint).await
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("partition", &self.partition)
            .field("sequence", &self.sequence)
            .field("device_id", &self.device)
            .finish_non_exhaustive()
    }
}

fn check(holds: bool, otherwise: &'static str) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::new(ErrorKind::InvalidArgument, OPEN, otherwise)) }
}

const OPEN: &str = "service.events";
const CHECKPOINT: &str = "event.checkpoint";
