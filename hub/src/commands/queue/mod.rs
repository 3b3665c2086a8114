//! The queue of one device: who has which command, until when, and what becomes of it. No I/O; time is passed in.
//!
//! Only durable commands come in. What has to be durable goes out as a [`Step`]; until it is [confirmed](Queue::confirmed)
//! or [undone](Queue::undone) the command is neither waiting nor locked: nobody gets it, and no token settles it.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;
use whimbrel::{outbox::Now, wire::feedback::CommandOutcome};

use super::{LockToken, Settlement};

/// What the queue has to know of the settings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// How long a delivery is locked.
    pub(super) lock: Duration,
    /// Deliveries that count before a command is dead-lettered.
    pub(super) max_delivery_count: u32,
    /// Whether a lock that runs out counts.
    pub(super) count_lock_expiry: bool,
}

/// Names a receiver, for as long as it lives.
pub(super) type Owner = u64;

/// A command as its queue holds it. `M` is the message.
#[derive(Clone, Debug)]
pub(super) struct Held<M> {
    pub(super) enqueued_at: SystemTime,
    pub(super) expires_at: SystemTime,
    pub(super) delivery_count: u32,
    /// `None` when what is stored cannot be read: such a command can only expire or be purged.
    pub(super) message: Option<M>,
}

/// Something to be made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) sequence: u64,
    pub(super) change: Change,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// This many deliveries have counted; it waits again.
    Count(u32),
    /// It is over.
    End(CommandOutcome, SystemTime),
}

/// See the module.
pub(super) struct Queue<M> {
    rules: Rules,
    commands: BTreeMap<u64, Command<M>>,
    /// Those that wait and can be delivered.
    ready: BTreeSet<u64>,
    /// Those that wait, by the end of their time to live.
    expiries: BTreeSet<(SystemTime, u64)>,
    /// Those that are locked, by the end of their locks.
    deadlines: BTreeSet<(Instant, u64)>,
    locks: HashMap<LockToken, u64>,
    /// How many are on their way to the disk.
    changing: usize,
    /// After the disk failed, what is over by time is not tried again before.
    patience: Option<Instant>,
}

struct Command<M> {
    held: Held<M>,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Enqueued,
    Locked(Lock),
    Changing {
        change: Change,
        /// The lock that was settled: it comes back when the change fails.
        settled: Option<Lock>,
    },
}

#[derive(Clone, Copy, Debug)]
struct Lock {
    token: LockToken,
    until: Instant,
    owner: Option<Owner>,
}

/// How a lock ends other than by completing and rejecting.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Return {
    Counted,
    Uncounted,
}

