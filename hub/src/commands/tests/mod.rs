//! The queues over a real store, in memory and in a folder, with a clock that the tests move.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod ends;
mod faults;
mod feedback;
mod journeys;
mod life;
mod sending;
mod store;

use std::{
    fmt::Debug,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tempfile::TempDir;
use whimbrel::{
    ErrorKind, Message, Result,
    outbox::{Clock, ManualClock},
};

use super::{CommandOptions, CommandOutcome, CommandState, Commands, Delivery, Receiver};
use crate::{
    access::Admitted,
    registry::Registry,
    store::{Embedded, Store, StoreOptions},
};

/// Longer than any test has to wait for another task.
const PATIENCE: Duration = Duration::from_secs(30);

/// Queues in a store, and all they need.
struct Ground {
    commands: Commands,
    registry: Registry,
    store: Arc<Embedded>,
    clock: Arc<ManualClock>,
    options: CommandOptions,
    folder: Option<TempDir>,
}

impl Ground {
    fn start(folder: Option<TempDir>, options: CommandOptions) -> Self {
        Self::open(folder, options, Arc::new(ManualClock::new()))
    }

    fn in_memory() -> Self {
        Self::start(None, CommandOptions::default())
    }

    fn in_folder() -> Self {
        Self::start(Some(tempfile::tempdir().unwrap()), CommandOptions::default())
    }

    fn open(folder: Option<TempDir>, options: CommandOptions, clock: Arc<ManualClock>) -> Self {
        let path = folder.as_ref().map(|folder| folder.path().to_owned());
        let store = Embedded::open(&StoreOptions { folder: path, ..StoreOptions::default() }).unwrap();
        let registry = Registry::new(Arc::<Embedded>::clone(&store), "hub.test");
        let commands = Commands::start_at(
            Arc::<Embedded>::clone(&store),
            registry.clone(),
            options.clone(),
            Arc::<ManualClock>::clone(&clock),
        );
        Self { commands, registry, store, clock, options, folder }
    }

    /// Stops, and starts on the same folder.
    async fn restart(self) -> Self {
        self.commands.close().await;
        self.store.close().await.unwrap();
        let Self { commands, registry, store, clock, options, folder } = self;
        drop((commands, registry, store));
        assert!(folder.is_some(), "a restart needs a folder");
        Self::open(folder, options, clock)
    }

    async fn device(&self, id: &str) -> Admitted {
        let registered = self.registry.create(id).await.unwrap();
        admitted(id, &registered.device.generation)
    }

    async fn send(&self, device: &str, message: Message) -> u64 {
        self.commands.send(device, message).await.unwrap().sequence
    }

    /// Time passes, and what is due is done.
    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.look().await;
    }

    /// What is due is done, and durable.
    async fn look(&self) {
        let inner = &self.commands.inner;
        inner.ring_due();
        inner.feedback.wake();
        inner.sweep(true).await.unwrap();
        self.settled().await;
    }

    /// Nothing is on its way to the disk.
    async fn settled(&self) {
        for device in self.commands.inner.loaded_devices() {
            if let Some(known) = self.store.device(&device).unwrap() {
                let user = self.commands.inner.enter(&known.id, &known.generation);
                patiently(user.settled()).await.unwrap();
            }
        }
    }

    /// Queues in memory now.
    fn in_use(&self) -> usize {
        self.commands.inner.loaded_devices().len()
    }

    fn now(&self) -> SystemTime {
        self.clock.now().wall
    }

    async fn state(&self, device: &str, id: &str) -> Option<CommandState> {
        self.commands.status(device, id).await.unwrap().map(|status| status.state)
    }

    async fn outcome(&self, device: &str, id: &str) -> Option<CommandOutcome> {
        match self.state(device, id).await? {
            CommandState::Ended { outcome, .. } => Some(outcome),
            CommandState::Enqueued | CommandState::Locked => None,
        }
    }

    /// Makes the disk refuse a kind of change from now on: the store sees what another program sees whose disk fails.
    fn break_disk(&self, change: &str) {
        self.other_program(&format!(
            "CREATE TRIGGER broken BEFORE {change} BEGIN SELECT RAISE(ABORT, 'the disk is broken'); END"
        ));
    }

    fn mend_disk(&self) {
        self.other_program("DROP TRIGGER broken");
    }

    fn other_program(&self, statement: &str) {
        let path = self.folder.as_ref().expect("a folder").path().join("hub.sqlite");
        let other = rusqlite::Connection::open(path).unwrap();
        other.busy_timeout(PATIENCE).unwrap();
        other.execute_batch(statement).unwrap();
    }
}

fn admitted(device: &str, generation: &Arc<str>) -> Admitted {
    Admitted {
        device: device.into(),
        module: None,
        generation: Arc::clone(generation),
        auth_method: "{}".into(),
        expires_at: None,
    }
}

fn command(id: &str) -> Message {
    Message::telemetry(id.to_owned()).message_id(id)
}

async fn patiently<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it takes too long")
}

async fn next(receiver: &mut Receiver, limit: usize) -> Vec<Delivery> {
    let mut out = Vec::new();
    patiently(receiver.next(limit, &mut out)).await.unwrap();
    out
}

/// What waits now, without waiting for more.
async fn ready(receiver: &mut Receiver, limit: usize) -> Vec<Delivery> {
    let mut out = Vec::new();
    let waited = tokio::time::timeout(Duration::from_millis(20), receiver.next(limit, &mut out)).await;
    if let Ok(outcome) = waited {
        outcome.unwrap();
    }
    out
}

fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|delivery| delivery.message.system().message_id.as_deref().unwrap()).collect()
}

#[track_caller]
fn assert_kind<T: Debug>(outcome: Result<T>, kind: ErrorKind) {
    assert_eq!(outcome.unwrap_err().kind(), kind);
}
