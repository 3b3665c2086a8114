//! The queue of feedback records: one for the hub, read by competing readers.
//!
//! Records are rows in the store, read forward in batches; in memory are a few that are ready and those that are locked.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    future::Future,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};
use whimbrel::{Error, ErrorKind, Result, outbox::Now, wire::feedback::Feedback};

use super::{
    CommandOptions, FeedbackBatch, Inner, LockToken, Patience, Settlement, queue::Owner, receiver::closed,
    slot::locked,
};
use crate::store::FeedbackRow;

/// Rows read at once.
const READ: usize = 512;

/// The feedback of the hub.
#[derive(Default)]
pub(super) struct FeedbackQueue {
    state: Mutex<State>,
    /// One reads the store at a time.
    reading: tokio::sync::Mutex<()>,
    /// Records came, came back, or the time may have come.
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// What was read last.
    cursor: u64,
    /// Counts what was written.
    written: u64,
    /// [`State::written`] when the store was last read to its end.
    read: Option<u64>,
    ready: BTreeMap<u64, FeedbackRow>,
    locked: HashMap<LockToken, Locked>,
    /// On their way to the disk.
    changing: HashMap<LockToken, Vec<FeedbackRow>>,
    /// When a contract reader was last given some.
    sent: Option<Instant>,
}

struct Locked {
    rows: Vec<FeedbackRow>,
    until: Instant,
    owner: Option<Owner>,
}

impl FeedbackQueue {
    /// There is new feedback in the store.
    pub(super) fn written(&self) {
        locked(&self.state).written += 1;
        self.changed.notify_waiters();
    }

    /// Forgets the feedback about a device, except about its `current` generation: the store has done so.
    pub(super) fn forget(&self, device: &str, current: Option<&str>) {
        let is_gone = |row: &FeedbackRow| &*row.device == device && Some(&*row.generation) != current;
        let mut state = locked(&self.state);
        state.ready.retain(|_, row| !is_gone(row));
        for locked in state.locked.values_mut() {
            locked.rows.retain(|row| !is_gone(row));
        }
        for rows in state.changing.values_mut() {
            rows.retain(|row| !is_gone(row));
        }
    }

    /// Devices of which feedback is in memory.
    pub(super) fn devices(&self) -> Vec<Arc<str>> {
        let state = locked(&self.state);
        let waiting =
            state.locked.values().map(|locked| &locked.rows).chain(state.changing.values()).flatten();
        state.ready.values().chain(waiting).map(|row| Arc::clone(&row.device)).collect()
    }

    /// Has waiting readers look again.
    pub(super) fn wake(&self) {
        self.changed.notify_waiters();
    }
}

impl State {
    /// Does what time has made due.
    fn tick(&mut self, now: Now, options: &CommandOptions) {
        let lapsed: Vec<LockToken> = self
            .locked
            .iter()
            .filter(|(_, locked)| locked.until <= now.monotonic)
            .map(|(token, _)| *token)
            .collect();
        for token in lapsed {
            self.unlock(token);
        }
        // The store removes them in its own time.
        let gone = now.wall.checked_sub(options.feedback_time_to_live);
        self.ready.retain(|_, row| gone.is_none_or(|gone| row.ended_at > gone));
    }

    fn unlock(&mut self, token: LockToken) {
        if let Some(locked) = self.locked.remove(&token) {
            self.give_back(locked.rows);
        }
    }

    fn give_back(&mut self, rows: Vec<FeedbackRow>) {
        self.ready.extend(rows.into_iter().map(|row| (row.id, row)));
    }

    fn wants_more(&self, options: &CommandOptions) -> bool {
        self.read != Some(self.written) && self.ready.len() < options.feedback_batch
    }

    /// When a contract reader gets what there is.
    fn contract_due(&self, now: Now, options: &CommandOptions) -> Instant {
        match self.sent {
            Some(sent) if self.ready.len() < options.feedback_batch => sent + options.feedback_linger,
            _ => now.monotonic,
        }
    }

