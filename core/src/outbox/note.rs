//! The books of a lane as bytes: notes for changes, a snapshot for the whole.
//!
//! A note is one byte that says what it is, then its fields; a snapshot is the note that says everything. Numbers are
//! varints. A byte that this version does not know was written by a later one.

use tracing::warn;

use super::{
    DropReason, Outcome, Sequence,
    codec::{Cursor, put_bytes, put_difference, put_varint},
    ids::{Identity, Key, OutboxId},
    ledger::{Counts, Ended, Ledger, Settlement},
};
use crate::{Error, ErrorKind, Result};

/// The outbox was opened: its identity.
const OPENED: u8 = 1;
/// Messages ended.
const SETTLED: u8 = 2;
/// Messages were turned away: how many in all, and the last of them.
const TURNED_AWAY: u8 = 3;
/// Everything.
const STATE: u8 = 4;

/// Longest text of a rejection that is kept, in bytes.
const REASON_LIMIT: usize = 128;

// How a settlement is written: its outcome in the low three bits of a byte, what follows in the others.
const DELIVERED: u8 = 0;
const EXPIRED: u8 = 1;
const MADE_ROOM: u8 = 2;
const NO_ROOM: u8 = 3;
const DAMAGED: u8 = 4;
const REJECTED: u8 = 5;
const OUTCOME: u8 = 0x07;
const WITH_EPOCH: u8 = 0x08;
const WITH_HASH: u8 = 0x10;
const WITH_PARTITION: u8 = 0x20;
const WITH_SEQUENCE: u8 = 0x40;
const WITH_COUNT: u8 = 0x80;

/// Writes [`OPENED`].
pub(super) fn opened(identity: Identity, out: &mut Vec<u8>) {
    out.push(OPENED);
    put_identity(Some(identity), out);
}

/// Writes [`SETTLED`].
pub(super) fn settled<'a>(settlements: impl IntoIterator<Item = &'a Settlement>, out: &mut Vec<u8>) {
    out.push(SETTLED);
    let mut before = 0;
    for Settlement { first, last, key, outcome, .. } in settlements {
        put_end(before, (*first, *last), *key, outcome, out);
        before = *last;
    }
}

/// Writes [`TURNED_AWAY`]: the lane's total and the keys of its `latest` ones.
pub(super) fn turned_away(ledger: &Ledger, latest: &[Key], out: &mut Vec<u8>) {
    out.push(TURNED_AWAY);
    put_varint(ledger.turned_away, out);
    let outcome = Outcome::Dropped { reason: DropReason::NoRoom };
    for key in latest {
        put_end(0, (0, 0), *key, &outcome, out);
    }
}

/// Writes [`STATE`].
pub(super) fn state(ledger: &Ledger, out: &mut Vec<u8>) {
    out.push(STATE);
    put_identity(ledger.identity, out);
    let Counts { delivered, expired, made_room, no_room, damaged, rejected } = ledger.counts;
    for count in [ledger.head, delivered, expired, made_room, no_room, damaged, rejected, ledger.turned_away]
    {
        put_varint(count, out);
    }
    put_varint(ledger.ahead.pieces() as u64, out);
    let mut before = ledger.head;
    for (first, last) in ledger.ahead.iter() {
        put_varint(first - before, out);
        put_varint(last - first, out);
        before = last;
    }
    let mut before = 0;
    for Ended { sequence, key, outcome } in &ledger.kept {
        put_end(before, (*sequence, *sequence), *key, outcome, out);
        before = *sequence;
    }
}

impl Ledger {
    /// The books of a lane as its snapshot and the notes since describe them, with room for `keep` outcomes. They do not
    /// know yet what the journal holds: [`Ledger::reconcile`] tells them.
    ///
    /// # Errors
    /// `JournalVersion` when a later version wrote them. What cannot be read for another reason is left out.
    pub(super) fn restore<'a>(
        snapshot: Option<&'a [u8]>,
        notes: impl IntoIterator<Item = &'a [u8]>,
        keep: usize,
    ) -> Result<Self> {
        let mut ledger = Self::new(keep);
        ledger.next = Sequence::MAX;
        for note in snapshot.into_iter().chain(notes) {
            ledger.apply(note)?;
        }
        Ok(ledger)
    }

    fn apply(&mut self, note: &[u8]) -> Result<()> {
        let mut cursor = Cursor(note);
        let readable = match cursor.byte() {
            Some(OPENED) => get_identity(&mut cursor).map(|identity| self.identity = identity),
            Some(SETTLED) => self.apply_settled(&mut cursor),
            Some(TURNED_AWAY) => self.apply_turned_away(&mut cursor),
            Some(STATE) => read_state(&mut cursor, self.keep).map(|state| *self = state),
            Some(_) => {
                return Err(Error::new(
                    ErrorKind::JournalVersion,
                    "outbox.open",
                    "the outbox was written by a newer version; open it with that one",
                ));
            }
            None => None,
        };
        if readable.is_none() {
            warn!(bytes = note.len(), "a note of the outbox cannot be read and is left out");
        }
        Ok(())
    }

    fn apply_settled(&mut self, cursor: &mut Cursor<'_>) -> Option<()> {
        let mut before = 0;
        while !cursor.is_empty() {
            let settlement = get_end(before, cursor)?;
            before = settlement.last;
            self.settle(settlement);
        }
        Some(())
    }

    fn apply_turned_away(&mut self, cursor: &mut Cursor<'_>) -> Option<()> {
        let total = cursor.varint()?;
        let new = total.saturating_sub(self.turned_away);
        self.turned_away += new;
        self.counts.no_room += new;
        while !cursor.is_empty() {
            let Settlement { key, outcome, .. } = get_end(0, cursor)?;
            if new > 0 {
                self.keep(Ended { sequence: 0, key, outcome });
            }
        }
        Some(())
    }
}

