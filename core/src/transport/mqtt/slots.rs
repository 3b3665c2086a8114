//! Which message a packet identifier stands for.

use crate::{Lane, outbox::Sequence};

/// The last identifier for messages; the one behind it is for SUBSCRIBE.
pub(super) const LAST: u16 = u16::MAX - 1;

/// Packet identifiers 1 to n, handed out in a ring; each free one is taken at most once until it is answered.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Option<(Lane, Sequence)>>,
    next: usize,
}

impl Slots {
    /// Room for `window` unanswered messages.
    pub(super) fn new(window: usize) -> Self {
        Self { slots: vec![None; window.clamp(1, usize::from(LAST))], next: 0 }
    }

    /// A free identifier for a message; none when the window is full.
    pub(super) fn take(&mut self, lane: Lane, sequence: Sequence) -> Option<u16> {
        // Answers come in order, so the next one is free unless the window is full or a server answers as it likes.
        for _ in 0..self.slots.len() {
            let at = self.next;
            self.next = (at + 1) % self.slots.len();
            if let Some(slot @ None) = self.slots.get_mut(at) {
                *slot = Some((lane, sequence));
                return u16::try_from(at + 1).ok();
            }
        }
        None
    }

    /// The message of an identifier, which is free from now on.
    pub(super) fn answer(&mut self, packet_id: u16) -> Option<(Lane, Sequence)> {
        self.slots.get_mut(usize::from(packet_id).checked_sub(1)?)?.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_free_only_after_its_answer() {
        let mut slots = Slots::new(3);
        let ids: Vec<_> = (1..=3).map(|sequence| slots.take(Lane::Telemetry, sequence)).collect();
        assert_eq!(ids, [Some(1), Some(2), Some(3)]);
        assert_eq!(slots.take(Lane::Alert, 1), None);
        assert_eq!(slots.answer(2), Some((Lane::Telemetry, 2)));
        assert_eq!(slots.answer(2), None);
        assert_eq!(slots.take(Lane::Alert, 1), Some(2));
        assert_eq!(slots.answer(2), Some((Lane::Alert, 1)));
    }

    #[test]
    fn what_was_never_handed_out_is_unknown() {
        let mut slots = Slots::new(2);
        assert_eq!([0, 1, 2, 3, u16::MAX].map(|id| slots.answer(id)), [None; 5]);
    }
}
