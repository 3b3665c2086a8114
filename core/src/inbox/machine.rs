//! The state machine: which command is where, and what may be done with it. No I/O, no clock.
//!
//! A command that arrived is locked for this device by its handle, on the connection it came on. When that connection
//! ends the lock is gone and the hub delivers the command again: what nobody took yet is let go of, and what the program
//! has in hand gets the lock of its redelivery, instead of being handed out twice. A settlement that must not be lost is
//! on the disk before the hub hears of it, and answers the redeliveries of its command until the hub is known to have it.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use super::{
    books::Books,
    key::{Key, Name},
};
use crate::{
    Error, ErrorKind, Message, Result,
    transport::{Arrived, CommandSupport, Handle, Settled, Settlement},
};

/// Names a command that arrived, for as long as it is here.
pub(super) type Id = u64;

/// What is to be done.
#[derive(Debug)]
pub(super) enum Effect {
    /// Somebody may take a command.
    HandOut,
    /// Tell the hub, on the connection that is up.
    Settle(Handle, Settlement),
    /// Record how a command is settled; answer with [`Machine::noted`] and [`Machine::durable`], or [`Machine::failed`].
    Note {
        /// Of which command.
        id: Id,
        /// What it will be known by.
        key: Key,
        /// How it is settled.
        settlement: Settlement,
    },
    /// The record of a settlement is of no more use.
    Forget(Key),
    /// Tell whoever settled a command how that ended.
    Answer(Id, Result<()>),
}

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) books: Books,
    link: Option<Link>,
    /// Connections so far.
    links: u64,
    /// What the last connection can do.
    support: CommandSupport,
    commands: HashMap<Id, Held>,
    next_id: Id,
    /// Commands that nobody has taken, in the order of their arrival.
    waiting: VecDeque<Id>,
    waiting_bytes: usize,
    /// Commands that a redelivery would belong to.
    by_key: HashMap<Key, Id>,
    /// What the connection may have to say about a handle.
    by_handle: HashMap<Handle, Role>,
    /// Handles of commands that the program dropped: settled with the command when it comes again.
    left: HashMap<Key, Vec<Handle>>,
    closed: bool,
}

#[derive(Debug)]
struct Link {
    since: Instant,
}

#[derive(Debug)]
struct Held {
    name: Option<Name>,
    /// Its lock; none when that is gone.
    handle: Option<Handle>,
    /// Locks of earlier deliveries on the same connection that have run out. The hub may count them as unsettled.
    older: Vec<Handle>,
    /// The connection it came on last.
    link: u64,
    /// When it came last.
    since: Instant,
    stage: Stage,
    /// The program has let go of it.
    dropped: bool,
}

#[derive(Debug)]
enum Stage {
    /// Nobody has taken it.
    Waiting(Box<Arrived>),
    /// The program has it.
    Taken,
    /// It is being recorded how it was settled.
    Noting(Settlement),
    /// The hub was told, and will answer.
    Asked(Settlement),
    /// It is settled, as far as we are concerned.
    Settled(Settlement),
    /// Its lock was lost for good.
    Lost,
}

/// What an answer about a handle means.
#[derive(Clone, Copy, Debug)]
enum Role {
    /// It is about this command.
    Of(Id),
    /// The settlement recorded under this key reached the hub; the command arrived then.
    Recorded(Key, Instant),
    /// Nothing.
    Nothing,
}

impl Machine {
    pub(super) fn new(books: Books) -> Self {
        Self {
            books,
            link: None,
            links: 0,
            support: CommandSupport { abandon_and_reject: false, answers: false },
            commands: HashMap::new(),
            next_id: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            by_key: HashMap::new(),
            by_handle: HashMap::new(),
            left: HashMap::new(),
            closed: false,
        }
    }

    /// A connection is up.
    pub(super) fn connected(&mut self, now: Instant, support: CommandSupport) {
        self.links += 1;
        self.link = Some(Link { since: now });
        self.support = support;
    }

    /// The connection ended, and with it all locks.
    pub(super) fn lost(&mut self, effects: &mut Vec<Effect>) {
        if self.link.take().is_none() {
            return;
        }
        self.let_waiting_go();
        self.by_handle.clear();
        self.left.clear();
        let ids: Vec<Id> = self.commands.keys().copied().collect();
        for id in ids {
            let Some(held) = self.commands.get_mut(&id) else { continue };
            held.handle = None;
            held.older.clear();
            let Stage::Asked(settlement) = held.stage else { continue };
            // Recorded: the redelivery, if there is one, will be settled. Abandoned: the hub has it back either way.
            let recorded = held.name.is_some_and(|name| self.books.knows(name.key));
            if recorded || settlement == Settlement::Abandon {
                held.stage = Stage::Settled(settlement);
                effects.push(Effect::Answer(id, Ok(())));
            } else {
                held.stage = Stage::Lost;
                effects.push(Effect::Answer(id, Err(lock_lost(settlement))));
            }
            self.tidy(id);
        }
    }