fn read_state(cursor: &mut Cursor<'_>, keep: usize) -> Option<Ledger> {
    let mut ledger = Ledger::new(keep);
    ledger.next = Sequence::MAX;
    ledger.identity = get_identity(cursor)?;
    ledger.head = cursor.varint()?;
    let counts = &mut ledger.counts;
    for count in [
        &mut counts.delivered,
        &mut counts.expired,
        &mut counts.made_room,
        &mut counts.no_room,
        &mut counts.damaged,
        &mut counts.rejected,
        &mut ledger.turned_away,
    ] {
        *count = cursor.varint()?;
    }
    let mut before = ledger.head;
    for _ in 0..cursor.varint()? {
        let first = before.checked_add(cursor.varint()?)?;
        before = first.checked_add(cursor.varint()?)?;
        ledger.ahead.insert(first, before);
    }
    let mut before = 0;
    while !cursor.is_empty() {
        let Settlement { last, key, outcome, .. } = get_end(before, cursor)?;
        ledger.keep(Ended { sequence: last, key, outcome });
        before = last;
    }
    Some(ledger)
}

fn put_identity(identity: Option<Identity>, out: &mut Vec<u8>) {
    // Epochs count from 1: 0 says that there is none.
    put_varint(identity.map_or(0, |identity| u64::from(identity.epoch)), out);
    if let Some(identity) = identity {
        out.extend_from_slice(&identity.id.0.to_le_bytes());
    }
}

fn get_identity(cursor: &mut Cursor<'_>) -> Option<Option<Identity>> {
    let epoch = u32::try_from(cursor.varint()?).ok()?;
    if epoch == 0 {
        return Some(None);
    }
    Some(Some(Identity { id: OutboxId(cursor.u64()?), epoch }))
}

fn put_end(before: Sequence, run: (Sequence, Sequence), key: Key, outcome: &Outcome, out: &mut Vec<u8>) {
    let (first, last) = run;
    let at = out.len();
    out.push(0);
    let mut code = match outcome {
        Outcome::Delivered { .. } => DELIVERED,
        Outcome::Expired => EXPIRED,
        Outcome::Dropped { reason: DropReason::MadeRoom } => MADE_ROOM,
        Outcome::Dropped { reason: DropReason::NoRoom } => NO_ROOM,
        Outcome::Dropped { reason: DropReason::Damaged } => DAMAGED,
        Outcome::Rejected { .. } => REJECTED,
    };
    put_difference(before, first, out);
    if last > first {
        code |= WITH_COUNT;
        put_varint(last - first, out);
    }
    match key {
        Key::Unknown => {}
        Key::Generated(epoch) => {
            code |= WITH_EPOCH;
            put_varint(u64::from(epoch), out);
        }
        Key::Chosen(hash) => {
            code |= WITH_HASH;
            out.extend_from_slice(&hash.to_le_bytes());
        }
    }
    match outcome {
        Outcome::Delivered { partition, sequence } => {
            if let Some(partition) = partition {
                code |= WITH_PARTITION;
                put_varint(u64::from(*partition), out);
            }
            if let Some(sequence) = sequence {
                code |= WITH_SEQUENCE;
                put_varint(*sequence, out);
            }
        }
        Outcome::Rejected { reason } => {
            let end = reason.floor_char_boundary(REASON_LIMIT);
            put_bytes(reason.get(..end).unwrap_or_default().as_bytes(), out);
        }
        Outcome::Expired | Outcome::Dropped { .. } => {}
    }
    if let Some(byte) = out.get_mut(at) {
        *byte = code;
    }
}

fn get_end(before: Sequence, cursor: &mut Cursor<'_>) -> Option<Settlement> {
    let code = cursor.byte()?;
    let first = cursor.difference(before)?;
    let has = |flag: u8| code & flag != 0;
    let last = if has(WITH_COUNT) { first.checked_add(cursor.varint()?)? } else { first };
    let key = match (has(WITH_EPOCH), has(WITH_HASH)) {
        (true, _) => Key::Generated(u32::try_from(cursor.varint()?).ok()?),
        (_, true) => Key::Chosen(cursor.u64()?),
        _ => Key::Unknown,
    };
    let outcome = match code & OUTCOME {
        DELIVERED => {
            let partition = match has(WITH_PARTITION) {
                true => Some(u32::try_from(cursor.varint()?).ok()?),
                false => None,
            };
            let sequence = match has(WITH_SEQUENCE) {
                true => Some(cursor.varint()?),
                false => None,
            };
            Outcome::Delivered { partition, sequence }
        }
        EXPIRED => Outcome::Expired,
        MADE_ROOM => Outcome::Dropped { reason: DropReason::MadeRoom },
        NO_ROOM => Outcome::Dropped { reason: DropReason::NoRoom },
        DAMAGED => Outcome::Dropped { reason: DropReason::Damaged },
        REJECTED => Outcome::Rejected { reason: String::from_utf8_lossy(cursor.bytes()?).into_owned() },
        _ => return None,
    };
    Some(Settlement { first, last, key, bytes: 0, outcome })
}
