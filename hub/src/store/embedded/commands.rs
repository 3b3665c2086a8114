//! Rows of commands: their queues, and what is left of those that ended.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params, types::Type};
use whimbrel::{
    Error, ErrorKind, Result,
    wire::feedback::{CommandOutcome, FeedbackWanted},
};

use super::log::millis;
use crate::store::{
    CommandChange, CommandChanged, CommandQueue, CommandRetention, CommandRow, CommandStatusRow,
    DeadLetterRow, DueCommand, EndedCommand, NewCommand,
};

/// Rows of each kind that one step of [`trim`] removes at most.
const TRIMMED: usize = 1_000;

/// Makes one change. The inner error refuses it before anything is changed.
pub(super) fn apply(db: &Connection, change: &CommandChange) -> rusqlite::Result<Result<CommandChanged>> {
    match change {
        CommandChange::Enqueue(command) => enqueue(db, command),
        CommandChange::Count { sequence, delivery_count } => {
            let changed = db
                .prepare_cached("UPDATE commands SET delivery_count = ?2 WHERE sequence = ?1")?
                .execute(params![sequence, delivery_count])?;
            Ok(Ok(if changed == 0 { CommandChanged::Missing } else { CommandChanged::Counted }))
        }
        CommandChange::End { sequence, outcome, at } => {
            let ended = end(db, *sequence, *outcome, *at)?;
            Ok(Ok(ended.map_or(CommandChanged::Missing, CommandChanged::Ended)))
        }
    }
}

fn enqueue(db: &Connection, command: &NewCommand) -> rusqlite::Result<Result<CommandChanged>> {
    const OPERATION: &str = "commands.send";
    let device = &*command.device;
    let known = db
        .prepare_cached("SELECT generation FROM devices WHERE id = ?1 AND enabled")?
        .query_row([device], |row| row.get::<_, Arc<str>>(0))
        .optional()?;
    let Some(generation) = known else {
        let text = "there is no such device, or it is disabled";
        return Ok(Err(Error::new(ErrorKind::NotFound, OPERATION, text).with("device", device)));
    };
    // Counts no further than it has to.
    let full = command.depth == 0
        || db
            .prepare_cached("SELECT 1 FROM commands WHERE device = ?1 LIMIT 1 OFFSET ?2")?
            .exists(params![device, command.depth - 1])?;
    if full {
        let text = "the queue of the device is full";
        return Ok(Err(Error::new(ErrorKind::QueueFull, OPERATION, text)
            .with("device", device)
            .with("limit", command.depth)));
    }
    if let Some(id) = command.dead_letter {
        let removed = db.prepare_cached("DELETE FROM dead_letters WHERE id = ?1")?.execute([id])?;
        if removed == 0 {
            let text = "there is no such dead letter";
            return Ok(Err(Error::new(ErrorKind::NotFound, OPERATION, text).with("id", id)));
        }
    }
    db.prepare_cached(
        "INSERT INTO commands (device, generation, message_id, feedback, enqueued_ms, expires_ms, delivery_count, message)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7)",
    )?
    .execute(params![
        device,
        generation,
        command.message_id,
        command.feedback.word(),
        stored(command.enqueued_at),
        stored(command.expires_at),
        &*command.record,
    ])?;
    Ok(Ok(CommandChanged::Enqueued { sequence: db.last_insert_rowid().cast_unsigned(), generation }))
}

