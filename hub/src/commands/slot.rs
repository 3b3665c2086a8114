//! Queues that are in memory because somebody uses them. All others are rows in the store and cost nothing.
//!
//! A queue is loaded when its first user waits for it, and let go when the last user is gone and nothing is locked.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio::{sync::oneshot, time::Instant};
use whimbrel::{Error, ErrorKind, Message, Result, outbox::Now, wire::record};

use super::{
    Inner,
    queue::{Held, Owner, Queue, Rules, Step},
    writer::Write,
};
use crate::store::{CommandQueue, CommandRow};

/// Where the outcome of a step goes.
pub(super) type Reply = oneshot::Sender<Result<()>>;

/// The queues that are in memory.
#[derive(Default)]
pub(super) struct Directory {
    /// A device has more than one only for a moment, while it is deleted and created again.
    slots: Mutex<HashMap<Arc<str>, Vec<Arc<Slot>>>>,
}

/// A queue in memory, or on its way there.
pub(super) struct Slot {
    pub(super) device: Arc<str>,
    pub(super) generation: Arc<str>,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// The last number that may have been in what was read from the store.
    through: u64,
    users: usize,
    waiting: Vec<Waiting>,
    /// When the clock is to look at it.
    alarm: Option<Alarm>,
}

/// Somebody who waits, as of a moment when there was nothing for him.
struct Waiting {
    owner: Owner,
    /// Whether for the disk, and not for commands.
    for_disk: bool,
    waker: Waker,
}

/// Names an alarm among all: time, and a number that makes it unique.
pub(super) type Alarm = (Instant, u64);

enum Phase {
    Unloaded,
    /// With what was sent meanwhile.
    Loading(Vec<(u64, Held<Message>)>),
    Ready(Box<Queue<Message>>),
    /// To be told to whoever asks next, who then may try again.
    Failed(Error),
    /// Deleted, or the hub stops.
    Over(ErrorKind),
    /// Nobody finds it any more.
    Released,
}

/// Keeps a queue in memory. Dropping it gives back what was locked in its name.
pub(super) struct User {
    pub(super) inner: Arc<Inner>,
    pub(super) slot: Arc<Slot>,
    pub(super) owner: Owner,
}

/// What an action wants to be made durable.
#[derive(Default)]
pub(super) struct Wanted {
    pub(super) steps: Vec<Step>,
    /// With somebody who waits for it.
    pub(super) answered: Vec<(Step, Reply)>,
    /// To be woken when there is a command.
    pub(super) waiter: Option<(Owner, Waker)>,
}

impl Inner {
    /// Becomes a user of a queue.
    pub(super) fn enter(self: &Arc<Self>, device: &Arc<str>, generation: &Arc<str>) -> User {
        let mut slots = locked(&self.directory.slots);
        let of_device = slots.entry(Arc::clone(device)).or_default();
        let slot = match of_device.iter().find(|slot| slot.generation == *generation) {
            Some(slot) => Arc::clone(slot),
            None => {
                let slot = Arc::new(Slot {
                    device: Arc::clone(device),
                    generation: Arc::clone(generation),
                    state: Mutex::new(State {
                        phase: Phase::Unloaded,
                        through: 0,
                        users: 0,
                        waiting: Vec::new(),
                        alarm: None,
                    }),
                });
                of_device.push(Arc::clone(&slot));
                slot
            }
        };
        // Under the lock of the directory, so that it is not let go in between.
        let mut state = locked(&slot.state);
        if self.stop.is_cancelled() {
            state.phase = Phase::Over(ErrorKind::Closed);
        }
        let user = self.user(&slot, &mut state);
        drop(state);
        user
    }

    fn user(self: &Arc<Self>, slot: &Arc<Slot>, state: &mut State) -> User {
        state.users += 1;
        User { inner: Arc::clone(self), slot: Arc::clone(slot), owner: self.number() }
    }

