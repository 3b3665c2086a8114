//! The device program's client: joins outbox, delivery and transport in one task.

use std::time::Duration;

use tokio::sync::watch;

use crate::{Account, Counters, Durability, Message, Overflow, Receipt, Result};

/// How to open a [`DeviceClient`]. What is not given has its default in the core, in one place.
#[derive(Clone, Debug)]
pub struct DeviceOptions {}

impl DeviceOptions {
    /// Options for the hub and device named in `connection_string`.
    ///
    /// # Errors
    /// `InvalidArgument` naming the wrong part.
    pub fn from_connection_string(connection_string: &str) -> Result<Self> {
        let _ = connection_string;
        unimplemented!()
    }

    /// Keeps the outbox in this folder. Either this or [`DeviceOptions::outbox_in_memory`] has to be called.
    #[must_use]
    pub fn outbox_dir(self, folder: impl Into<std::path::PathBuf>) -> Self {
        let _ = folder.into();
        self
    }

    /// Keeps the outbox in memory only: a restart loses what was not delivered.
    #[must_use]
    pub fn outbox_in_memory(self) -> Self {
        self
    }

    /// What happens when the outbox is at its bounds.
    #[must_use]
    pub fn overflow(self, overflow: Overflow) -> Self {
        let _ = overflow;
        self
    }

    /// What `send` waits for.
    #[must_use]
    pub fn durability(self, durability: Durability) -> Self {
        let _ = durability;
        self
    }
}

/// What the link to the hub is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionState {
    /// Not connected; the next try is scheduled. Carries why the last one ended, for people.
    Disconnected {
        /// Why.
        reason: Option<String>,
    },
    /// Trying.
    Connecting,
    /// Connected.
    Connected,
    /// The hub refused our credentials; tries go on slowly.
    Unauthorized {
        /// What the hub said.
        reason: String,
    },
    /// Closed by the program.
    Closed,
}

/// A device's connection to its hub, with a durable outbox. Cheap to clone; safe to share between tasks and threads.
#[derive(Clone, Debug)]
pub struct DeviceClient {}

impl DeviceClient {
    /// Opens the outbox and returns; connecting goes on in the background. Never waits for the network.
    ///
    /// # Errors
    /// `InvalidArgument`, `InUse`, `JournalIo`, `JournalVersion`, `DiskFull`.
    pub async fn open(options: DeviceOptions) -> Result<Self> {
        let _ = options;
        unimplemented!()
    }

    /// Takes a message in; returns when it is on disk (or as safe as was chosen).
    ///
    /// # Errors
    /// As [`crate::outbox::Outbox::send`].
    pub async fn send(&self, message: Message) -> Result<Receipt> {
        let _ = message;
        unimplemented!()
    }

    /// Takes many in, in order, with one commit.
    ///
    /// # Errors
    /// As [`crate::outbox::Outbox::send_all`].
    pub async fn send_all(&self, messages: impl IntoIterator<Item = Message>) -> Result<Vec<Receipt>> {
        let _ = messages.into_iter();
        unimplemented!()
    }

    /// The receipt of a message by its id, also after a restart.
    ///
    /// # Errors
    /// `JournalIo`, `Closed`.
    pub async fn receipt(&self, message_id: &str) -> Result<Option<Receipt>> {
        let _ = message_id;
        unimplemented!()
    }

    /// Waits until everything is settled or `deadline` passes; returns how many messages are still queued. Never fails
    /// for a slow network.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn flush(&self, deadline: Duration) -> Result<u64> {
        let _ = deadline;
        unimplemented!()
    }

    /// What the link is doing, now and whenever it changes.
    pub fn connection(&self) -> watch::Receiver<ConnectionState> {
        unimplemented!()
    }

    /// The account of the outbox.
    pub fn account(&self) -> Account {
        unimplemented!()
    }

    /// Figures.
    pub fn counters(&self) -> Counters {
        unimplemented!()
    }

    /// Flushes for as long as the options say (default 5 s), disconnects, closes the outbox. What is left stays there.
    ///
    /// # Errors
    /// `JournalIo`. Closing twice is fine.
    pub async fn close(&self) -> Result<()> {
        unimplemented!()
    }
}
