//! Requests that wait for the outcome of a command: one listener for all of them, and a wake-up for whom it concerns.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{oneshot, watch};
use whimbrel::ErrorKind;

use crate::commands::Commands;

/// Outcomes heard of at once.
const AT_ONCE: usize = 256;

/// Who waits for which outcome. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Waiting {
    shared: Arc<Shared>,
}

struct Shared {
    waiters: Mutex<Waiters>,
    numbers: AtomicU64,
    /// Counts groups of outcomes, for those who wait for any.
    heard: watch::Sender<u64>,
}

type Key = (String, String);
type Waiters = HashMap<Key, Vec<(u64, oneshot::Sender<()>)>>;

impl Waiting {
    /// Has to be called in a runtime: listening is a task of its own, which ends when `commands` are closed.
    pub(crate) fn start(commands: &Commands) -> Self {
        let shared = Arc::new(Shared {
            waiters: Mutex::default(),
            numbers: AtomicU64::new(0),
            heard: watch::Sender::new(0),
        });
        tokio::spawn(listen(commands.clone(), Arc::clone(&shared)));
        Self { shared }
    }

    /// A wake-up when the command ends, or when it may have. To be made before its status is asked for, so that no
    /// outcome falls in between.
    pub(super) fn of(&self, device: &str, message_id: &str) -> Waiter {
        let key = (device.to_owned(), message_id.to_owned());
        let number = self.shared.numbers.fetch_add(1, Ordering::Relaxed);
        let (wake, woken) = oneshot::channel();
        self.shared.lock().entry(key.clone()).or_default().push((number, wake));
        Waiter { shared: Arc::clone(&self.shared), key, number, woken }
    }

    /// Changes whenever commands have ended.
    pub(super) fn any(&self) -> watch::Receiver<u64> {
        self.shared.heard.subscribe()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for one command; see [`Waiting::of`].
pub(super) struct Waiter {
    shared: Arc<Shared>,
    key: Key,
    number: u64,
    woken: oneshot::Receiver<()>,
}

impl Waiter {
    /// Resolves when the status should be asked for again.
    pub(super) async fn woken(mut self) {
        // Dropped without a word when the hub stops, which is as good a reason to look.
        let _ = (&mut self.woken).await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiters = self.shared.lock();
        if let Some(of_command) = waiters.get_mut(&self.key) {
            of_command.retain(|(number, _)| *number != self.number);
            if of_command.is_empty() {
                waiters.remove(&self.key);
            }
        }
    }
}

async fn listen(commands: Commands, shared: Arc<Shared>) {
    let mut outcomes = commands.outcomes();
    let mut ended = Vec::new();
    loop {
        ended.clear();
        let heard = outcomes.next(AT_ONCE, &mut ended).await;
        let mut waiters = shared.lock();
        match heard {
            Ok(()) => {
                for status in ended.drain(..) {
                    let Some(message_id) = status.message_id else { continue };
                    wake(waiters.remove(&((*status.device).to_owned(), message_id)));
                }
            }
            // Some were missed: all look for themselves.
            Err(error) if error.kind() == ErrorKind::Conflict => {
                waiters.drain().for_each(|(_, of_command)| wake(Some(of_command)));
            }
            Err(_) => {
                waiters.clear();
                return;
            }
        }
        drop(waiters);
        shared.heard.send_modify(|count| *count += 1);
    }
}

fn wake(waiters: Option<Vec<(u64, oneshot::Sender<()>)>>) {
    for (_, waiter) in waiters.into_iter().flatten() {
        // Fails when it has stopped waiting.
        let _ = waiter.send(());
    }
}
