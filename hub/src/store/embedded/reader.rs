//! Reading a partition: the newest events from memory, older ones from the journal.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, FutureExt};
use tokio::task::JoinHandle;
use whimbrel::{
    Error, ErrorKind, Result,
    journal::{Lsn, Read, Reader},
};

use super::{
    database::locked,
    log::{EventLog, millis},
    record::{self, Decoder},
    tail::Run,
    voids::Voids,
};
use crate::store::{Event, LogReader, Position, ReadLimit};

/// Bytes of the journal one look at the disk may pass by before others get the thread.
const SCAN_BYTES: usize = 4 << 20;
/// Events of one look at the disk, and their bytes.
const SCAN_EVENTS: usize = 512;
const SCAN_KEEP_BYTES: usize = 1 << 20;
/// Runs taken from memory in one go.
const RUNS: usize = 64;

/// Where a reader stands: at the first event that meets all of these.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    lsn: Lsn,
    sequence: u64,
    time_ms: u64,
}

pub(super) struct PartitionReader {
    log: Arc<EventLog>,
    partition: u32,
    voids: Arc<Voids>,
    cursor: Cursor,
    decoder: Option<Box<Decoder>>,
    /// Events read from the disk and not yet asked for; the cursor is behind them.
    read_ahead: VecDeque<Event>,
    /// Open while the reader is far behind.
    disk: Option<Reader>,
    /// A look at the disk. Kept here, so that a caller who stops waiting loses nothing.
    looking: Option<JoinHandle<Found>>,
}

/// What a look at the disk brought.
struct Found {
    disk: Reader,
    decoder: Box<Decoder>,
    events: VecDeque<Event>,
    /// Where to go on.
    next: Lsn,
    outcome: Result<()>,
}

impl PartitionReader {
    pub(super) fn new(log: Arc<EventLog>, partition: u32, from: Position) -> Result<Self> {
        log.check_open("events.read")?;
        let index = partition as usize;
        let (cursor, voids) = {
            let state = locked(&log.state);
            if index >= state.partitions.len() {
                return Err(Error::new(ErrorKind::NotFound, "events.read", "there is no such partition")
                    .with("partition", partition));
            }
            let first = state.points.first().lsn;
            let anywhere = Cursor { lsn: first, sequence: 0, time_ms: 0 };
            let cursor = match from {
                Position::Beginning => anywhere,
                Position::End => Cursor { lsn: state.next, ..anywhere },
                Position::Sequence(sequence) => {
                    Cursor { lsn: state.points.before_sequence(index, sequence).lsn, sequence, ..anywhere }
                }
                Position::Offset(offset) => Cursor { lsn: offset.max(first), ..anywhere },
                Position::Time(time) => {
                    // Events have whole milliseconds: the first one that is not before.
                    let time_ms = millis(time + Duration::from_nanos(999_999));
                    Cursor { lsn: state.points.before_time(time_ms).lsn, time_ms, ..anywhere }
                }
            };
            (cursor, Arc::clone(&state.voids))
        };
        Ok(Self {
            log,
            partition,
            voids,
            cursor,
            decoder: Some(Box::default()),
            read_ahead: VecDeque::new(),
            disk: None,
            looking: None,
        })
    }

    async fn take_ready(&mut self, limit: ReadLimit, out: &mut Vec<Event>) -> Result<()> {
        let known = out.len();
        let mut room = limit;
        while room.is_left() {
            if let Some(event) = self.read_ahead.pop_front() {
                room.take(&event);
                out.push(event);
                continue;
            }
            if self.looking.is_none() {
                self.log.check_open("events.read")?;
                match self.take_recent(&mut room, out)? {
                    Recent::Done => return Ok(()),
                    Recent::More => continue,
                    Recent::TooOld => self.look(),
                }
            }
            if out.len() > known {
                // They are not kept waiting for the disk.
                return Ok(());
            }
            self.looked().await?;
        }
        Ok(())
    }

