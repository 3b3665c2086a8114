//! Taking messages in.

use std::{cell::RefCell, ops::Range, sync::Arc};

use super::{
    DropReason, Durability, Outcome, Receipt, Sequence,
    clock::Moment,
    entry::{self, Entry, Stamp},
    ids::{self, Key},
    ledger::Settlement,
    open::{Shared, State},
    per_lane::PerLane,
    queue::Queue,
};
use crate::{
    Lane, Message, Result,
    journal::{Journal, Kind, Record, Ticket, Urgency},
    message::D2C_LIMIT,
};

/// Properties beyond so many bytes might not leave room for the id in an MQTT topic.
const MANY_PROPERTIES: usize = 16_384;
/// Bytes of one append of many messages.
const CHUNK: usize = 128 << 10;
/// An encoding buffer beyond this is given back after use.
const KEPT_BUFFER: usize = 64 << 10;

thread_local! {
    static ENCODED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A commit that `send` waits for.
pub(super) type Commit = Option<(Journal, Ticket)>;

/// A message to be taken in, and where it is encoded.
struct Draft {
    /// Its place in what the program sent.
    index: usize,
    entry: Entry,
    encoded: Range<usize>,
    durability: Durability,
}

impl Shared {
    /// Takes one message in. Nothing is allocated that does not stay with the message.
    pub(super) fn accept(self: &Arc<Self>, message: Message) -> Result<(Receipt, Commit)> {
        check(&message)?;
        let lane = message.lane();
        let (epoch, now) = (self.epoch(), self.clock.moment());
        let stamp = self.stamp(epoch, &message, now);
        let durability = self.durability(&message);
        ENCODED.with_borrow_mut(|encoded| {
            encoded.clear();
            encoded.shrink_to(KEPT_BUFFER);
            Entry::encode(stamp, &message, encoded);
            let entry = Entry { stamp, message, bytes: entry::on_disk(encoded.len()) };

            let mut state = self.open_state_of(epoch, "outbox.send")?;
            let mut sizes = PerLane::default();
            let size = [entry.bytes];
            *sizes.get_mut(lane) = size.as_slice();
            let admitted = self.admit(&mut state, sizes)?;
            let queue = state.lanes.get_mut(lane);
            if *admitted.get(lane) == 0 {
                return Ok((self.turn_away(queue, entry), None));
            }
            let parts = [encoded.as_slice()];
            let record = [Record { kind: Kind::Data, parts: &parts }];
            let ticket = queue.accept(&record, durability == Durability::OnDisk, self.urgency(durability))?;
            let receipt = self.remember(queue, entry, queue.ledger.next - 1, now);
            Ok((receipt, (durability == Durability::OnDisk).then(|| (queue.journal.clone(), ticket))))
        })
    }

    /// Takes many messages in, all or none; returns what to wait for in each lane.
    pub(super) fn accept_all(
        self: &Arc<Self>,
        messages: Vec<Message>,
    ) -> Result<(Vec<Receipt>, PerLane<Commit>)> {
        for (index, message) in messages.iter().enumerate() {
            check(message).map_err(|error| error.with("index", index))?;
        }
        let (epoch, now) = (self.epoch(), self.clock.moment());
        let mut receipts: Vec<Option<Receipt>> = vec![None; messages.len()];
        let mut encoded = Vec::new();
        let mut drafts: PerLane<Vec<Draft>> = PerLane::default();
        for (index, message) in messages.into_iter().enumerate() {
            let (lane, stamp, durability) =
                (message.lane(), self.stamp(epoch, &message, now), self.durability(&message));
            let from = encoded.len();
            Entry::encode(stamp, &message, &mut encoded);
            let entry = Entry { stamp, message, bytes: entry::on_disk(encoded.len() - from) };
            drafts.get_mut(lane).push(Draft { index, entry, encoded: from..encoded.len(), durability });
        }
        let sizes = |drafts: &[Draft]| drafts.iter().map(|draft| draft.entry.bytes).collect::<Vec<_>>();
        let sizes = PerLane { alert: sizes(&drafts.alert), telemetry: sizes(&drafts.telemetry) };

        let mut state = self.open_state_of(epoch, "outbox.send_all")?;
        let admitted =
            self.admit(&mut state, PerLane { alert: &sizes.alert, telemetry: &sizes.telemetry })?;
        let before =
            PerLane { alert: state.lanes.alert.ledger.next, telemetry: state.lanes.telemetry.ledger.next };
        let mut commits = PerLane::default();
        for lane in Lane::ALL {
            let (drafts, admitted) = (drafts.get(lane), *admitted.get(lane));
            let drafts = drafts.get(..admitted).unwrap_or(drafts);
            match self.append(state.lanes.get_mut(lane), drafts, &encoded) {
                Ok(commit) => *commits.get_mut(lane) = commit,
                Err(error) => {
                    take_back(&mut state, before);
                    return Err(error);
                }
            }
        }
        for lane in Lane::ALL {
            let queue = state.lanes.get_mut(lane);
            let first = *before.get(lane);
            for (sequence, draft) in (first..).zip(std::mem::take(drafts.get_mut(lane))) {
                let receipt = if sequence < queue.ledger.next {
                    self.remember(queue, draft.entry, sequence, now)
                } else {
                    self.turn_away(queue, draft.entry)
                };
                if let Some(place) = receipts.get_mut(draft.index) {
                    *place = Some(receipt);
                }
            }
        }
        Ok((receipts.into_iter().flatten().collect(), commits))
    }

    /// Appends drafts of one lane in pieces, of which the last one asks for the commit.
    fn append(&self, queue: &mut Queue, drafts: &[Draft], encoded: &[u8]) -> Result<Commit> {
        let promised = drafts.iter().any(|draft| draft.durability == Durability::OnDisk);
        let urgent = drafts.iter().any(|draft| self.urgency(draft.durability) == Urgency::Now);
        let mut commit = None;
        let mut rest = drafts;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |draft: &&Draft| {
                bytes += draft.encoded.len();
                bytes <= CHUNK
            };
            let (chunk, after) = rest.split_at(rest.iter().take_while(fits).count().max(1));
            let payloads: Vec<&[u8]> =
                chunk.iter().map(|draft| encoded.get(draft.encoded.clone()).unwrap_or_default()).collect();
            let record = |payload| Record { kind: Kind::Data, parts: std::slice::from_ref(payload) };
            let records: Vec<Record<'_>> = payloads.iter().map(record).collect();
            let urgency = if urgent && after.is_empty() { Urgency::Now } else { Urgency::Lazy };
            let ticket = queue.accept(&records, promised, urgency)?;
            commit = promised.then(|| (queue.journal.clone(), ticket));
            rest = after;
        }
        Ok(commit)
    }

    /// Keeps a message that is in the journal, and makes its receipt.
    fn remember(
        self: &Arc<Self>,
        queue: &mut Queue,
        entry: Entry,
        sequence: Sequence,
        now: Moment,
    ) -> Receipt {
        let id = entry.message.system().message_id.as_deref();
        let receipt = Receipt::queued(self, queue.lane, entry.stamp.epoch, sequence, id);
        queue.remember(sequence, entry, now);
        receipt
    }

    fn turn_away(self: &Arc<Self>, queue: &mut Queue, entry: Entry) -> Receipt {
        let count = queue.ledger.turned_away + 1;
        let generated = || ids::generated_turned_away(self.id, queue.lane, queue.identity.epoch, count);
        let id = entry.message.system().message_id.clone().unwrap_or_else(generated);
        queue.turn_away(Key::chosen(&id));
        Receipt::ended(self, queue.lane, id, Outcome::Dropped { reason: DropReason::NoRoom })
    }

    fn stamp(&self, epoch: u32, message: &Message, now: Moment) -> Stamp {
        Stamp::new(epoch, now, message.time_to_live().or(self.options.max_age))
    }

    fn durability(&self, message: &Message) -> Durability {
        if self.volatile {
            return Durability::Memory;
        }
        message.wanted_durability().unwrap_or(self.options.durability)
    }

    fn urgency(&self, durability: Durability) -> Urgency {
        match durability {
            Durability::OnDisk => Urgency::Now,
            // An outbox in memory has no interval, so a message that wants one is written at once.
            Durability::Interval if self.options.durability == Durability::Memory => Urgency::Now,
            Durability::Interval | Durability::Memory => Urgency::Lazy,
        }
    }
}

/// Undoes what was appended since, while nobody can have read it.
fn take_back(state: &mut State, before: PerLane<Sequence>) {
    for lane in Lane::ALL {
        let queue = state.lanes.get_mut(lane);
        let (first, last) = (*before.get(lane), queue.ledger.next - 1);
        if first <= last {
            let outcome = Outcome::Dropped { reason: DropReason::NoRoom };
            let settlement = Settlement { first, last, key: Key::Unknown, bytes: 0, outcome };
            // The caller gets the error that led here.
            let _ = queue.settle(vec![settlement], Urgency::Lazy);
            // It knows nothing of these numbers.
            queue.tail.pause();
        }
    }
}

/// Checks a message as it will leave, with the id it will have.
fn check(message: &Message) -> Result<()> {
    message.validate()?;
    let size = message.size();
    let tight = size + ids::GENERATED_LIMIT > D2C_LIMIT || size - message.body().len() > MANY_PROPERTIES;
    if tight && message.system().message_id.is_none() {
        return message.clone().message_id("i".repeat(ids::GENERATED_LIMIT)).validate();
    }
    Ok(())
}
