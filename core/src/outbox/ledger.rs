//! The books of one lane: what came in, what ended, and how. No I/O, no clock.
//!
//! Every change is either implied by a record (a message came in) or described by a note (see [`super::note`]), so the
//! books after a restart are those of the last snapshot with the notes since applied. Applying a note twice, or one that
//! the snapshot already contains, changes nothing.

use std::collections::VecDeque;

use super::{
    Account, DropReason, Outcome, Sequence,
    handed::Handed,
    ids::{Identity, Key},
    ranges::Ranges,
};

/// The end of the messages `first..=last`, all of them alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settlement {
    pub(super) first: Sequence,
    pub(super) last: Sequence,
    pub(super) key: Key,
    /// Bytes they take on disk, where known. Not written down.
    pub(super) bytes: u64,
    pub(super) outcome: Outcome,
}

impl Settlement {
    /// The end of one message, with what is known of it.
    pub(super) fn of(sequence: Sequence, known: Option<Handed>, outcome: Outcome) -> Self {
        let (key, bytes) = known.map_or((Key::Unknown, 0), |handed| (handed.key, handed.bytes));
        Self { first: sequence, last: sequence, key, bytes, outcome }
    }

    /// The end of messages whose records are damaged.
    pub(super) fn damaged(first: Sequence, last: Sequence) -> Self {
        let outcome = Outcome::Dropped { reason: DropReason::Damaged };
        Self { first, last, key: Key::Unknown, bytes: 0, outcome }
    }
}

/// A kept outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// 0 for a message that was turned away at the door and never had a place.
    pub(super) sequence: Sequence,
    pub(super) key: Key,
    pub(super) outcome: Outcome,
}

/// How messages ended, over the whole life of the lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) delivered: u64,
    pub(super) expired: u64,
    pub(super) made_room: u64,
    pub(super) no_room: u64,
    pub(super) damaged: u64,
    pub(super) rejected: u64,
}

impl Counts {
    pub(super) fn of(&mut self, outcome: &Outcome) -> &mut u64 {
        match outcome {
            Outcome::Delivered { .. } => &mut self.delivered,
            Outcome::Expired => &mut self.expired,
            Outcome::Dropped { reason: DropReason::MadeRoom } => &mut self.made_room,
            Outcome::Dropped { reason: DropReason::NoRoom } => &mut self.no_room,
            Outcome::Dropped { reason: DropReason::Damaged } => &mut self.damaged,
            Outcome::Rejected { .. } => &mut self.rejected,
        }
    }

    pub(super) fn dropped(&self, reason: DropReason) -> u64 {
        match reason {
            DropReason::MadeRoom => self.made_room,
            DropReason::NoRoom => self.no_room,
            DropReason::Damaged => self.damaged,
        }
    }
}

/// The books of one lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ledger {
    pub(super) identity: Option<Identity>,
    /// The next message gets this number.
    pub(super) next: Sequence,
    /// First message that has not ended.
    pub(super) head: Sequence,
    /// Messages behind the head that have ended.
    pub(super) ahead: Ranges,
    pub(super) counts: Counts,
    /// Messages that were accepted without ever getting a number.
    pub(super) turned_away: u64,
    /// The last outcomes, the oldest first.
    pub(super) kept: VecDeque<Ended>,
    /// How many of them are kept.
    pub(super) keep: usize,
}

impl Ledger {
    /// The books of a new lane.
    pub(super) fn new(keep: usize) -> Self {
        Self {
            identity: None,
            next: 1,
            head: 1,
            ahead: Ranges::default(),
            counts: Counts::default(),
            turned_away: 0,
            kept: VecDeque::new(),
            keep,
        }
    }

