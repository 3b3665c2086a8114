//! Acknowledgements that wait for the disk: written ahead, in the order of the publications, and let go group by group
//! as the commits they depend on come in.

use std::{collections::VecDeque, num::NonZeroU16, sync::Arc};

use bytes::BytesMut;

use super::packet::{self, Answer};
use crate::limits::Staging;

/// The acknowledgements of one batch.
#[derive(Debug)]
struct Group<T> {
    ticket: T,
    /// Bytes of its acknowledgements in `held`.
    held: usize,
    /// How many acknowledgements that is.
    acknowledgements: u32,
    /// Bytes of its events, which wait for the disk.
    staged: usize,
}

/// The pipeline of one connection; `T` is what a commit is waited for by.
#[derive(Debug)]
pub(crate) struct Pipeline<T> {
    staging: Arc<Staging>,
    held: BytesMut,
    groups: VecDeque<Group<T>>,
    unacknowledged: u32,
    staged: usize,
}

impl<T: Copy> Pipeline<T> {
    pub(crate) fn new(staging: Arc<Staging>) -> Self {
        Self { staging, held: BytesMut::new(), groups: VecDeque::new(), unacknowledged: 0, staged: 0 }
    }

    /// Holds the answers of a batch until the events of `ticket`, `staged` bytes of them, are durable. Answers that
    /// need no event (`None`) go with what was staged last, or straight to `outgoing` when nothing waits.
    pub(crate) fn push(
        &mut self,
        ticket: Option<T>,
        staged: usize,
        answers: impl Iterator<Item = (NonZeroU16, Answer)>,
        outgoing: &mut BytesMut,
    ) {
        let out = if ticket.is_none() && self.groups.is_empty() { outgoing } else { &mut self.held };
        let before = out.len();
        let mut acknowledgements = 0;
        for (id, answer) in answers {
            packet::write_acknowledgement(id, answer, out);
            acknowledgements += 1;
        }
        let held = out.len() - before;
        match (ticket, self.groups.back_mut()) {
            (Some(ticket), _) => {
                self.groups.push_back(Group { ticket, held, acknowledgements, staged });
                self.staging.add(staged);
                self.staged += staged;
            }
            (None, Some(last)) => {
                last.held += held;
                last.acknowledgements += acknowledgements;
            }
            (None, None) => return,
        }
        self.unacknowledged += acknowledgements;
    }

    /// What the connection has to wait for next.
    pub(crate) fn head(&self) -> Option<T> {
        self.groups.front().map(|group| group.ticket)
    }

    /// The head is durable: its acknowledgements go to `outgoing`. Returns how many they are.
    pub(crate) fn release(&mut self, outgoing: &mut BytesMut) -> u32 {
        let Some(group) = self.groups.pop_front() else { return 0 };
        if outgoing.is_empty() && self.groups.is_empty() {
            std::mem::swap(outgoing, &mut self.held);
        } else {
            outgoing.extend_from_slice(&self.held.split_to(group.held));
        }
        self.staging.release(group.staged);
        self.staged -= group.staged;
        self.unacknowledged -= group.acknowledgements;
        if self.groups.is_empty() {
            // An idle connection holds no buffers.
            self.held = BytesMut::new();
            self.groups = VecDeque::new();
        }
        group.acknowledgements
    }

    /// A commit failed: nothing that waits is ever acknowledged.
    pub(crate) fn abandon(&mut self) {
        self.staging.release(self.staged);
        self.staged = 0;
        self.unacknowledged = 0;
        self.held = BytesMut::new();
        self.groups = VecDeque::new();
    }

    /// Publications that were received and not yet answered.
    pub(crate) fn unacknowledged(&self) -> u32 {
        self.unacknowledged
    }

    /// Bytes of events that wait for the disk.
    pub(crate) fn staged(&self) -> usize {
        self.staged
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

impl<T> Drop for Pipeline<T> {
    fn drop(&mut self) {
        self.staging.release(self.staged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(bytes: &[u8]) -> Vec<u16> {
        bytes.chunks(4).map(|ack| u16::from_be_bytes([ack[2], ack[3]])).collect()
    }

    fn stored(ids: std::ops::Range<u16>) -> impl Iterator<Item = (NonZeroU16, Answer)> {
        ids.map(|id| (NonZeroU16::new(id).unwrap(), Answer::Stored(None)))
    }

    #[test]
    fn acknowledgements_leave_in_order_and_only_with_their_commit() {
        let staging = Arc::new(Staging::new(1000));
        let mut pipeline = Pipeline::new(Arc::clone(&staging));
        let mut out = BytesMut::new();
        pipeline.push(Some(1_u64), 100, stored(1..4), &mut out);
        pipeline.push(Some(2), 200, stored(4..6), &mut out);
        assert!(out.is_empty());
        assert_eq!((pipeline.head(), pipeline.unacknowledged(), staging.staged()), (Some(1), 5, 300));
        assert_eq!(pipeline.release(&mut out), 3);
        assert_eq!(ids(&out), [1, 2, 3]);
        assert_eq!(pipeline.release(&mut out), 2);
        assert_eq!(ids(&out), [1, 2, 3, 4, 5]);
        assert_eq!((pipeline.head(), pipeline.unacknowledged(), staging.staged()), (None, 0, 0));
        assert_eq!(pipeline.release(&mut out), 0);
    }

    #[test]
    fn an_answer_without_an_event_keeps_its_place_in_the_order() {
        let mut pipeline = Pipeline::new(Arc::new(Staging::new(1000)));
        let mut out = BytesMut::new();
        pipeline.push(None, 0, stored(1..2), &mut out);
        assert_eq!(ids(&out), [1], "nothing waits before it");
        pipeline.push(Some(7_u64), 10, stored(2..3), &mut out);
        pipeline.push(None, 0, stored(3..4), &mut out);
        assert_eq!(ids(&out), [1], "its predecessor waits");
        pipeline.release(&mut out);
        assert_eq!(ids(&out), [1, 2, 3]);
    }

    #[test]
    fn a_connection_that_ends_gives_its_bytes_back() {
        let staging = Arc::new(Staging::new(1000));
        let mut pipeline = Pipeline::new(Arc::clone(&staging));
        pipeline.push(Some(1_u64), 900, stored(1..2), &mut BytesMut::new());
        assert_eq!(staging.staged(), 900);
        drop(pipeline);
        assert_eq!(staging.staged(), 0);
    }
}
