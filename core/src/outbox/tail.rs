//! The newest messages of a lane, so that a reader who keeps up needs no disk.

use std::collections::VecDeque;

use super::{Sequence, entry::Entry};

/// Memory the messages may take, roughly.
const LIMIT: usize = 1 << 20;
/// What a message takes besides its bytes.
const OVERHEAD: usize = size_of::<Entry>();

/// Messages that nobody has read yet, without a gap up to the newest; or nothing, while the reader is too far behind
/// for that to be of use.
#[derive(Debug)]
pub(super) struct Tail {
    entries: VecDeque<Entry>,
    /// Number of the first entry; of the next message when there are none; `MAX` while nothing is collected.
    first: Sequence,
    bytes: usize,
}

impl Tail {
    /// Collects from `next` on.
    pub(super) fn new(next: Sequence) -> Self {
        Self { entries: VecDeque::new(), first: next, bytes: 0 }
    }

    /// Collects nothing until [`Tail::resume`].
    pub(super) fn paused() -> Self {
        Self::new(Sequence::MAX)
    }

    pub(super) fn is_paused(&self) -> bool {
        self.first == Sequence::MAX
    }

    /// Lets go of everything; the reader has to read from the disk for a while.
    pub(super) fn pause(&mut self) {
        *self = Self::paused();
    }

    /// Collects again, from the next message on.
    pub(super) fn resume(&mut self, next: Sequence) {
        if self.is_paused() {
            self.first = next;
        }
    }

    /// Number of the first message that is here, or will be.
    pub(super) fn first(&self) -> Sequence {
        self.first
    }

    /// Adds the newest message. When it does not fit the reader is far behind.
    pub(super) fn push(&mut self, entry: Entry) {
        if self.is_paused() {
            return;
        }
        let bytes = cost(&entry);
        if self.bytes + bytes > LIMIT {
            return self.pause();
        }
        self.bytes += bytes;
        self.entries.push_back(entry);
    }

    pub(super) fn get(&self, sequence: Sequence) -> Option<&Entry> {
        self.entries.get(usize::try_from(sequence.checked_sub(self.first)?).ok()?)
    }

    /// The last message that the program gave this id.
    pub(super) fn find(&self, id: &str) -> Option<Sequence> {
        let is_it = |entry: &Entry| entry.message.system().message_id.as_deref() == Some(id);
        Some(self.first + self.entries.iter().rposition(is_it)? as u64)
    }

    /// Takes the first message out.
    pub(super) fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.first += 1;
        self.bytes -= cost(&entry);
        Some(entry)
    }

    /// Lets go of everything before `sequence`.
    pub(super) fn skip_to(&mut self, sequence: Sequence) {
        while self.first < sequence && self.pop().is_some() {}
        if self.entries.is_empty() && self.entries.capacity() > 1_024 {
            self.entries = VecDeque::new();
        }
    }
}

fn cost(entry: &Entry) -> usize {
    OVERHEAD + entry.message.size()
}
