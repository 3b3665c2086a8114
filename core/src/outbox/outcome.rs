//! How messages end, and the figures that follow.

use std::time::Duration;

/// How a message ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Durable at the hub, which told where, if it did.
    Delivered {
        /// Partition of the event log.
        partition: Option<u32>,
        /// Sequence number in the partition.
        sequence: Option<u64>,
    },
    /// Its time to live ended first.
    Expired,
    /// Given up by this side.
    Dropped {
        /// Why.
        reason: DropReason,
    },
    /// Refused by the hub for good.
    Rejected {
        /// What the hub said; at most 128 bytes of it are kept across a restart.
        reason: String,
    },
}

/// Why this side gave a message up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// It was the oldest when room was needed.
    MadeRoom,
    /// It was the newest when there was no room.
    NoRoom,
    /// Its record on the disk was damaged; the bytes were set aside.
    Damaged,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 3] = [Self::MadeRoom, Self::NoRoom, Self::Damaged];

    /// The name used in documents, metrics and every language.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MadeRoom => "made-room",
            Self::NoRoom => "no-room",
            Self::Damaged => "damaged",
        }
    }
}

/// Where a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiptState {
    /// In the outbox.
    Queued,
    /// On its way, not acknowledged.
    Sent,
    /// Ended.
    Settled(Outcome),
    /// Ended so long ago that its outcome is no longer kept, or the outbox is gone.
    Unknown,
}

/// The account of an outbox: `accepted == delivered + expired + dropped + rejected + queued`, always, over the whole
/// life of the directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Messages taken in.
    pub accepted: u64,
    /// Durable at the hub.
    pub delivered: u64,
    /// Ended by their time to live.
    pub expired: u64,
    /// Given up, for any reason.
    pub dropped: u64,
    /// Refused by the hub.
    pub rejected: u64,
    /// Still here.
    pub queued: u64,
}

impl Account {
    /// Whether every accepted message is either settled or queued. Anything else is a defect.
    pub fn balances(&self) -> bool {
        self.accepted == self.delivered + self.expired + self.dropped + self.rejected + self.queued
    }
}

impl std::ops::Add for Account {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            accepted: self.accepted + other.accepted,
            delivered: self.delivered + other.delivered,
            expired: self.expired + other.expired,
            dropped: self.dropped + other.dropped,
            rejected: self.rejected + other.rejected,
            queued: self.queued + other.queued,
        }
    }
}

/// Figures of an outbox.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counters {
    /// The account.
    pub account: Account,
    /// Messages in the alert lane, part of `account.queued`.
    pub queued_alerts: u64,
    /// Bytes waiting on disk.
    pub queued_bytes: u64,
    /// Age of the oldest waiting message.
    pub oldest_age: Option<Duration>,
    /// Publishes handed to the network since opening, resends included.
    pub sent: u64,
    /// Dropped, by reason, over the whole life of the directory; reasons that never occurred are left out.
    pub dropped: Vec<(DropReason, u64)>,
    /// Refused by `Overflow::Reject` since opening; they were never accepted.
    pub refused: u64,
    /// Bytes written to the disk since opening.
    pub written_bytes: u64,
}
