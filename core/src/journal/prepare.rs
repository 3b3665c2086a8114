//! Segments are prepared ahead, off the path of commits: made of zeros, or taken over from trimmed ones. A commit then
//! overwrites space the file system has given out already, so that syncing it changes no metadata and cannot find the
//! disk full.
//!
//! The work is done by a thread that lives as long as there is something to do.

use std::{
    io,
    sync::{Arc, MutexGuard, atomic::Ordering::Release},
    thread,
};

use super::{
    DiskFile, JournalOptions,
    commit::STACK,
    segment::{self, PAGE, Segment},
    state::{Failure, Shared, State},
};

/// Size of the first segment of a journal; each later one has twice the size of the one before, up to what the
/// options say. So a journal with little in it stays small.
pub(super) const FIRST_SEGMENT: u64 = 256 * 1024;
/// Zeros are written in pieces of this size.
const ZEROS: u64 = 256 * 1024;

/// The segment behind the current one.
pub(super) enum Next {
    /// Not there yet.
    Idle,
    /// Has its space, and is on the disk or on its way there.
    Reserved(Prepared),
    /// Could not be had; the append that needs it tries again.
    Failed(Failure),
}

pub(super) struct Prepared {
    pub(super) segment: Arc<Segment>,
    pub(super) file: Arc<dyn DiskFile>,
}

enum Task {
    Prepare { number: u64, bytes: u64, start: Option<Prepared>, spare: Option<String> },
    Recycle(Arc<Segment>),
    LoadHeader(Arc<Segment>),
}

impl Shared {
    /// Waits until a next segment of at least `bytes` has its space.
    pub(super) fn demand_segment<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, State>,
        bytes: u64,
    ) -> Result<MutexGuard<'a, State>, Failure> {
        let mut tried = false;
        loop {
            match &state.next_segment {
                Next::Reserved(next) if next.segment.size >= bytes => return Ok(state),
                Next::Failed(failure) if tried && !state.preparing => return Err(failure.clone()),
                _ if state.failed.is_some() => return Ok(state), // the caller looks again
                _ => {}
            }
            if state.preparing {
                state = self.wait(&self.prepared, state);
            } else {
                tried = true;
                state.next_wanted = Some(state.usual_size(&self.options).max(bytes.next_multiple_of(PAGE)));
                state.preparing = true;
                drop(state);
                self.start_preparing();
                state = self.state();
            }
        }
    }

    /// Runs what is to be done on a thread of its own. The caller has set `preparing`.
    pub(super) fn start_preparing(self: &Arc<Self>) {
        let shared = self.clone();
        let thread = thread::Builder::new().name("whimbrel-prepare".into()).stack_size(STACK);
        if let Err(error) = thread.spawn(move || shared.prepare()) {
            tracing::warn!(journal = self.journal(), %error, "no thread to prepare segments on; the caller's has to do");
            self.prepare();
        }
    }

    /// Does everything there is to prepare and to tidy up.
    pub(super) fn prepare(self: &Arc<Self>) {
        let mut state = self.state();
        while let Some(task) = state.next_task(&self.options) {
            drop(state);
            match task {
                Task::Prepare { number, bytes, start, spare } => {
                    self.prepare_segment(number, bytes, start, spare)
                }
                Task::Recycle(segment) => self.recycle(&segment),
                Task::LoadHeader(segment) => {
                    if let Err(error) = segment.header(&*self.disk) {
                        tracing::warn!(journal = self.journal(), segment = segment.number, %error, "cannot read the header of a segment");
                        segment.set_header(None);
                    }
                }
            }
            state = self.state();
        }
        state.preparing = false;
        self.let_go_if_idle(&state);
        self.prepared.notify_all();
    }

    fn prepare_segment(&self, number: u64, bytes: u64, start: Option<Prepared>, spare: Option<String>) {
        let outcome = self.reserve(number, bytes, start, spare);
        let (file, zeros) = match outcome {
            Ok((prepared, zeros)) => {
                let file = prepared.file.clone();
                let segment = prepared.segment.clone();
                let mut state = self.state();
                state.stats.prepared_bytes += zeros;
                state.stats.disk_bytes += zeros;
                state.next_segment = Next::Reserved(prepared);
                drop(state);
                self.prepared.notify_all();
                ((file, segment), zeros)
            }
            Err(error) => {
                tracing::warn!(journal = self.journal(), %error, "cannot prepare the next segment");
                self.state().next_segment = Next::Failed(Failure::new("reserving space on the disk", &error));
                return;
            }
        };
        let (file, segment) = file;
        let synced = if zeros > 0 { file.sync() } else { Ok(()) };
        match synced.and_then(|()| self.disk.sync_names()) {
            Ok(()) => segment.named.store(true, Release),
            Err(error) => {
                let mut state = self.state();
                let failure = Failure::new("a sync of a new segment", &error);
                if matches!(&state.next_segment, Next::Reserved(next) if next.segment.number == number) {
                    state.next_segment = Next::Failed(failure);
                } else {
                    state.failed.get_or_insert(failure); // it is in use, and its sync failed
                }
            }
        }
    }

    /// Gives segment `number` a file of `bytes`. Says how many zeros were written for it.
    fn reserve(
        &self,
        number: u64,
        bytes: u64,
        start: Option<Prepared>,
        spare: Option<String>,
    ) -> io::Result<(Prepared, u64)> {
        let name = segment::name(number);
        let (file, from) = match (start, spare) {
            (Some(start), _) => (start.file, start.segment.size),
            (None, Some(spare)) => {
                self.disk.rename(&spare, &name)?;
                let file = self.disk.open(&name, false)?;
                let size = file.size()?;
                (file, size)
            }
            (None, None) => (self.disk.open(&name, true)?, 0),
        };
        let zeros = vec![0; ZEROS.min(bytes.saturating_sub(from)) as usize];
        let mut at = from;
        while at < bytes {
            let count = (bytes - at).min(ZEROS);
            if let Err(error) = file.write_at(at, zeros.get(..count as usize).unwrap_or_default()) {
                drop(file);
                let _ = self.disk.remove(&name);
                self.state().stats.disk_bytes -= from;
                return Err(error);
            }
            at += count;
        }
        let segment = Segment::new(number, at);
        segment.set_file(&file);
        Ok((Prepared { segment: Arc::new(segment), file }, at - from))
    }

    /// Keeps the file of a trimmed segment for later, or removes it.
    fn recycle(&self, segment: &Segment) {
        let name = segment::name(segment.number);
        let keep = segment.size == self.options.segment_bytes
            && self.state().spares.len() < self.options.spare_segments;
        let outcome = if keep {
            let spare = segment::spare_name(segment.number);
            self.disk.rename(&name, &spare).map(|()| self.state().spares.push(spare))
        } else {
            self.disk.remove(&name).map(|()| self.state().stats.disk_bytes -= segment.size)
        };
        if let Err(error) = outcome {
            // It is found and tried again when the journal is opened.
            tracing::warn!(journal = self.journal(), segment = segment.number, %error, "cannot give up a trimmed segment");
        }
    }
}

