//! Opening the event log: what was saved, and the records behind it.

use std::sync::Arc;

use rusqlite::{OptionalExtension, Row};
use whimbrel::{
    Result,
    journal::{Disk, Journal, JournalOptions, Kind, Lsn, Read, Record, Recovery, Urgency},
};

use super::{
    database::Database,
    log::{EventLog, State},
    marks::{Mark, Marks},
    points::{Point, Points},
    record,
    saved::Saved,
    tail::Tail,
    voids::Voids,
};
use crate::store::StoreOptions;

const OPERATION: &str = "store.open";
/// Trimmed segments kept for reuse: at full speed the log needs a new one several times a second.
const SPARE_SEGMENTS: usize = 4;

/// Opens the journal in `disk`, which nobody else can open then.
pub(super) fn open_journal(disk: Arc<dyn Disk>, options: &StoreOptions) -> Result<(Journal, Recovery)> {
    let journal_options = JournalOptions {
        segment_bytes: options.segment_bytes,
        spare_segments: SPARE_SEGMENTS,
        sync_interval: None,
    };
    Journal::open(disk, journal_options)
}

/// Opens the log in the journal.
pub(super) fn open(
    journal: Journal,
    found: &Recovery,
    database: &Database,
    options: &StoreOptions,
) -> Result<EventLog> {
    for damage in &found.damaged {
        tracing::error!(?damage, "events are damaged on the disk and were set aside");
    }
    let partitions = options.partitions as usize;
    let (saved, marks) = load(database, partitions)?;
    let voids = Voids::restore(found);
    let start = settle_start(&journal, found, &saved, &voids)?;
    let mut state = begin(saved, marks, start, found.next, options);
    state.voids = Arc::new(voids);
    catch_up(&journal, &mut state)?;
    if journal.first_lsn() < state.points.first().lsn {
        // The log was cut here before; the last stop came before the journal had written that down.
        journal.trim(state.points.first().lsn - 1)?;
    }
    state.tail = Tail::new(options.tail_bytes, partitions, state.next);
    Ok(EventLog::new(journal, state))
}

fn load(database: &Database, partitions: usize) -> Result<(Saved, Marks)> {
    let (blob, rows) = database.read_blocking(OPERATION, |db| {
        let blob: Option<Vec<u8>> =
            db.query_row("SELECT state FROM log_state WHERE only = 0", [], |row| row.get(0)).optional()?;
        let rows: Vec<(Box<str>, Mark)> = db
            .prepare("SELECT device, generation, outbox, telemetry, alert, used FROM log_marks")?
            .query_map([], mark)?
            .collect::<rusqlite::Result<_>>()?;
        Ok((blob, rows))
    })?;
    let saved = blob.as_deref().and_then(|bytes| Saved::decode(bytes, partitions));
    if blob.is_some() && saved.is_none() {
        tracing::warn!("the saved index of the event log cannot be used; reading the whole log");
    }
    let mut marks = Marks::default();
    rows.into_iter().for_each(|(device, mark)| marks.restore(device, mark));
    Ok((saved.unwrap_or_else(|| Saved::empty(partitions)), marks))
}

/// Numbers of marks use all 64 bits, which the database takes as signed.
fn mark(row: &Row<'_>) -> rusqlite::Result<(Box<str>, Mark)> {
    let below = [row.get::<_, i64>(3)?.cast_unsigned(), row.get::<_, i64>(4)?.cast_unsigned()];
    let mark = Mark { generation: row.get(1)?, outbox: row.get(2)?, below, used: row.get(5)?, listed: false };
    Ok((row.get(0)?, mark))
}

/// The beginning of the log as a point: the saved first one, or a later one when the journal was trimmed since.
fn settle_start(journal: &Journal, found: &Recovery, saved: &Saved, voids: &Voids) -> Result<Point> {
    let first = saved.points.first();
    if found.first <= first.lsn {
        return Ok(first.clone());
    }
    let known = saved.points.later().iter().find(|point| point.lsn >= found.first);
    if let Some(point) = known.filter(|point| point.lsn == found.first) {
        return Ok(point.clone());
    }
    // Trimmed to a place the index did not keep: the records up to the next point tell the sequence numbers.
    let end = known.map_or(found.next, |point| point.lsn);
    let mut start = known.cloned().unwrap_or_else(|| Point {
        lsn: saved.next,
        time_ms: saved.clock_ms,
        bytes: saved.bytes,
        next: saved.partitions.iter().map(|partition| partition.next).collect(),
    });
    start.lsn = found.first;
    let mut missing = vec![true; start.next.len()];
    let mut reader = journal.reader(found.first);
    while missing.contains(&true) {
        let Some(read) = reader.next()? else { break };
        let Read::Record(lsn, bytes) = read else { continue };
        if lsn >= end {
            break;
        }
        if voids.contain(lsn) {
            continue;
        }
        let Ok(head) = record::head(&bytes) else { continue };
        let partition = head.partition as usize;
        if let (Some(next), Some(missing)) = (start.next.get_mut(partition), missing.get_mut(partition)) {
            if *missing {
                *next = head.sequence;
            }
            *missing = false;
        }
    }
    Ok(start)
}