    /// A queue that is in memory.
    pub(super) fn loaded(&self, device: &str, generation: &str) -> Option<Arc<Slot>> {
        let slots = locked(&self.directory.slots);
        slots.get(device)?.iter().find(|slot| &*slot.generation == generation).cloned()
    }

    /// Devices with queues in memory.
    pub(super) fn loaded_devices(&self) -> Vec<Arc<str>> {
        locked(&self.directory.slots).keys().cloned().collect()
    }

    /// Ends the queues of a device, except that of `current`: their generation is over.
    pub(super) fn end_generations(&self, device: &str, current: Option<&str>) {
        let ended: Vec<Arc<Slot>> = {
            let mut slots = locked(&self.directory.slots);
            let Some(of_device) = slots.get_mut(device) else { return };
            let ended = of_device.extract_if(.., |slot| Some(&*slot.generation) != current).collect();
            if of_device.is_empty() {
                slots.remove(device);
            }
            ended
        };
        for slot in ended {
            self.end(&slot, ErrorKind::NotFound);
        }
    }

    /// Ends all queues: the hub stops.
    pub(super) fn end_all(&self) {
        let all: Vec<Arc<Slot>> =
            locked(&self.directory.slots).drain().flat_map(|(_, slots)| slots).collect();
        for slot in all {
            self.end(&slot, ErrorKind::Closed);
        }
    }

    fn end(&self, slot: &Arc<Slot>, why: ErrorKind) {
        let mut state = locked(&slot.state);
        state.phase = Phase::Over(why);
        if let Some(alarm) = state.alarm.take() {
            self.timers.cancel(alarm);
        }
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        wake(waiting);
    }

    /// Takes in a command that has become durable, if its queue is in memory.
    pub(super) fn arrived(self: &Arc<Self>, device: &str, generation: &str, row: CommandRow) {
        let Some(slot) = self.loaded(device, generation) else { return };
        let mut guard = locked(&slot.state);
        let state = &mut *guard;
        match &mut state.phase {
            Phase::Loading(meanwhile) => meanwhile.push((row.sequence, held(row))),
            // The store was read between its becoming durable and now: it has been delivered, perhaps, and has ended.
            Phase::Ready(_) if row.sequence <= state.through => {}
            Phase::Ready(_) => {
                let _ = self.act(&slot, guard, |queue, _, _| queue.insert(row.sequence, held(row)));
            }
            // Whoever loads it finds the command.
            Phase::Unloaded | Phase::Failed(_) | Phase::Over(_) | Phase::Released => {}
        }
    }

    /// Does something with a queue that is in memory, and what follows from it; `None` when it is not.
    pub(super) fn with<R>(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        action: impl FnOnce(&mut Queue<Message>, Now, &mut Wanted) -> R,
    ) -> Option<R> {
        self.act(slot, locked(&slot.state), action)
    }

    fn act<R>(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        mut guard: MutexGuard<'_, State>,
        action: impl FnOnce(&mut Queue<Message>, Now, &mut Wanted) -> R,
    ) -> Option<R> {
        let state = &mut *guard;
        let Phase::Ready(queue) = &mut state.phase else { return None };
        let (now, mut wanted) = (self.clock.now(), Wanted::default());
        queue.tick(now, &mut wanted.steps);
        let answer = action(queue, now, &mut wanted);
        queue.tick(now, &mut wanted.steps);
        // Still under the lock: the steps of one command go to the disk in the order in which they were decided.
        for (step, reply) in wanted.answered {
            self.write(Write::Step { slot: Arc::clone(slot), step, reply: Some(reply) });
        }
        for step in wanted.steps {
            self.write(Write::Step { slot: Arc::clone(slot), step, reply: None });
        }
        let next = queue.next_tick(now);
        if let Some(at) = next.filter(|at| state.alarm.is_none_or(|(set, _)| *at < set)) {
            if let Some(alarm) = state.alarm.take() {
                self.timers.cancel(alarm);
            }
            state.alarm = Some(self.timers.set((at, self.number()), slot));
        }
        let quiet = state.users == 0 && queue.is_idle();
        let (has_ready, is_settled) = (queue.has_ready(now), queue.is_settled());
        let woken = state
            .waiting
            .extract_if(.., |waiting| if waiting.for_disk { is_settled } else { has_ready })
            .collect();
        if let Some((owner, waker)) = wanted.waiter {
            state.wait(owner, false, &waker);
        }
        drop(guard);
        wake(woken);
        if quiet {
            self.let_go(slot);
        }
        Some(answer)
    }

