//! The engine in this process: events in core's journal, everything else in SQLite.

mod commands;
mod database;
mod devices;
mod feedback;
mod groups;
mod log;
mod marks;
mod modules;
mod points;
mod reader;
mod record;
mod recovery;
mod saved;
mod schema;
mod sessions;
mod tail;
mod upkeep;
mod voids;

use std::{sync::Arc, time::SystemTime};

use futures_util::future::{BoxFuture, FutureExt};
use rusqlite::Connection;
use whimbrel::{
    Error, ErrorKind, Result,
    journal::{Disk, MemoryDisk, RealDisk, Ticket},
};

use super::{
    Authentication, Changed, CommandChange, CommandChanged, CommandQueue, CommandRetention, CommandStatusRow,
    DeadLetterRow, Device, DeviceChange, DeviceCounts, DueCommand, Entry, FeedbackRow, LogReader, Module,
    ModuleUpdate, NewDevice, Ownership, OwnershipClaim, PartitionState, Place, PolicyRow, Position,
    Retention, SessionRow, Store, StoreOptions,
};
use database::{Database, failed, locked};
use log::{EventLog, MAX_PARTITIONS};
use reader::PartitionReader;
use sessions::Sessions;
use upkeep::Upkeep;

#[cfg(test)]
pub(crate) use record::AUTH_METHODS;

const OPEN: &str = "store.open";

/// The engine in this process.
pub struct Embedded {
    log: Arc<EventLog>,
    database: Database,
    upkeep: tokio::sync::Mutex<Upkeep>,
    sessions: Sessions,
    partitions: u32,
    created_at: SystemTime,
}

impl Embedded {
    /// Opens or creates the data folder: events in `events/`, everything else in `hub.sqlite`. Blocks for as long as
    /// reading the end of the log takes.
    ///
    /// # Errors
    /// `InUse` naming the process that has the folder; `InvalidArgument` for a number of partitions that is not the
    /// one the folder was created with; `JournalVersion`, `JournalIo`, `JournalCorrupt`, `DiskFull`.
    pub fn open(options: &StoreOptions) -> Result<Arc<Self>> {
        let disk: Arc<dyn Disk> = match &options.folder {
            Some(folder) => Arc::new(RealDisk::create(folder.join("events")).map_err(|error| {
                Error::new(ErrorKind::JournalIo, OPEN, "the data folder cannot be created")
                    .with("folder", folder.display())
                    .caused_by(error)
            })?),
            None => Arc::new(MemoryDisk::default()),
        };
        Self::open_on(disk, options)
    }

    /// [`Embedded::open`] with the events on another disk.
    ///
    /// # Errors
    /// As there.
    pub fn open_on(disk: Arc<dyn Disk>, options: &StoreOptions) -> Result<Arc<Self>> {
        if !(1..=MAX_PARTITIONS as u32).contains(&options.partitions) {
            return Err(Error::new(ErrorKind::InvalidArgument, OPEN, "a hub has 1 to 32 partitions")
                .with("partitions", options.partitions));
        }
        // The journal's lock keeps a second process out of both.
        let (journal, found) = recovery::open_journal(disk, options)?;
        let path = options.folder.as_ref().map(|folder| folder.join("hub.sqlite"));
        let database = Database::open(path.as_deref(), options.partitions)?;
        let created_at = database.read_blocking(OPEN, schema::created_at)?;
        let log = Arc::new(recovery::open(journal, &found, &database, options)?);
        Ok(Arc::new(Self {
            log,
            database,
            upkeep: Default::default(),
            sessions: Sessions::default(),
            partitions: options.partitions,
            created_at,
        }))
    }
}

impl Store for Embedded {
    fn partition_count(&self) -> u32 {
        self.partitions
    }

    fn created_at(&self) -> SystemTime {
        self.created_at
    }

    fn append(&self, batch: &[Entry<'_>], places: &mut Vec<Place>) -> Result<Ticket> {
        self.log.append(batch, places)
    }

    fn durable(&self, ticket: Ticket) -> BoxFuture<'_, Result<()>> {
        self.log.journal.durable(ticket).boxed()
    }

    fn partitions(&self) -> Vec<PartitionState> {
        self.log.partitions()
    }

    fn reader(&self, partition: u32, from: Position) -> Result<Box<dyn LogReader>> {
        Ok(Box::new(PartitionReader::new(Arc::clone(&self.log), partition, from)?))
    }