    /// Closes a recovery: the journal has the messages from `first` up to, not including, `next`. Returns whether the
    /// books had to be corrected.
    ///
    /// Only damage can make journal and notes disagree. Numbers given back by the journal without a note saying how
    /// they ended count as damaged. Numbers that ended but do not exist (any more) will be used again, so they lose
    /// their places and stay in the account.
    pub(super) fn reconcile(&mut self, first: Sequence, next: Sequence) -> bool {
        self.next = next;
        let mut lost = self.ahead.cut(next);
        if self.head > next {
            lost += self.head - next;
            self.head = next;
        }
        if lost > 0 {
            self.turned_away += lost;
            self.kept.retain(|ended| ended.sequence < next);
        }
        let given_back = first > self.head;
        if given_back {
            self.settle(Settlement::damaged(self.head, first - 1));
        }
        given_back || lost > 0
    }

    /// Takes in `count` messages and returns the number of the first.
    pub(super) fn accept(&mut self, count: u64) -> Sequence {
        let first = self.next;
        self.next += count;
        first
    }

    /// Takes in a message and drops it at once, for want of room.
    pub(super) fn turn_away(&mut self, key: Key) {
        self.turned_away += 1;
        self.counts.no_room += 1;
        self.keep(Ended { sequence: 0, key, outcome: Outcome::Dropped { reason: DropReason::NoRoom } });
    }

    /// Whether a message is here and has not ended.
    pub(super) fn is_queued(&self, sequence: Sequence) -> bool {
        (self.head..self.next).contains(&sequence) && !self.ahead.contains(sequence)
    }

    /// First message from `sequence` on that has not ended; `next` when there is none.
    pub(super) fn first_queued(&self, sequence: Sequence) -> Sequence {
        let from = sequence.max(self.head);
        self.ahead.end_of(from).map_or(from, |last| last + 1).min(self.next)
    }

    /// Ends messages; those that are not queued are left alone.
    pub(super) fn settle(&mut self, settlement: Settlement) {
        let Settlement { first, last, key, outcome, .. } = settlement;
        let (first, last) = (first.max(self.head), last.min(self.next - 1));
        if first > last {
            return;
        }
        if first == last {
            if !self.ahead.contains(first) {
                *self.counts.of(&outcome) += 1;
                self.keep(Ended { sequence: first, key, outcome });
            }
        } else {
            *self.counts.of(&outcome) += last - first + 1 - self.ahead.overlap(first, last);
            for sequence in first.max((last + 1).saturating_sub(self.keep as u64))..=last {
                if !self.ahead.contains(sequence) {
                    self.keep(Ended { sequence, key, outcome: outcome.clone() });
                }
            }
        }
        if first > self.head {
            self.ahead.insert(first, last);
        } else {
            self.head = last + 1;
            self.ahead.cut_before(self.head);
            if let Some(last) = self.ahead.take_from(self.head) {
                self.head = last + 1;
            }
        }
    }

    /// How many messages have not ended.
    pub(super) fn queued(&self) -> u64 {
        self.next - self.head - self.ahead.count()
    }

    /// The account. What was accepted is counted by what came in, the rest by how it ended: nothing here makes it balance.
    pub(super) fn account(&self) -> Account {
        let Counts { delivered, expired, made_room, no_room, damaged, rejected } = self.counts;
        let accepted = self.next - 1 + self.turned_away;
        Account {
            accepted,
            delivered,
            expired,
            dropped: made_room + no_room + damaged,
            rejected,
            queued: self.queued(),
        }
    }

    /// The kept outcome of a message.
    pub(super) fn ended(&self, sequence: Sequence) -> Option<&Ended> {
        self.kept.iter().rev().find(|ended| ended.sequence == sequence)
    }

    /// The kept outcome of the last message with an id of the program's.
    pub(super) fn ended_as(&self, key: Key) -> Option<&Ended> {
        self.kept.iter().rev().find(|ended| ended.key == key)
    }

