//! What was settled, and how, until the hub is known to know it. No I/O, no clock.
//!
//! Every change is described by a note, so the books after a restart are those of the last snapshot with the notes since
//! applied. A note is one byte that says what it is, then its fields; a snapshot is the note that says everything. A byte
//! that this version does not know was written by a later one.

use std::collections::{BTreeMap, HashMap};

use super::key::{Key, Name};
use crate::{
    Error, ErrorKind, Result,
    outbox::codec::{Cursor, put_varint},
    transport::Settlement,
};

/// A command was settled.
const SETTLED: u8 = 1;
/// The hub knows of some.
const FORGOTTEN: u8 = 2;
/// Everything.
const STATE: u8 = 3;

const COMPLETED: u8 = 0;
const REJECTED: u8 = 1;

/// Most settlements remembered; beyond it the oldest is forgotten.
const KEEP: usize = 4_096;
/// Longest that a command lives, in seconds: what was settled longer ago is not delivered again.
const LIFE: u64 = 48 * 3_600;

#[derive(Debug, Default)]
pub(super) struct Books {
    entries: HashMap<Key, Entry>,
    /// Keys by age, the oldest first.
    order: BTreeMap<u64, Key>,
    next: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    settlement: Settlement,
    /// Seconds since 1970, by the device's clock.
    at: u64,
    order: u64,
    /// It is on the disk; before that it answers nothing.
    durable: bool,
    /// The connection on which it was last told; 0 for one of an earlier run.
    link: u64,
}

impl Books {
    /// Takes in a settlement that is on its way to the disk.
    pub(super) fn record(&mut self, key: Key, settlement: Settlement, at: u64, link: u64) {
        self.forget(key);
        if self.entries.len() >= KEEP
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.entries.remove(&oldest);
        }
        let order = self.next;
        self.next += 1;
        self.entries.insert(key, Entry { settlement, at, order, durable: false, link });
        self.order.insert(order, key);
    }

    /// It is on the disk.
    pub(super) fn durable(&mut self, key: Key) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.durable = true;
        }
    }

    /// How a command that was settled before is to be settled again, now that it came on connection `link`. A name that
    /// is not sure counts for one delivery on each connection, and only while it is `early`: a hub that did not get the
    /// settlement delivers again soon.
    pub(super) fn answer(&mut self, name: Name, link: u64, early: bool) -> Option<Settlement> {
        let entry = self.entries.get_mut(&name.key).filter(|entry| entry.durable)?;
        if !name.sure && (entry.link == link || !early) {
            return None;
        }
        entry.link = link;
        Some(entry.settlement)
    }

    /// Whether a settlement is remembered, on the disk or not.
    pub(super) fn knows(&self, key: Key) -> bool {
        self.entries.contains_key(&key)
    }

    /// Forgets a settlement; false when it was not known.
    pub(super) fn forget(&mut self, key: Key) -> bool {
        let Some(entry) = self.entries.remove(&key) else { return false };
        self.order.remove(&entry.order);
        true
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The books as their snapshot and the notes since describe them, without what is too old at `now`, in seconds
    /// since 1970.
    ///
    /// # Errors
    /// `JournalVersion` when a later version wrote them. What cannot be read for another reason is left out.
    pub(super) fn restore<'a>(
        snapshot: Option<&'a [u8]>,
        notes: impl IntoIterator<Item = &'a [u8]>,
        now: u64,
    ) -> Result<Self> {
        let mut books = Self::default();
        for note in snapshot.into_iter().chain(notes) {
            books.apply(note)?;
        }
        books.entries.values_mut().for_each(|entry| entry.durable = true);
        let old: Vec<Key> = books
            .entries
            .iter()
            .filter(|(_, entry)| entry.at.saturating_add(LIFE) < now)
            .map(|(key, _)| *key)
            .collect();
        for key in old {
            books.forget(key);
        }
        Ok(books)
    }

    fn apply(&mut self, note: &[u8]) -> Result<()> {
        let mut cursor = Cursor(note);
        match cursor.byte() {
            Some(SETTLED) => {
                self.read_settled(&mut cursor);
            }
            Some(FORGOTTEN) => {
                while let Some(key) = read_key(&mut cursor) {
                    self.forget(key);
                }
            }
            Some(STATE) => {
                *self = Self::default();
                while self.read_settled(&mut cursor).is_some() {}
            }
            Some(_) => {
                return Err(Error::new(
                    ErrorKind::JournalVersion,
                    "inbox.open",
                    "the inbox was written by a newer version",
                ));
            }
            None => {}
        }
        Ok(())
    }

    fn read_settled(&mut self, cursor: &mut Cursor<'_>) -> Option<()> {
        let key = read_key(cursor)?;
        let settlement = match cursor.byte()? {
            COMPLETED => Settlement::Complete,
            REJECTED => Settlement::Reject,
            _ => return None,
        };
        let at = cursor.varint()?;
        self.record(key, settlement, at, 0);
        Some(())
    }

    /// Writes the whole.
    pub(super) fn write_state(&self, out: &mut Vec<u8>) {
        out.push(STATE);
        for key in self.order.values() {
            if let Some(entry) = self.entries.get(key) {
                put_settled(*key, entry.settlement, entry.at, out);
            }
        }
    }
}

/// Writes that a command was settled.
pub(super) fn write_settled(key: Key, settlement: Settlement, at: u64, out: &mut Vec<u8>) {
    out.push(SETTLED);
    put_settled(key, settlement, at, out);
}

/// Writes that the hub knows of a settlement.
pub(super) fn write_forgotten(key: Key, out: &mut Vec<u8>) {
    out.push(FORGOTTEN);
    out.extend_from_slice(&key.0);
}

