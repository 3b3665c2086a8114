//! The event log: partitions, positions, retention, consumer groups, de-duplication of resends. No protocols.
//!
//! One log, one commit group; partitions are indexes over it. Contract `d2c.md`.

use std::sync::Arc;

use whimbrel::{Message, Result, journal::Ticket};

use crate::{access::Admitted, store::Store};

pub use crate::store::{Event, Origin, PartitionState, Place, Position, Retention};

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

/// The event log. Cheap to clone.
#[derive(Clone)]
pub struct Events {}

/// Settings of the event log.
#[derive(Clone, Debug, Default)]
pub struct EventOptions {
    /// How long events are kept.
    pub retention: Retention,
}

impl Events {
    /// The event log in `store`. Has to be called in a runtime: retention works in a task of its own.
    pub fn start(store: Arc<dyn Store>, options: EventOptions) -> Self {
        let _ = (store, options);
        unimplemented!()
    }

    /// Stops: makes what was staged durable, ends waiting readers with `Closed`, and closes the store.
    ///
    /// # Errors
    /// `JournalIo`, `DiskFull`: what was staged last may be lost.
    pub async fn close(&self) -> Result<()> {
        unimplemented!()
    }

    /// Stages events, in order, and tells their places. Not durable before [`Events::durable`] of the ticket returns.
    ///
    /// # Errors
    /// `DiskFull`, `JournalIo`, `Closed`: nothing was stored.
    pub fn append(&self, events: &[NewEvent<'_>], places: &mut Vec<Place>) -> Result<Ticket> {
        let _ = (events, places);
        unimplemented!()
    }

    /// Waits until everything up to `ticket` is on stable storage.
    ///
    /// # Errors
    /// `JournalIo`, `DiskFull`: what was staged may be lost, and must not be acknowledged.
    pub async fn durable(&self, ticket: Ticket) -> Result<()> {
        let _ = ticket;
        unimplemented!()
    }

    /// Partition of a device: a stable hash of its id.
    pub fn partition_of(&self, device: &str) -> u32 {
        let _ = device;
        unimplemented!()
    }

    /// What each partition holds.
    pub fn partitions(&self) -> Vec<PartitionState> {
        unimplemented!()
    }

    /// Reads a partition.
    ///
    /// # Errors
    /// `NotFound` when there is no such partition.
    pub async fn reader(&self, partition: u32, from: Position) -> Result<EventReader> {
        let _ = (partition, from);
        unimplemented!()
    }

    /// Names of the consumer groups; `$Default` is always there. Names are compared without case.
    ///
    /// # Errors
    /// `JournalIo`.
    pub async fn groups(&self) -> Result<Vec<String>> {
        unimplemented!()
    }

    /// Adds a consumer group.
    ///
    /// # Errors
    /// `Conflict` when it exists or there are 20; `InvalidArgument` for a bad name.
    pub async fn add_group(&self, name: &str) -> Result<()> {
        let _ = name;
        unimplemented!()
    }

    /// Position a group stored for a partition: the sequence number of the last event it has dealt with.
    ///
    /// # Errors
    /// `NotFound` when there is no such group.
    pub async fn checkpoint(&self, group: &str, partition: u32) -> Result<Option<u64>> {
        let _ = (group, partition);
        unimplemented!()
    }

    /// Stores the sequence number of the last event a group has dealt with.
    ///
    /// # Errors
    /// As [`Events::checkpoint`]; `InvalidArgument` beyond the end.
    pub async fn set_checkpoint(&self, group: &str, partition: u32, sequence: u64) -> Result<()> {
        let _ = (group, partition, sequence);
        unimplemented!()
    }
}

/// Reads a partition forward.
pub struct EventReader {}

impl EventReader {
    /// Up to `limit` events that are durable, in order; waits when there are none yet. Cancelling loses nothing. Events
    /// that retention removed meanwhile are skipped.
    ///
    /// # Errors
    /// `JournalIo`; `Closed` when the hub stops.
    pub async fn next(&mut self, limit: usize, out: &mut Vec<Event>) -> Result<()> {
        let _ = (limit, out);
        unimplemented!()
    }

    /// As [`EventReader::next`], without waiting.
    ///
    /// # Errors
    /// As there.
    pub async fn ready(&mut self, limit: usize, out: &mut Vec<Event>) -> Result<()> {
        let _ = (limit, out);
        unimplemented!()
    }
}