    /// A command arrived on the connection that is up.
    pub(super) fn arrived(&mut self, now: Instant, arrived: Arrived, effects: &mut Vec<Effect>) {
        let Some(link) = &self.link else { return };
        let early = now.duration_since(link.since) <= EARLY;
        let handle = arrived.handle;
        if self.closed || self.by_handle.contains_key(&handle) {
            return; // the second is the same delivery once more
        }
        let name = Name::of(&arrived);
        if let Some(name) = name {
            if let Some(id) = self.by_key.get(&name.key).copied()
                && let Some(held) = self.commands.get_mut(&id)
                && (name.sure || held.link != self.links)
            {
                if let Some(old) = held.handle.replace(handle) {
                    held.older.push(old);
                    self.by_handle.insert(old, Role::Nothing);
                }
                held.link = self.links;
                held.since = now;
                self.by_handle.insert(handle, Role::Of(id));
                if let Stage::Waiting(waiting) = &mut held.stage {
                    **waiting = arrived;
                }
                return;
            }
            if let Some(settlement) = self.books.answer(name, self.links, early) {
                // What this protocol cannot say stays locked.
                if self.can(settlement) {
                    self.by_handle.insert(handle, Role::Recorded(name.key, now));
                    effects.push(Effect::Settle(handle, settlement));
                }
                return;
            }
        }
        let bytes = size(&arrived.message);
        if self.waiting.len() >= WAITING_LIMIT || self.waiting_bytes + bytes > WAITING_BYTES {
            // It stays locked, and the hub delivers it again when there is room, perhaps.
            tracing::warn!(
                waiting = self.waiting.len(),
                "the program takes no commands; one more is not kept"
            );
            return;
        }
        let id = self.next_id;
        self.next_id += 1;
        let mut older = name.and_then(|name| self.left.remove(&name.key)).unwrap_or_default();
        older.retain(|old| *old != handle);
        if let Some(name) = name {
            self.by_key.insert(name.key, id);
        }
        self.by_handle.insert(handle, Role::Of(id));
        self.waiting.push_back(id);
        self.waiting_bytes += bytes;
        let stage = Stage::Waiting(Box::new(arrived));
        let held =
            Held { name, handle: Some(handle), older, link: self.links, since: now, stage, dropped: false };
        self.commands.insert(id, held);
        effects.push(Effect::HandOut);
    }

    /// The program takes the first command that waits.
    pub(super) fn take(&mut self) -> Option<(Id, Arrived)> {
        let id = self.waiting.pop_front()?;
        let held = self.commands.get_mut(&id)?;
        let Stage::Waiting(arrived) = std::mem::replace(&mut held.stage, Stage::Taken) else { return None };
        self.waiting_bytes -= size(&arrived.message);
        Some((id, *arrived))
    }

    /// Whether there is something to take.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The program settles a command. On `Ok` an [`Effect::Answer`] follows, now or later.
    ///
    /// # Errors
    /// `Conflict`, `Unsupported`, `LockLost`.
    pub(super) fn settle(&mut self, id: Id, settlement: Settlement, effects: &mut Vec<Effect>) -> Result<()> {
        let can = self.can(settlement);
        let held = self.commands.get_mut(&id).ok_or_else(|| unknown(settlement))?;
        match held.stage {
            Stage::Taken => {}
            Stage::Noting(before) | Stage::Asked(before) | Stage::Settled(before) => {
                return Err(conflict(settlement, before));
            }
            Stage::Lost => return Err(lock_lost(settlement)),
            Stage::Waiting(_) => return Err(unknown(settlement)),
        }
        if !can {
            return Err(unsupported(settlement));
        }
        match held.name {
            Some(Name { key, .. }) if settlement != Settlement::Abandon => {
                held.stage = Stage::Noting(settlement);
                effects.push(Effect::Note { id, key, settlement });
            }
            _ if held.handle.is_some() => self.hand_over(id, settlement, effects),
            _ => {
                held.stage = Stage::Lost;
                self.unkey(id);
                return Err(lock_lost(settlement));
            }
        }
        Ok(())
    }