    fn lock(
        &mut self,
        now: Now,
        options: &CommandOptions,
        patience: Patience,
        owner: Option<Owner>,
    ) -> Result<Option<FeedbackBatch>> {
        let contract = patience == Patience::Contract;
        if self.ready.is_empty() || contract && self.contract_due(now, options) > now.monotonic {
            return Ok(None);
        }
        let lock = LockToken::generate()?;
        let mut rows = Vec::new();
        while rows.len() < options.feedback_batch.max(1)
            && let Some((_, row)) = self.ready.pop_first()
        {
            rows.push(row);
        }
        if contract {
            self.sent = Some(now.monotonic);
        }
        let batch = FeedbackBatch {
            lock,
            enqueued_at: rows.iter().map(|row| row.ended_at).max().unwrap_or(SystemTime::UNIX_EPOCH),
            delivery_count: rows.iter().map(|row| row.delivery_count).max().unwrap_or(0),
            records: rows.iter().map(record).collect(),
        };
        self.locked.insert(lock, Locked { rows, until: now.monotonic + options.feedback_lock, owner });
        Ok(Some(batch))
    }

    /// When a reader should look again, if nothing changes before.
    fn next_look(&self, now: Now, options: &CommandOptions, patience: Patience) -> Option<Instant> {
        let lapse = self.locked.values().map(|locked| locked.until).min();
        let due = (!self.ready.is_empty() && patience == Patience::Contract)
            .then(|| self.contract_due(now, options));
        lapse.into_iter().chain(due).min()
    }
}

fn record(row: &FeedbackRow) -> Feedback {
    let id = row.message_id.as_deref().unwrap_or_default();
    Feedback::new(id, row.ended_at, row.outcome, &*row.device, &*row.generation)
}

impl Inner {
    /// Locks some feedback, if there is some for this patience.
    pub(super) async fn take_feedback(
        &self,
        patience: Patience,
        owner: Option<Owner>,
    ) -> Result<Option<FeedbackBatch>> {
        self.read_feedback().await?;
        let now = self.clock.now();
        let mut state = locked(&self.feedback.state);
        state.tick(now, &self.options);
        state.lock(now, &self.options, patience, owner)
    }

    /// Reads on when there are too few in memory. Cancelling loses nothing.
    async fn read_feedback(&self) -> Result<()> {
        loop {
            if self.stop.is_cancelled() {
                return Err(closed("feedback.next"));
            }
            let wants_more = |state: &mut State| {
                state.tick(self.clock.now(), &self.options);
                state.wants_more(&self.options)
            };
            if !wants_more(&mut locked(&self.feedback.state)) {
                return Ok(());
            }
            let _one = self.feedback.reading.lock().await;
            let (cursor, written) = {
                let mut state = locked(&self.feedback.state);
                if !wants_more(&mut state) {
                    return Ok(());
                }
                (state.cursor, state.written)
            };
            let rows = self.store.feedback(cursor, READ).await?;
            let mut state = locked(&self.feedback.state);
            if rows.len() < READ {
                state.read = Some(written);
            }
            state.cursor = rows.last().map_or(cursor, |row| row.id);
            state.give_back(rows);
        }
    }

    /// Settles feedback: decided at once; the future waits for the disk.
    pub(super) fn settle_feedback(
        self: &Arc<Self>,
        lock: LockToken,
        settlement: Settlement,
    ) -> impl Future<Output = Result<()>> + Send + use<> {
        let answer = self.decide_feedback(lock, settlement);
        async move { answer?.await.unwrap_or_else(|_| Err(closed("feedback.settle"))) }
    }