fn end(
    db: &Connection,
    sequence: u64,
    outcome: CommandOutcome,
    at: SystemTime,
) -> rusqlite::Result<Option<EndedCommand>> {
    if !matches!(outcome, CommandOutcome::Completed | CommandOutcome::Purged) {
        db.prepare_cached(
            "INSERT INTO dead_letters (device, sequence, outcome, enqueued_ms, ended_ms, delivery_count, message)
             SELECT device, sequence, ?2, enqueued_ms, ?3, delivery_count, message FROM commands WHERE sequence = ?1",
        )?
        .execute(params![sequence, outcome.word(), stored(at)])?;
    }
    let removed = db
        .prepare_cached(
            "DELETE FROM commands WHERE sequence = ?1 RETURNING device, generation, message_id, feedback",
        )?
        .query_row([sequence], |row| {
            let wanted: String = row.get(3)?;
            let wanted = FeedbackWanted::from_word(&wanted)
                .ok_or_else(|| unreadable(3, "an unknown kind of feedback"))?;
            Ok(EndedCommand {
                device: row.get(0)?,
                generation: row.get(1)?,
                message_id: row.get(2)?,
                feedback: wanted.includes(outcome),
            })
        })
        .optional()?;
    let Some(ended) = removed else { return Ok(None) };
    // Without an id nobody could ask for it.
    if let Some(id) = &ended.message_id {
        db.prepare_cached(
            "INSERT INTO command_outcomes (device, message_id, sequence, generation, outcome, ended_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            ended.device,
            id,
            sequence,
            ended.generation,
            outcome.word(),
            stored(at)
        ])?;
    }
    if ended.feedback {
        db.prepare_cached(
            "INSERT INTO command_feedback (device, generation, message_id, outcome, ended_ms, delivery_count)
             VALUES (?1, ?2, ?3, ?4, ?5, 0)",
        )?
        .execute(params![
            ended.device,
            ended.generation,
            ended.message_id,
            outcome.word(),
            stored(at)
        ])?;
    }
    Ok(Some(ended))
}

/// Everything about the commands of a device goes with it.
pub(super) fn forget(db: &Connection, device: &str) -> rusqlite::Result<()> {
    for table in ["commands", "command_outcomes", "dead_letters", "command_feedback"] {
        db.prepare_cached(&format!("DELETE FROM {table} WHERE device = ?1"))?.execute([device])?;
    }
    Ok(())
}

