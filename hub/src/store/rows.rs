//! What is kept besides events: device identities, sessions, policies, commands and what became of them.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use whimbrel::{
    auth::Key,
    wire::feedback::{CommandOutcome, FeedbackWanted},
};

/// A device as the registry knows it.
#[derive(Clone, Debug)]
pub struct Device {
    /// Id, case-sensitive, at most 128 characters.
    pub id: Arc<str>,
    /// Unique for each creation.
    pub generation: Arc<str>,
    /// Changes with every change.
    pub etag: String,
    /// Whether it may connect.
    pub enabled: bool,
    /// Why it has this status, as the operator put it.
    pub status_reason: Option<String>,
    /// When the status was last changed; none since it was created.
    pub status_changed_at: Option<SystemTime>,
    /// How it proves itself.
    pub authentication: Authentication,
    /// When it was created.
    pub created_at: SystemTime,
}

/// A module: an identity of its own below a device. It sends events; it has no queue of commands.
#[derive(Clone, Debug)]
pub struct Module {
    /// Id of the device.
    pub device: Arc<str>,
    /// Id within the device, by the rules of device ids.
    pub id: Arc<str>,
    /// Unique for each creation.
    pub generation: Arc<str>,
    /// Changes with every change.
    pub etag: String,
    /// Who looks after it, as the operator put it.
    pub managed_by: Option<String>,
    /// How it proves itself.
    pub authentication: Authentication,
    /// When it was created.
    pub created_at: SystemTime,
}

/// How a device or module proves itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Authentication {
    /// SAS by either key.
    Sas {
        /// First key.
        primary: Key,
        /// Second key.
        secondary: Key,
    },
    /// A certificate with one of these thumbprints (40 or 64 hexadecimal digits).
    SelfSigned {
        /// First thumbprint.
        primary: String,
        /// Second thumbprint.
        secondary: Option<String>,
    },
    /// A certificate signed by a CA the hub was given; its common name is the device id.
    CertificateAuthority,
    /// In no way: it cannot connect by itself.
    None,
}

/// Which key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySlot {
    /// First key.
    Primary,
    /// Second key.
    Secondary,
}

/// A change of one device.
#[derive(Clone, Debug)]
pub enum DeviceChange {
    /// May connect, or not.
    Enabled(bool),
    /// A new key in one slot; the device has to have keys.
    Key(KeySlot, Key),
    /// Another way to prove itself.
    Authentication(Authentication),
    /// Several things at once.
    Update(DeviceUpdate),
}

/// What is to become of a device; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct DeviceUpdate {
    /// May connect, or not.
    pub enabled: Option<bool>,
    /// Why it has its status; an inner `None` clears it.
    pub status_reason: Option<Option<String>>,
    /// How it proves itself.
    pub authentication: Option<NewAuthentication>,
}

/// What is to become of a module; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct ModuleUpdate {
    /// Who looks after it; an inner `None` clears it.
    pub managed_by: Option<Option<String>>,
    /// How it proves itself.
    pub authentication: Option<NewAuthentication>,
}

/// How an identity is to prove itself from now on.
#[derive(Clone, Debug)]
pub enum NewAuthentication {
    /// In exactly this way.
    Exactly(Authentication),
    /// By keys: by those it has, or by these when it has none.
    KeysOr(Authentication),
}

impl NewAuthentication {
    /// What becomes of `old`.
    pub fn after(&self, old: &Authentication) -> Authentication {
        match (self, old) {
            (Self::KeysOr(_), Authentication::Sas { .. }) => old.clone(),
            (Self::Exactly(new) | Self::KeysOr(new), _) => new.clone(),
        }
    }
}

/// A device that is to be.
#[derive(Clone, Debug)]
pub struct NewDevice {
    /// Id.
    pub id: String,
    /// How it will prove itself.
    pub authentication: Authentication,
    /// Whether it may connect.
    pub enabled: bool,
    /// Why.
    pub status_reason: Option<String>,
}

/// An identity after a change.
#[derive(Clone, Debug)]
pub struct Changed<T> {
    /// As it is now.
    pub now: T,
    /// Whether what it was connected with before counts no more.
    pub revoked: bool,
}

/// What is kept of a session while its device, or module, is away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// Generation of the device.
    pub generation: Arc<str>,
    /// What it has subscribed to, as bits that `sessions` gives a meaning.
    pub subscriptions: u32,
}

/// How many devices there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounts {
    /// All of them.
    pub total: u64,
    /// Those that may connect.
    pub enabled: u64,
}

/// A policy of the hub: rights that go with a pair of keys.
#[derive(Clone, Debug)]
pub struct PolicyRow {
    /// Name, such as `iothubowner`.
    pub name: String,
    /// Rights, as bits that `access` gives a meaning.
    pub rights: u32,
    /// First key.
    pub primary: Key,
    /// Second key.
    pub secondary: Key,
}

/// One change of the queues of commands.
#[derive(Clone, Debug)]
pub enum CommandChange {
    /// A command comes into its queue.
    Enqueue(NewCommand),
    /// A delivery of a command counted.
    Count {
        /// Which command.
        sequence: u64,
        /// The new count.
        delivery_count: u32,
    },
    /// A command ends: it leaves its queue, and its outcome, its dead letter and the feedback about it are kept.
    End {
        /// Which command.
        sequence: u64,
        /// How.
        outcome: CommandOutcome,
        /// When.
        at: SystemTime,
    },
}

