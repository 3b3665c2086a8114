//! Where the hub keeps things: trait `Store` and its engines. One test suite runs against each.
//!
//! The trait says what is kept and promised; how is the engine's own business.

mod embedded;
mod hash;
mod log;
mod rows;

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use futures_util::future::BoxFuture;
use whimbrel::{Result, journal::Ticket};

#[cfg(test)]
pub(crate) use embedded::AUTH_METHODS;
pub use embedded::Embedded;
pub(crate) use hash::fnv1a;
pub use log::{Entry, Event, Origin, PartitionState, Place, Position, ReadLimit};
pub use rows::{
    Authentication, Changed, CommandChange, CommandChanged, CommandQueue, CommandRetention, CommandRow,
    CommandStatusRow, DeadLetterRow, Device, DeviceChange, DeviceCounts, DeviceUpdate, DueCommand,
    EndedCommand, FeedbackRow, KeySlot, Module, ModuleUpdate, NewAuthentication, NewCommand, NewDevice,
    Ownership, OwnershipClaim, PolicyRow, SessionRow,
};

/// Modules a device may have.
pub const MAX_MODULES: usize = 50;
/// Consumer groups a hub may have.
pub const MAX_GROUPS: usize = 20;
/// The consumer group that is always there.
pub const DEFAULT_GROUP: &str = "$Default";

/// Where and how large.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Data folder, created when missing; `None` keeps everything in memory.
    pub folder: Option<PathBuf>,
    /// Partitions of the event log, 1 to 32. Fixed when the folder is created. Default 4.
    pub partitions: u32,
    /// Bytes of one segment file of the event log. Default 16 MiB.
    pub segment_bytes: u64,
    /// Bytes of recent events kept in memory, so that readers at the end need no disk. Default 16 MiB.
    pub tail_bytes: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { folder: None, partitions: 4, segment_bytes: 16 << 20, tail_bytes: 16 << 20 }
    }
}

/// How long events are kept: until either bound is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Events are kept at least this long. Default one day.
    pub time: Duration,
    /// Bytes of the event log on disk, roughly: the oldest events go first. Default 8 GiB.
    pub bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { time: Duration::from_secs(24 * 60 * 60), bytes: 8 << 30 }
    }
}

