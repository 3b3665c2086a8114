//! What names an outbox and its messages.
//!
//! A message that brings no id gets `<outbox>-<lane letter><epoch>.<sequence>`: it says where the message is, so finding
//! it again needs no index, and the record on disk need not hold it.

use std::fmt;

use super::Sequence;
use crate::Lane;

/// Longest id that [`generated`] makes, in bytes.
pub(super) const GENERATED_LIMIT: usize = 16 + "-t.".len() + 8 + 20;

/// Highest epoch: numbers keep 40 bits for the sequence.
pub(super) const LAST_EPOCH: u32 = (1 << 24) - 1;

/// Random name of an outbox, made once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutboxId(pub(super) u64);

impl fmt::Display for OutboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Outbox and opening. The epoch rises with each opening and makes numbers unique even when a crash took messages back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) id: OutboxId,
    pub(super) epoch: u32,
}

impl Identity {
    /// The identity of an outbox being opened, from what its two lanes remember. Lanes that disagree were not always
    /// together; a fresh id then keeps a hub from taking messages of the one for resends of the other.
    pub(super) fn next(known: [Option<Self>; 2], fresh: OutboxId) -> Self {
        let epoch = known.iter().flatten().map(|identity| identity.epoch).max().unwrap_or(0);
        let id = match known {
            [Some(one), Some(other)] if one.id != other.id => fresh,
            [Some(one), _] | [None, Some(one)] => one.id,
            [None, None] => fresh,
        };
        Self { id, epoch: (epoch + 1).min(LAST_EPOCH) }
    }
}

/// The number that travels with a message for de-duplication; rises with epoch and sequence.
pub(super) fn number(epoch: u32, sequence: Sequence) -> u64 {
    (u64::from(epoch) << 40).saturating_add(sequence)
}

/// The id of a message that brought none.
pub(super) fn generated(outbox: OutboxId, lane: Lane, epoch: u32, sequence: Sequence) -> String {
    format!("{outbox}-{}{epoch}.{sequence}", letter(lane))
}

/// The id of a message that brought none and was turned away; it was the `count`-th of its lane.
pub(super) fn generated_turned_away(outbox: OutboxId, lane: Lane, epoch: u32, count: u64) -> String {
    format!("{outbox}-{}{epoch}.{count}", letter(lane).to_ascii_uppercase())
}

/// What a generated id of `outbox` says: lane, epoch and sequence.
pub(super) fn parse(outbox: OutboxId, id: &str) -> Option<(Lane, u32, Sequence)> {
    let (name, place) = id.split_once('-')?;
    let lane = Lane::ALL.into_iter().find(|&lane| place.starts_with(letter(lane)))?;
    let (epoch, sequence) = place.get(1..)?.split_once('.')?;
    let (epoch, sequence) = (epoch.parse().ok()?, sequence.parse().ok()?);
    // The comparison with the one right spelling catches `+1`, `01` and a foreign outbox.
    (name.len() == 16 && generated(outbox, lane, epoch, sequence) == id).then_some((lane, epoch, sequence))
}

const fn letter(lane: Lane) -> char {
    match lane {
        Lane::Telemetry => 't',
        Lane::Alert => 'a',
    }
}

/// What is kept of the id of a message that ended: enough to find it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// The record could not be read, or the outbox did not look.
    Unknown,
    /// The outbox made the id in this epoch; the sequence says the rest.
    Generated(u32),
    /// The program chose the id; this is its hash.
    Chosen(u64),
}

impl Key {
    /// The key of the message with the id `id`, accepted in `epoch`.
    pub(super) fn new(id: Option<&str>, epoch: u32) -> Self {
        id.map_or(Self::Generated(epoch), Self::chosen)
    }

    /// FNV-1a with a finishing mix: the same for ever, on every machine. Programs choose their own ids, so nobody gains
    /// by making two collide.
    pub(super) fn chosen(id: &str) -> Self {
        let mut hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        hash ^= hash >> 33;
        hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
        Self::Chosen(hash ^ (hash >> 33))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTBOX: OutboxId = OutboxId(0x00ab_cdef_0123_4567);

    #[test]
    fn generated_ids_say_where_the_message_is() {
        let id = generated(OUTBOX, Lane::Alert, 3, 42);
        assert_eq!(id, "00abcdef01234567-a3.42");
        assert_eq!(parse(OUTBOX, &id), Some((Lane::Alert, 3, 42)));
        assert_eq!(parse(OutboxId(1), &id), None, "another outbox");
        assert!(generated(OUTBOX, Lane::Telemetry, LAST_EPOCH, u64::MAX).len() <= GENERATED_LIMIT);
    }

    #[test]
    fn ids_of_programs_are_not_taken_for_generated_ones() {
        let turned_away = generated_turned_away(OUTBOX, Lane::Telemetry, 3, 42);
        for id in
            ["", "-", "-t", "reading-t1.2", "00abcdef01234567-t+1.2", "00abcdef01234567-t01.2", &turned_away]
        {
            assert_eq!(parse(OUTBOX, id), None, "{id}");
        }
    }

    #[test]
    fn numbers_rise_with_epoch_and_sequence() {
        assert!(number(1, 5) < number(1, 6));
        assert!(number(1, 1 << 39) < number(2, 1));
        assert!(number(LAST_EPOCH, 1) < number(LAST_EPOCH, (1 << 40) - 1));
    }

    #[test]
    fn an_opening_goes_on_from_what_either_lane_remembers() {
        let (one, other) = (OutboxId(1), OutboxId(2));
        let fresh = OutboxId(9);
        let known = |id, epoch| Some(Identity { id, epoch });
        for (lanes, expected) in [
            ([None, None], Identity { id: fresh, epoch: 1 }),
            ([known(one, 4), None], Identity { id: one, epoch: 5 }),
            ([None, known(one, 4)], Identity { id: one, epoch: 5 }),
            ([known(one, 4), known(one, 7)], Identity { id: one, epoch: 8 }),
            ([known(one, 4), known(other, 2)], Identity { id: fresh, epoch: 5 }),
            ([known(one, LAST_EPOCH), None], Identity { id: one, epoch: LAST_EPOCH }),
        ] {
            assert_eq!(Identity::next(lanes, fresh), expected);
        }
    }

    #[test]
    fn the_hash_of_an_id_never_changes() {
        assert_eq!(Key::chosen("reading-1"), Key::Chosen(11_171_179_026_210_949_186));
        assert_ne!(Key::chosen("reading-1"), Key::chosen("reading-2"));
        assert_eq!(Key::new(None, 3), Key::Generated(3));
    }
}
