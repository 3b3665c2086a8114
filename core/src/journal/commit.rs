//! Group commit: one write and one sync for everything that was staged while the disk was busy.
//!
//! Whoever finds a commit due and none running leads it: a thread that waits for its own records, or else the
//! committing thread, which is started when it is first needed.

use std::{
    io,
    sync::{Arc, MutexGuard, PoisonError, atomic::Ordering},
    thread,
    time::Instant,
};

use super::{
    prepare::Next,
    stage::{Group, Piece},
    state::{Durable, Failure, Shared, State, Thread},
};
use crate::Result;

/// The threads of a journal do little and call nobody.
pub(super) const STACK: usize = 128 * 1024;

impl Shared {
    /// Waits, on this thread, until `ticket` is durable; leads the commit when nobody else does.
    pub(super) fn wait_durable(self: &Arc<Self>, ticket: u64, operation: &'static str) -> Result<()> {
        while !self.is_durable(ticket) {
            let mut state = self.state();
            state.check(self, operation)?;
            state.want(ticket);
            if state.is_due() {
                self.commit(state);
            } else if !self.is_durable(ticket) {
                drop(self.wait(&self.committed, state));
            }
        }
        Ok(())
    }

    /// Waits, as a task, until `ticket` is durable.
    pub(super) async fn durable(self: &Arc<Self>, ticket: u64, operation: &'static str) -> Result<()> {
        while !self.is_durable(ticket) {
            let mut committed = std::pin::pin!(self.tasks.notified());
            committed.as_mut().enable();
            {
                let mut state = self.state();
                state.check(self, operation)?;
                state.want(ticket);
                self.see_to_it(state);
            }
            if !self.is_durable(ticket) {
                committed.await;
            }
        }
        Ok(())
    }