fn put_settled(key: Key, settlement: Settlement, at: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&key.0);
    out.push(match settlement {
        Settlement::Reject => REJECTED,
        // An abandoned command is never recorded.
        Settlement::Complete | Settlement::Abandon => COMPLETED,
    });
    put_varint(at, out);
}

fn read_key(cursor: &mut Cursor<'_>) -> Option<Key> {
    let (key, rest) = cursor.0.split_first_chunk()?;
    cursor.0 = rest;
    Some(Key(*key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u32) -> Key {
        let mut key = [0; Key::LENGTH];
        key[..4].copy_from_slice(&number.to_le_bytes());
        Key(key)
    }

    fn sure(number: u32) -> Name {
        Name { key: key(number), sure: true }
    }

    fn record(books: &mut Books, number: u32, settlement: Settlement, link: u64) {
        books.record(key(number), settlement, 1_000, link);
        books.durable(key(number));
    }

    #[test]
    fn nothing_is_answered_before_it_is_durable() {
        let mut books = Books::default();
        books.record(key(1), Settlement::Reject, 0, 1);
        assert_eq!(books.answer(sure(1), 2, true), None);
        books.durable(key(1));
        assert_eq!(books.answer(sure(1), 2, false), Some(Settlement::Reject));
        assert_eq!(books.answer(sure(1), 2, false), Some(Settlement::Reject));
        assert!(books.forget(key(1)) && !books.forget(key(1)));
        assert_eq!(books.answer(sure(1), 3, true), None);
    }

    #[test]
    fn an_unsure_name_answers_once_on_each_connection_and_early_only() {
        let mut books = Books::default();
        record(&mut books, 1, Settlement::Complete, 1);
        let name = Name { key: key(1), sure: false };
        assert_eq!(books.answer(name, 1, true), None, "another command that looks alike");
        assert_eq!(books.answer(name, 2, false), None);
        assert_eq!(books.answer(name, 2, true), Some(Settlement::Complete));
        assert_eq!(books.answer(name, 2, true), None);
        assert_eq!(books.answer(name, 3, true), Some(Settlement::Complete));
    }

    #[test]
    fn the_oldest_makes_room_and_the_old_does_not_come_back() {
        let mut books = Books::default();
        for number in 0..KEEP as u32 + 10 {
            record(&mut books, number, Settlement::Complete, 1);
        }
        assert_eq!(books.len(), KEEP);
        assert!(!books.knows(key(9)) && books.knows(key(10)));
        let mut state = Vec::new();
        books.write_state(&mut state);
        let again = |now| Books::restore(Some(&state), [], now).unwrap();
        assert_eq!(again(1_000 + LIFE).len(), KEEP);
        assert_eq!(again(1_000 + LIFE + 1).len(), 0);
        // A clock that was set back makes nothing older.
        assert_eq!(again(0).len(), KEEP);
    }

    #[test]
    fn a_later_version_is_told_apart_from_damage() {
        assert_eq!(Books::restore(None, [&[9u8, 1][..]], 0).unwrap_err().kind(), ErrorKind::JournalVersion);
        assert_eq!(Books::restore(Some(&[STATE, 1, 2]), [&[SETTLED, 0][..], &[]], 0).unwrap().len(), 0);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Settle(u32, bool),
        Forget(u32),
        Snapshot,
        Restart { again: bool },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..20u32, any::<bool>()).prop_map(|(number, reject)| Step::Settle(number, reject)),
            2 => (0..20u32).prop_map(Step::Forget),
            1 => Just(Step::Snapshot),
            1 => any::<bool>().prop_map(|again| Step::Restart { again }),
        ]
    }

    proptest! {
        #[test]
        fn the_books_are_read_back_as_they_were(steps in prop::collection::vec(step(), 1..60)) {
            let mut books = Books::default();
            let mut model: HashMap<u32, Settlement> = HashMap::new();
            let (mut snapshot, mut notes) = (None, Vec::<Vec<u8>>::new());
            for step in steps {
                match step {
                    Step::Settle(number, reject) => {
                        let settlement = if reject { Settlement::Reject } else { Settlement::Complete };
                        let mut note = Vec::new();
                        write_settled(key(number), settlement, 1_000, &mut note);
                        notes.push(note);
                        record(&mut books, number, settlement, 1);
                        model.insert(number, settlement);
                    }
                    Step::Forget(number) => {
                        let mut note = Vec::new();
                        write_forgotten(key(number), &mut note);
                        notes.push(note);
                        prop_assert_eq!(books.forget(key(number)), model.remove(&number).is_some());
                    }
                    Step::Snapshot => {
                        let mut state = Vec::new();
                        books.write_state(&mut state);
                        snapshot = Some(state);
                        notes.clear();
                    }
                    Step::Restart { again } => {
                        // All the notes once more, which the snapshot then contains already, change nothing.
                        let times = if again { 2 } else { 1 };
                        let all = notes.iter().cycle().take(notes.len() * times).map(Vec::as_slice);
                        books = Books::restore(snapshot.as_deref(), all, 1_000).unwrap();
                    }
                }
                prop_assert_eq!(books.len(), model.len());
                prop_assert_eq!(books.order.len(), model.len());
                for number in 0..20 {
                    prop_assert_eq!(books.answer(sure(number), 7, true), model.get(&number).copied());
                }
            }
        }

        #[test]
        fn arbitrary_notes_never_panic(snapshot: Vec<u8>, notes: Vec<Vec<u8>>) {
            let _ = Books::restore(Some(&snapshot), notes.iter().map(Vec::as_slice), 0);
        }
    }
}
