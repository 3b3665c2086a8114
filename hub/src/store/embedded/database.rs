//! SQLite: one thread writes and puts everything that is ready into one transaction; readers have their own
//! connections.

use std::{
    fs::OpenOptions,
    future::Future,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};
use whimbrel::{Error, ErrorKind, Result};

use super::schema;

/// Jobs in one transaction.
const GROUP: usize = 512;
/// Idle connections kept for readers.
const IDLE_READERS: usize = 4;

/// A handle; clones share the database.
#[derive(Clone)]
pub(super) struct Database {
    shared: Arc<Shared>,
    /// As long as there are callers who wait for their outcome.
    jobs: mpsc::UnboundedSender<Work>,
}

struct Shared {
    readers: Readers,
    closed: AtomicBool,
    writer: Mutex<Option<JoinHandle<()>>>,
}

enum Readers {
    /// Connections to a file; the log of SQLite lets them read while the writer writes.
    Pool { path: Box<Path>, idle: Mutex<Vec<Connection>> },
    /// A database in memory has one connection, which the writer holds only while it works.
    Writer(Arc<Mutex<Connection>>),
}

enum Work {
    Job(Box<dyn Job>),
    Stop,
}

/// A change on its way, with whoever waits for it.
trait Job: Send {
    /// Makes the change; `false` when it has to be undone.
    fn run(&mut self, db: &Connection) -> bool;
    /// Tells the outcome, after the transaction.
    fn finish(self: Box<Self>, commit: Result<(), &rusqlite::Error>);
}

struct Change<T, F> {
    operation: &'static str,
    change: Option<F>,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Job for Change<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T> + Send,
{
    fn run(&mut self, db: &Connection) -> bool {
        self.outcome = self.change.take().map(|change| change(db));
        matches!(self.outcome, Some(Ok(_)))
    }

    fn finish(self: Box<Self>, commit: Result<(), &rusqlite::Error>) {
        let outcome = match (commit, self.outcome) {
            (_, Some(Err(refused))) => Err(refused),
            (Ok(()), Some(done)) => done,
            (Err(error), _) => Err(failed(self.operation, error)),
            (Ok(()), None) => Err(stopped(self.operation)),
        };
        // Nobody may be waiting any more; the change stands.
        let _ = self.reply.send(outcome);
    }
}

impl Database {
    /// Opens or creates the database, in memory without a path, and brings its tables up to date.
    pub(super) fn open(path: Option<&Path>, partitions: u32) -> Result<Self> {
        const OPERATION: &str = "store.open";
        let mut connection = match path {
            Some(path) => {
                create_private(path).map_err(|error| {
                    Error::new(ErrorKind::JournalIo, OPERATION, "the database file cannot be created")
                        .with("file", path.display())
                        .caused_by(error)
                })?;
                Connection::open(path)
            }
            None => Connection::open_in_memory(),
        }
        .map_err(|error| failed(OPERATION, &error))?;
        schema::prepare(&mut connection, partitions)?;

        let connection = Arc::new(Mutex::new(connection));
        let readers = match path {
            Some(path) => Readers::Pool { path: path.into(), idle: Mutex::new(Vec::new()) },
            None => Readers::Writer(Arc::clone(&connection)),
        };
        let (jobs, waiting) = mpsc::unbounded_channel();
        let writer = std::thread::Builder::new()
            .name("whimbrel-database".into())
            .spawn(move || write_groups(&connection, waiting))
            .map_err(|error| {
                Error::new(ErrorKind::Internal, OPERATION, "no thread for the database").caused_by(error)
            })?;
        let shared = Shared { readers, closed: AtomicBool::new(false), writer: Mutex::new(Some(writer)) };
        Ok(Self { shared: Arc::new(shared), jobs })
    }

    /// Makes a change; returns when it is on stable storage. A change that returns an error is undone. Dropping the
    /// future after the change was handed in does not stop it.
    pub(super) async fn write<T, F>(&self, operation: &'static str, change: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        self.submit(operation, change).await
    }