    /// The alarm of a queue went off.
    pub(super) fn rung(self: &Arc<Self>, slot: &Arc<Slot>, alarm: Alarm) {
        let mut state = locked(&slot.state);
        if state.alarm == Some(alarm) {
            state.alarm = None;
        }
        self.act(slot, state, |_, _, _| ());
    }

    /// Lets a queue go when nobody uses it and nothing would be lost.
    fn let_go(&self, slot: &Arc<Slot>) {
        let mut slots = locked(&self.directory.slots);
        let mut state = locked(&slot.state);
        let idle = match &state.phase {
            Phase::Ready(queue) => queue.is_idle(),
            Phase::Loading(_) => false,
            Phase::Unloaded | Phase::Failed(_) | Phase::Over(_) | Phase::Released => true,
        };
        if state.users > 0 || !idle {
            return;
        }
        state.phase = Phase::Released;
        if let Some(alarm) = state.alarm.take() {
            self.timers.cancel(alarm);
        }
        if let Some(of_device) = slots.get_mut(&*slot.device) {
            of_device.retain(|other| !Arc::ptr_eq(other, slot));
            if of_device.is_empty() {
                slots.remove(&*slot.device);
            }
        }
    }

    /// Reads a queue from the store. Goes on when nobody waits for it any more.
    fn load(self: &Arc<Self>, slot: &Arc<Slot>, state: &mut State) {
        state.phase = Phase::Loading(Vec::new());
        let user = self.user(slot, state);
        self.tasks.spawn(async move {
            let (inner, slot) = (&user.inner, &user.slot);
            let found = inner.store.command_queue(&slot.device, &slot.generation).await;
            inner.install(slot, found);
        });
    }

    fn install(self: &Arc<Self>, slot: &Arc<Slot>, found: Result<Option<CommandQueue>>) {
        let mut guard = locked(&slot.state);
        let state = &mut *guard;
        let Phase::Loading(meanwhile) = &mut state.phase else { return };
        state.phase = match found {
            Ok(Some(found)) => {
                state.through = found.through;
                let mut queue = Queue::new(Rules::from(&self.options));
                // What was sent before the store was read is in what was read, or has ended since.
                let newer =
                    std::mem::take(meanwhile).into_iter().filter(|(sequence, _)| *sequence > found.through);
                let stored = found.commands.into_iter().map(|row| (row.sequence, held(row)));
                for (sequence, held) in stored.chain(newer) {
                    queue.insert(sequence, held);
                }
                Phase::Ready(Box::new(queue))
            }
            Ok(None) => Phase::Over(ErrorKind::NotFound),
            Err(error) => Phase::Failed(error),
        };
        let waiting = std::mem::take(&mut state.waiting);
        self.act(slot, guard, |_, _, _| ());
        wake(waiting);
    }
}

impl State {
    fn wait(&mut self, owner: Owner, for_disk: bool, waker: &Waker) {
        match self.waiting.iter_mut().find(|waiting| waiting.owner == owner) {
            Some(waiting) => {
                waiting.for_disk = for_disk;
                waiting.waker.clone_from(waker);
            }
            None => self.waiting.push(Waiting { owner, for_disk, waker: waker.clone() }),
        }
    }
}

