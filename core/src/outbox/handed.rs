//! What a lane remembers of the messages it handed out for sending.

use std::collections::VecDeque;

use super::{
    Sequence,
    entry::{Entry, Stamp},
    ids::Key,
};

/// Most messages remembered. Those beyond end without a key, so that their outcomes are found by place only.
const LIMIT: u64 = 1 << 14;

/// All that is needed of a message once it is on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handed {
    pub(super) key: Key,
    pub(super) stamp: Stamp,
    /// Bytes it takes on disk.
    pub(super) bytes: u64,
}

impl From<&Entry> for Handed {
    fn from(entry: &Entry) -> Self {
        Self { key: entry.key(), stamp: entry.stamp, bytes: entry.bytes }
    }
}

/// Messages by number, from the head on.
#[derive(Debug, Default)]
pub(super) struct HandedOut {
    first: Sequence,
    messages: VecDeque<Option<Handed>>,
}

impl HandedOut {
    pub(super) fn insert(&mut self, sequence: Sequence, handed: Handed) {
        if self.messages.is_empty() {
            self.first = sequence;
        }
        let last = sequence.max(self.first + self.messages.len() as u64);
        if last - sequence.min(self.first) >= LIMIT {
            return;
        }
        while sequence < self.first {
            self.messages.push_front(None);
            self.first -= 1;
        }
        let index = (sequence - self.first) as usize;
        if index >= self.messages.len() {
            self.messages.resize(index + 1, None);
        }
        if let Some(place) = self.messages.get_mut(index) {
            *place = Some(handed);
        }
    }

    pub(super) fn get(&self, sequence: Sequence) -> Option<&Handed> {
        self.messages.get(usize::try_from(sequence.checked_sub(self.first)?).ok()?)?.as_ref()
    }

    /// The last message with this key.
    pub(super) fn find(&self, key: Key) -> Option<Sequence> {
        let at = self.messages.iter().rposition(|handed| handed.is_some_and(|handed| handed.key == key))?;
        Some(self.first + at as u64)
    }

    /// Forgets everything before `sequence`.
    pub(super) fn skip_to(&mut self, sequence: Sequence) {
        let count = sequence.saturating_sub(self.first).min(self.messages.len() as u64);
        self.messages.drain(..count as usize);
        self.first += count;
        if self.messages.is_empty() && self.messages.capacity() > 4_096 {
            self.messages = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::clock::Moment;

    fn handed(epoch: u32) -> Handed {
        Handed { key: Key::Generated(epoch), stamp: Stamp::new(epoch, Moment::default(), None), bytes: 1 }
    }

    #[test]
    fn messages_are_found_by_number_whatever_the_order() {
        let mut out = HandedOut::default();
        for sequence in [10, 12, 8, 10] {
            out.insert(sequence, handed(sequence as u32));
        }
        let known =
            |out: &HandedOut| (0..20).filter(|&sequence| out.get(sequence).is_some()).collect::<Vec<_>>();
        assert_eq!(known(&out), [8, 10, 12]);
        assert_eq!(out.get(12).unwrap().key, Key::Generated(12));
        out.skip_to(11);
        assert_eq!(known(&out), [12]);
        out.skip_to(50);
        assert!(known(&out).is_empty());
        out.insert(60, handed(1));
        assert_eq!((out.first, out.messages.len()), (60, 1), "no memory for numbers long gone");
    }

    #[test]
    fn memory_is_bounded() {
        let mut out = HandedOut::default();
        out.insert(1, handed(1));
        out.insert(1 + LIMIT, handed(1));
        out.insert(u64::MAX - 1, handed(1));
        assert_eq!(out.messages.len(), 1);
        out.insert(LIMIT, handed(1));
        assert_eq!(out.messages.len() as u64, LIMIT);
    }
}
