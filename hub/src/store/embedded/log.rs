//! The event log: one journal for all partitions, so that one sync serves everything that arrived in a moment.
//!
//! A partition is an index over it. What a record says about itself (partition, sequence number, origin) is the truth;
//! everything in [`State`] can be read back from the records.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::sync::Notify;
use whimbrel::{
    Error, ErrorKind, Result,
    journal::{Journal, Kind, Lsn, Record, Ticket, Urgency},
};

use super::{
    database::locked,
    marks::{Marks, Sieve},
    points::{Point, Points},
    record,
    tail::{Run, Tail},
    voids::Voids,
};
use crate::store::{Entry, PartitionState, Place};

/// Largest number of partitions.
pub(super) const MAX_PARTITIONS: usize = 32;
/// What a record takes in the journal besides its payload, roughly.
const FRAMING: u64 = 24;

/// The event log.
pub(super) struct EventLog {
    pub(super) journal: Journal,
    pub(super) state: Mutex<State>,
    closed: AtomicBool,
    /// Per partition, told of each append.
    arrivals: Box<[Notify]>,
}

/// Everything known of the events in the journal, staged ones included.
pub(super) struct State {
    pub(super) partitions: Box<[Partition]>,
    /// Number the next event gets in the journal.
    pub(super) next: Lsn,
    /// When the newest event was taken in; milliseconds since 1970. Never goes back.
    pub(super) clock_ms: u64,
    /// Bytes of all events ever.
    pub(super) bytes: u64,
    pub(super) points: Points,
    pub(super) marks: Marks,
    pub(super) tail: Tail,
    pub(super) voids: Arc<Voids>,
}

/// What a partition holds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Partition {
    /// Sequence number of the next event.
    pub(super) next: u64,
    /// Number of the newest event in the journal, 0 when there never was one.
    pub(super) last: Lsn,
    /// When it was taken in.
    pub(super) last_ms: u64,
    /// Waits for it.
    pub(super) ticket: Option<Ticket>,
}

impl State {
    /// Notes an event that is in the journal under `lsn`.
    pub(super) fn note(&mut self, partition: usize, sequence: u64, lsn: Lsn, time_ms: u64, length: usize) {
        if self.points.is_due(self.bytes) {
            self.add_point();
        }
        if let Some(partition) = self.partitions.get_mut(partition) {
            partition.next = partition.next.max(sequence + 1);
            partition.last = lsn;
            partition.last_ms = time_ms;
        }
        self.next = lsn + 1;
        self.clock_ms = self.clock_ms.max(time_ms);
        self.bytes += length as u64 + FRAMING;
    }

    /// Adds the end of the log to the index.
    pub(super) fn add_point(&mut self) {
        let point = self.end();
        self.points.push(point);
    }

    /// The end of the log as a point.
    pub(super) fn end(&self) -> Point {
        Point {
            lsn: self.next,
            time_ms: self.clock_ms,
            bytes: self.bytes,
            next: self.partitions.iter().map(|partition| partition.next).collect(),
        }
    }
}

/// A batch as bytes, made before the lock is taken.
struct Encoded {
    /// Per event its length in 4 bytes and its record.
    bytes: Vec<u8>,
    /// Where the records end.
    ends: Vec<usize>,
}

impl Encoded {
    fn new(batch: &[Entry<'_>]) -> Result<Self> {
        let estimate: usize = batch.iter().map(|entry| entry.message.size() + 256).sum();
        let (mut bytes, mut ends) = (Vec::with_capacity(estimate), Vec::with_capacity(batch.len()));
        for entry in batch {
            let start = bytes.len();
            bytes.extend_from_slice(&[0; 4]);
            record::encode(entry, &mut bytes)?;
            let length = (bytes.len() - start - 4) as u32;
            if let Some(field) = bytes.get_mut(start..start + 4) {
                field.copy_from_slice(&length.to_le_bytes());
            }
            ends.push(bytes.len());
        }
        Ok(Self { bytes, ends })
    }

    /// Where the record begins.
    fn start(&self, index: usize) -> usize {
        index.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |end| *end) + 4
    }

    fn record(&self, index: usize) -> &[u8] {
        let end = self.ends.get(index).copied().unwrap_or(0);
        self.bytes.get(self.start(index)..end).unwrap_or_default()
    }

    fn record_mut(&mut self, index: usize) -> &mut [u8] {
        let (start, end) = (self.start(index), self.ends.get(index).copied().unwrap_or(0));
        self.bytes.get_mut(start..end).unwrap_or_default()
    }
}

/// An event of a batch that is stored now.
struct Kept {
    index: usize,
    partition: usize,
    sequence: u64,
}

impl EventLog {
    pub(super) fn new(journal: Journal, state: State) -> Self {
        let arrivals = state.partitions.iter().map(|_| Notify::new()).collect();
        Self { journal, state: Mutex::new(state), closed: AtomicBool::new(false), arrivals }
    }

