//! A message as a record of its lane's journal: a stamp, then the form of [`wire::record`].

use std::time::Duration;

use bytes::Bytes;

use super::{
    clock::{Moment, millis},
    codec::{Cursor, put_varint},
    ids::Key,
};
use crate::{Error, ErrorKind, Message, Result, wire};

/// First byte of every entry.
const FORM: u8 = 1;
/// What the journal adds to a record, before it is filled up to eight bytes.
const FRAME: u64 = 16;

/// When a message was accepted, and how long it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The opening it was accepted in.
    pub(super) epoch: u32,
    /// Monotonic time of that opening, in milliseconds.
    run_ms: u64,
    /// Time of day, in milliseconds since 1970.
    wall_ms: u64,
    /// Time to live in milliseconds; 0 for ever.
    ttl_ms: u64,
}

impl Stamp {
    pub(super) fn new(epoch: u32, accepted: Moment, time_to_live: Option<Duration>) -> Self {
        let ttl_ms = time_to_live.map_or(0, |ttl| millis(ttl.saturating_add(Duration::from_nanos(999_999))));
        Self { epoch, run_ms: accepted.run_ms, wall_ms: accepted.wall_ms, ttl_ms }
    }

    /// Age in milliseconds: by the monotonic clock for what was accepted since the outbox was opened. For older
    /// messages the time of day says how old they were at the opening, or would have been by a clock corrected since,
    /// whichever is less.
    pub(super) fn age_ms(&self, epoch: u32, now: Moment) -> u64 {
        let (lived, from) = self.life(epoch, now);
        lived.saturating_add(now.run_ms.saturating_sub(from))
    }

    /// When its time to live ends, on the run clock, as far as can be told now; the time of the opening when it ended before.
    pub(super) fn deadline(&self, epoch: u32, now: Moment) -> Option<u64> {
        let (lived, from) = self.life(epoch, now);
        (self.ttl_ms > 0).then(|| from.saturating_add(self.ttl_ms.saturating_sub(lived)))
    }

    /// Whether its time to live has ended.
    pub(super) fn is_over(&self, epoch: u32, now: Moment) -> bool {
        self.deadline(epoch, now).is_some_and(|deadline| deadline <= now.run_ms)
    }

    /// How long it had lived at the opening, and from when on the run clock counts.
    fn life(&self, epoch: u32, now: Moment) -> (u64, u64) {
        if self.epoch == epoch {
            (0, self.run_ms)
        } else {
            (now.opened_ms.saturating_sub(self.wall_ms), now.opened_run_ms)
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for field in [u64::from(self.epoch), self.run_ms, self.wall_ms, self.ttl_ms] {
            put_varint(field, out);
        }
    }

    fn decode(cursor: &mut Cursor<'_>) -> Option<Self> {
        Some(Self {
            epoch: u32::try_from(cursor.varint()?).ok()?,
            run_ms: cursor.varint()?,
            wall_ms: cursor.varint()?,
            ttl_ms: cursor.varint()?,
        })
    }
}

/// A message and its stamp. The message has no id if the outbox is to make one.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) stamp: Stamp,
    pub(super) message: Message,
    /// Bytes it takes on disk.
    pub(super) bytes: u64,
}

impl Entry {
    pub(super) fn encode(stamp: Stamp, message: &Message, out: &mut Vec<u8>) {
        out.push(FORM);
        stamp.encode(out);
        wire::record::encode(message, out);
    }

    /// Reads a record back. The body shares the memory of `record`.
    ///
    /// # Errors
    /// `JournalVersion` when a later version wrote it, `JournalCorrupt` when it is not an entry.
    pub(super) fn decode(record: &Bytes) -> Result<Self> {
        let mut cursor = Cursor(record);
        match cursor.byte() {
            Some(FORM) => {}
            Some(form) if form > FORM => {
                return Err(Error::new(
                    ErrorKind::JournalVersion,
                    "outbox.read",
                    "a message was stored by a newer version of Whimbrel; open the outbox with that one",
                ));
            }
            _ => return Err(corrupt()),
        }
        let stamp = Stamp::decode(&mut cursor).ok_or_else(corrupt)?;
        let rest = record.len() - cursor.0.len();
        Ok(Self { stamp, message: wire::record::decode(record.slice(rest..))?, bytes: on_disk(record.len()) })
    }