    /// As [`Database::write`], but the change is handed in when this returns: changes are made in the order of the
    /// calls, whether or not their futures are polled.
    pub(super) fn submit<T, F>(
        &self,
        operation: &'static str,
        change: F,
    ) -> impl Future<Output = Result<T>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let (reply, outcome) = oneshot::channel();
        let job = Change { operation, change: Some(change), outcome: None, reply };
        let handed_in = self.jobs.send(Work::Job(Box::new(job))).is_ok();
        async move {
            if !handed_in {
                return Err(stopped(operation));
            }
            outcome.await.map_err(|_| stopped(operation))?
        }
    }

    /// Reads, blocking for a moment.
    pub(super) fn read_blocking<T>(
        &self,
        operation: &'static str,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(stopped(operation));
        }
        match &self.shared.readers {
            Readers::Writer(connection) => read(&locked(connection)),
            Readers::Pool { path, idle } => {
                let known = locked(idle).pop();
                let connection = match known {
                    Some(connection) => Ok(connection),
                    None => open_reader(path),
                };
                connection.and_then(|connection| {
                    let outcome = read(&connection);
                    let mut idle = locked(idle);
                    if idle.len() < IDLE_READERS && !self.shared.closed.load(Ordering::Acquire) {
                        idle.push(connection);
                    }
                    outcome
                })
            }
        }
        .map_err(|error| failed(operation, &error))
    }

    /// Reads off the threads of the runtime.
    pub(super) async fn read<T, F>(&self, operation: &'static str, read: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let database = self.clone();
        tokio::task::spawn_blocking(move || database.read_blocking(operation, read))
            .await
            .map_err(|_| stopped(operation))?
    }

    /// Finishes what was handed in and stops; later calls fail with `Closed`.
    pub(super) async fn close(&self) {
        self.shared.closed.store(true, Ordering::Release);
        if let Readers::Pool { idle, .. } = &self.shared.readers {
            locked(idle).clear();
        }
        // Fails when it is closed already.
        let _ = self.jobs.send(Work::Stop);
        let writer = locked(&self.shared.writer).take();
        if let Some(writer) = writer {
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
    }
}

/// The writer's thread: takes what is ready, commits, tells.
fn write_groups(connection: &Mutex<Connection>, mut waiting: mpsc::UnboundedReceiver<Work>) {
    let mut group: Vec<Box<dyn Job>> = Vec::new();
    while let Some(first) = waiting.blocking_recv() {
        let mut next = Some(first);
        while let Some(work) = next.take() {
            match work {
                Work::Job(job) => group.push(job),
                // What was handed in before is still done; then `blocking_recv` finds the end.
                Work::Stop => waiting.close(),
            }
            if group.len() < GROUP {
                next = waiting.try_recv().ok();
            }
        }
        let outcome = commit(&mut locked(connection), &mut group);
        for job in group.drain(..) {
            job.finish(match &outcome {
                Ok(()) => Ok(()),
                Err(error) => Err(error),
            });
        }
    }
}

fn commit(connection: &mut Connection, group: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
    if group.is_empty() {
        return Ok(());
    }
    let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for job in group {
        let savepoint = transaction.savepoint()?;
        if job.run(&savepoint) {
            savepoint.commit()?;
        }
        // Otherwise dropping it undoes the job alone.
    }
    transaction.commit()
}

fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    Ok(connection)
}

/// Keys are in it: only the owner may read it.
fn create_private(path: &Path) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// The error for what SQLite said.
pub(super) fn failed(operation: &'static str, error: &rusqlite::Error) -> Error {
    let (kind, text) = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => (ErrorKind::DiskFull, "no space is left for the hub's database"),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            (ErrorKind::JournalCorrupt, "the hub's database is damaged")
        }
        _ => (ErrorKind::JournalIo, "the hub's database failed"),
    };
    Error::new(kind, operation, text).caused_by(error.to_string())
}

fn stopped(operation: &'static str) -> Error {
    Error::new(ErrorKind::Closed, operation, "the hub is stopping")
}

/// A panic elsewhere leaves the data as the last complete change made it.
pub(super) fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
