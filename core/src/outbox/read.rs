//! Reading what waits: from memory while the reader keeps up, from the disk otherwise.

use std::sync::PoisonError;

use tracing::warn;

use super::{
    Outcome, Queued, Sequence,
    clock::Moment,
    entry::Entry,
    handed::Handed,
    ledger::Settlement,
    open::{Phase, Shared},
    queue::Queue,
};
use crate::{
    ErrorKind, Lane, Result,
    journal::{Damage, Journal, Read, Reader, Ticket, Urgency},
};

/// Records read from the disk at a time.
const READ_AHEAD: usize = 256;

/// Where a lane is read on the disk: the next record, and a reader that is there.
pub(super) type Cursor = Option<(Sequence, Reader)>;

/// What the disk has at a place: a message, or damage in place of some.
struct Found {
    first: Sequence,
    last: Sequence,
    entry: Option<Entry>,
}

/// What could be learnt about a message.
pub(super) enum Looked {
    Known(Handed),
    /// Its record is damaged, with all from the first to the last number.
    Damaged(Sequence, Sequence),
    /// It is not readable yet.
    Absent,
}

impl Looked {
    pub(super) fn known(&self) -> Option<Handed> {
        match self {
            Self::Known(handed) => Some(*handed),
            Self::Damaged(..) | Self::Absent => None,
        }
    }
}

impl Shared {
    pub(super) fn read(
        &self,
        lane: Lane,
        from: Sequence,
        limit: usize,
        out: &mut Vec<Queued>,
    ) -> Result<Sequence> {
        let limit = out.len().saturating_add(limit);
        let mut at = from;
        let mut found = Vec::new();
        loop {
            let (journal, wanted) = {
                let mut state = self.open_state("outbox.read")?;
                let queue = state.lanes.get_mut(lane);
                let mut hand_out = HandOut { now: self.clock.moment(), out: &mut *out, over: Vec::new() };
                for Found { first, last, entry } in found.drain(..) {
                    match entry {
                        Some(entry) => hand_out.take(queue, first, entry),
                        None => hand_out.over.push(Settlement::damaged(first, last)),
                    }
                    at = last + 1;
                }
                at = queue.ledger.first_queued(at);
                let readable_to = queue.readable_to();
                while hand_out.out.len() < limit && at <= readable_to && at >= queue.tail.first() {
                    queue.tail.skip_to(at);
                    let Some(entry) = queue.tail.pop() else { break };
                    hand_out.take(queue, at, entry);
                    at = queue.ledger.first_queued(at + 1);
                }
                let over = hand_out.over;
                if !over.is_empty() {
                    self.ended.notify_waiters();
                    queue.settle(over, Urgency::Lazy)?;
                    at = queue.ledger.first_queued(at);
                }
                if at > readable_to {
                    queue.tail.resume(queue.ledger.next);
                    queue.announced = readable_to;
                }
                if at > readable_to || out.len() >= limit {
                    return Ok(at);
                }
                let before_tail =
                    usize::try_from(queue.tail.first().saturating_sub(at)).unwrap_or(usize::MAX);
                (queue.journal.clone(), (limit - out.len()).min(before_tail).min(READ_AHEAD))
            };
            self.load(lane, &journal, at, wanted, &mut found)?;
            if found.is_empty() {
                return Ok(at);
            }
        }
    }

    pub(super) fn is_at_hand(&self, lane: Lane, from: Sequence) -> bool {
        let state = self.state();
        let queue = state.lanes.get(lane);
        let at = queue.ledger.first_queued(from);
        at >= queue.tail.first() || at > queue.readable_to()
    }

    pub(super) async fn readable(&self) {
        loop {
            let arrived = self.arrived.notified();
            let [first, second] = {
                let mut state = self.state();
                let mut news = state.phase == Phase::Closed;
                let mut commits = [None, None];
                for (queue, commit) in state.lanes.iter_mut().zip(&mut commits) {
                    let readable_to = queue.readable_to();
                    news |= readable_to > queue.announced;
                    queue.announced = queue.announced.max(readable_to);
                    *commit = queue.commit_behind(readable_to).map(|ticket| (queue.journal.clone(), ticket));
                }
                if news {
                    return;
                }
                commits
            };
            tokio::select! {
                () = arrived => {}
                () = durable(first) => {}
                () = durable(second) => {}
            }
        }
    }

    /// Learns about a message that waits, if need be from the disk.
    pub(super) fn look(&self, queue: &mut Queue, sequence: Sequence) -> Result<Looked> {
        if let Some(handed) = queue.known(sequence) {
            return Ok(Looked::Known(handed));
        }
        let mut found = Vec::with_capacity(1);
        self.load(queue.lane, &queue.journal, sequence, 1, &mut found)?;
        Ok(match found.pop() {
            Some(Found { first, entry: Some(entry), .. }) if first == sequence => {
                let handed = Handed::from(&entry);
                queue.front = Some((sequence, handed));
                Looked::Known(handed)
            }
            Some(Found { first, last, entry: None }) => Looked::Damaged(first, last),
            Some(_) | None => Looked::Absent,
        })
    }

    /// Reads up to `count` records from the disk, from `at` on.
    fn load(
        &self,
        lane: Lane,
        journal: &Journal,
        at: Sequence,
        count: usize,
        found: &mut Vec<Found>,
    ) -> Result<()> {
        let mut cursor = self.cursors.get(lane).lock().unwrap_or_else(PoisonError::into_inner);
        let (mut next, mut reader) = match cursor.take() {
            Some((next, reader)) if next == at => (next, reader),
            _ => (at, journal.reader(at)),
        };
        while found.len() < count {
            match reader.next()? {
                Some(Read::Record(sequence, record)) => {
                    next = sequence + 1;
                    let entry = match Entry::decode(&record) {
                        Err(error) if error.kind() == ErrorKind::JournalVersion => return Err(error),
                        entry => entry,
                    };
                    if let Err(error) = &entry {
                        warn!(lane = lane.name(), sequence, %error, "a message cannot be read");
                    }
                    found.push(Found { first: sequence, last: sequence, entry: entry.ok() });
                }
                Some(Read::Damaged(Damage { segment, offset, first, last, .. })) => {
                    warn!(lane = lane.name(), segment, offset, "damage was set aside");
                    if first <= last {
                        next = last + 1;
                        found.push(Found { first, last, entry: None });
                    }
                }
                None => break,
            }
        }
        *cursor = Some((next, reader));
        Ok(())
    }
}

/// Messages on their way out of the outbox.
struct HandOut<'a> {
    now: Moment,
    out: &'a mut Vec<Queued>,
    /// Those that end instead.
    over: Vec<Settlement>,
}

impl HandOut<'_> {
    fn take(&mut self, queue: &mut Queue, sequence: Sequence, entry: Entry) {
        if !queue.ledger.is_queued(sequence) {
            return;
        }
        if entry.stamp.is_over(queue.identity.epoch, self.now) {
            let known = Some(Handed::from(&entry));
            self.over.push(Settlement::of(sequence, known, Outcome::Expired));
        } else {
            self.out.push(queue.hand_out(sequence, entry));
        }
    }
}

/// Waits for a commit that there is; for ever when there is none, or it fails.
async fn durable(commit: Option<(Journal, Ticket)>) {
    if let Some((journal, ticket)) = commit
        && journal.durable(ticket).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
