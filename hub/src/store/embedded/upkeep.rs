//! What is done beside the log from time to time: saving its index, and removing old events.

use std::time::{Duration, SystemTime};

use rusqlite::{Connection, params};
use whimbrel::{
    Result,
    journal::{Lsn, Ticket},
};

use super::{
    database::{Database, failed, locked},
    log::{EventLog, millis},
    marks::Mark,
    saved::Saved,
};
use crate::store::Retention;

/// The index is saved after so many bytes of events: what opening has to read at most, or twice that.
const SAVE_BYTES: u64 = 32 << 20;
/// And after this time, when there were any events.
const SAVE_EVERY: Duration = Duration::from_secs(30);
/// A quiet log gets a point this often, so that its few events end in time.
const POINT_EVERY_MS: u64 = 60_000;

/// What was saved last.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    saved: Option<LastSave>,
}

#[derive(Debug)]
struct LastSave {
    /// The index covers all records before this one.
    next: Lsn,
    bytes: u64,
    at: SystemTime,
}

impl Upkeep {
    /// Contract of [`crate::store::Store::maintain`].
    pub(super) async fn run(
        &mut self,
        log: &EventLog,
        database: &Database,
        retention: Retention,
        now: SystemTime,
    ) -> Result<()> {
        let was_cut = self.cut(log, retention, now);
        let outcome =
            if was_cut || self.is_due(log, now) { self.save(log, database, now).await } else { Ok(()) };
        // Also when saving failed: on a full disk this is what makes space. But never beyond what was saved, which
        // alone knows the sequence numbers then.
        let first = locked(&log.state).points.first().lsn;
        let is_known = self.saved.as_ref().is_some_and(|saved| first <= saved.next);
        if is_known && log.journal.first_lsn() < first {
            log.journal.trim(first - 1)?;
        }
        outcome
    }

    /// Saves the index as it is now.
    pub(super) async fn save(&mut self, log: &EventLog, database: &Database, now: SystemTime) -> Result<()> {
        let (saved, marks, ticket) = {
            let mut state = locked(&log.state);
            (Saved::of(&state), state.marks.take_changed(), log.journal.latest())
        };
        let devices: Vec<Box<str>> = marks.iter().map(|(device, _)| device.clone()).collect();
        let last = LastSave { next: saved.next, bytes: saved.bytes, at: now };
        let outcome = write(log, database, saved, marks, ticket).await;
        match outcome {
            Ok(()) => self.saved = Some(last),
            Err(_) => locked(&log.state).marks.give_back(devices),
        }
        outcome
    }

    fn is_due(&self, log: &EventLog, now: SystemTime) -> bool {
        let state = locked(&log.state);
        let Some(saved) = &self.saved else { return state.next > 1 };
        let waited = now.duration_since(saved.at).unwrap_or(SAVE_EVERY);
        state.next != saved.next
            && (state.bytes.saturating_sub(saved.bytes) >= SAVE_BYTES || waited >= SAVE_EVERY)
    }

    /// Takes the events that retention ends out of the index; whether there were any.
    fn cut(&self, log: &EventLog, retention: Retention, now: SystemTime) -> bool {
        let mut state = locked(&log.state);
        let last = state.points.last();
        if state.next > last.lsn && millis(now).saturating_sub(last.time_ms) >= POINT_EVERY_MS {
            state.add_point();
        }
        let oldest = now.checked_sub(retention.time).map_or(0, millis);
        let by_time = state.points.before_time(oldest);
        let by_bytes = state.points.within_bytes(state.bytes, retention.bytes);
        let first = if by_time.lsn >= by_bytes.lsn { by_time } else { by_bytes }.clone();
        if first.lsn <= state.points.first().lsn {
            return false;
        }
        state.points.trim_to(first);
        true
    }
}

/// Only what is durable may be saved: a mark for an event that a power cut takes would swallow its resend.
async fn write(
    log: &EventLog,
    database: &Database,
    saved: Saved,
    marks: Vec<(Box<str>, Vec<Mark>)>,
    ticket: Ticket,
) -> Result<()> {
    const OPERATION: &str = "store.save";
    log.journal.durable(ticket).await?;
    let state = saved.encode();
    let write = move |db: &Connection| {
        db.prepare_cached(
            "INSERT INTO log_state (only, state) VALUES (0, ?1) ON CONFLICT DO UPDATE SET state = ?1",
        )?
        .execute([state])?;
        let mut remove = db.prepare_cached("DELETE FROM log_marks WHERE device = ?1")?;
        let mut insert = db.prepare_cached(
            "INSERT INTO log_marks (device, generation, outbox, telemetry, alert, used) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        for (device, marks) in &marks {
            remove.execute([device])?;
            for mark in marks {
                let [telemetry, alert] = mark.below.map(u64::cast_signed);
                insert.execute(params![device, mark.generation, mark.outbox, telemetry, alert, mark.used])?;
            }
        }
        Ok(())
    };
    database.write(OPERATION, move |db| write(db).map_err(|error| failed(OPERATION, &error))).await
}