impl State {
    /// Bytes of the next segment, when nothing larger is needed.
    fn usual_size(&self, options: &JournalOptions) -> u64 {
        let size = self.current.as_ref().map_or(FIRST_SEGMENT, |current| current.segment.size * 2);
        size.min(options.segment_bytes)
    }

    /// Asks for the next segment when a quarter of this one is used.
    pub(super) fn think_ahead(&mut self, options: &JournalOptions) {
        if matches!(self.next_segment, Next::Idle)
            && self.next_wanted.is_none()
            && !self.preparing
            && self.current.as_ref().is_some_and(|current| current.at >= current.segment.size / 4)
        {
            self.next_wanted = Some(self.usual_size(options));
        }
    }

    pub(super) fn has_preparing_to_do(&self) -> bool {
        self.failed.is_none() && (self.next_wanted.is_some() || self.freed().is_some())
    }

    /// The oldest segment and, behind it, the one whose header tells how far the oldest reaches: when everything in the
    /// former is trimmed, as far as is known, and the latter is on the disk.
    fn freed(&self) -> Option<(&Arc<Segment>, &Arc<Segment>)> {
        let oldest = self.segments.front()?;
        let next = self.segments.iter().skip(1).find(|segment| !segment.is_headless())?;
        let trimmed = next.known_header().is_none_or(|header| header.first <= self.trim_durable + 1);
        (trimmed && next.number <= self.durable.segment).then_some((oldest, next))
    }

    fn next_task(&mut self, options: &JournalOptions) -> Option<Task> {
        let freed = self.freed().map(|(oldest, next)| (oldest.clone(), next.clone()));
        let can_recycle = matches!(&freed, Some((_, next)) if next.known_header().is_some());
        if let Some(bytes) = self.next_wanted
            && (!can_recycle || !self.spares.is_empty())
        {
            self.next_wanted = None;
            let number = self.segments.back().map_or(1, |segment| segment.number + 1);
            let start = match std::mem::replace(&mut self.next_segment, Next::Idle) {
                Next::Reserved(next) => Some(next),
                Next::Idle | Next::Failed(_) => None,
            };
            let spare =
                if start.is_none() && bytes == options.segment_bytes { self.spares.pop() } else { None };
            return Some(Task::Prepare { number, bytes, start, spare });
        }
        let (oldest, next) = freed?;
        if can_recycle {
            self.segments.pop_front();
            return Some(Task::Recycle(oldest));
        }
        Some(Task::LoadHeader(next))
    }
}
