//! Rows of feedback records.

use rusqlite::{Connection, params};

use super::commands::{bound, outcome, rows, time};
use crate::store::FeedbackRow;

pub(super) fn list(db: &Connection, after: u64, limit: usize) -> rusqlite::Result<Vec<FeedbackRow>> {
    let mut statement = db.prepare_cached(
        "SELECT id, device, generation, message_id, outcome, ended_ms, delivery_count FROM command_feedback
         WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?;
    rows(&mut statement, params![after, bound(limit)], |row| {
        Ok(FeedbackRow {
            id: row.get(0)?,
            device: row.get(1)?,
            generation: row.get(2)?,
            message_id: row.get(3)?,
            outcome: outcome(row, 4)?,
            ended_at: time(row, 5)?,
            delivery_count: row.get(6)?,
        })
    })
}

pub(super) fn change(db: &Connection, count: &[u64], remove: &[u64]) -> rusqlite::Result<()> {
    let mut counted =
        db.prepare_cached("UPDATE command_feedback SET delivery_count = delivery_count + 1 WHERE id = ?1")?;
    for id in count {
        counted.execute([id])?;
    }
    let mut removed = db.prepare_cached("DELETE FROM command_feedback WHERE id = ?1")?;
    for id in remove {
        removed.execute([id])?;
    }
    Ok(())
}
