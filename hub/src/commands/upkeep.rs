//! What time brings about: locks that run out, commands that expire, and old outcomes that go.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::{
        Notify,
        broadcast::{self, error::RecvError},
    },
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use whimbrel::{ErrorKind, Result};

use super::{
    Inner,
    slot::{Alarm, Slot, locked},
};
use crate::{
    registry::Change,
    store::{CommandRetention, DueCommand},
};

/// How often the store is asked for commands that have expired while nobody was there.
const EVERY: Duration = Duration::from_secs(1);
/// Expired commands that are looked at together.
const DUE: usize = 256;
/// A queue that is busy, or a slow disk, does not hold up the others for longer.
const LONGEST: Duration = Duration::from_secs(5);
/// Old outcomes and the like are removed at every so many looks.
const TRIM_EVERY: u32 = 10;

/// When queues in memory have to be looked at.
#[derive(Default)]
pub(super) struct Timers {
    alarms: Mutex<BTreeMap<Alarm, Arc<Slot>>>,
    /// The first alarm is earlier than it was.
    sooner: Notify,
}

impl Timers {
    pub(super) fn set(&self, alarm: Alarm, slot: &Arc<Slot>) -> Alarm {
        let mut alarms = locked(&self.alarms);
        let is_first = alarms.first_key_value().is_none_or(|(first, _)| alarm < *first);
        alarms.insert(alarm, Arc::clone(slot));
        drop(alarms);
        if is_first {
            self.sooner.notify_one();
        }
        alarm
    }

    pub(super) fn cancel(&self, alarm: Alarm) {
        locked(&self.alarms).remove(&alarm);
    }

    fn first(&self) -> Option<Instant> {
        locked(&self.alarms).first_key_value().map(|((at, _), _)| *at)
    }

    fn due(&self, now: Instant) -> Option<(Alarm, Arc<Slot>)> {
        let mut alarms = locked(&self.alarms);
        let first = alarms.first_entry().filter(|first| first.key().0 <= now)?;
        Some(first.remove_entry())
    }
}

/// Looks at queues in memory when something is due there.
pub(super) async fn ring(timers: Arc<Timers>, inner: Weak<Inner>, stop: CancellationToken) {
    loop {
        let first = timers.first();
        let due = async {
            match first {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = timers.sooner.notified() => {}
            () = due => {}
        }
        let Some(inner) = inner.upgrade() else { return };
        inner.ring_due();
    }
}

/// Ends what expired while nobody was there, and removes what is old.
pub(super) async fn sweep(inner: Weak<Inner>, look: Arc<Notify>, stop: CancellationToken) {
    let mut was_well = true;
    for round in 0.. {
        let Some(strong) = inner.upgrade() else { return };
        let outcome = strong.sweep(round % TRIM_EVERY == 0).await;
        drop(strong);
        if let Err(error) = &outcome
            && was_well
            && error.kind() != ErrorKind::Closed
        {
            tracing::warn!(%error, "expired commands could not be ended or old outcomes removed; trying again");
        }
        was_well = outcome.is_ok();
        tokio::select! {
            () = stop.cancelled() => return,
            () = look.notified() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

impl Inner {
    /// Looks at the queues in memory that are due.
    pub(super) fn ring_due(self: &Arc<Self>) {
        while let Some((alarm, slot)) = self.timers.due(self.clock.now().monotonic) {
            self.rung(&slot, alarm);
        }
    }

    /// Once through all commands that are due.
    pub(super) async fn sweep(self: &Arc<Self>, trim: bool) -> Result<()> {
        let now = self.clock.now().wall;
        let mut last: Option<DueCommand> = None;
        loop {
            let due = self.store.due_commands(now, last.as_ref(), DUE).await?;
            let mut queues: Vec<_> = due.iter().map(|due| (&due.device, &due.generation)).collect();
            queues.sort_unstable();
            queues.dedup();
            let ended = queues.into_iter().map(async |(device, generation)| {
                // One that is in memory looks at its own alarms; the time of day may have been set meanwhile.
                let loaded = self.loaded(device, generation);
                if loaded.is_some_and(|slot| self.with(&slot, |_, _, _| ()).is_some()) {
                    return;
                }
                // Loading a queue ends what is due in it. Waiting for that keeps queues from piling up in memory.
                let user = self.enter(device, generation);
                let ended = async {
                    user.loaded().await?;
                    user.settled().await
                };
                // It says itself what went wrong, and the next round finds what is left.
                let _ = tokio::time::timeout(LONGEST, ended).await;
            });
            join_all(ended).await;
            match due.into_iter().next_back() {
                Some(due) if !self.stop.is_cancelled() => last = Some(due),
                _ => break,
            }
        }
        let options = &self.options;
        let before = |age| now.checked_sub(age).unwrap_or(std::time::UNIX_EPOCH);
        let retention = CommandRetention {
            dead_letters: before(options.dead_letter_retention),
            outcomes: before(options.outcome_retention),
            feedback: before(options.feedback_time_to_live),
        };
        while trim && !self.stop.is_cancelled() && self.store.trim_commands(retention).await? {}
        Ok(())
    }

    /// Ends the queues of a device that was deleted, and has its feedback forgotten.
    fn look_at_device(&self, device: &str) {
        match self.store.device(device) {
            Ok(known) => {
                let current = known.map(|known| known.generation);
                self.end_generations(device, current.as_deref());
                self.feedback.forget(device, current.as_deref());
            }
            // Its commands cannot be settled any more either: their rows are gone.
            Err(error) => tracing::warn!(%error, device, "a changed device could not be read"),
        }
    }
}

/// Hears of deleted devices.
pub(super) async fn follow_registry(
    mut changes: broadcast::Receiver<Change>,
    inner: Weak<Inner>,
    stop: CancellationToken,
) {
    loop {
        let change = tokio::select! {
            () = stop.cancelled() => return,
            change = changes.recv() => change,
        };
        let Some(inner) = inner.upgrade() else { return };
        match change {
            Ok(Change::Revoked(device)) => inner.look_at_device(&device),
            // Modules have no commands.
            Ok(Change::ModuleRevoked { .. }) => {}
            // Which ones we missed we do not know.
            Err(RecvError::Lagged(_)) => {
                let known = inner.loaded_devices().into_iter().chain(inner.feedback.devices());
                known.for_each(|device| inner.look_at_device(&device));
            }
            Err(RecvError::Closed) => return,
        }
    }
}
