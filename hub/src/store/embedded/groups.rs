//! Rows of consumer groups and their positions.

use rusqlite::{Connection, OptionalExtension, params};
use whimbrel::{Error, ErrorKind, Result};

use super::database::failed;
use crate::store::{DEFAULT_GROUP, MAX_GROUPS};

pub(super) fn list(db: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut names = vec![DEFAULT_GROUP.to_owned()];
    let mut statement = db.prepare_cached("SELECT name FROM consumer_groups ORDER BY name")?;
    for name in statement.query_map([], |row| row.get(0))? {
        names.push(name?);
    }
    Ok(names)
}

pub(super) fn add(db: &Connection, name: &str) -> Result<()> {
    const OPERATION: &str = "events.add_group";
    let conflict =
        |text: &'static str| Err(Error::new(ErrorKind::Conflict, OPERATION, text).with("group", name));
    let names = list(db).map_err(|error| failed(OPERATION, &error))?;
    if names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return conflict("the consumer group exists already");
    }
    if names.len() >= MAX_GROUPS {
        return conflict("a hub has at most 20 consumer groups");
    }
    db.execute("INSERT INTO consumer_groups (name) VALUES (?1)", [name])
        .map(drop)
        .map_err(|error| failed(OPERATION, &error))
}

/// Whether there is such a group.
pub(super) fn exists(db: &Connection, name: &str) -> rusqlite::Result<bool> {
    if name.eq_ignore_ascii_case(DEFAULT_GROUP) {
        return Ok(true);
    }
    db.prepare_cached("SELECT 1 FROM consumer_groups WHERE name = ?1")?.exists([name])
}

pub(super) fn position(db: &Connection, group: &str, partition: u32) -> rusqlite::Result<Option<u64>> {
    db.prepare_cached("SELECT sequence FROM checkpoints WHERE group_name = ?1 AND partition = ?2")?
        .query_row(params![group, partition], |row| row.get(0))
        .optional()
}

pub(super) fn set_position(db: &Connection, group: &str, partition: u32, sequence: u64) -> Result<()> {
    const OPERATION: &str = "events.set_checkpoint";
    let known = exists(db, group).map_err(|error| failed(OPERATION, &error))?;
    if !known {
        return Err(unknown(OPERATION, group));
    }
    db.prepare_cached(
        "INSERT INTO checkpoints (group_name, partition, sequence) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET sequence = excluded.sequence",
    )
    .and_then(|mut statement| statement.execute(params![group, partition, sequence]))
    .map(drop)
    .map_err(|error| failed(OPERATION, &error))
}

pub(super) fn unknown(operation: &'static str, group: &str) -> Error {
    Error::new(ErrorKind::NotFound, operation, "there is no such consumer group").with("group", group)
}