    pub(super) fn keep(&mut self, ended: Ended) {
        if self.keep == 0 {
            return;
        }
        while self.kept.len() >= self.keep {
            self.kept.pop_front();
        }
        self.kept.push_back(ended);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::outbox::note;

    /// What a message is to the model.
    type Fate = Option<Outcome>;

    /// The plainest way to say what the books have to say.
    #[derive(Clone, Debug, Default)]
    struct Model {
        fates: Vec<Fate>,
        turned_away: u64,
        ended: Vec<Ended>,
    }

    impl Model {
        fn settle(&mut self, settlement: &Settlement) {
            for sequence in settlement.first..=settlement.last {
                let Some(fate @ None) = self.fates.get_mut((sequence as usize).wrapping_sub(1)) else {
                    continue;
                };
                *fate = Some(settlement.outcome.clone());
                self.ended.push(Ended { sequence, key: settlement.key, outcome: settlement.outcome.clone() });
            }
        }

        fn turn_away(&mut self, key: Key) {
            self.turned_away += 1;
            let outcome = Outcome::Dropped { reason: DropReason::NoRoom };
            self.ended.push(Ended { sequence: 0, key, outcome });
        }

        fn head(&self) -> Sequence {
            self.fates.iter().position(Option::is_none).unwrap_or(self.fates.len()) as Sequence + 1
        }

        fn account(&self) -> Account {
            let mut account = Account {
                accepted: self.fates.len() as u64 + self.turned_away,
                dropped: self.turned_away,
                ..Account::default()
            };
            for fate in &self.fates {
                *match fate {
                    None => &mut account.queued,
                    Some(Outcome::Delivered { .. }) => &mut account.delivered,
                    Some(Outcome::Expired) => &mut account.expired,
                    Some(Outcome::Dropped { .. }) => &mut account.dropped,
                    Some(Outcome::Rejected { .. }) => &mut account.rejected,
                } += 1;
            }
            account
        }
    }

    /// A lane's journal: the books are written to it, and read back from it.
    struct Log {
        items: Vec<Item>,
        /// The state after so many items.
        models: Vec<Model>,
        snapshots: Vec<(usize, Vec<u8>)>,
    }

    #[derive(Clone)]
    enum Item {
        Data,
        Note(Vec<u8>),
    }

    const KEEP: usize = 7;

    impl Log {
        fn new() -> Self {
            Self { items: Vec::new(), models: vec![Model::default()], snapshots: Vec::new() }
        }

        fn push(&mut self, item: Item, model: &Model) {
            self.items.push(item);
            self.models.push(model.clone());
        }

        /// Forgets all but `left` items and recovers; notes are given back up to `again` times.
        fn recover(&mut self, left: usize, trimmed: Sequence, again: usize) -> (Ledger, Model) {
            self.items.truncate(left);
            self.models.truncate(left + 1);
            self.snapshots.retain(|(at, _)| *at <= left);
            let (at, snapshot) =
                self.snapshots.last().map_or((0, None), |(at, bytes)| (*at, Some(bytes.as_slice())));
            let notes: Vec<&[u8]> = self.items[at..]
                .iter()
                .filter_map(|item| match item {
                    Item::Note(note) => Some(note.as_slice()),
                    Item::Data => None,
                })
                .collect();
            let repeated = notes.iter().copied().flat_map(|note| std::iter::repeat_n(note, again));
            let mut ledger = Ledger::restore(snapshot, repeated, KEEP).unwrap();
            let next = self.items.iter().filter(|item| matches!(item, Item::Data)).count() as Sequence + 1;
            ledger.reconcile(trimmed, next);
            (ledger, self.models[left].clone())
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Accept(u64),
        TurnAway(Key),
        Settle(Vec<(u64, u64, Key, Outcome)>),
        Snapshot,
        Crash { lost: usize, again: usize },
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            (any::<Option<u32>>(), any::<Option<u64>>())
                .prop_map(|(partition, sequence)| Outcome::Delivered { partition, sequence }),
            Just(Outcome::Expired),
            prop::sample::select(&DropReason::ALL).prop_map(|reason| Outcome::Dropped { reason }),
            "[a-zé]{0,20}".prop_map(|reason| Outcome::Rejected { reason }),
        ]
    }

    fn key() -> impl Strategy<Value = Key> {
        prop_oneof![
            Just(Key::Unknown),
            any::<u32>().prop_map(Key::Generated),
            any::<u64>().prop_map(Key::Chosen)
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        // Settlements name messages relative to the head, before it and beyond the end as well.
        let ends = prop::collection::vec(
            (0..14u64, prop_oneof![4 => Just(0), 1 => 1..5u64], key(), outcome()),
            1..6,
        );
        prop_oneof![
            4 => (1..6u64).prop_map(Step::Accept),
            1 => key().prop_map(Step::TurnAway),
            5 => ends.prop_map(Step::Settle),
            1 => Just(Step::Snapshot),
            1 => (0..5usize, 1..3usize).prop_map(|(lost, again)| Step::Crash { lost, again }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]

        #[test]
        fn any_history_keeps_the_account_the_order_and_the_outcomes(steps in prop::collection::vec(step(), 1..60)) {
            let (mut ledger, mut model, mut log) = (Ledger::new(KEEP), Model::default(), Log::new());
            for step in steps {
                match step {
                    Step::Accept(count) => {
                        prop_assert_eq!(ledger.accept(count), model.fates.len() as Sequence + 1);
                        for _ in 0..count {
                            model.fates.push(None);
                            log.push(Item::Data, &model);
                        }
                    }
                    Step::TurnAway(key) => {
                        ledger.turn_away(key);
                        model.turn_away(key);
                        let mut bytes = Vec::new();
                        note::turned_away(&ledger, &[key], &mut bytes);
                        log.push(Item::Note(bytes), &model);
                    }
                    Step::Settle(ends) => {
                        let settlements: Vec<_> = ends
                            .into_iter()
                            .map(|(offset, length, key, outcome)| {
                                let first = (ledger.head + offset).saturating_sub(2).max(1).min(ledger.next);
                                let last = (first + length).min(ledger.next - 1).max(first);
                                Settlement { first, last, key, bytes: 0, outcome }
                            })
                            .filter(|settlement| settlement.last < ledger.next)
                            .collect();
                        let mut bytes = Vec::new();
                        note::settled(&settlements, &mut bytes);
                        for settlement in settlements {
                            model.settle(&settlement);
                            ledger.settle(settlement);
                        }
                        log.push(Item::Note(bytes), &model);
                    }
                    Step::Snapshot => {
                        let mut bytes = Vec::new();
                        note::state(&ledger, &mut bytes);
                        log.snapshots.push((log.items.len(), bytes));
                    }
                    Step::Crash { lost, again } => {
                        let left = log.items.len().saturating_sub(lost);
                        let trimmed = log.models[left].head();
                        (ledger, model) = log.recover(left, trimmed, again);
                        prop_assert_eq!(ledger.head, trimmed);
                    }
                }
                prop_assert_eq!(ledger.account(), model.account());
                prop_assert!(ledger.account().balances());
                prop_assert_eq!(ledger.head, model.head());
                for sequence in 0..ledger.next + 3 {
                    let queued = sequence > 0 && matches!(model.fates.get(sequence as usize - 1), Some(None));
                    prop_assert_eq!(ledger.is_queued(sequence), queued, "sequence {}", sequence);
                }
                let from = ledger.head + 2;
                let first = (from..ledger.next).find(|&sequence| ledger.is_queued(sequence)).unwrap_or(ledger.next);
                prop_assert_eq!(ledger.first_queued(from), first);
                let kept: Vec<_> = model.ended.iter().rev().take(KEEP).rev().cloned().collect();
                prop_assert_eq!(&ledger.kept, &kept);
            }
        }

        #[test]
        fn arbitrary_notes_never_panic(snapshot: Vec<u8>, notes: Vec<Vec<u8>>, first in 1..50u64, more in 0..50u64) {
            if let Ok(mut ledger) = Ledger::restore(Some(&snapshot), notes.iter().map(Vec::as_slice), KEEP) {
                ledger.reconcile(first, first + more);
                prop_assert!(ledger.head <= ledger.next);
            }
        }
    }
}
