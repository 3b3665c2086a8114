//! How an outbox behaves: durability, bounds, overflow.

use std::{path::PathBuf, time::Duration};

/// What `send` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// On stable storage before `send` returns.
    #[default]
    OnDisk,
    /// Written at the outbox's sync interval: a crash can lose what one interval took in.
    Interval,
    /// Kept in memory; reaches the disk by chance only. A crash loses it.
    Memory,
}

/// What happens to a message that finds the outbox at its bounds.
///
/// Alerts are never refused or dropped to make room for telemetry: under `Reject` and `DropNewest` the last sixteenth
/// of both bounds (rounded down) is kept for them, under `DropOldest` they displace telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Overflow {
    /// `send` fails with `OutboxFull`; nothing that was accepted is touched.
    #[default]
    Reject,
    /// The oldest waiting telemetry makes room, with outcome `Dropped`; a copy that was on its way may still arrive.
    /// Where only alerts are left, an alert displaces the oldest of them, and telemetry is itself `Dropped`.
    DropOldest,
    /// The new message is accepted and at once `Dropped`.
    DropNewest,
}

/// Where the outbox keeps its messages. There is no default: memory has to be said aloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In this folder, which one open client owns.
    Directory(PathBuf),
    /// In memory only; a restart loses everything.
    Memory,
}

/// Bounds and habits of an outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxOptions {
    /// Bytes waiting on disk, from the oldest waiting message to the end, both lanes. The files hold at most a few
    /// segments more. Default 256 MiB.
    pub max_bytes: u64,
    /// Messages waiting, both lanes. Default 1,000,000.
    pub max_messages: u64,
    /// Time to live of messages that bring none. Default none.
    pub max_age: Option<Duration>,
    /// What happens at the bounds. Default `Reject`.
    pub overflow: Overflow,
    /// What `send` waits for. Default `OnDisk`.
    pub durability: Durability,
    /// How long settlements, and messages with `Durability::Interval`, may wait to be written. Default 1 s.
    pub sync_interval: Duration,
    /// Outcomes of past messages kept per lane, at most 16,384. Default 1,024.
    pub kept_outcomes: usize,
}

impl Default for OutboxOptions {
    fn default() -> Self {
        Self {
            max_bytes: 256 << 20,
            max_messages: 1_000_000,
            max_age: None,
            overflow: Overflow::default(),
            durability: Durability::default(),
            sync_interval: Duration::from_secs(1),
            kept_outcomes: 1_024,
        }
    }
}
