//! Tables of `hub.sqlite`.

use std::time::Duration;

use rusqlite::Connection;
use whimbrel::{Error, ErrorKind, Result};

use super::database::failed;

/// Version of the tables, in `PRAGMA user_version`.
const VERSION: i64 = 2;

/// `meta` holds the numbers that exist once. Times are milliseconds since 1970. `log_*` is the index of the event log
/// as of some moment; the log itself is the truth, and what came after that moment is read from it.
const TABLES: &str = "
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE devices (
    id TEXT PRIMARY KEY,
    generation TEXT NOT NULL,
    etag INTEGER NOT NULL,
    enabled INTEGER NOT NULL,
    authentication TEXT NOT NULL,
    first TEXT,
    second TEXT,
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE policies (
    name TEXT PRIMARY KEY,
    rights INTEGER NOT NULL,
    first TEXT NOT NULL,
    second TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE consumer_groups (
    name TEXT PRIMARY KEY COLLATE NOCASE
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoints (
    group_name TEXT NOT NULL COLLATE NOCASE,
    partition INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (group_name, partition)
) STRICT, WITHOUT ROWID;

CREATE TABLE log_state (
    only INTEGER PRIMARY KEY CHECK (only = 0),
    state BLOB NOT NULL
) STRICT;

CREATE TABLE log_marks (
    device TEXT NOT NULL,
    generation TEXT NOT NULL,
    outbox TEXT NOT NULL,
    telemetry INTEGER NOT NULL,
    alert INTEGER NOT NULL,
    used INTEGER NOT NULL,
    PRIMARY KEY (device, generation, outbox)
) STRICT, WITHOUT ROWID;
";

/// What version 2 added: sessions that are kept. The module of a device's own session is empty.
const SESSIONS: &str = "
CREATE TABLE sessions (
    device TEXT NOT NULL,
    module TEXT NOT NULL,
    generation TEXT NOT NULL,
    subscriptions INTEGER NOT NULL,
    PRIMARY KEY (device, module)
) STRICT, WITHOUT ROWID;
";

/// Settings of the connection, tables when there are none, and the number of partitions, which never changes.
pub(super) fn prepare(connection: &mut Connection, partitions: u32) -> Result<()> {
    const OPERATION: &str = "store.open";
    let version = settle(connection).map_err(|error| failed(OPERATION, &error))?;
    if version > VERSION {
        return Err(Error::new(
            ErrorKind::JournalVersion,
            OPERATION,
            "the data folder was written by a newer version; use that version or another folder",
        )
        .with("version", version)
        .with("known", VERSION));
    }
    upgrade(connection, version, partitions).map_err(|error| failed(OPERATION, &error))?;
    let made_with: u32 = connection
        .query_row("SELECT value FROM meta WHERE name = 'partitions'", [], |row| row.get(0))
        .map_err(|error| failed(OPERATION, &error))?;
    if made_with != partitions {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            OPERATION,
            "the number of partitions is fixed when a data folder is created; set it back, or start a new folder",
        )
        .with("created with", made_with)
        .with("set to", partitions));
    }
    Ok(())
}

/// Brings tables of an older version up to date, and makes them when there are none; all or nothing.
fn upgrade(connection: &mut Connection, version: i64, partitions: u32) -> rusqlite::Result<()> {
    if version == VERSION {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    if version < 1 {
        transaction.execute_batch(TABLES)?;
        transaction.execute("INSERT INTO meta (name, value) VALUES ('partitions', ?1)", [partitions])?;
    }
    if version < 2 {
        transaction.execute_batch(SESSIONS)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

fn settle(connection: &Connection) -> rusqlite::Result<i64> {
    connection.busy_timeout(Duration::from_secs(5))?;
    // A database in memory answers `memory`.
    connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_an_older_version_is_brought_up_to_date() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(TABLES).unwrap();
        connection
            .execute_batch("INSERT INTO meta VALUES ('partitions', 3); PRAGMA user_version = 1;")
            .unwrap();
        prepare(&mut connection, 3).unwrap();
        prepare(&mut connection, 3).unwrap();
        assert_eq!(settle(&connection).unwrap(), VERSION);
        connection.execute("INSERT INTO sessions VALUES ('d', '', '1', 1)", []).unwrap();
    }

    #[test]
    fn a_folder_of_a_newer_version_is_left_alone() {
        let mut connection = Connection::open_in_memory().unwrap();
        prepare(&mut connection, 3).unwrap();
        connection.pragma_update(None, "user_version", VERSION + 1).unwrap();
        assert_eq!(prepare(&mut connection, 3).unwrap_err().kind(), ErrorKind::JournalVersion);
    }
}
