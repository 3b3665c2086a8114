//! Rows of consumer groups and their positions.

use std::time::{Duration, SystemTime};

use rusqlite::{Connection, OptionalExtension, params};
use whimbrel::{Error, ErrorKind, Result};

use super::{database::failed, log::millis};
use crate::store::{DEFAULT_GROUP, MAX_GROUPS, Ownership, OwnershipClaim};

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

pub(super) fn ownerships(db: &Connection, group: &str, now: SystemTime) -> rusqlite::Result<Vec<Ownership>> {
    let mut statement = db.prepare_cached(
        "SELECT partition, owner, epoch, etag, claimed_ms, expires_ms FROM ownerships WHERE group_name = ?1
         ORDER BY partition",
    )?;
    let rows = statement.query_map([group], |row| {
        let (claimed_ms, expires_ms): (u64, u64) = (row.get(4)?, row.get(5)?);
        let now_ms = millis(now);
        // A clock that was set back must not keep a partition for longer than it was claimed for.
        let left = expires_ms.saturating_sub(now_ms).min(expires_ms.saturating_sub(claimed_ms));
        Ok(Ownership {
            partition: row.get(0)?,
            owner: row.get(1)?,
            epoch: row.get(2)?,
            etag: row.get(3)?,
            expires_in: Duration::from_millis(left),
        })
    })?;
    rows.collect()
}

/// Compares and swaps.
pub(super) fn claim(
    db: &Connection,
    group: &str,
    claim: &OwnershipClaim,
    now: SystemTime,
) -> Result<Option<Ownership>> {
    const OPERATION: &str = "events.claim";
    let sql = |error| failed(OPERATION, &error);
    if !exists(db, group).map_err(sql)? {
        return Err(unknown(OPERATION, group));
    }
    let current: Option<u64> = db
        .prepare_cached("SELECT etag FROM ownerships WHERE group_name = ?1 AND partition = ?2")
        .and_then(|mut statement| {
            statement.query_row(params![group, claim.partition], |row| row.get(0)).optional()
        })
        .map_err(sql)?;
    if current != claim.etag {
        return Ok(None);
    }
    let etag = current.unwrap_or(0) + 1;
    let claimed_ms = millis(now);
    let expires_ms = claimed_ms.saturating_add(u64::try_from(claim.lasts.as_millis()).unwrap_or(u64::MAX));
    db.prepare_cached(
        "INSERT INTO ownerships (group_name, partition, owner, epoch, etag, claimed_ms, expires_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT DO UPDATE SET owner = excluded.owner, epoch = excluded.epoch, etag = excluded.etag,
             claimed_ms = excluded.claimed_ms, expires_ms = excluded.expires_ms",
    )
    .and_then(|mut statement| {
        let OwnershipClaim { partition, owner, epoch, .. } = claim;
        statement.execute(params![group, partition, owner, epoch, etag, claimed_ms, expires_ms])
    })
    .map_err(sql)?;
    Ok(Some(Ownership {
        partition: claim.partition,
        owner: claim.owner.clone(),
        epoch: claim.epoch,
        etag,
        expires_in: claim.lasts,
    }))
}

pub(super) fn unknown(operation: &'static str, group: &str) -> Error {
    Error::new(ErrorKind::NotFound, operation, "there is no such consumer group").with("group", group)
}