impl Slot {
    /// Whether a command is locked; `None` when it is not in memory.
    pub(super) fn is_locked(&self, sequence: u64) -> Option<bool> {
        match &locked(&self.state).phase {
            Phase::Ready(queue) => queue.is_locked(sequence),
            _ => None,
        }
    }
}

impl User {
    /// Waits until the queue is in memory.
    pub(super) fn poll_loaded(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut state = locked(&self.slot.state);
        let outcome = match &mut state.phase {
            Phase::Ready(_) => return Poll::Ready(Ok(())),
            Phase::Loading(_) => None,
            Phase::Unloaded => {
                self.inner.load(&self.slot, &mut state);
                None
            }
            Phase::Failed(_) => {
                let Phase::Failed(error) = std::mem::replace(&mut state.phase, Phase::Unloaded) else {
                    return Poll::Pending;
                };
                Some(error)
            }
            Phase::Over(kind) => Some(over(*kind, &self.slot.device)),
            Phase::Released => Some(over(ErrorKind::NotFound, &self.slot.device)),
        };
        match outcome {
            Some(error) => Poll::Ready(Err(error)),
            None => {
                state.wait(self.owner, false, cx.waker());
                Poll::Pending
            }
        }
    }

    /// As a future.
    pub(super) async fn loaded(&self) -> Result<()> {
        std::future::poll_fn(|cx| self.poll_loaded(cx)).await
    }

    /// Waits until nothing of the queue is on its way to the disk.
    pub(super) async fn settled(&self) -> Result<()> {
        std::future::poll_fn(|cx| {
            std::task::ready!(self.poll_loaded(cx))?;
            let mut state = locked(&self.slot.state);
            match &state.phase {
                Phase::Ready(queue) if !queue.is_settled() => {
                    state.wait(self.owner, true, cx.waker());
                    Poll::Pending
                }
                _ => Poll::Ready(Ok(())),
            }
        })
        .await
    }

    /// Does something with the queue.
    pub(super) fn with<R>(
        &self,
        action: impl FnOnce(&mut Queue<Message>, Now, &mut Wanted) -> R,
    ) -> Option<R> {
        self.inner.with(&self.slot, action)
    }

    /// Why the queue cannot be used.
    pub(super) fn fault(&self) -> Error {
        match &locked(&self.slot.state).phase {
            Phase::Over(kind) => over(*kind, &self.slot.device),
            _ => over(ErrorKind::LockLost, &self.slot.device),
        }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let mut state = locked(&self.slot.state);
        state.users -= 1;
        state.waiting.retain(|waiting| waiting.owner != self.owner);
        let unused = state.users == 0;
        self.inner.act(&self.slot, state, |queue, _, _| queue.receiver_gone(self.owner));
        if unused {
            self.inner.let_go(&self.slot);
        }
    }
}

fn held(row: CommandRow) -> Held<Message> {
    let message = decode(&row.record, row.sequence);
    Held {
        enqueued_at: row.enqueued_at,
        expires_at: row.expires_at,
        delivery_count: row.delivery_count,
        message,
    }
}

/// The message of a stored command; a damaged one is reported and left alone.
fn decode(record: &Bytes, sequence: u64) -> Option<Message> {
    record::decode(record.clone())
        .inspect_err(|error| tracing::warn!(%error, sequence, "a stored command cannot be read"))
        .ok()
}

pub(super) fn over(kind: ErrorKind, device: &str) -> Error {
    let text = match kind {
        ErrorKind::NotFound => "there is no such device any more",
        ErrorKind::Closed => "the hub is stopping",
        _ => "the lock is over or never was: the command is delivered again, or has ended",
    };
    Error::new(kind, "commands.receive", text).with("device", device)
}

fn wake(waiting: Vec<Waiting>) {
    for waiting in waiting {
        waiting.waker.wake();
    }
}

/// A panic elsewhere leaves what is behind the lock as the last complete change made it.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