    /// Lets an append wait that found too much staged.
    pub(super) fn hold_back<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, State>,
    ) -> MutexGuard<'a, State> {
        state.wanted = state.ticket;
        if state.is_due() {
            self.commit(state);
            self.state()
        } else {
            self.wait(&self.committed, state)
        }
    }

    /// Wakes or starts the threads that have something to do now.
    pub(super) fn see_to_it<'a>(self: &'a Arc<Self>, mut state: MutexGuard<'a, State>) {
        if self.options.sync_interval.is_some() && state.lazy_since.is_none() && state.wanted < state.ticket {
            state.lazy_since = Some(Instant::now());
            if state.thread == Thread::Asleep {
                state.thread = Thread::Awake;
                self.work.notify_one();
            }
        }
        let prepare = state.has_preparing_to_do() && !state.preparing;
        state.preparing |= prepare;
        let timed = state.lazy_since.is_some();
        let mut start = false;
        if state.is_due() || timed || state.ending {
            match state.thread {
                Thread::Asleep if state.is_due() || state.ending => {
                    state.thread = Thread::Awake;
                    self.work.notify_one();
                }
                Thread::None if !(state.ending && state.is_settled()) => {
                    state.thread = Thread::Awake;
                    start = true;
                }
                _ => {}
            }
        }
        drop(state);
        if prepare {
            self.start_preparing();
        }
        if start {
            self.start_committing();
        }
    }

    fn start_committing(self: &Arc<Self>) {
        let shared = self.clone();
        let thread = thread::Builder::new().name("whimbrel-commit".into()).stack_size(STACK);
        if let Err(error) = thread.spawn(move || shared.run()) {
            tracing::warn!(journal = self.journal(), %error, "no thread to commit on; the caller's has to do");
            let mut state = self.state();
            state.thread = Thread::None;
            if state.is_due() {
                self.commit(state);
            }
        }
    }

    /// The committing thread.
    fn run(self: Arc<Self>) {
        let mut state = self.state();
        loop {
            if state.is_due() {
                self.commit(state);
                state = self.state();
                continue;
            }
            if state.ending && !state.committing {
                if state.is_settled() {
                    break;
                }
                state.wanted = state.ticket;
                continue;
            }
            let left = match (self.options.sync_interval, state.lazy_since) {
                (Some(interval), Some(since)) => Some(interval.saturating_sub(since.elapsed())),
                _ => None,
            };
            if left.is_some_and(|left| left.is_zero()) {
                state.lazy_since = None;
                state.wanted = state.ticket;
                continue;
            }
            state.thread = Thread::Asleep;
            state = match left {
                Some(left) => self.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.wait(&self.work, state),
            };
            state.thread = Thread::Awake;
        }
        state.thread = Thread::None;
        self.let_go_if_idle(&state);
        self.committed.notify_all();
    }

    /// Commits everything and ends the threads.
    pub(super) fn close(self: &Arc<Self>) -> Result<()> {
        let ticket = {
            let mut state = self.state();
            state.closed = true;
            state.ticket
        };
        let outcome = self.wait_durable(ticket, "journal.close");
        let mut state = self.state();
        state.ending = true;
        self.see_to_it(state);
        state = self.state();
        // A last commit can give the preparing thread something to do once more.
        while state.preparing || state.thread != Thread::None || state.committing {
            let work = if state.preparing { &self.prepared } else { &self.committed };
            state = self.wait(work, state);
        }
        self.released.store(true, Ordering::Release);
        state.current = None;
        state.next_segment = Next::Idle;
        self.let_go_if_idle(&state);
        outcome
    }

    /// No handle is left: commits what is staged, then ends. Does not wait.
    pub(super) fn end(self: &Arc<Self>) {
        let mut state = self.state();
        state.ending = true;
        self.let_go_if_idle(&state);
        self.see_to_it(state);
    }

    /// Commits what is staged, and tells who waits. The caller has seen that a commit is due.
    pub(super) fn commit<'a>(self: &'a Arc<Self>, mut state: MutexGuard<'a, State>) {
        state.committing = true;
        state.lazy_since = None;
        let mut group = state.take_group();
        drop(state);
        let outcome = self.write(&group);
        let mut state = self.state();
        state.committing = false;
        match outcome {
            Ok(()) => {
                if !group.is_empty() {
                    state.stats.commits += 1;
                    state.stats.written_bytes += group.bytes.len() as u64;
                }
                let (segment, end) = group.end;
                state.durable = Durable { ticket: group.ticket, lsn: group.last, segment, end };
                state.trim_durable = group.trimmed;
                self.durable.store(group.ticket, Ordering::Release);
            }
            Err(error) => {
                tracing::error!(journal = self.journal(), %error, "a commit failed; nothing more is accepted");
                state.failed = Some(Failure::new("a write to the disk", &error));
            }
        }
        group.clear();
        state.spare = Some(group);
        self.let_go_if_idle(&state);
        self.see_to_it(state);
        self.committed.notify_all();
        self.tasks.notify_waiters();
    }

    /// Writes a group and makes it durable. A segment is on the disk as a whole before anything of the next one is.
    fn write(&self, group: &Group) -> io::Result<()> {
        let mut before: Option<&Piece> = None;
        let ends = group.pieces.iter().skip(1).map(|piece| piece.from).chain([group.bytes.len()]);
        for (piece, end) in group.pieces.iter().zip(ends) {
            if let Some(before) = before
                && before.segment.number != piece.segment.number
            {
                before.file.sync()?;
            }
            if !piece.segment.named.load(Ordering::Acquire) {
                self.disk.sync_names()?;
                piece.segment.named.store(true, Ordering::Release);
            }
            piece.file.write_at(piece.offset, group.bytes.get(piece.from..end).unwrap_or_default())?;
            before = Some(piece);
        }
        before.map_or(Ok(()), |last| last.file.sync())
    }
}

impl State {
    fn want(&mut self, ticket: u64) {
        self.wanted = self.wanted.max(ticket.min(self.ticket));
    }
}