/// As of one moment.
pub(super) fn queue(
    db: &Connection,
    device: &str,
    generation: &str,
) -> rusqlite::Result<Option<CommandQueue>> {
    let snapshot = db.unchecked_transaction()?;
    let known = snapshot
        .prepare_cached("SELECT 1 FROM devices WHERE id = ?1 AND generation = ?2")?
        .exists([device, generation])?;
    if !known {
        return Ok(None);
    }
    let through = snapshot
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'commands'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let commands = snapshot
        .prepare_cached(
            "SELECT sequence, enqueued_ms, expires_ms, delivery_count, message FROM commands
             WHERE device = ?1 ORDER BY sequence",
        )?
        .query_map([device], |row| {
            Ok(CommandRow {
                sequence: row.get(0)?,
                enqueued_at: time(row, 1)?,
                expires_at: time(row, 2)?,
                delivery_count: row.get(3)?,
                record: Bytes::from(row.get::<_, Vec<u8>>(4)?),
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Some(CommandQueue { commands, through: through.unwrap_or(0) }))
}

pub(super) fn count(db: &Connection, device: &str) -> rusqlite::Result<u64> {
    db.prepare_cached("SELECT count(*) FROM commands WHERE device = ?1")?
        .query_row([device], |row| row.get(0))
}

pub(super) fn due(
    db: &Connection,
    now: SystemTime,
    after: Option<(SystemTime, u64)>,
    limit: usize,
) -> rusqlite::Result<Vec<DueCommand>> {
    let (expired, sequence) = after.map_or((-1, 0), |(at, sequence)| (stored(at), sequence));
    let mut statement = db.prepare_cached(
        "SELECT sequence, expires_ms, device, generation FROM commands
         WHERE (expires_ms, sequence) > (?1, ?2) AND expires_ms <= ?3 ORDER BY expires_ms, sequence LIMIT ?4",
    )?;
    let due = |row: &Row<'_>| {
        Ok(DueCommand {
            sequence: row.get(0)?,
            expires_at: time(row, 1)?,
            device: row.get(2)?,
            generation: row.get(3)?,
        })
    };
    rows(&mut statement, params![expired, sequence, stored(now), bound(limit)], due)
}

/// The newest one, in its queue or ended.
pub(super) fn status(
    db: &Connection,
    device: &str,
    message_id: &str,
) -> rusqlite::Result<Option<CommandStatusRow>> {
    let snapshot = db.unchecked_transaction()?;
    let queued = snapshot
        .prepare_cached(
            "SELECT sequence, generation FROM commands WHERE device = ?1 AND message_id = ?2
             ORDER BY sequence DESC LIMIT 1",
        )?
        .query_row([device, message_id], |row| {
            Ok(CommandStatusRow { sequence: row.get(0)?, generation: row.get(1)?, ended: None })
        })
        .optional()?;
    let ended = snapshot
        .prepare_cached(
            "SELECT sequence, generation, outcome, ended_ms FROM command_outcomes
             WHERE device = ?1 AND message_id = ?2 ORDER BY sequence DESC LIMIT 1",
        )?
        .query_row([device, message_id], |row| {
            Ok(CommandStatusRow {
                sequence: row.get(0)?,
                generation: row.get(1)?,
                ended: Some((outcome(row, 2)?, time(row, 3)?)),
            })
        })
        .optional()?;
    Ok([queued, ended].into_iter().flatten().max_by_key(|status| status.sequence))
}

pub(super) fn dead_letters(
    db: &Connection,
    device: Option<&str>,
    after: u64,
    limit: usize,
) -> rusqlite::Result<Vec<DeadLetterRow>> {
    const COLUMNS: &str = "SELECT id, device, sequence, outcome, enqueued_ms, ended_ms, delivery_count, message FROM dead_letters";
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    match device {
        Some(device) => {
            let mut statement =
                db.prepare_cached(&format!("{COLUMNS} WHERE device = ?1 AND id > ?2 ORDER BY id LIMIT ?3"))?;
            rows(&mut statement, params![device, after, bound(limit)], dead_letter)
        }
        None => {
            let mut statement =
                db.prepare_cached(&format!("{COLUMNS} WHERE id > ?1 ORDER BY id LIMIT ?2"))?;
            rows(&mut statement, params![after, bound(limit)], dead_letter)
        }
    }
}

/// Removes what is old; `true` when there may be more. What ended before a clock was set back waits for what stands in
/// front of it.
pub(super) fn trim(db: &Connection, before: CommandRetention) -> rusqlite::Result<bool> {
    let mut more = false;
    for (table, before) in [
        ("dead_letters", before.dead_letters),
        ("command_outcomes", before.outcomes),
        ("command_feedback", before.feedback),
    ] {
        let removed = db
            .prepare_cached(&format!(
                "DELETE FROM {table} WHERE id IN (
                    SELECT id FROM (SELECT id, ended_ms FROM {table} ORDER BY id LIMIT ?1) WHERE ended_ms < ?2)"
            ))?
            .execute(params![bound(TRIMMED), stored(before)])?;
        more |= removed == TRIMMED;
    }
    Ok(more)
}

pub(super) fn rows<T>(
    statement: &mut CachedStatement<'_>,
    values: impl rusqlite::Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    statement.query_map(values, read)?.collect()
}

pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<SystemTime> {
    Ok(UNIX_EPOCH + Duration::from_millis(row.get(column)?))
}

pub(super) fn outcome(row: &Row<'_>, column: usize) -> rusqlite::Result<CommandOutcome> {
    let word: String = row.get(column)?;
    CommandOutcome::from_word(&word).ok_or_else(|| unreadable(column, "an unknown outcome"))
}

pub(super) fn bound(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn dead_letter(row: &Row<'_>) -> rusqlite::Result<DeadLetterRow> {
    Ok(DeadLetterRow {
        id: row.get(0)?,
        device: row.get(1)?,
        sequence: row.get(2)?,
        outcome: outcome(row, 3)?,
        enqueued_at: time(row, 4)?,
        ended_at: time(row, 5)?,
        delivery_count: row.get(6)?,
        record: Bytes::from(row.get::<_, Vec<u8>>(7)?),
    })
}

/// Milliseconds since 1970, as a number SQLite can hold.
fn stored(time: SystemTime) -> i64 {
    i64::try_from(millis(time)).unwrap_or(i64::MAX)
}

fn unreadable(column: usize, what: &'static str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, what.into())
}
