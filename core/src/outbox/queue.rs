//! One lane at work: its books, its journal, and what memory holds of its messages.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::{
    Outcome, Queued, Sequence,
    clock::Moment,
    deadlines::Deadlines,
    entry::Entry,
    handed::{Handed, HandedOut},
    ids::{self, Identity, Key},
    ledger::{Ledger, Settlement},
    note,
    tail::Tail,
};
use crate::{
    ErrorKind, Lane, Result,
    journal::{Journal, Kind, Record, Ticket, Urgency},
};

/// More holes than this in the order of settled messages are not made by expiry.
const MAX_HOLES: usize = 4_096;

pub(super) struct Queue {
    pub(super) lane: Lane,
    pub(super) identity: Identity,
    pub(super) journal: Journal,
    pub(super) ledger: Ledger,
    pub(super) tail: Tail,
    pub(super) handed: HandedOut,
    pub(super) deadlines: Deadlines,
    /// The first message that was not handed out, when it had to be read for another reason.
    pub(super) front: Option<(Sequence, Handed)>,
    /// Who waits for the end of a message.
    pub(super) waiting: BTreeMap<Sequence, Vec<oneshot::Sender<Outcome>>>,
    /// Bytes of the waiting messages on disk. Counted from what is known; never less than the truth.
    pub(super) bytes: u64,
    /// Messages up to here are on their way.
    pub(super) sent_to: Sequence,
    /// The first number that messages of this opening can have.
    pub(super) begun: Sequence,
    /// Messages up to here were told to be readable.
    pub(super) announced: Sequence,
    /// The last message that must not leave before it is on disk, and when it is.
    commit: Option<(Sequence, Ticket)>,
    /// Something was appended that nobody has asked to commit.
    lazy: bool,
    /// The head, as far as the notes tell that were written by the ticket.
    noted: Option<(Ticket, Sequence)>,
    /// A note could not be written: the next one has to say everything.
    owes_state: bool,
    /// Messages turned away that no note tells of yet.
    turned_away: Vec<Key>,
    scratch: Vec<u8>,
}