/// An engine that keeps events, identities, policies, positions and commands.
///
/// What returned without an error is on stable storage, except [`Store::append`], which [`Store::durable`] completes.
/// Dropping a future may leave its change done or not done, never half done.
pub trait Store: Send + Sync + 'static {
    /// Number of partitions.
    fn partition_count(&self) -> u32;

    /// When it was made; in memory, when it was started.
    fn created_at(&self) -> SystemTime;

    /// Stages events, in order, all or none, and adds their places to `places` (untouched on error). Events whose
    /// origin was stored before are not stored again; the ticket covers the ones that were.
    ///
    /// # Errors
    /// `DiskFull`, `JournalIo`, `Closed`, `PayloadTooLarge`: nothing was stored.
    fn append(&self, batch: &[Entry<'_>], places: &mut Vec<Place>) -> Result<Ticket>;

    /// Waits until everything up to `ticket` is on stable storage.
    ///
    /// # Errors
    /// `JournalIo`, `DiskFull`: what was staged may be lost.
    fn durable(&self, ticket: Ticket) -> BoxFuture<'_, Result<()>>;

    /// What each partition holds, staged events included.
    fn partitions(&self) -> Vec<PartitionState>;

    /// Reads a partition.
    ///
    /// # Errors
    /// `NotFound` when there is no such partition.
    fn reader(&self, partition: u32, from: Position) -> Result<Box<dyn LogReader>>;

    /// Removes events that are out of their time or over the bound, and does what else is due from time to time.
    /// To be called about once a second.
    ///
    /// # Errors
    /// `JournalIo`, `DiskFull`; it may succeed the next time.
    fn maintain(&self, retention: Retention, now: SystemTime) -> BoxFuture<'_, Result<()>>;

    /// A device. Blocks for a moment: it is asked for each connection.
    ///
    /// # Errors
    /// `JournalIo`.
    fn device(&self, id: &str) -> Result<Option<Device>>;

    /// Up to `limit` devices with ids after `after`, in order of id.
    ///
    /// # Errors
    /// `JournalIo`.
    fn devices(&self, after: Option<&str>, limit: usize) -> BoxFuture<'_, Result<Vec<Device>>>;

    /// How many devices there are.
    ///
    /// # Errors
    /// `JournalIo`.
    fn device_counts(&self) -> BoxFuture<'_, Result<DeviceCounts>>;

    /// Adds a device with a new generation.
    ///
    /// # Errors
    /// `Conflict` when it exists.
    fn add_device(&self, device: NewDevice, now: SystemTime) -> BoxFuture<'_, Result<Device>>;

    /// Changes a device.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when `etag` is given and not the current one; `InvalidArgument` for a key of a device
    /// that has none.
    fn change_device(
        &self,
        id: &str,
        change: DeviceChange,
        etag: Option<&str>,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<Changed<Device>>>;

    /// Removes a device, its modules, what is kept of their sessions, its commands, and all that is left of earlier
    /// commands. Its events stay.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` as for a change.
    fn remove_device(&self, id: &str, etag: Option<&str>) -> BoxFuture<'_, Result<()>>;

    /// What is kept of the session of a device or of a module of it, as of all calls of [`Store::keep_session`] before.
    ///
    /// # Errors
    /// `JournalIo`.
    fn session(&self, device: &str, module: Option<&str>) -> BoxFuture<'static, Result<Option<SessionRow>>>;

    /// Keeps a session in place of what was kept of it before, or with `None` nothing. Sessions of devices, or
    /// generations, that do not exist are not kept. The change is on its way when this returns, in the order of the
    /// calls; dropping the future does not stop it.
    ///
    /// # Errors
    /// `JournalIo`, `DiskFull`, `Closed`.
    fn keep_session(
        &self,
        device: &str,
        module: Option<&str>,
        session: Option<SessionRow>,
    ) -> BoxFuture<'static, Result<()>>;

    /// A module. Blocks for a moment: it is asked for each connection.
    ///
    /// # Errors
    /// `JournalIo`.
    fn module(&self, device: &str, id: &str) -> Result<Option<Module>>;

    /// The modules of a device, in order of id.
    ///
    /// # Errors
    /// `NotFound` when there is no such device.
    fn modules(&self, device: &str) -> BoxFuture<'_, Result<Vec<Module>>>;

    /// Adds a module with a new generation.
    ///
    /// # Errors
    /// `NotFound` when there is no such device; `Conflict` when the module exists; `InvalidArgument` with the detail
    /// `limit` when the device has [`MAX_MODULES`].
    fn add_module(
        &self,
        device: &str,
        id: &str,
        authentication: Authentication,
        managed_by: Option<&str>,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<Module>>;

    /// Changes a module.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when `etag` is given and not the current one.
    fn change_module(
        &self,
        device: &str,
        id: &str,
        update: ModuleUpdate,
        etag: Option<&str>,
    ) -> BoxFuture<'_, Result<Changed<Module>>>;

    /// Removes a module. Its events stay.
    ///
    /// # Errors
    /// As for a change.
    fn remove_module(&self, device: &str, id: &str, etag: Option<&str>) -> BoxFuture<'_, Result<()>>;

    /// The policies, after adding those of `wanted` whose names are missing.
    ///
    /// # Errors
    /// `JournalIo`, `DiskFull`.
    fn policies(&self, wanted: Vec<PolicyRow>) -> BoxFuture<'_, Result<Vec<PolicyRow>>>;

    /// Names of the consumer groups.
    ///
    /// # Errors
    /// `JournalIo`.
    fn groups(&self) -> BoxFuture<'_, Result<Vec<String>>>;

    /// Adds a consumer group.
    ///
    /// # Errors
    /// `Conflict` when it exists or there are [`MAX_GROUPS`].
    fn add_group(&self, name: &str) -> BoxFuture<'_, Result<()>>;

    /// Position a group stored for a partition.
    ///
    /// # Errors
    /// `NotFound` when there is no such group.
    fn checkpoint(&self, group: &str, partition: u32) -> BoxFuture<'_, Result<Option<u64>>>;

    /// Stores a position.
    ///
    /// # Errors
    /// `NotFound` when there is no such group.
    fn set_checkpoint(&self, group: &str, partition: u32, sequence: u64) -> BoxFuture<'_, Result<()>>;

    /// Changes queues of commands, in order, in one step. A change that is refused (the inner error) leaves the others
    /// alone: `NotFound` for a device that is unknown or disabled, or a dead letter that is not there; `QueueFull`.
    ///
    /// # Errors
    /// `DiskFull`, `JournalIo`, `Closed`: nothing was changed.
    fn change_commands(
        &self,
        changes: Vec<CommandChange>,
    ) -> BoxFuture<'_, Result<Vec<Result<CommandChanged>>>>;

    /// The queue of a device; `None` when there is no device of this generation.
    ///
    /// # Errors
    /// `JournalIo`.
    fn command_queue(&self, device: &str, generation: &str) -> BoxFuture<'_, Result<Option<CommandQueue>>>;

    /// How many commands the queue of a device holds.
    ///
    /// # Errors
    /// `JournalIo`.
    fn command_count(&self, device: &str) -> BoxFuture<'_, Result<u64>>;

    /// Up to `limit` commands whose time to live was over at `now`, behind `after` in the order of their expiry.
    ///
    /// # Errors
    /// `JournalIo`.
    fn due_commands(
        &self,
        now: SystemTime,
        after: Option<&DueCommand>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<DueCommand>>>;

    /// The newest command of a device with this message id.
    ///
    /// # Errors
    /// `JournalIo`.
    fn command_status(
        &self,
        device: &str,
        message_id: &str,
    ) -> BoxFuture<'_, Result<Option<CommandStatusRow>>>;

    /// Up to `limit` dead letters with ids above `after`, in order; of one device or of all.
    ///
    /// # Errors
    /// `JournalIo`.
    fn dead_letters(
        &self,
        device: Option<&str>,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<DeadLetterRow>>>;

    /// Up to `limit` feedback records with ids above `after`, in order.
    ///
    /// # Errors
    /// `JournalIo`.
    fn feedback(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<FeedbackRow>>>;

    /// Counts a delivery of the feedback records `count` and removes `remove`, in one step. Those that are not there
    /// any more are passed over.
    ///
    /// # Errors
    /// `DiskFull`, `JournalIo`, `Closed`: nothing was changed.
    fn change_feedback(&self, count: Vec<u64>, remove: Vec<u64>) -> BoxFuture<'_, Result<()>>;

    /// Removes what is out of its time, a limited number at once; `true` when there may be more.
    ///
    /// # Errors
    /// `DiskFull`, `JournalIo`, `Closed`.
    fn trim_commands(&self, before: CommandRetention) -> BoxFuture<'_, Result<bool>>;

    /// Who reads the partitions of a group, past owners included.
    ///
    /// # Errors
    /// `NotFound` when there is no such group.
    fn ownerships(&self, group: &str, now: SystemTime) -> BoxFuture<'_, Result<Vec<Ownership>>>;

    /// Takes, renews or gives up a partition; `None` when the etag is another one.
    ///
    /// # Errors
    /// `NotFound` when there is no such group.
    fn claim_ownership(
        &self,
        group: &str,
        claim: OwnershipClaim,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<Option<Ownership>>>;

    /// Makes everything durable and stops: waiting readers and later calls end with `Closed`.
    ///
    /// # Errors
    /// `JournalIo`, `DiskFull`: what was staged last may be lost.
    fn close(&self) -> BoxFuture<'_, Result<()>>;
}

/// Reads a partition forward.
pub trait LogReader: Send {
    /// Up to `limit` durable events, in order, without waiting for new ones. Dropping the future loses nothing.
    ///
    /// # Errors
    /// `JournalIo`; `Closed`.
    fn ready<'a>(&'a mut self, limit: ReadLimit, out: &'a mut Vec<Event>) -> BoxFuture<'a, Result<()>>;

    /// Waits until [`LogReader::ready`] may find something.
    ///
    /// # Errors
    /// As there.
    fn wait(&mut self) -> BoxFuture<'_, Result<()>>;
}
