//! Commands on the device: received, handed to the program, settled when the program says so.
//!
//! Nothing is acknowledged before the program took it and settled it. What was completed or rejected is recorded in a
//! journal beside the outbox before the hub is told, so a redelivery is settled again without being handed out. Nothing
//! here knows of protocols.

mod books;
mod key;
mod machine;
mod shared;
mod store;
#[cfg(test)]
mod tests;
#[cfg(test)]
#[cfg(feature = "testing")]
mod tests_disk;

use std::{fmt, sync::Arc, time::SystemTime};

use bytes::Bytes;

use self::machine::Id;
pub(crate) use self::shared::Shared;
use crate::{
    Error, ErrorKind, Message, Properties, Result,
    transport::{Arrived, Settlement},
};

/// The commands of a device; see [`DeviceClient::inbox`](crate::DeviceClient::inbox). Clones share it: each command goes
/// to one of those who wait. It does not keep the client open.
#[derive(Clone)]
pub struct Inbox(Arc<Shared>);

impl Inbox {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        shared.want();
        Self(shared)
    }

    /// The next command, in the order of their arrival; waits for one. `None` once the client is closed.
    ///
    /// A command is locked for this device from the moment it is delivered, which may be some time before it is taken
    /// here; the hub sets how long (60 s unless changed there). Cancelling swallows nothing.
    ///
    /// # Errors
    /// `Unsupported` for a module, which has no commands. What the hub said when it refused to send commands on this
    /// connection; it is asked again on the next one. `JournalIo` when the outbox failed, until the client is opened
    /// again.
    pub async fn next(&self) -> Result<Option<Command>> {
        self.0.next().await
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

/// A command, locked for this device until it is settled. It may be settled later than the call that received it, in any
/// order, from any task.
///
/// Dropped unsettled it stays locked until the hub takes the lock back, and is delivered again then.
///
/// When the connection is lost the hub takes the lock back at once. A command that the program still has then gets the
/// lock of its redelivery and is not handed out a second time, as long as it is recognised: by its number and the time it
/// was taken in, or on MQTT 3.1.1, which tells neither, by its message id and content.
pub struct Command {
    shared: Arc<Shared>,
    id: Id,
    sequence: Option<u64>,
    enqueued_at: Option<SystemTime>,
    delivery_count: Option<u32>,
    message: Message,
}

impl Command {
    fn new(shared: Arc<Shared>, id: Id, arrived: Arrived) -> Self {
        let Arrived { handle: _, sequence, enqueued_at, delivery_count, message } = arrived;
        Self { shared, id, sequence, enqueued_at, delivery_count, message }
    }

    /// What the service sent.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        self.message.body()
    }

    /// The application properties.
    pub fn properties(&self) -> &Properties {
        self.message.properties()
    }

    /// The id that the service finds the outcome by, where it gave one.
    pub fn message_id(&self) -> Option<&str> {
        self.message.system().message_id.as_deref()
    }

    /// Its number in the device's queue, where the protocol tells it (not on MQTT 3.1.1).
    pub fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// When the hub took it in, where the protocol tells it (not on MQTT 3.1.1).
    pub fn enqueued_at(&self) -> Option<SystemTime> {
        self.enqueued_at
    }

    /// How many deliveries counted before this one, where the protocol tells it (not on MQTT 3.1.1).
    pub fn delivery_count(&self) -> Option<u32> {
        self.delivery_count
    }

    /// It was dealt with: the hub removes it, and it is never handed out again.
    ///
    /// Returns when that is recorded on this device, and handed to the connection or answered by the hub, whichever the
    /// protocol has. Without a connection it returns when it is recorded: the redelivery is then settled by itself.
    /// A command that came over MQTT 3.1.1 without a message id is not recognised and so not recorded; it may be handed
    /// out again when the connection is lost.
    ///
    /// Cancelling stops the waiting, not the settling. Before the first poll nothing has happened.
    ///
    /// # Errors
    /// `Conflict` when it was settled before; says how. `LockLost` when the hub did not hold it any more; what was
    /// recorded settles the redelivery without handing it out. `DiskFull`, `JournalIo` when it could not be recorded:
    /// the hub was not told, and the call can be repeated. `Closed`.
    pub async fn complete(&self) -> Result<()> {
        self.settle(Settlement::Complete).await
    }

    /// Not now: the hub delivers it again, a limited number of times. Cancelling as for [`Command::complete`].
    ///
    /// # Errors
    /// `Unsupported` on MQTT 3.1.1: it stays locked, and can still be completed. `LockLost` when the connection was
    /// lost meanwhile, or the hub did not hold it any more; it is delivered again all the same. `Conflict`, `Closed`.
    pub async fn abandon(&self) -> Result<()> {
        self.settle(Settlement::Abandon).await
    }

    /// Never: the hub dead-letters it, and it is never handed out again. Otherwise as [`Command::complete`].
    ///
    /// # Errors
    /// As [`Command::complete`]; `Unsupported` on MQTT 3.1.1: it stays locked, and can still be completed.
    pub async fn reject(&self) -> Result<()> {
        self.settle(Settlement::Reject).await
    }

    async fn settle(&self, settlement: Settlement) -> Result<()> {
        let answer = self.shared.settle(self.id, settlement)?;
        answer.await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Internal, "command.settle", "the settlement was forgotten"))
        })
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        self.shared.dropped(self.id);
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("message_id", &self.message_id())
            .field("sequence", &self.sequence)
            .field("delivery_count", &self.delivery_count)
            .finish_non_exhaustive()
    }
}
