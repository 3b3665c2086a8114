//! Rows of devices and policies.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rusqlite::{Connection, OptionalExtension, Row, params};
use whimbrel::{Error, ErrorKind, Result, auth::Key};

use super::{commands, database::failed};
use crate::store::{
    Authentication, Changed, Device, DeviceChange, DeviceCounts, DeviceUpdate, KeySlot, NewDevice, PolicyRow,
};

const SAS: &str = "sas";
const SELF_SIGNED: &str = "selfSigned";
const CERTIFICATE_AUTHORITY: &str = "certificateAuthority";
const NONE: &str = "none";

/// Ticks of 100 ns between year 1 and 1970: generations look like Azure's.
const TICKS_TO_1970: u64 = 621_355_968_000_000_000;

const COLUMNS: &str =
    "id, generation, etag, enabled, authentication, first, second, created_ms, status_reason, status_ms";

pub(super) fn get(db: &Connection, id: &str) -> rusqlite::Result<Option<Device>> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM devices WHERE id = ?1"))?
        .query_row([id], device)
        .optional()
}

pub(super) fn list(db: &Connection, after: Option<&str>, limit: usize) -> rusqlite::Result<Vec<Device>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    // No id is empty, so all ids are behind the empty text.
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM devices WHERE id > ?1 ORDER BY id LIMIT ?2"))?
        .query_map(params![after.unwrap_or(""), limit], device)?
        .collect()
}

pub(super) fn counts(db: &Connection) -> rusqlite::Result<DeviceCounts> {
    db.query_row("SELECT count(*), coalesce(sum(enabled), 0) FROM devices", [], |row| {
        Ok(DeviceCounts { total: row.get(0)?, enabled: row.get(1)? })
    })
}

pub(super) fn add(db: &Connection, device: &NewDevice, now: SystemTime) -> Result<Device> {
    const OPERATION: &str = "registry.create";
    let id = device.id.as_str();
    let known = get(db, id).map_err(|error| failed(OPERATION, &error))?;
    if known.is_some() {
        return Err(
            Error::new(ErrorKind::Conflict, OPERATION, "the device exists already").with("device", id)
        );
    }
    let insert = || {
        let (generation, etag) = (next_generation(db, now)?, next_etag(db)?);
        let (kind, first, second) = columns(&device.authentication);
        db.prepare_cached(&format!(
            "INSERT INTO devices ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, NULL)"
        ))?
        .execute(params![
            id,
            generation,
            etag,
            device.enabled,
            kind,
            first,
            second,
            millis(now),
            device.status_reason
        ])?;
        get(db, id)
    };
    insert().map_err(|error| failed(OPERATION, &error))?.ok_or_else(|| unknown(OPERATION, id))
}

pub(super) fn change(
    db: &Connection,
    id: &str,
    change: &DeviceChange,
    etag: Option<&str>,
    now: SystemTime,
) -> Result<Changed<Device>> {
    const OPERATION: &str = "registry.change";
    let before = current(db, OPERATION, id, etag)?;
    let mut device = before.clone();
    match (change, &mut device.authentication) {
        (DeviceChange::Enabled(enabled), _) => device.enabled = *enabled,
        (DeviceChange::Key(KeySlot::Primary, key), Authentication::Sas { primary, .. }) => {
            *primary = key.clone();
        }
        (DeviceChange::Key(KeySlot::Secondary, key), Authentication::Sas { secondary, .. }) => {
            *secondary = key.clone();
        }
        (DeviceChange::Key(..), _) => {
            let text = "the device has no keys: it proves itself by a certificate";
            return Err(Error::new(ErrorKind::InvalidArgument, OPERATION, text).with("device", id));
        }
        (DeviceChange::Authentication(new), old) => *old = new.clone(),
        (DeviceChange::Update(DeviceUpdate { enabled, status_reason, authentication }), old) => {
            if let Some(new) = authentication {
                *old = new.after(old);
            }
            device.enabled = enabled.unwrap_or(device.enabled);
            if let Some(reason) = status_reason {
                device.status_reason.clone_from(reason);
            }
        }
    }
    if (device.enabled, &device.status_reason) != (before.enabled, &before.status_reason) {
        device.status_changed_at = Some(now);
    }
    let update = || {
        let etag = next_etag(db)?;
        let (kind, first, second) = columns(&device.authentication);
        db.prepare_cached(
            "UPDATE devices SET etag = ?2, enabled = ?3, authentication = ?4, first = ?5, second = ?6,
             status_reason = ?7, status_ms = ?8 WHERE id = ?1",
        )?
        .execute(params![
            id,
            etag,
            device.enabled,
            kind,
            first,
            second,
            device.status_reason,
            device.status_changed_at.map(millis)
        ])?;
        get(db, id)
    };
    let now = update().map_err(|error| failed(OPERATION, &error))?.ok_or_else(|| unknown(OPERATION, id))?;
    let revoked = !now.enabled || now.authentication != before.authentication;
    Ok(Changed { now, revoked })
}

