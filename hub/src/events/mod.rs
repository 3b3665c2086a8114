//! The event log: partitions, positions, retention, consumer groups, de-duplication of resends. No protocols.
//!
//! One log, one commit group; partitions are indexes over it. Contract `d2c.md`.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use whimbrel::{Lane, Message, Result, journal::Ticket};

use crate::access::Admitted;

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

/// Names a message for ever.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Id of the outbox.
    pub outbox: &'a str,
    /// Lane in it.
    pub lane: Lane,
    /// Number in the lane.
    pub number: u64,
}

/// Where an event went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Partition.
    pub partition: u32,
    /// Sequence number; `None` when this was a resend of an event that was stored before.
    pub sequence: Option<u64>,
}

/// An event as read back.
#[derive(Clone, Debug)]
pub struct Event {
    /// Partition.
    pub partition: u32,
    /// Sequence number in the partition, from 0.
    pub sequence: u64,
    /// Offset text: grows with the log.
    pub offset: u64,
    /// When the hub took it in.
    pub enqueued_at: SystemTime,
    /// Device that sent it.
    pub device: Arc<str>,
    /// Module that sent it.
    pub module: Option<Arc<str>>,
    /// Generation of the device's identity.
    pub generation: Arc<str>,
    /// JSON text of `iothub-connection-auth-method`.
    pub auth_method: Arc<str>,
    /// Encoded message, decoded on demand.
    pub record: Bytes,
}

impl Event {
    /// The message.
    ///
    /// # Errors
    /// `JournalCorrupt`, which a checksum has made very unlikely.
    pub fn message(&self) -> Result<Message> {
        whimbrel::wire::record::decode(self.record.clone())
    }
}

/// Where to start reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// The oldest event that is kept.
    Beginning,
    /// Only events that come from now on.
    End,
    /// This sequence number, or the first later one that is kept.
    Sequence(u64),
    /// This offset, or the first later one.
    Offset(u64),
    /// The first event taken in at this time or later.
    Time(SystemTime),
}

/// What a partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionState {
    /// Partition.
    pub partition: u32,
    /// Oldest sequence number kept (the next one when empty).
    pub first: u64,
    /// Number the next event gets.
    pub next: u64,
    /// Offset of the newest event.
    pub last_offset: Option<u64>,
    /// When the newest event was taken in.
    pub last_enqueued_at: Option<SystemTime>,
}

/// The event log. Cheap to clone.
#[derive(Clone)]
pub struct Events {}

impl Events {
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