    /// What [`Effect::Note`] asked for is on its way to the disk, `at` this time in seconds since 1970.
    pub(super) fn noted(&mut self, id: Id, at: u64) {
        if let Some(Held { name: Some(name), stage: Stage::Noting(settlement), link, .. }) =
            self.commands.get(&id)
        {
            self.books.record(name.key, *settlement, at, *link);
        }
    }

    /// It is on the disk.
    pub(super) fn durable(&mut self, id: Id, effects: &mut Vec<Effect>) {
        let Some(held) = self.commands.get_mut(&id) else { return };
        let Stage::Noting(settlement) = held.stage else { return };
        if let Some(name) = held.name {
            self.books.durable(name.key);
        }
        if held.handle.is_some() {
            return self.hand_over(id, settlement, effects);
        }
        held.stage = Stage::Settled(settlement);
        effects.push(Effect::Answer(id, Ok(())));
        self.tidy(id);
    }

    /// It could not be recorded: the command is as it was before it was settled.
    pub(super) fn failed(&mut self, id: Id, error: Error, effects: &mut Vec<Effect>) {
        let Some(held) = self.commands.get_mut(&id) else { return };
        let Stage::Noting(_) = held.stage else { return };
        if let Some(name) = held.name {
            self.books.forget(name.key);
        }
        held.stage = Stage::Taken;
        effects.push(Effect::Answer(id, Err(error)));
        self.tidy(id);
    }

    /// The connection says what became of a settlement.
    pub(super) fn settled(&mut self, now: Instant, settled: Settled, effects: &mut Vec<Effect>) {
        let Settled { handle, result } = settled;
        match self.by_handle.remove(&handle) {
            // Where the hub does not answer, it has the settlement now; whether it came in time is another matter.
            Some(Role::Recorded(key, since))
                if result.is_ok() && (self.support.answers || now.duration_since(since) <= IN_TIME) =>
            {
                self.forget(key, effects);
            }
            Some(Role::Of(id)) => self.answered(id, handle, result, effects),
            Some(Role::Recorded(..) | Role::Nothing) | None => {}
        }
    }

    fn answered(&mut self, id: Id, handle: Handle, result: Result<()>, effects: &mut Vec<Effect>) {
        let Some(held) = self.commands.get_mut(&id) else { return };
        let Stage::Asked(settlement) = held.stage else {
            // Nobody asked: the lock is lost.
            held.handle = None;
            return;
        };
        let key = held.name.map(|name| name.key).filter(|key| self.books.knows(*key));
        let recorded = key.is_some() && settlement != Settlement::Abandon;
        let answer = match result {
            Ok(()) => {
                held.stage = Stage::Settled(settlement);
                if let Some(key) = key.filter(|_| recorded) {
                    self.forget(key, effects);
                }
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::LockLost => {
                held.stage = if recorded { Stage::Settled(settlement) } else { Stage::Lost };
                Err(if recorded {
                    late(settlement).caused_by(error)
                } else {
                    lock_lost(settlement).caused_by(error)
                })
            }
            // The redelivery, if there is one, will be settled.
            Err(error) if recorded && error.kind() != ErrorKind::Unsupported => {
                tracing::warn!(%error, "a settlement did not reach the hub; the command's redelivery will be settled");
                held.stage = Stage::Settled(settlement);
                Ok(())
            }
            Err(error) => {
                held.stage = Stage::Taken;
                self.by_handle.insert(handle, Role::Of(id));
                if let Some(name) = held.name {
                    self.by_key.insert(name.key, id);
                }
                if let Some(key) = key.filter(|_| recorded) {
                    self.forget(key, effects);
                }
                Err(error)
            }
        };
        effects.push(Effect::Answer(id, answer));
        self.tidy(id);
    }

    /// The program let go of a command.
    pub(super) fn dropped(&mut self, id: Id) {
        if let Some(held) = self.commands.get_mut(&id) {
            held.dropped = true;
            self.tidy(id);
        }
    }

    /// No more commands are handed out; those that nobody took are let go of.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.let_waiting_go();
    }

    /// The inbox was opened again, with these books.
    pub(super) fn resume(&mut self, books: Books) {
        self.books = books;
        self.closed = false;
    }

    /// Whether a settlement is under way.
    pub(super) fn is_settling(&self) -> bool {
        self.commands.values().any(|held| matches!(held.stage, Stage::Noting(_) | Stage::Asked(_)))
    }

    fn can(&self, settlement: Settlement) -> bool {
        settlement == Settlement::Complete || self.support.abandon_and_reject
    }