/// A command on its way into a queue.
#[derive(Clone, Debug)]
pub struct NewCommand {
    /// Device it is for. It has to exist and to be enabled.
    pub device: Arc<str>,
    /// What its outcome is found by.
    pub message_id: Option<String>,
    /// Which feedback is wanted.
    pub feedback: FeedbackWanted,
    /// When it was taken in, to the millisecond.
    pub enqueued_at: SystemTime,
    /// When it ends, to the millisecond.
    pub expires_at: SystemTime,
    /// The message, encoded.
    pub record: Bytes,
    /// Commands the queue may hold with this one.
    pub depth: usize,
    /// Dead letter it is made from, which goes in the same step.
    pub dead_letter: Option<u64>,
}

/// What a [`CommandChange`] did.
#[derive(Clone, Debug)]
pub enum CommandChanged {
    /// It is in the queue.
    Enqueued {
        /// Its number: higher than that of any command before, in the whole hub, for ever.
        sequence: u64,
        /// Generation of the device.
        generation: Arc<str>,
    },
    /// The delivery counted.
    Counted,
    /// It ended.
    Ended(EndedCommand),
    /// There is no such command any more: its device was deleted.
    Missing,
}

/// A command that ended.
#[derive(Clone, Debug)]
pub struct EndedCommand {
    /// Device it was for.
    pub device: Arc<str>,
    /// Generation of that device.
    pub generation: Arc<str>,
    /// What its outcome is found by.
    pub message_id: Option<String>,
    /// Whether there is feedback about it.
    pub feedback: bool,
}

/// The queue of a device, as of one moment.
#[derive(Clone, Debug)]
pub struct CommandQueue {
    /// What is in it, in order.
    pub commands: Vec<CommandRow>,
    /// Number of the last command that any queue had got by then: later ones are not among `commands`.
    pub through: u64,
}

/// A command in its queue.
#[derive(Clone, Debug)]
pub struct CommandRow {
    /// Its number.
    pub sequence: u64,
    /// When it was taken in.
    pub enqueued_at: SystemTime,
    /// When it ends.
    pub expires_at: SystemTime,
    /// How many deliveries counted.
    pub delivery_count: u32,
    /// The message, encoded.
    pub record: Bytes,
}

/// A command whose time to live is over.
#[derive(Clone, Debug)]
pub struct DueCommand {
    /// Its number.
    pub sequence: u64,
    /// When it was to end.
    pub expires_at: SystemTime,
    /// Device it is for.
    pub device: Arc<str>,
    /// Generation of that device.
    pub generation: Arc<str>,
}

/// What is known of a command.
#[derive(Clone, Debug)]
pub struct CommandStatusRow {
    /// Its number.
    pub sequence: u64,
    /// Generation of the device.
    pub generation: Arc<str>,
    /// How and when it ended, if it did.
    pub ended: Option<(CommandOutcome, SystemTime)>,
}

/// A command that did not get to its end.
#[derive(Clone, Debug)]
pub struct DeadLetterRow {
    /// Its number among the dead letters; rises.
    pub id: u64,
    /// Device it was for.
    pub device: Arc<str>,
    /// Its number as a command.
    pub sequence: u64,
    /// Why it is dead.
    pub outcome: CommandOutcome,
    /// When it was taken in.
    pub enqueued_at: SystemTime,
    /// When it ended.
    pub ended_at: SystemTime,
    /// How many deliveries counted.
    pub delivery_count: u32,
    /// The message, encoded.
    pub record: Bytes,
}

/// A feedback record.
#[derive(Clone, Debug)]
pub struct FeedbackRow {
    /// Its number; rises.
    pub id: u64,
    /// Device the command was for.
    pub device: Arc<str>,
    /// Generation of that device.
    pub generation: Arc<str>,
    /// Message id of the command.
    pub message_id: Option<String>,
    /// How it ended.
    pub outcome: CommandOutcome,
    /// When it ended.
    pub ended_at: SystemTime,
    /// How many deliveries of the record counted.
    pub delivery_count: u32,
}

/// Up to when what is left of commands goes.
#[derive(Clone, Copy, Debug)]
pub struct CommandRetention {
    /// Dead letters of commands that ended before.
    pub dead_letters: SystemTime,
    /// Outcomes from before.
    pub outcomes: SystemTime,
    /// Feedback from before.
    pub feedback: SystemTime,
}

/// Who reads a partition for a consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// Which partition.
    pub partition: u32,
    /// Id of the reader.
    pub owner: String,
    /// Chosen by the readers, to order them.
    pub epoch: u64,
    /// Changes with every claim.
    pub etag: u64,
    /// Time left; zero when it is over or was given up.
    pub expires_in: Duration,
}

/// A change of an [`Ownership`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnershipClaim {
    /// Which partition.
    pub partition: u32,
    /// Id of the reader.
    pub owner: String,
    /// See [`Ownership::epoch`].
    pub epoch: u64,
    /// How long it lasts; zero gives the partition up.
    pub lasts: Duration,
    /// What the etag has to be; `None` when there has to be no row.
    pub etag: Option<u64>,
}