pub(super) fn remove(db: &Connection, id: &str, etag: Option<&str>) -> Result<()> {
    const OPERATION: &str = "registry.delete";
    current(db, OPERATION, id, etag)?;
    let delete = || {
        db.prepare_cached("DELETE FROM devices WHERE id = ?1")?.execute([id])?;
        db.prepare_cached("DELETE FROM sessions WHERE device = ?1")?.execute([id])?;
        db.prepare_cached("DELETE FROM modules WHERE device = ?1")?.execute([id])?;
        commands::forget(db, id)?;
        db.prepare_cached("DELETE FROM log_marks WHERE device = ?1")?.execute([id])
    };
    delete().map(drop).map_err(|error| failed(OPERATION, &error))
}

/// The policies after adding those of `wanted` that are missing.
pub(super) fn policies(db: &Connection, wanted: &[PolicyRow]) -> rusqlite::Result<Vec<PolicyRow>> {
    let mut add = db.prepare_cached(
        "INSERT OR IGNORE INTO policies (name, rights, first, second) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for policy in wanted {
        let keys = (policy.primary.to_base64(), policy.secondary.to_base64());
        add.execute(params![policy.name, policy.rights, keys.0, keys.1])?;
    }
    db.prepare_cached("SELECT name, rights, first, second FROM policies ORDER BY name")?
        .query_map([], |row| {
            Ok(PolicyRow {
                name: row.get(0)?,
                rights: row.get(1)?,
                primary: key(row, 2)?,
                secondary: key(row, 3)?,
            })
        })?
        .collect()
}

/// The device, when `etag` allows to change it.
fn current(db: &Connection, operation: &'static str, id: &str, etag: Option<&str>) -> Result<Device> {
    let device =
        get(db, id).map_err(|error| failed(operation, &error))?.ok_or_else(|| unknown(operation, id))?;
    if etag.is_some_and(|wanted| wanted != device.etag) {
        let text = "the device was changed meanwhile: read it again";
        return Err(Error::new(ErrorKind::Conflict, operation, text)
            .with("device", id)
            .with("etag", device.etag));
    }
    Ok(device)
}

pub(super) fn unknown(operation: &'static str, id: &str) -> Error {
    Error::new(ErrorKind::NotFound, operation, "there is no such device").with("device", id)
}

/// A generation that no identity had before.
pub(super) fn next_generation(db: &Connection, now: SystemTime) -> rusqlite::Result<String> {
    let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let ticks = TICKS_TO_1970 + u64::try_from(since_1970.as_nanos() / 100).unwrap_or(0);
    at_least_next(db, "generation", ticks).map(|generation| generation.to_string())
}

pub(super) fn next_etag(db: &Connection) -> rusqlite::Result<i64> {
    at_least_next(db, "etag", 1)
}

/// Counts a number of `meta` up, at least to `floor`.
fn at_least_next(db: &Connection, name: &str, floor: u64) -> rusqlite::Result<i64> {
    db.prepare_cached(
        "INSERT INTO meta (name, value) VALUES (?1, ?2)
         ON CONFLICT (name) DO UPDATE SET value = max(value + 1, excluded.value) RETURNING value",
    )?
    .query_row(params![name, floor], |row| row.get(0))
}

/// How it proves itself, as three columns.
pub(super) fn columns(authentication: &Authentication) -> (&'static str, Option<String>, Option<String>) {
    match authentication {
        Authentication::Sas { primary, secondary } => {
            (SAS, Some(primary.to_base64()), Some(secondary.to_base64()))
        }
        Authentication::SelfSigned { primary, secondary } => {
            (SELF_SIGNED, Some(primary.clone()), secondary.clone())
        }
        Authentication::CertificateAuthority => (CERTIFICATE_AUTHORITY, None, None),
        Authentication::None => (NONE, None, None),
    }
}

/// What [`columns`] gave, standing in a row from column `at` on.
pub(super) fn authentication(row: &Row<'_>, at: usize) -> rusqlite::Result<Authentication> {
    let kind: String = row.get(at)?;
    Ok(match kind.as_str() {
        SAS => Authentication::Sas { primary: key(row, at + 1)?, secondary: key(row, at + 2)? },
        SELF_SIGNED => Authentication::SelfSigned { primary: row.get(at + 1)?, secondary: row.get(at + 2)? },
        CERTIFICATE_AUTHORITY => Authentication::CertificateAuthority,
        NONE => Authentication::None,
        _ => return Err(unreadable(at, "an unknown way to authenticate")),
    })
}

pub(super) fn etag_text(etag: i64) -> String {
    STANDARD.encode(etag.to_string())
}

fn device(row: &Row<'_>) -> rusqlite::Result<Device> {
    Ok(Device {
        id: row.get::<_, Arc<str>>(0)?,
        generation: row.get::<_, Arc<str>>(1)?,
        etag: etag_text(row.get(2)?),
        enabled: row.get(3)?,
        authentication: authentication(row, 4)?,
        created_at: time(row.get(7)?),
        status_reason: row.get(8)?,
        status_changed_at: row.get::<_, Option<u64>>(9)?.map(time),
    })
}

fn key(row: &Row<'_>, column: usize) -> rusqlite::Result<Key> {
    let text: String = row.get(column)?;
    Key::from_base64(&text).map_err(|_| unreadable(column, "a key that is not base64"))
}

fn unreadable(column: usize, what: &'static str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, what.into())
}

pub(super) fn time(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}

pub(super) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0)
}
