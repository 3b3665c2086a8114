//! The queues over a real store, in memory and in a folder, with a clock that the tests move.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod life;

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

use super::{CommandOptions, CommandState, Commands, Delivery, Receiver};
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

    async fn look(&self) {
        self.commands.inner.timers.look();
        self.commands.inner.feedback.wake();
        self.commands.inner.sweep(true).await.unwrap();
    }

    fn now(&self) -> SystemTime {
        self.clock.now().wall
    }

    async fn state(&self, device: &str, id: &str) -> Option<CommandState> {
        self.commands.status(device, id).await.unwrap().map(|status| status.state)
    }

    /// Waits until a command is where it is expected.
    async fn until(&self, device: &str, id: &str, wanted: impl Fn(Option<CommandState>) -> bool) {
        patiently(async {
            while !wanted(self.state(device, id).await) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
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