    /// Takes events from memory, when they are there.
    fn take_recent(&mut self, room: &mut ReadLimit, out: &mut Vec<Event>) -> Result<Recent> {
        let durable = self.log.journal.durable_lsn();
        let runs: Vec<Run> = {
            let state = locked(&self.log.state);
            let partition = state.partitions.get(self.partition as usize).copied().unwrap_or_default();
            if self.cursor.lsn > partition.last.min(durable) {
                return Ok(Recent::Done);
            }
            match state.tail.runs(self.partition as usize, self.cursor.lsn) {
                None => return Ok(Recent::TooOld),
                Some(runs) => runs.take_while(|run| run.first <= durable).take(RUNS).cloned().collect(),
            }
        };
        self.disk = None;
        let Some(last) = runs.last().map(|run| run.last.min(durable)) else {
            // What the partition has is not durable yet.
            self.cursor.lsn = self.cursor.lsn.max(durable + 1);
            return Ok(Recent::Done);
        };
        let decoder = self.decoder.get_or_insert_default();
        for (lsn, record) in runs.iter().flat_map(Run::iter) {
            if lsn < self.cursor.lsn {
                continue;
            }
            if lsn > durable || !room.is_left() {
                return Ok(Recent::More);
            }
            self.cursor.lsn = lsn + 1;
            let event = decoder.event(lsn, &record)?;
            if self.cursor.wants(event.sequence, millis(event.enqueued_at)) {
                room.take(&event);
                out.push(event);
            }
        }
        self.cursor.lsn = self.cursor.lsn.max(last + 1);
        Ok(Recent::More)
    }

    /// Starts a look at the disk.
    fn look(&mut self) {
        let look = Look {
            disk: self.disk.take().unwrap_or_else(|| self.log.journal.reader(self.cursor.lsn)),
            decoder: self.decoder.take().unwrap_or_default(),
            partition: self.partition,
            voids: Arc::clone(&self.voids),
            cursor: self.cursor,
            durable: self.log.journal.durable_lsn(),
        };
        self.looking = Some(tokio::task::spawn_blocking(move || look.scan()));
    }

    /// Waits for the look to end.
    async fn looked(&mut self) -> Result<()> {
        let Some(looking) = &mut self.looking else { return Ok(()) };
        let found = looking.await;
        self.looking = None;
        let found = found.map_err(|error| {
            Error::new(ErrorKind::Closed, "events.read", "the hub is stopping").caused_by(error)
        })?;
        self.disk = Some(found.disk);
        self.decoder = Some(found.decoder);
        self.read_ahead = found.events;
        self.cursor.lsn = found.next;
        found.outcome
    }
}

enum Recent {
    /// There is nothing more that is durable.
    Done,
    /// There may be more.
    More,
    /// What comes next is on the disk only.
    TooOld,
}

impl Cursor {
    fn wants(&self, sequence: u64, time_ms: u64) -> bool {
        sequence >= self.sequence && time_ms >= self.time_ms
    }
}

/// A look at the disk.
struct Look {
    disk: Reader,
    decoder: Box<Decoder>,
    partition: u32,
    voids: Arc<Voids>,
    cursor: Cursor,
    /// What was durable before and does not come is no longer there.
    durable: Lsn,
}

impl Look {
    /// Reads on in the journal until it has enough.
    fn scan(mut self) -> Found {
        let mut events = VecDeque::new();
        let (mut next, mut passed, mut kept) = (self.cursor.lsn, 0, 0);
        let outcome = loop {
            if passed >= SCAN_BYTES || kept >= SCAN_KEEP_BYTES || events.len() >= SCAN_EVENTS {
                break Ok(());
            }
            let (lsn, record) = match self.disk.next() {
                Ok(Some(Read::Record(lsn, record))) => (lsn, record),
                Ok(Some(Read::Damaged(damage))) => {
                    if !self.voids.contain(damage.last + 1) {
                        tracing::error!(?damage, "events are damaged on the disk and cannot be read");
                    }
                    next = next.max(damage.last + 1);
                    continue;
                }
                Ok(None) => {
                    next = next.max(self.durable + 1);
                    break Ok(());
                }
                Err(error) => break Err(error),
            };
            passed += record.len();
            next = next.max(lsn + 1);
            let is_other = record::partition(&record) != Some(self.partition);
            if is_other || lsn < self.cursor.lsn || self.voids.contain(lsn) {
                continue;
            }
            match self.decoder.event(lsn, &record) {
                Ok(event) if self.cursor.wants(event.sequence, millis(event.enqueued_at)) => {
                    kept += record.len();
                    events.push_back(event);
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, offset = lsn, "an event cannot be read"),
            }
        };
        Found { disk: self.disk, decoder: self.decoder, events, next, outcome }
    }
}

impl LogReader for PartitionReader {
    fn ready<'a>(&'a mut self, limit: ReadLimit, out: &'a mut Vec<Event>) -> BoxFuture<'a, Result<()>> {
        self.take_ready(limit, out).boxed()
    }

    fn wait(&mut self) -> BoxFuture<'_, Result<()>> {
        async move {
            if !self.read_ahead.is_empty() || self.looking.is_some() {
                return Ok(());
            }
            self.log.arrival(self.partition as usize, self.cursor.lsn).await
        }
        .boxed()
    }
}