impl Queue {
    pub(super) fn new(lane: Lane, identity: Identity, journal: Journal, ledger: Ledger) -> Self {
        let (next, head) = (ledger.next, ledger.head);
        let bytes = if ledger.queued() > 0 { journal.stats().live_bytes } else { 0 };
        Self {
            lane,
            identity,
            journal,
            tail: if head == next { Tail::new(next) } else { Tail::paused() },
            ledger,
            handed: HandedOut::default(),
            deadlines: Deadlines::default(),
            front: None,
            waiting: BTreeMap::new(),
            bytes,
            sent_to: 0,
            begun: next,
            announced: head - 1,
            commit: None,
            lazy: false,
            noted: None,
            owes_state: false,
            turned_away: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Writes that the outbox was opened; the whole state when it had to be corrected.
    pub(super) fn tell_opened(&mut self, corrected: bool) -> Result<Ticket> {
        self.ledger.identity = Some(self.identity);
        self.scratch.clear();
        if corrected {
            note::state(&self.ledger, &mut self.scratch);
        } else {
            note::opened(self.identity, &mut self.scratch);
        }
        let ticket = self.append_note(Urgency::Now)?;
        self.noted = Some((ticket, self.ledger.head));
        Ok(ticket)
    }

    /// Appends encoded messages and takes them in. Those that were `promised` to be on disk do not leave before.
    pub(super) fn accept(
        &mut self,
        records: &[Record<'_>],
        promised: bool,
        urgency: Urgency,
    ) -> Result<Ticket> {
        self.pay()?;
        self.trim_noted()?;
        let ledger = &self.ledger;
        let appended = self.journal.append(records, urgency, &mut |out| note::state(ledger, out))?;
        self.ledger.accept(records.len() as u64);
        if promised {
            self.commit = Some((self.ledger.next - 1, appended.ticket));
        }
        self.lazy = urgency == Urgency::Lazy;
        Ok(appended.ticket)
    }

    /// Remembers a message that was just taken in.
    pub(super) fn remember(&mut self, sequence: Sequence, entry: Entry, now: Moment) {
        self.bytes += entry.bytes;
        if let Some(deadline) = entry.stamp.deadline(self.identity.epoch, now) {
            self.deadlines.watch(deadline, sequence, Handed::from(&entry));
        }
        self.tail.push(entry);
    }

    /// Takes in and drops a message; told to the journal with the next record, or when the outbox is closed.
    pub(super) fn turn_away(&mut self, key: Key) {
        self.ledger.turn_away(key);
        if self.turned_away.len() >= self.ledger.keep {
            self.turned_away.clear(); // too many for the notes; the number is what counts
        }
        self.turned_away.push(key);
    }

    /// Makes `entry` a message to be sent, and remembers what its end will need.
    pub(super) fn hand_out(&mut self, sequence: Sequence, entry: Entry) -> Queued {
        self.handed.insert(sequence, Handed::from(&entry));
        let Entry { stamp, mut message, .. } = entry;
        let id = &mut message.system_mut().message_id;
        id.get_or_insert_with(|| ids::generated(self.identity.id, self.lane, stamp.epoch, sequence));
        Queued { lane: self.lane, sequence, number: ids::number(stamp.epoch, sequence), message }
    }

    /// What memory knows of a message.
    pub(super) fn known(&self, sequence: Sequence) -> Option<Handed> {
        let front = self.front.filter(|(at, _)| *at == sequence).map(|(_, handed)| handed);
        let handed = || self.handed.get(sequence).copied();
        front.or_else(handed).or_else(|| self.tail.get(sequence).map(Handed::from))
    }

    /// Last message that may be read now: messages that were promised to be on disk first have to be there, others are
    /// in the tail at once.
    pub(super) fn readable_to(&self) -> Sequence {
        let durable = self.journal.durable_lsn();
        let promised = self.commit.map_or(0, |(sequence, _)| sequence);
        if promised <= durable && self.tail.first() <= durable + 1 { self.ledger.next - 1 } else { durable }
    }

    /// What to wait for until more than `readable_to` may be read; `None` when that is everything.
    pub(super) fn commit_behind(&self, readable_to: Sequence) -> Option<Ticket> {
        if readable_to + 1 >= self.ledger.next {
            return None;
        }
        let promised = self.commit.filter(|(sequence, _)| *sequence > readable_to).map(|(_, ticket)| ticket);
        Some(promised.unwrap_or_else(|| self.journal.latest()))
    }

    /// The first message that is not on its way.
    pub(super) fn first_unsent(&self) -> Sequence {
        self.ledger.first_queued(self.sent_to + 1)
    }

    /// Whether a message may end before its turn.
    pub(super) fn may_end_early(&self, sequence: Sequence) -> bool {
        sequence == self.ledger.head || self.ledger.ahead.pieces() < MAX_HOLES
    }

    /// Ends messages: a note, the books, the receipts, the memory, the disk. On a full disk the note follows later.
    ///
    /// # Errors
    /// `JournalIo`, `Closed`. They are ended all the same, until the outbox is opened again.
    pub(super) fn settle(&mut self, settlements: Vec<Settlement>, urgency: Urgency) -> Result<()> {
        if settlements.is_empty() {
            return Ok(());
        }
        let written = self.write_settled(&settlements, urgency);
        let ended = settlements.len();
        for settlement in settlements {
            self.end(settlement);
        }
        let head = self.ledger.head;
        self.handed.skip_to(head);
        self.tail.skip_to(head);
        self.deadlines.ended(ended, |sequence| self.ledger.is_queued(sequence));
        if self.ledger.queued() == 0 {
            self.bytes = 0;
        }
        match written {
            Ok(ticket) => {
                self.trim_noted()?;
                self.noted.get_or_insert((ticket, head));
                Ok(())
            }
            // Only trimming makes the space that the note needs.
            Err(error) if error.kind() == ErrorKind::DiskFull => self.journal.trim(head - 1),
            Err(error) => Err(error),
        }
    }

    fn write_settled(&mut self, settlements: &[Settlement], urgency: Urgency) -> Result<Ticket> {
        let written = self.pay().and_then(|()| {
            self.scratch.clear();
            note::settled(settlements, &mut self.scratch);
            self.append_note(urgency)
        });
        self.owes_state |= written.is_err();
        written
    }

    /// Gives up the records of messages that have ended, once the notes of it are on the disk: a power cut must not
    /// leave the trim without the notes.
    pub(super) fn trim_noted(&mut self) -> Result<()> {
        if let Some((ticket, head)) = self.noted
            && self.journal.is_durable(ticket)
        {
            self.noted = None;
            self.journal.trim(head - 1)?;
        }
        Ok(())
    }

    fn end(&mut self, settlement: Settlement) {
        let Settlement { first, last, .. } = settlement;
        if !self.waiting.is_empty() {
            let ended: Vec<_> = self.waiting.range(first..=last).map(|(sequence, _)| *sequence).collect();
            for waiting in ended.into_iter().filter_map(|sequence| self.waiting.remove(&sequence)).flatten() {
                let _ = waiting.send(settlement.outcome.clone());
            }
        }
        if first < last || self.ledger.is_queued(first) {
            self.bytes = self.bytes.saturating_sub(settlement.bytes);
        }
        self.ledger.settle(settlement);
    }

    /// Corrects the count of bytes by what the journal holds.
    pub(super) fn recount(&mut self) {
        self.bytes = self.bytes.min(self.journal.stats().live_bytes);
    }

    /// Asks for everything appended so far to be committed.
    pub(super) fn commit_soon(&mut self) -> Result<()> {
        if self.lazy {
            let ledger = &self.ledger;
            self.journal.append(&[], Urgency::Now, &mut |out| note::state(ledger, out))?;
            self.lazy = false;
        }
        Ok(())
    }

    /// Writes the notes that are due.
    pub(super) fn pay(&mut self) -> Result<()> {
        if !self.owes_state && self.turned_away.is_empty() {
            return Ok(());
        }
        self.scratch.clear();
        if self.owes_state {
            note::state(&self.ledger, &mut self.scratch);
        } else {
            note::turned_away(&self.ledger, &self.turned_away, &mut self.scratch);
        }
        self.append_note(Urgency::Lazy)?;
        self.owes_state = false;
        self.turned_away.clear();
        Ok(())
    }

    fn append_note(&mut self, urgency: Urgency) -> Result<Ticket> {
        let (ledger, payload) = (&self.ledger, self.scratch.as_slice());
        let note = Record { kind: Kind::Note, parts: &[payload] };
        let appended = self.journal.append(&[note], urgency, &mut |out| note::state(ledger, out))?;
        self.lazy = urgency == Urgency::Lazy;
        Ok(appended.ticket)
    }
}