    fn maintain(&self, retention: Retention, now: SystemTime) -> BoxFuture<'_, Result<()>> {
        async move { self.upkeep.lock().await.run(&self.log, &self.database, retention, now).await }.boxed()
    }

    fn device(&self, id: &str) -> Result<Option<Device>> {
        self.database.read_blocking("registry.get", |db| devices::get(db, id))
    }

    fn devices(&self, after: Option<&str>, limit: usize) -> BoxFuture<'_, Result<Vec<Device>>> {
        let after = after.map(str::to_owned);
        self.database.read("registry.list", move |db| devices::list(db, after.as_deref(), limit)).boxed()
    }

    fn device_counts(&self) -> BoxFuture<'_, Result<DeviceCounts>> {
        self.database.read("registry.counts", devices::counts).boxed()
    }

    fn add_device(&self, device: NewDevice, now: SystemTime) -> BoxFuture<'_, Result<Device>> {
        self.database.write("registry.create", move |db| devices::add(db, &device, now)).boxed()
    }

    fn change_device(
        &self,
        id: &str,
        change: DeviceChange,
        etag: Option<&str>,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<Changed<Device>>> {
        let (id, etag) = (id.to_owned(), etag.map(str::to_owned));
        self.database
            .write("registry.change", move |db| devices::change(db, &id, &change, etag.as_deref(), now))
            .boxed()
    }

    fn remove_device(&self, id: &str, etag: Option<&str>) -> BoxFuture<'_, Result<()>> {
        let (id, etag) = (id.to_owned(), etag.map(str::to_owned));
        async move {
            let device = id.clone();
            self.database
                .write("registry.delete", move |db| devices::remove(db, &device, etag.as_deref()))
                .await?;
            locked(&self.log.state).marks.forget(&id);
            Ok(())
        }
        .boxed()
    }

    fn session(&self, device: &str, module: Option<&str>) -> BoxFuture<'static, Result<Option<SessionRow>>> {
        self.sessions.get(&self.database, device, module)
    }

    fn keep_session(
        &self,
        device: &str,
        module: Option<&str>,
        session: Option<SessionRow>,
    ) -> BoxFuture<'static, Result<()>> {
        self.sessions.keep(&self.database, device, module, session)
    }

    fn module(&self, device: &str, id: &str) -> Result<Option<Module>> {
        self.database.read_blocking("registry.module", |db| modules::get(db, device, id))
    }

    fn modules(&self, device: &str) -> BoxFuture<'_, Result<Vec<Module>>> {
        const OPERATION: &str = "registry.modules";
        let device = device.to_owned();
        async move {
            let wanted = device.clone();
            let found = self.database.read(OPERATION, move |db| {
                devices::get(db, &wanted)?.map(|_| modules::list(db, &wanted)).transpose()
            });
            found.await?.ok_or_else(|| devices::unknown(OPERATION, &device))
        }
        .boxed()
    }

    fn add_module(
        &self,
        device: &str,
        id: &str,
        authentication: Authentication,
        managed_by: Option<&str>,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<Module>> {
        let (device, id, managed_by) = (device.to_owned(), id.to_owned(), managed_by.map(str::to_owned));
        self.database
            .write("registry.create_module", move |db| {
                modules::add(db, &device, &id, &authentication, managed_by.as_deref(), now)
            })
            .boxed()
    }

    fn change_module(
        &self,
        device: &str,
        id: &str,
        update: ModuleUpdate,
        etag: Option<&str>,
    ) -> BoxFuture<'_, Result<Changed<Module>>> {
        let (device, id, etag) = (device.to_owned(), id.to_owned(), etag.map(str::to_owned));
        self.database
            .write("registry.change_module", move |db| {
                modules::change(db, &device, &id, &update, etag.as_deref())
            })
            .boxed()
    }

    fn remove_module(&self, device: &str, id: &str, etag: Option<&str>) -> BoxFuture<'_, Result<()>> {
        let (device, id, etag) = (device.to_owned(), id.to_owned(), etag.map(str::to_owned));
        self.database
            .write("registry.delete_module", move |db| modules::remove(db, &device, &id, etag.as_deref()))
            .boxed()
    }

    fn policies(&self, wanted: Vec<PolicyRow>) -> BoxFuture<'_, Result<Vec<PolicyRow>>> {
        const OPERATION: &str = "access.policies";
        self.database
            .write(OPERATION, move |db| {
                devices::policies(db, &wanted).map_err(|error| failed(OPERATION, &error))
            })
            .boxed()
    }

    fn groups(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        self.database.read("events.groups", groups::list).boxed()
    }

    fn add_group(&self, name: &str) -> BoxFuture<'_, Result<()>> {
        let name = name.to_owned();
        self.database.write("events.add_group", move |db| groups::add(db, &name)).boxed()
    }

    fn checkpoint(&self, group: &str, partition: u32) -> BoxFuture<'_, Result<Option<u64>>> {
        const OPERATION: &str = "events.checkpoint";
        let group = group.to_owned();
        async move {
            let wanted = group.clone();
            let found = self.database.read(OPERATION, move |db| {
                groups::exists(db, &wanted)?.then(|| groups::position(db, &wanted, partition)).transpose()
            });
            found.await?.ok_or_else(|| groups::unknown(OPERATION, &group))
        }
        .boxed()
    }

    fn set_checkpoint(&self, group: &str, partition: u32, sequence: u64) -> BoxFuture<'_, Result<()>> {
        let group = group.to_owned();
        self.database
            .write("events.set_checkpoint", move |db| groups::set_position(db, &group, partition, sequence))
            .boxed()
    }

    fn change_commands(
        &self,
        changes: Vec<CommandChange>,
    ) -> BoxFuture<'_, Result<Vec<Result<CommandChanged>>>> {
        const OPERATION: &str = "commands.change";
        let change = move |db: &Connection| -> rusqlite::Result<Vec<_>> {
            changes.iter().map(|change| commands::apply(db, change)).collect()
        };
        self.database
            .write(OPERATION, move |db| change(db).map_err(|error| failed(OPERATION, &error)))
            .boxed()
    }

    fn command_queue(&self, device: &str, generation: &str) -> BoxFuture<'_, Result<Option<CommandQueue>>> {
        let (device, generation) = (device.to_owned(), generation.to_owned());
        self.database.read("commands.load", move |db| commands::queue(db, &device, &generation)).boxed()
    }

    fn command_count(&self, device: &str) -> BoxFuture<'_, Result<u64>> {
        let device = device.to_owned();
        self.database.read("commands.pending", move |db| commands::count(db, &device)).boxed()
    }

    fn due_commands(
        &self,
        now: SystemTime,
        after: Option<&DueCommand>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<DueCommand>>> {
        let after = after.map(|due| (due.expires_at, due.sequence));
        self.database.read("commands.expire", move |db| commands::due(db, now, after, limit)).boxed()
    }

    fn command_status(
        &self,
        device: &str,
        message_id: &str,
    ) -> BoxFuture<'_, Result<Option<CommandStatusRow>>> {
        let (device, message_id) = (device.to_owned(), message_id.to_owned());
        self.database.read("commands.status", move |db| commands::status(db, &device, &message_id)).boxed()
    }

    fn dead_letters(
        &self,
        device: Option<&str>,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<DeadLetterRow>>> {
        let device = device.map(str::to_owned);
        self.database
            .read("commands.dead_letters", move |db| {
                commands::dead_letters(db, device.as_deref(), after, limit)
            })
            .boxed()
    }

    fn feedback(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<FeedbackRow>>> {
        self.database.read("feedback.next", move |db| feedback::list(db, after, limit)).boxed()
    }

    fn change_feedback(&self, count: Vec<u64>, remove: Vec<u64>) -> BoxFuture<'_, Result<()>> {
        const OPERATION: &str = "feedback.settle";
        self.database
            .write(OPERATION, move |db| {
                feedback::change(db, &count, &remove).map_err(|error| failed(OPERATION, &error))
            })
            .boxed()
    }

    fn trim_commands(&self, before: CommandRetention) -> BoxFuture<'_, Result<bool>> {
        const OPERATION: &str = "commands.trim";
        self.database
            .write(OPERATION, move |db| commands::trim(db, before).map_err(|error| failed(OPERATION, &error)))
            .boxed()
    }

    fn ownerships(&self, group: &str, now: SystemTime) -> BoxFuture<'_, Result<Vec<Ownership>>> {
        const OPERATION: &str = "events.ownerships";
        let group = group.to_owned();
        async move {
            let wanted = group.clone();
            let found = self.database.read(OPERATION, move |db| {
                groups::exists(db, &wanted)?.then(|| groups::ownerships(db, &wanted, now)).transpose()
            });
            found.await?.ok_or_else(|| groups::unknown(OPERATION, &group))
        }
        .boxed()
    }

    fn claim_ownership(
        &self,
        group: &str,
        claim: OwnershipClaim,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<Option<Ownership>>> {
        let group = group.to_owned();
        self.database.write("events.claim", move |db| groups::claim(db, &group, &claim, now)).boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        async move {
            self.log.stop();
            let saved = self.upkeep.lock().await.save(&self.log, &self.database, SystemTime::now()).await;
            self.database.close().await;
            let journal = self.log.journal.clone();
            let closed = tokio::task::spawn_blocking(move || journal.close()).await.map_err(|error| {
                Error::new(ErrorKind::Internal, "store.close", "closing did not finish").caused_by(error)
            })?;
            closed.and(saved)
        }
        .boxed()
    }
}
