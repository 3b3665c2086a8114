//! Rows of modules.

use std::{sync::Arc, time::SystemTime};

use rusqlite::{Connection, OptionalExtension, Row, params};
use whimbrel::{Error, ErrorKind, Result};

use super::{database::failed, devices};
use crate::store::{Authentication, Changed, MAX_MODULES, Module, ModuleUpdate};

const COLUMNS: &str = "device, id, generation, etag, managed_by, authentication, first, second, created_ms";

pub(super) fn get(db: &Connection, device: &str, id: &str) -> rusqlite::Result<Option<Module>> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM modules WHERE device = ?1 AND id = ?2"))?
        .query_row([device, id], module)
        .optional()
}

pub(super) fn list(db: &Connection, device: &str) -> rusqlite::Result<Vec<Module>> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM modules WHERE device = ?1 ORDER BY id"))?
        .query_map([device], module)?
        .collect()
}

pub(super) fn add(
    db: &Connection,
    device: &str,
    id: &str,
    authentication: &Authentication,
    managed_by: Option<&str>,
    now: SystemTime,
) -> Result<Module> {
    const OPERATION: &str = "registry.create_module";
    let known = || Ok((devices::get(db, device)?.is_some(), list(db, device)?));
    let (has_device, modules) = known().map_err(|error| failed(OPERATION, &error))?;
    if !has_device {
        return Err(devices::unknown(OPERATION, device));
    }
    if modules.iter().any(|module| &*module.id == id) {
        return Err(Error::new(ErrorKind::Conflict, OPERATION, "the module exists already")
            .with("device", device)
            .with("module", id));
    }
    if modules.len() >= MAX_MODULES {
        let text = "the device has as many modules as it may have";
        return Err(Error::new(ErrorKind::InvalidArgument, OPERATION, text)
            .with("device", device)
            .with("limit", MAX_MODULES));
    }
    let insert = || {
        let (generation, etag) = (devices::next_generation(db, now)?, devices::next_etag(db)?);
        let (kind, first, second) = devices::columns(authentication);
        db.prepare_cached(&format!(
            "INSERT INTO modules ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
        ))?
        .execute(params![
            device,
            id,
            generation,
            etag,
            managed_by,
            kind,
            first,
            second,
            devices::millis(now)
        ])?;
        get(db, device, id)
    };
    insert().map_err(|error| failed(OPERATION, &error))?.ok_or_else(|| unknown(OPERATION, device, id))
}

pub(super) fn change(
    db: &Connection,
    device: &str,
    id: &str,
    update: &ModuleUpdate,
    etag: Option<&str>,
) -> Result<Changed<Module>> {
    const OPERATION: &str = "registry.change_module";
    let before = current(db, OPERATION, device, id, etag)?;
    let authentication = match &update.authentication {
        Some(new) => new.after(&before.authentication),
        None => before.authentication.clone(),
    };
    let managed_by = update.managed_by.as_ref().unwrap_or(&before.managed_by);
    let change = || {
        let etag = devices::next_etag(db)?;
        let (kind, first, second) = devices::columns(&authentication);
        db.prepare_cached(
            "UPDATE modules SET etag = ?3, managed_by = ?4, authentication = ?5, first = ?6, second = ?7
             WHERE device = ?1 AND id = ?2",
        )?
        .execute(params![device, id, etag, managed_by, kind, first, second])?;
        get(db, device, id)
    };
    let now =
        change().map_err(|error| failed(OPERATION, &error))?.ok_or_else(|| unknown(OPERATION, device, id))?;
    let revoked = now.authentication != before.authentication;
    Ok(Changed { now, revoked })
}

pub(super) fn remove(db: &Connection, device: &str, id: &str, etag: Option<&str>) -> Result<()> {
    const OPERATION: &str = "registry.delete_module";
    let module = current(db, OPERATION, device, id, etag)?;
    let delete = || {
        db.prepare_cached("DELETE FROM modules WHERE device = ?1 AND id = ?2")?.execute([device, id])?;
        db.prepare_cached("DELETE FROM sessions WHERE device = ?1 AND module = ?2")?.execute([device, id])?;
        // What its outboxes sent; the marks of a module go by its own generation.
        db.prepare_cached("DELETE FROM log_marks WHERE device = ?1 AND generation = ?2")?
            .execute([device, &module.generation])
    };
    delete().map(drop).map_err(|error| failed(OPERATION, &error))
}

/// The module, when `etag` allows to change it.
fn current(
    db: &Connection,
    operation: &'static str,
    device: &str,
    id: &str,
    etag: Option<&str>,
) -> Result<Module> {
    let known = || Ok((devices::get(db, device)?.is_some(), get(db, device, id)?));
    let (has_device, module) = known().map_err(|error| failed(operation, &error))?;
    if !has_device {
        return Err(devices::unknown(operation, device));
    }
    let module = module.ok_or_else(|| unknown(operation, device, id))?;
    if etag.is_some_and(|wanted| wanted != module.etag) {
        let text = "the module was changed meanwhile: read it again";
        return Err(Error::new(ErrorKind::Conflict, operation, text)
            .with("device", device)
            .with("module", id)
            .with("etag", module.etag));
    }
    Ok(module)
}

fn unknown(operation: &'static str, device: &str, id: &str) -> Error {
    Error::new(ErrorKind::NotFound, operation, "there is no such module")
        .with("device", device)
        .with("module", id)
}

fn module(row: &Row<'_>) -> rusqlite::Result<Module> {
    Ok(Module {
        device: row.get::<_, Arc<str>>(0)?,
        id: row.get::<_, Arc<str>>(1)?,
        generation: row.get::<_, Arc<str>>(2)?,
        etag: devices::etag_text(row.get(3)?),
        managed_by: row.get(4)?,
        authentication: devices::authentication(row, 5)?,
        created_at: devices::time(row.get(8)?),
    })
}