    /// Contract of [`crate::store::Store::append`].
    pub(super) fn append(&self, batch: &[Entry<'_>], places: &mut Vec<Place>) -> Result<Ticket> {
        self.check_open("events.append")?;
        let mut encoded = Encoded::new(batch)?;
        let now_ms = millis(SystemTime::now());
        let known = places.len();
        let mut guard = locked(&self.state);
        let stored = stage(&self.journal, &mut guard, batch, &mut encoded, now_ms, places);
        drop(guard);
        if stored.is_err() {
            places.truncate(known);
        }
        let (ticket, touched) = stored?;
        for (partition, arrivals) in self.arrivals.iter().enumerate() {
            if touched & (1 << partition) != 0 {
                arrivals.notify_waiters();
            }
        }
        Ok(ticket)
    }

    pub(super) fn partitions(&self) -> Vec<PartitionState> {
        let state = locked(&self.state);
        let first = &state.points.first().next;
        let describe = |(index, partition): (usize, &Partition)| PartitionState {
            partition: index as u32,
            first: first.get(index).copied().unwrap_or(0),
            next: partition.next,
            last_offset: (partition.last > 0).then_some(partition.last),
            last_enqueued_at: (partition.last > 0)
                .then(|| UNIX_EPOCH + Duration::from_millis(partition.last_ms)),
        };
        state.partitions.iter().enumerate().map(describe).collect()
    }

    /// Waits until a durable event with a number of `from` or more may be in the partition.
    pub(super) async fn arrival(&self, partition: usize, from: Lsn) -> Result<()> {
        loop {
            let Some(arrivals) = self.arrivals.get(partition) else { return Ok(()) };
            let mut arrived = std::pin::pin!(arrivals.notified());
            arrived.as_mut().enable();
            self.check_open("events.read")?;
            let newest = locked(&self.state).partitions.get(partition).copied().unwrap_or_default();
            if newest.last >= from && newest.last > 0 {
                return match newest.ticket {
                    Some(ticket) => self.journal.durable(ticket).await,
                    // It was there when the log was opened.
                    None => Ok(()),
                };
            }
            arrived.await;
        }
    }

    pub(super) fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, operation, "the hub is stopping"));
        }
        Ok(())
    }

    /// Refuses what comes and wakes who waits.
    pub(super) fn stop(&self) {
        self.closed.store(true, Ordering::Release);
        self.arrivals.iter().for_each(Notify::notify_waiters);
    }
}

/// Gives the events of a batch their places and hands them to the journal. Under the lock: nothing else is between
/// choosing a place and taking it. Returns the partitions touched as bits.
fn stage(
    journal: &Journal,
    state: &mut State,
    batch: &[Entry<'_>],
    encoded: &mut Encoded,
    now_ms: u64,
    places: &mut Vec<Place>,
) -> Result<(Ticket, u32)> {
    let time_ms = now_ms.max(state.clock_ms);
    let mut next = [0; MAX_PARTITIONS];
    for (next, partition) in next.iter_mut().zip(&state.partitions) {
        *next = partition.next;
    }
    let durable = journal.durable_lsn();
    let mut sieve = Sieve::default();
    let mut kept = Vec::with_capacity(batch.len());
    for (index, entry) in batch.iter().enumerate() {
        let partition = entry.partition as usize;
        let Some(next) = next.get_mut(partition).filter(|_| partition < state.partitions.len()) else {
            return Err(Error::new(ErrorKind::NotFound, "events.append", "there is no such partition")
                .with("partition", partition));
        };
        let sequence = sieve.lets_through(&state.marks, entry, kept.len() as u64).then(|| {
            let sequence = *next;
            *next += 1;
            let staged = (state.next + kept.len() as u64).saturating_sub(durable + 1);
            let staged = u32::try_from(staged).unwrap_or(u32::MAX);
            record::place(encoded.record_mut(index), sequence, time_ms, staged);
            kept.push(Kept { index, partition, sequence });
            sequence
        });
        places.push(Place { partition: entry.partition, sequence });
    }
    if kept.is_empty() {
        // All of them are resends, of events that may be staged only.
        return Ok((journal.latest(), 0));
    }

    let payloads: Vec<&[u8]> = kept.iter().map(|kept| encoded.record(kept.index)).collect();
    let records: Vec<Record<'_>> =
        payloads.chunks(1).map(|parts| Record { kind: Kind::Data, parts }).collect();
    let first_kept = journal.first_lsn();
    let snapshot = &mut |out: &mut Vec<u8>| state.voids.write(first_kept, out);
    let appended = journal.append(&records, Urgency::Now, snapshot)?;

    sieve.commit(&mut state.marks, appended.first);
    let mut touched = 0;
    for ((kept, payload), lsn) in kept.iter().zip(&payloads).zip(appended.first..) {
        state.note(kept.partition, kept.sequence, lsn, time_ms, payload.len());
        if let Some(partition) = state.partitions.get_mut(kept.partition) {
            partition.ticket = Some(appended.ticket);
        }
        touched |= 1 << kept.partition;
    }
    remember(state, encoded, &kept, appended.first);
    Ok((appended.ticket, touched))
}

/// Gives the batch to the tail, cut into runs of one partition.
fn remember(state: &mut State, encoded: &mut Encoded, kept: &[Kept], first: Lsn) {
    let ends = std::mem::take(&mut encoded.ends);
    let bytes = bytes::Bytes::from(std::mem::take(&mut encoded.bytes));
    let start_of =
        |index: usize| index.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0);
    let mut lsn = first;
    for run in kept.chunk_by(|a, b| a.partition == b.partition && a.index + 1 == b.index) {
        let (Some(head), Some(last)) = (run.first(), run.last()) else { continue };
        let end = ends.get(last.index).copied().unwrap_or(bytes.len());
        let records = bytes.slice(start_of(head.index)..end);
        let next = lsn + run.len() as u64;
        state.tail.push(head.partition, Run { first: lsn, last: next - 1, records });
        lsn = next;
    }
}

pub(super) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