    pub(super) fn key(&self) -> Key {
        Key::new(self.message.system().message_id.as_deref(), self.stamp.epoch)
    }
}

/// Bytes that a record of `payload` bytes takes on disk.
pub(super) fn on_disk(payload: usize) -> u64 {
    (payload as u64 + FRAME).next_multiple_of(8)
}

fn corrupt() -> Error {
    Error::new(ErrorKind::JournalCorrupt, "outbox.read", "the record is not a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn moment(run_ms: u64, wall_ms: u64, opened_ms: u64) -> Moment {
        Moment { run_ms, wall_ms, opened_run_ms: 0, opened_ms }
    }

    fn accepted(epoch: u32, run_ms: u64, wall_ms: u64) -> Stamp {
        Stamp::new(epoch, moment(run_ms, wall_ms, 0), Some(Duration::from_millis(HOUR)))
    }

    #[test]
    fn round_trip_and_what_is_not_an_entry() {
        let message = Message::alert("21.5").property("room", "attic").message_id("reading-1");
        let mut record = Vec::new();
        Entry::encode(accepted(7, 1, 2), &message, &mut record);
        let entry = Entry::decode(&Bytes::from(record.clone())).unwrap();
        assert_eq!((entry.stamp, &entry.message), (accepted(7, 1, 2), &message));
        assert_eq!(entry.key(), Key::chosen("reading-1"));
        let kind = |record: &[u8]| Entry::decode(&Bytes::copy_from_slice(record)).unwrap_err().kind();
        assert_eq!(kind(&[]), ErrorKind::JournalCorrupt);
        assert_eq!(kind(&record[..3]), ErrorKind::JournalCorrupt);
        record[0] += 1;
        assert_eq!(kind(&record), ErrorKind::JournalVersion);
    }

    #[test]
    fn while_running_only_monotonic_time_counts() {
        let stamp = accepted(1, 1_000, 50 * HOUR);
        for wall in [0, 50 * HOUR, 5_000 * HOUR] {
            assert!(!stamp.is_over(1, moment(HOUR + 999, wall, wall)));
            assert!(stamp.is_over(1, moment(HOUR + 1_000, wall, wall)));
        }
        assert_eq!(stamp.deadline(1, moment(0, 0, 0)), Some(HOUR + 1_000));
    }

    #[test]
    fn across_a_restart_the_time_of_day_counts_the_time_away() {
        let stamp = accepted(1, 9_999, 50 * HOUR);
        let after_20_minutes = |run_ms| moment(run_ms, 0, 50 * HOUR + HOUR / 3);
        assert!(!stamp.is_over(2, after_20_minutes(2 * HOUR / 3 - 1)));
        assert!(stamp.is_over(2, after_20_minutes(2 * HOUR / 3)));
        assert_eq!(stamp.deadline(2, after_20_minutes(5)), Some(2 * HOUR / 3));
        assert_eq!(stamp.deadline(2, moment(0, 0, 60 * HOUR)), Some(0), "over before the opening");
    }

    #[test]
    fn a_clock_without_battery_makes_messages_live_longer_never_shorter() {
        let stamp = accepted(1, 0, 50 * HOUR);
        let opened_in_1970 = moment(HOUR - 1, HOUR - 1, 0);
        assert!(!stamp.is_over(2, opened_in_1970));
        assert!(stamp.is_over(2, moment(HOUR, HOUR, 0)), "but not for ever");
    }

    #[test]
    fn messages_without_time_to_live_never_end() {
        let stamp = Stamp::new(1, Moment::default(), None);
        assert!(!stamp.is_over(2, moment(u64::MAX, u64::MAX, u64::MAX)));
        assert_eq!(stamp.deadline(2, Moment::default()), None);
    }

    #[test]
    fn a_time_to_live_below_a_millisecond_is_one() {
        let stamp = Stamp::new(1, Moment::default(), Some(Duration::from_nanos(1)));
        assert!(!stamp.is_over(1, Moment::default()));
        assert!(stamp.is_over(1, moment(1, 0, 0)));
    }
}
