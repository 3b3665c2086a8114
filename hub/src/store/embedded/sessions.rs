//! Rows of sessions that are kept.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::future::{BoxFuture, FutureExt, ready};
use rusqlite::{Connection, OptionalExtension, params};
use whimbrel::Result;

use super::database::{Database, failed};
use crate::store::SessionRow;

/// Reads and writes sessions, each reader seeing what was handed in before it.
#[derive(Default)]
pub(super) struct Sessions {
    /// Changes that a reader with a connection of its own may not see yet.
    changing: Arc<AtomicUsize>,
}

impl Sessions {
    pub(super) fn get(
        &self,
        database: &Database,
        device: &str,
        module: Option<&str>,
    ) -> BoxFuture<'static, Result<Option<SessionRow>>> {
        const OPERATION: &str = "sessions.get";
        if self.changing.load(Ordering::Acquire) == 0 {
            // A moment, as for the identity itself; most devices connect while nothing changes.
            return ready(database.read_blocking(OPERATION, |db| get(db, device, module))).boxed();
        }
        let (device, module) = (device.to_owned(), module.map(str::to_owned));
        database
            .submit(OPERATION, move |db| {
                get(db, &device, module.as_deref()).map_err(|error| failed(OPERATION, &error))
            })
            .boxed()
    }

    pub(super) fn keep(
        &self,
        database: &Database,
        device: &str,
        module: Option<&str>,
        session: Option<SessionRow>,
    ) -> BoxFuture<'static, Result<()>> {
        const OPERATION: &str = "sessions.keep";
        let (device, module) = (device.to_owned(), module.unwrap_or_default().to_owned());
        let changing = Changing::new(&self.changing);
        database
            .submit(OPERATION, move |db| {
                keep(db, &device, &module, session.as_ref()).map_err(|error| failed(OPERATION, &error))?;
                // Handed out, so that it lasts until the transaction is over.
                Ok(changing)
            })
            .map(|kept| kept.map(drop))
            .boxed()
    }
}

/// A change on its way.
struct Changing(Arc<AtomicUsize>);

impl Changing {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn get(db: &Connection, device: &str, module: Option<&str>) -> rusqlite::Result<Option<SessionRow>> {
    db.prepare_cached("SELECT generation, subscriptions FROM sessions WHERE device = ?1 AND module = ?2")?
        .query_row(params![device, module.unwrap_or_default()], |row| {
            Ok(SessionRow { generation: row.get::<_, Arc<str>>(0)?, subscriptions: row.get(1)? })
        })
        .optional()
}

fn keep(db: &Connection, device: &str, module: &str, session: Option<&SessionRow>) -> rusqlite::Result<()> {
    match session {
        Some(session) => db
            .prepare_cached(
                "INSERT OR REPLACE INTO sessions (device, module, generation, subscriptions)
                 SELECT ?1, ?2, ?3, ?4
                 WHERE EXISTS (SELECT 1 FROM devices WHERE id = ?1 AND ?2 = '' AND generation = ?3)
                    OR EXISTS (SELECT 1 FROM modules WHERE device = ?1 AND id = ?2 AND generation = ?3)",
            )?
            .execute(params![device, module, session.generation, session.subscriptions]),
        None => db
            .prepare_cached("DELETE FROM sessions WHERE device = ?1 AND module = ?2")?
            .execute(params![device, module]),
    }
    .map(drop)
}