    fn decide_feedback(
        self: &Arc<Self>,
        lock: LockToken,
        settlement: Settlement,
    ) -> Result<oneshot::Receiver<Result<()>>> {
        const OPERATION: &str = "feedback.settle";
        if self.stop.is_cancelled() {
            return Err(closed(OPERATION));
        }
        let mut state = locked(&self.feedback.state);
        state.tick(self.clock.now(), &self.options);
        let Some(Locked { rows, until, owner }) = state.locked.remove(&lock) else {
            let text = "the lock is over or never was: the feedback is delivered again, or is settled";
            return Err(Error::new(ErrorKind::LockLost, OPERATION, text));
        };
        let max = self.options.feedback_max_delivery_count;
        let is_kept = |row: &&FeedbackRow| {
            settlement == Settlement::Abandon && row.delivery_count.saturating_add(1) < max
        };
        let (kept, removed): (Vec<&FeedbackRow>, Vec<&FeedbackRow>) = rows.iter().partition(is_kept);
        let ids = |rows: Vec<&FeedbackRow>| rows.into_iter().map(|row| row.id).collect::<Vec<u64>>();
        let (kept, removed) = (ids(kept), ids(removed));
        state.changing.insert(lock, rows);
        drop(state);

        let (reply, answer) = oneshot::channel();
        let inner = Arc::clone(self);
        self.tasks.spawn(async move {
            let outcome = inner.store.change_feedback(kept.clone(), removed).await;
            {
                let mut state = locked(&inner.feedback.state);
                let rows = state.changing.remove(&lock).unwrap_or_default();
                if outcome.is_ok() {
                    let counted = rows.into_iter().filter(|row| kept.contains(&row.id)).map(|mut row| {
                        row.delivery_count += 1;
                        row
                    });
                    state.give_back(counted.collect());
                } else {
                    state.locked.insert(lock, Locked { rows, until, owner });
                }
            }
            inner.feedback.wake();
            // Nobody may be waiting any more.
            let _ = reply.send(outcome);
        });
        Ok(answer)
    }
}

/// Reads feedback; see [`Commands::feedback`](super::Commands::feedback).
pub struct FeedbackReader {
    inner: Arc<Inner>,
    patience: Patience,
    owner: Owner,
}

impl FeedbackReader {
    pub(super) fn new(inner: Arc<Inner>, patience: Patience) -> Self {
        let owner = inner.number();
        Self { inner, patience, owner }
    }

    /// The next batch; waits for one. Cancelling loses nothing.
    ///
    /// # Errors
    /// `JournalIo`; `Closed` when the hub stops.
    pub async fn next(&mut self) -> Result<FeedbackBatch> {
        let inner = &*self.inner;
        loop {
            let mut changed = std::pin::pin!(inner.feedback.changed.notified());
            changed.as_mut().enable();
            if let Some(batch) = inner.take_feedback(self.patience, Some(self.owner)).await? {
                return Ok(batch);
            }
            let now = inner.clock.now();
            let next = locked(&inner.feedback.state).next_look(now, &inner.options, self.patience);
            let time = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed => {}
                () = time => {}
                () = inner.stop.cancelled() => {}
            }
        }
    }

    /// As [`Receiver::settle`](super::Receiver::settle).
    ///
    /// # Errors
    /// As there.
    pub fn settle(
        &mut self,
        lock: LockToken,
        settlement: Settlement,
    ) -> impl Future<Output = Result<()>> + Send + use<> {
        self.inner.settle_feedback(lock, settlement)
    }
}

impl fmt::Debug for FeedbackReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedbackReader").field("patience", &self.patience).finish_non_exhaustive()
    }
}

impl Drop for FeedbackReader {
    fn drop(&mut self) {
        let mut state = locked(&self.inner.feedback.state);
        let own: Vec<LockToken> = state
            .locked
            .iter()
            .filter(|(_, locked)| locked.owner == Some(self.owner))
            .map(|(token, _)| *token)
            .collect();
        for token in own {
            state.unlock(token);
        }
        drop(state);
        self.inner.feedback.wake();
    }
}