/// The saved state, cut to what the journal has.
fn begin(saved: Saved, marks: Marks, start: Point, end: Lsn, options: &StoreOptions) -> State {
    let Saved { next, clock_ms, bytes, mut partitions, mut points } = saved;
    if next > end {
        // Damage took events that were stored. Their sequence numbers are not used again.
        tracing::error!(saved = next, found = end, "the event log ends before the place it had reached");
        for partition in &mut partitions {
            partition.last = partition.last.min(end.saturating_sub(1));
        }
    }
    if start.lsn >= end {
        // Nothing is left to read.
        let next = partitions.iter().map(|partition| partition.next).collect();
        points = Points::new(Point { lsn: end, time_ms: clock_ms, bytes, next });
    } else {
        points.trim_to(start);
        points.cut(end);
    }
    State {
        partitions: partitions.into(),
        next: next.min(end).max(points.first().lsn),
        clock_ms,
        bytes,
        points,
        marks,
        tail: Tail::new(0, options.partitions as usize, end),
        voids: Arc::default(),
    }
}

/// Reads the records that came after the state was saved.
fn catch_up(journal: &Journal, state: &mut State) -> Result<()> {
    let from = state.next;
    let mut expected = from.max(journal.first_lsn());
    let mut proven = None;
    let mut reader = journal.reader(from);
    while let Some(read) = reader.next()? {
        let Read::Record(lsn, bytes) = read else { continue };
        if let Some(gap) = (expected..lsn).find(|lsn| !state.voids.contain(*lsn)) {
            let proven = match proven {
                Some(proven) => proven,
                None => *proven.insert(proven_durable(journal, from)?),
            };
            if gap > proven {
                declare_void(journal, state, gap)?;
                break;
            }
        }
        expected = lsn + 1;
        if state.voids.contain(lsn) {
            continue;
        }
        let head = match record::head(&bytes) {
            Ok(head) if (head.partition as usize) < state.partitions.len() => head,
            Ok(_) | Err(_) => {
                tracing::error!(offset = lsn, "an event cannot be read");
                continue;
            }
        };
        state.note(head.partition as usize, head.sequence, lsn, head.time_ms, bytes.len());
        if let Some(origin) = &head.origin {
            state.marks.raise(head.device, head.generation, origin, lsn);
        }
    }
    state.next = journal.next_lsn();
    Ok(())
}

/// The last record that was durable for sure, as far as the records from `from` on tell: each knows how many before it
/// were not, when it was staged.
fn proven_durable(journal: &Journal, from: Lsn) -> Result<Lsn> {
    let mut proven = 0;
    let mut reader = journal.reader(from);
    while let Some(read) = reader.next()? {
        let Read::Record(lsn, bytes) = read else { continue };
        if let Ok(head) = record::head(&bytes) {
            proven = proven.max(lsn.saturating_sub(1 + u64::from(head.staged)));
        }
    }
    Ok(proven)
}

/// Ends the log at a gap in a commit that never finished.
fn declare_void(journal: &Journal, state: &mut State, first: Lsn) -> Result<()> {
    let last = journal.next_lsn() - 1;
    tracing::warn!(first, last, "the last commit was cut off in the middle; what is left of it is not used");
    let mut voids = Voids::clone(&state.voids);
    let note = [first.to_le_bytes(), last.to_le_bytes()].concat();
    let record = Record { kind: Kind::Note, parts: &[&note] };
    let first_kept = journal.first_lsn();
    let snapshot = &mut |out: &mut Vec<u8>| voids.write(first_kept, out);
    let appended = journal.append(&[record], Urgency::Now, snapshot)?;
    journal.wait_durable(appended.ticket)?;
    voids.add(first, last);
    state.voids = Arc::new(voids);
    Ok(())
}
