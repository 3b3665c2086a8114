//! Tables of `hub.sqlite`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::Connection;
use whimbrel::{Error, ErrorKind, Result};

use super::{database::failed, log::millis};

/// How the tables came to be what they are: step n leads from version n to version n + 1 (`PRAGMA user_version`). A
/// step that was released is never changed; new ones go last.
const STEPS: &[&str] = &[FIRST, SESSIONS, MODULES_AND_STATUS, COMMANDS, OWNERSHIPS];

/// `meta` holds the numbers that exist once. Times are milliseconds since 1970. `log_*` is the index of the event log
/// as of some moment; the log itself is the truth, and what came after that moment is read from it.
const FIRST: &str = "
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

/// Sessions that are kept. The module of a device's own session is empty.
const SESSIONS: &str = "
CREATE TABLE sessions (
    device TEXT NOT NULL,
    module TEXT NOT NULL,
    generation TEXT NOT NULL,
    subscriptions INTEGER NOT NULL,
    PRIMARY KEY (device, module)
) STRICT, WITHOUT ROWID;
";

/// Why a device has its status, since when, and the modules of devices.
const MODULES_AND_STATUS: &str = "
ALTER TABLE devices ADD COLUMN status_reason TEXT;
ALTER TABLE devices ADD COLUMN status_ms INTEGER;

CREATE TABLE modules (
    device TEXT NOT NULL,
    id TEXT NOT NULL,
    generation TEXT NOT NULL,
    etag INTEGER NOT NULL,
    managed_by TEXT,
    authentication TEXT NOT NULL,
    first TEXT,
    second TEXT,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (device, id)
) STRICT, WITHOUT ROWID;
";

/// A number from `AUTOINCREMENT` is never used again, so the numbers of a device's commands also rise across its deletion
/// and creation. Of what is left of ended commands, ids rise with the time of the end: old rows are found at the front.
const COMMANDS: &str = "
CREATE TABLE commands (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    device TEXT NOT NULL,
    generation TEXT NOT NULL,
    message_id TEXT,
    feedback TEXT NOT NULL,
    enqueued_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    delivery_count INTEGER NOT NULL,
    message BLOB NOT NULL
) STRICT;
CREATE INDEX commands_by_device ON commands (device);
CREATE INDEX commands_by_expiry ON commands (expires_ms);

CREATE TABLE command_outcomes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    device TEXT NOT NULL,
    message_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    generation TEXT NOT NULL,
    outcome TEXT NOT NULL,
    ended_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX command_outcomes_by_message ON command_outcomes (device, message_id, sequence);

CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    device TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    enqueued_ms INTEGER NOT NULL,
    ended_ms INTEGER NOT NULL,
    delivery_count INTEGER NOT NULL,
    message BLOB NOT NULL
) STRICT;
CREATE INDEX dead_letters_by_device ON dead_letters (device);

CREATE TABLE command_feedback (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    device TEXT NOT NULL,
    generation TEXT NOT NULL,
    message_id TEXT,
    outcome TEXT NOT NULL,
    ended_ms INTEGER NOT NULL,
    delivery_count INTEGER NOT NULL
) STRICT;
CREATE INDEX command_feedback_by_device ON command_feedback (device);
";

/// Which reader of a consumer group has which partition, and until when.
const OWNERSHIPS: &str = "
CREATE TABLE ownerships (
    group_name TEXT NOT NULL COLLATE NOCASE,
    partition INTEGER NOT NULL,
    owner TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    etag INTEGER NOT NULL,
    claimed_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    PRIMARY KEY (group_name, partition)
) STRICT, WITHOUT ROWID;
";

/// Settings of the connection, the tables in their newest form, and the number of partitions, which never changes. A
/// folder that does not know since when it is there learns it now.
pub(super) fn prepare(connection: &mut Connection, partitions: u32) -> Result<()> {
    const OPERATION: &str = "store.open";
    let version = settle(connection).map_err(|error| failed(OPERATION, &error))?;
    if version > STEPS.len() {
        return Err(Error::new(
            ErrorKind::JournalVersion,
            OPERATION,
            "the data folder was written by a newer version; use that version or another folder",
        )
        .with("version", version)
        .with("known", STEPS.len()));
    }
    if version < STEPS.len() {
        bring_up(connection, version, partitions).map_err(|error| failed(OPERATION, &error))?;
    }
    let now = millis(SystemTime::now());
    connection
        .execute("INSERT OR IGNORE INTO meta (name, value) VALUES ('created_ms', ?1)", [now])
        .map_err(|error| failed(OPERATION, &error))?;
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

/// When the data folder was made.
pub(super) fn created_at(connection: &Connection) -> rusqlite::Result<SystemTime> {
    let millis = connection
        .query_row("SELECT value FROM meta WHERE name = 'created_ms'", [], |row| row.get::<_, u64>(0))?;
    Ok(UNIX_EPOCH + Duration::from_millis(millis))
}

/// From any older version, 0 being none, in one transaction.
fn bring_up(connection: &mut Connection, version: usize, partitions: u32) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for step in STEPS.iter().skip(version) {
        transaction.execute_batch(step)?;
    }
    if version == 0 {
        transaction.execute("INSERT INTO meta (name, value) VALUES ('partitions', ?1)", [partitions])?;
    }
    transaction.pragma_update(None, "user_version", STEPS.len())?;
    transaction.commit()
}

fn settle(connection: &Connection) -> rusqlite::Result<usize> {
    connection.busy_timeout(Duration::from_secs(5))?;
    // A database in memory answers `memory`.
    connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.set_prepared_statement_cache_capacity(128);
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_the_first_version_is_brought_up_and_keeps_its_rows() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(FIRST).unwrap();
        connection
            .execute_batch(
                "INSERT INTO meta (name, value) VALUES ('partitions', 4);
                 INSERT INTO devices VALUES ('d', '638', 1, 1, 'certificateAuthority', NULL, NULL, 5);
                 PRAGMA user_version = 1;",
            )
            .unwrap();
        prepare(&mut connection, 4).unwrap();
        let version: usize = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(version, STEPS.len());
        let generation: String = connection
            .query_row("SELECT generation FROM devices WHERE id = 'd'", [], |row| row.get(0))
            .unwrap();
        assert_eq!(generation, "638");
        prepare(&mut connection, 4).unwrap();
    }

    #[test]
    fn a_newer_version_is_left_alone() {
        let mut connection = Connection::open_in_memory().unwrap();
        prepare(&mut connection, 4).unwrap();
        connection.pragma_update(None, "user_version", STEPS.len() + 1).unwrap();
        assert_eq!(prepare(&mut connection, 4).unwrap_err().kind(), ErrorKind::JournalVersion);
    }
}
