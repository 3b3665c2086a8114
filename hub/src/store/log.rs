//! What is kept of events: places, positions, and the event as it is read back.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use whimbrel::{Lane, Message, Result};

/// An event on its way into the log.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Partition it belongs to.
    pub partition: u32,
    /// Device that sent it.
    pub device: &'a str,
    /// Module that sent it.
    pub module: Option<&'a str>,
    /// Generation of the device's identity.
    pub generation: &'a str,
    /// JSON text of `iothub-connection-auth-method`.
    pub auth_method: &'a str,
    /// The message.
    pub message: &'a Message,
    /// For senders that offer de-duplication.
    pub origin: Option<Origin<'a>>,
}

/// Names a message for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// How much to read in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimit {
    /// Events at most.
    pub events: usize,
    /// With so many bytes read it is enough: the last event may go beyond.
    pub bytes: usize,
}

impl ReadLimit {
    /// So many events, however large.
    pub const fn events(events: usize) -> Self {
        Self { events, bytes: usize::MAX }
    }

    pub(super) const fn is_left(&self) -> bool {
        self.events > 0 && self.bytes > 0
    }

    pub(super) fn take(&mut self, event: &Event) {
        self.events = self.events.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(event.record.len());
    }
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