    /// Tells the hub. Where it answers, what becomes of the command is up to that.
    fn hand_over(&mut self, id: Id, settlement: Settlement, effects: &mut Vec<Effect>) {
        self.unkey(id);
        let Some(held) = self.commands.get_mut(&id) else { return };
        let Some(handle) = held.handle else { return };
        effects.push(Effect::Settle(handle, settlement));
        for old in held.older.drain(..) {
            effects.push(Effect::Settle(old, settlement));
            self.by_handle.insert(old, Role::Nothing);
        }
        if self.support.answers {
            held.stage = Stage::Asked(settlement);
            return;
        }
        held.stage = Stage::Settled(settlement);
        let since = held.since;
        let recorded =
            held.name.filter(|name| settlement != Settlement::Abandon && self.books.knows(name.key));
        self.by_handle.insert(handle, recorded.map_or(Role::Nothing, |name| Role::Recorded(name.key, since)));
        effects.push(Effect::Answer(id, Ok(())));
        self.tidy(id);
    }

    fn forget(&mut self, key: Key, effects: &mut Vec<Effect>) {
        if self.books.forget(key) {
            effects.push(Effect::Forget(key));
        }
    }

    /// A redelivery of this command is another matter from now on.
    fn unkey(&mut self, id: Id) {
        if let Some(Held { name: Some(name), .. }) = self.commands.get(&id)
            && self.by_key.get(&name.key) == Some(&id)
        {
            self.by_key.remove(&name.key);
        }
    }

    /// Removes a command that the program has let go of, once nothing more is to come.
    fn tidy(&mut self, id: Id) {
        let Some(held) = self.commands.get(&id) else { return };
        if matches!(held.stage, Stage::Settled(_) | Stage::Lost) {
            self.unkey(id);
        }
        let Some(held) = self.commands.get(&id) else { return };
        if held.dropped && !matches!(held.stage, Stage::Noting(_) | Stage::Asked(_)) {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: Id) {
        self.unkey(id);
        let Some(held) = self.commands.remove(&id) else { return };
        let unsettled = matches!(held.stage, Stage::Taken | Stage::Waiting(_));
        let Some(handle) = held.handle.filter(|_| unsettled) else { return };
        self.by_handle.remove(&handle);
        if let Some(name) = held.name {
            let left = self.left.entry(name.key).or_default();
            left.extend(held.older);
            left.push(handle);
        }
    }

    fn let_waiting_go(&mut self) {
        self.waiting_bytes = 0;
        for id in std::mem::take(&mut self.waiting) {
            self.remove(id);
        }
    }
}

/// About what a message takes in memory.
fn size(message: &Message) -> usize {
    message.size()
}

const fn operation(settlement: Settlement) -> &'static str {
    match settlement {
        Settlement::Complete => "command.complete",
        Settlement::Abandon => "command.abandon",
        Settlement::Reject => "command.reject",
    }
}

fn conflict(settlement: Settlement, before: Settlement) -> Error {
    let how = match before {
        Settlement::Complete => "completed",
        Settlement::Abandon => "abandoned",
        Settlement::Reject => "rejected",
    };
    Error::new(ErrorKind::Conflict, operation(settlement), "the command was settled before")
        .with("settled", how)
}

fn unsupported(settlement: Settlement) -> Error {
    let message = "MQTT 3.1.1 can only complete a command; it stays locked, and can still be completed";
    Error::new(ErrorKind::Unsupported, operation(settlement), message)
}

fn lock_lost(settlement: Settlement) -> Error {
    let message = "the hub does not hold the command for this client any more, and delivers it again";
    Error::new(ErrorKind::LockLost, operation(settlement), message)
}

fn late(settlement: Settlement) -> Error {
    let message = "the lock had ended; when the hub delivers the command again that will be settled in the same way, \
                   without being handed out";
    Error::new(ErrorKind::LockLost, operation(settlement), message)
}

fn unknown(settlement: Settlement) -> Error {
    Error::new(ErrorKind::Internal, operation(settlement), "there is no such command")
}

/// Locks last 60 s by the contract. What reached the hub so long after the command arrived may have found it unlocked:
/// then it is remembered until there is no more room.
const IN_TIME: Duration = Duration::from_secs(50);
/// How long after connecting a hub delivers again what it had no settlement for, and for how long therefore a name that
/// is not sure counts.
const EARLY: Duration = Duration::from_secs(300);
/// Most commands kept until the program takes them.
const WAITING_LIMIT: usize = 1_000;
/// Most bytes of them: as many of the largest there are.
const WAITING_BYTES: usize = WAITING_LIMIT * crate::message::C2D_LIMIT;