impl<M: Clone> Queue<M> {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            commands: BTreeMap::new(),
            ready: BTreeSet::new(),
            expiries: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            locks: HashMap::new(),
            changing: 0,
            patience: None,
        }
    }

    /// Takes in a durable command. The caller makes sure that it comes in once.
    pub(super) fn insert(&mut self, sequence: u64, held: Held<M>) {
        if let Entry::Vacant(place) = self.commands.entry(sequence) {
            place.insert(Command { held, state: State::Enqueued });
            self.wait(sequence);
        }
    }

    /// Does what time has made due: ends locks that ran out, and commands whose time to live is over. To be called
    /// before anything else happens at `now`.
    pub(super) fn tick(&mut self, now: Now, steps: &mut Vec<Step>) {
        while let Some(&(until, sequence)) =
            self.deadlines.first().filter(|(until, _)| *until <= now.monotonic)
        {
            self.deadlines.remove(&(until, sequence));
            let how = if self.rules.count_lock_expiry { Return::Counted } else { Return::Uncounted };
            let step = self.unlock(sequence).and_then(|lock| self.give_back(now, sequence, how, lock, false));
            steps.extend(step);
        }
        if self.patience.is_some_and(|until| until > now.monotonic) {
            return;
        }
        self.patience = None;
        while let Some(&(_, sequence)) = self.expiries.first().filter(|(at, _)| *at <= now.wall) {
            steps.extend(self.change(sequence, Change::End(CommandOutcome::Expired, now.wall), None));
        }
    }

    /// When [`Queue::tick`] has something to do next, as far as is known at `now`.
    pub(super) fn next_tick(&self, now: Now) -> Option<Instant> {
        let lock = self.deadlines.first().map(|(until, _)| *until);
        let expiry = self.expiries.first().map(|(at, _)| {
            let left = at.duration_since(now.wall).unwrap_or_default();
            // Too far away for the clock is as good as never.
            let at = now.monotonic.checked_add(left).unwrap_or(now.monotonic + FAR);
            self.patience.map_or(at, |until| at.max(until))
        });
        lock.into_iter().chain(expiry).min()
    }

    /// Locks the first command that waits. One whose time to live is over waits for [`Queue::tick`] alone.
    pub(super) fn deliver(
        &mut self,
        now: Now,
        owner: Option<Owner>,
        token: LockToken,
    ) -> Option<(u64, Held<M>)> {
        let sequence = self.first_ready(now)?;
        self.ready.remove(&sequence);
        let command = self.commands.get_mut(&sequence)?;
        self.expiries.remove(&(command.held.expires_at, sequence));
        let lock = Lock { token, until: now.monotonic + self.rules.lock, owner };
        command.state = State::Locked(lock);
        self.deadlines.insert((lock.until, sequence));
        self.locks.insert(token, sequence);
        Some((sequence, command.held.clone()))
    }

    /// Settles what is locked by `token`; `None` when that lock is over, or never was.
    pub(super) fn settle(&mut self, now: Now, token: LockToken, settlement: Settlement) -> Option<Step> {
        let sequence = *self.locks.get(&token)?;
        let lock = self.unlock(sequence)?;
        match settlement {
            Settlement::Complete => self.end(sequence, CommandOutcome::Completed, now, lock),
            Settlement::Reject => self.end(sequence, CommandOutcome::Rejected, now, lock),
            Settlement::Abandon => self.give_back(now, sequence, Return::Counted, lock, true),
        }
    }

    /// Ends everything that is not ending by itself already.
    pub(super) fn purge(&mut self, now: Now, steps: &mut Vec<Step>) {
        let all: Vec<u64> = self.commands.keys().copied().collect();
        for sequence in all {
            let ending = self.commands.get(&sequence).is_none_or(|command| {
                matches!(command.state, State::Changing { change: Change::End(..), .. })
            });
            if !ending {
                self.unlock(sequence);
                steps.extend(self.change(sequence, Change::End(CommandOutcome::Purged, now.wall), None));
            }
        }
    }

    /// A receiver is gone: what it had locked waits again, without counting.
    pub(super) fn receiver_gone(&mut self, owner: Owner) {
        let locked: Vec<u64> = self.deadlines.iter().map(|(_, sequence)| *sequence).collect();
        for sequence in locked {
            let is_its = self.commands.get(&sequence).is_some_and(
                |command| matches!(command.state, State::Locked(lock) if lock.owner == Some(owner)),
            );
            if is_its {
                self.unlock(sequence);
                self.wait(sequence);
            }
        }
        if self.changing > 0 {
            for command in self.commands.values_mut() {
                if let State::Changing { settled, .. } = &mut command.state
                    && settled.is_some_and(|lock| lock.owner == Some(owner))
                {
                    *settled = None;
                }
            }
        }
    }

    /// A step is durable.
    pub(super) fn confirmed(&mut self, step: Step) {
        let Some(command) = self.commands.get_mut(&step.sequence) else { return };
        if let Change::Count(count) = step.change {
            command.held.delivery_count = count;
        }
        // A purge may have overtaken a count: then its own step is still to come.
        if !matches!(command.state, State::Changing { change, .. } if change == step.change) {
            return;
        }
        self.changing -= 1;
        match step.change {
            Change::Count(_) => self.wait(step.sequence),
            Change::End(..) => drop(self.commands.remove(&step.sequence)),
        }
    }

    /// A step failed and changed nothing: the command is where it was. Nothing that time made due is tried again before
    /// `patience`.
    pub(super) fn undone(&mut self, step: Step, now: Now, patience: Instant) {
        let Some(command) = self.commands.get_mut(&step.sequence) else { return };
        let State::Changing { change, settled } = command.state else { return };
        if change != step.change {
            return;
        }
        self.changing -= 1;
        self.patience = Some(patience);
        match settled.filter(|lock| lock.until > now.monotonic) {
            Some(lock) => {
                command.state = State::Locked(lock);
                self.deadlines.insert((lock.until, step.sequence));
                self.locks.insert(lock.token, step.sequence);
            }
            None => self.wait(step.sequence),
        }
    }

    /// The command is not in the store any more.
    pub(super) fn missing(&mut self, sequence: u64) {
        self.unlock(sequence);
        if let Some(command) = self.commands.remove(&sequence) {
            self.ready.remove(&sequence);
            self.expiries.remove(&(command.held.expires_at, sequence));
            if matches!(command.state, State::Changing { .. }) {
                self.changing -= 1;
            }
        }
    }

    /// Whether a command is delivered and not settled durably yet; `None` when it is not here.
    pub(super) fn is_locked(&self, sequence: u64) -> Option<bool> {
        self.commands.get(&sequence).map(|command| !matches!(command.state, State::Enqueued))
    }

    /// Whether somebody could be given a command.
    pub(super) fn has_ready(&self, now: Now) -> bool {
        self.first_ready(now).is_some()
    }

    /// Whether forgetting this queue would lose nothing: the store has all there is to know.
    pub(super) fn is_idle(&self) -> bool {
        self.deadlines.is_empty() && self.changing == 0
    }

    /// Whether nothing is on its way to the disk.
    pub(super) fn is_settled(&self) -> bool {
        self.changing == 0
    }

    fn first_ready(&self, now: Now) -> Option<u64> {
        let alive = |sequence: &&u64| {
            self.commands.get(sequence).is_some_and(|command| command.held.expires_at > now.wall)
        };
        self.ready.iter().find(alive).copied()
    }

    fn wait(&mut self, sequence: u64) {
        if let Some(command) = self.commands.get_mut(&sequence) {
            command.state = State::Enqueued;
            self.expiries.insert((command.held.expires_at, sequence));
            if command.held.message.is_some() {
                self.ready.insert(sequence);
            }
        }
    }

    /// Ends the lock, if there is one; what becomes of the command is for the caller to say.
    fn unlock(&mut self, sequence: u64) -> Option<Lock> {
        let State::Locked(lock) = self.commands.get(&sequence)?.state else { return None };
        self.deadlines.remove(&(lock.until, sequence));
        self.locks.remove(&lock.token);
        Some(lock)
    }

    fn end(&mut self, sequence: u64, outcome: CommandOutcome, now: Now, lock: Lock) -> Option<Step> {
        self.change(sequence, Change::End(outcome, now.wall), Some(lock))
    }

    /// A command that was unlocked goes back to its place, or ends if this was once too often, or too late.
    fn give_back(
        &mut self,
        now: Now,
        sequence: u64,
        how: Return,
        lock: Lock,
        was_settled: bool,
    ) -> Option<Step> {
        let held = &self.commands.get(&sequence)?.held;
        let count = held.delivery_count.saturating_add(1);
        let change = match how {
            Return::Counted if count >= self.rules.max_delivery_count => {
                Change::End(CommandOutcome::DeliveryCountExceeded, now.wall)
            }
            _ if held.expires_at <= now.wall => Change::End(CommandOutcome::Expired, now.wall),
            Return::Counted => Change::Count(count),
            Return::Uncounted => {
                self.wait(sequence);
                return None;
            }
        };
        self.change(sequence, change, was_settled.then_some(lock))
    }

    /// From waiting, unlocked, or a change that is overtaken.
    fn change(&mut self, sequence: u64, change: Change, settled: Option<Lock>) -> Option<Step> {
        let command = self.commands.get_mut(&sequence)?;
        if !matches!(command.state, State::Changing { .. }) {
            self.changing += 1;
        }
        command.state = State::Changing { change, settled };
        self.ready.remove(&sequence);
        self.expiries.remove(&(command.held.expires_at, sequence));
        Some(Step { sequence, change })
    }
}

/// Longer than any lock or time to live.
const FAR: Duration = Duration::from_secs(365 * 24 * 3_600);
