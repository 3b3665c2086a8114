//! Checkpoints in files, for readers on one machine.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use futures_util::future::BoxFuture;

use super::{Checkpoint, CheckpointStore, Claim, Ownership, table::Table};
use crate::{Error, ErrorKind, Result, wire::percent};

/// Keeps the checkpoints and ownerships of each consumer group in a file of a folder. Several processes on one machine
/// may share the folder; on a network drive it is as safe as the drive's locks are.
///
/// A change is written beside the file, synced, and put in its place in one step: a crash leaves the old or the new
/// content. Clones share.
#[derive(Clone, Debug)]
pub struct FileCheckpoints(Arc<PathBuf>);

impl FileCheckpoints {
    /// A store in `folder`, which is created when it is missing. Blocks for a moment.
    ///
    /// # Errors
    /// `JournalIo` when the folder cannot be made.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(|error| failed(&folder, error))?;
        Ok(Self(Arc::new(folder)))
    }

    /// Blocking work on a group, away from the runtime's threads.
    async fn with<T: Send + 'static>(
        &self,
        group: &str,
        work: impl FnOnce(&Group) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let group = Group::new(&self.0, group);
        tokio::task::spawn_blocking(move || work(&group)).await.unwrap_or_else(|stopped| {
            Err(Error::new(ErrorKind::Closed, OPERATION, "the runtime stopped").caused_by(stopped))
        })
    }
}

impl CheckpointStore for FileCheckpoints {
    fn checkpoints<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<BTreeMap<u32, Checkpoint>>> {
        Box::pin(self.with(group, |group| Ok(group.read()?.checkpoints())))
    }

    fn set_checkpoint<'a>(
        &'a self,
        group: &'a str,
        partition: u32,
        checkpoint: Checkpoint,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.with(group, move |group| {
            let _lock = group.lock()?;
            let mut table = group.read()?;
            table.set_checkpoint(partition, checkpoint);
            group.replace(&table)
        }))
    }

    fn ownerships<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<Vec<Ownership>>> {
        Box::pin(self.with(group, |group| Ok(group.read()?.ownerships(now_ms()))))
    }

    fn claim<'a>(&'a self, group: &'a str, claim: Claim) -> BoxFuture<'a, Result<Option<Ownership>>> {
        Box::pin(self.with(group, move |group| {
            let _lock = group.lock()?;
            let mut table = group.read()?;
            let claimed = table.claim(claim, now_ms());
            if claimed.is_some() {
                group.replace(&table)?;
            }
            Ok(claimed)
        }))
    }
}

/// The files of one group.
struct Group {
    folder: PathBuf,
    table: PathBuf,
    lock: PathBuf,
    staged: PathBuf,
}

impl Group {
    fn new(folder: &Path, group: &str) -> Self {
        let name = percent::encoded(&group.to_ascii_lowercase());
        let path = |suffix: &str| folder.join(format!("{name}.{suffix}"));
        Self { folder: folder.to_owned(), table: path("json"), lock: path("lock"), staged: path("new") }
    }

    /// Held while the table is changed. A file of its own, since the table's is replaced.
    fn lock(&self) -> Result<File> {
        let lock = File::options().create(true).truncate(false).write(true).open(&self.lock);
        let lock = lock.map_err(|error| failed(&self.lock, error))?;
        lock.lock().map_err(|error| failed(&self.lock, error))?;
        Ok(lock)
    }

    fn read(&self) -> Result<Table> {
        let bytes = match fs::read(&self.table) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Table::default()),
            read => read.map_err(|error| failed(&self.table, error))?,
        };
        let unreadable =
            |kind, text: &'static str| Error::new(kind, OPERATION, text).with("file", self.table.display());
        let table: Table = serde_json::from_slice(&bytes).map_err(|error| {
            unreadable(ErrorKind::JournalCorrupt, "the file of checkpoints cannot be read").caused_by(error)
        })?;
        match table.is_known() {
            true => Ok(table),
            false => Err(unreadable(
                ErrorKind::JournalVersion,
                "the file of checkpoints was written by a newer version",
            )),
        }
    }

    fn replace(&self, table: &Table) -> Result<()> {
        self.stage(table)?;
        fs::rename(&self.staged, &self.table).map_err(|error| failed(&self.table, error))?;
        // The name is durable when the folder is; Windows syncs it with the rename and cannot open folders.
        if cfg!(unix) {
            File::open(&self.folder)
                .and_then(|folder| folder.sync_all())
                .map_err(|error| failed(&self.folder, error))?;
        }
        Ok(())
    }

    fn stage(&self, table: &Table) -> Result<()> {
        let bytes = serde_json::to_vec(table).map_err(|error| {
            Error::new(ErrorKind::Internal, OPERATION, "checkpoints cannot be written").caused_by(error)
        })?;
        let write = || {
            let mut file = File::create(&self.staged)?;
            file.write_all(&bytes)?;
            file.sync_all()
        };
        write().map_err(|error| failed(&self.staged, error))
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn failed(path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::DiskFull,
        _ => ErrorKind::JournalIo,
    };
    Error::new(kind, OPERATION, "the folder of checkpoints failed")
        .with("path", path.display())
        .caused_by(error)
}

const OPERATION: &str = "checkpoints.file";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn checkpoint(sequence: u64) -> Checkpoint {
        Checkpoint { sequence, offset: Some((sequence * 10).to_string()) }
    }

    fn claim(owner: &str, etag: Option<String>) -> Claim {
        Claim { partition: 0, owner: owner.into(), epoch: 1, lasts: Duration::from_secs(60), etag }
    }

    #[tokio::test]
    async fn what_was_stored_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileCheckpoints::open(folder.path().join("new")).unwrap();
        assert!(store.checkpoints("$Default").await.unwrap().is_empty());
        store.set_checkpoint("$Default", 1, checkpoint(5)).await.unwrap();
        store.set_checkpoint("$default", 0, checkpoint(6)).await.unwrap();
        store.set_checkpoint("a/b c", 0, checkpoint(7)).await.unwrap();
        let owned = store.claim("$Default", claim("a", None)).await.unwrap().unwrap();
        drop(store);
        let store = FileCheckpoints::open(folder.path().join("new")).unwrap();
        let expected = BTreeMap::from([(0, checkpoint(6)), (1, checkpoint(5))]);
        assert_eq!(store.checkpoints("$DEFAULT").await.unwrap(), expected);
        assert_eq!(store.checkpoints("a/b c").await.unwrap().len(), 1);
        let seen = store.ownerships("$Default").await.unwrap();
        assert_eq!(seen.len(), 1);
        assert_eq!((&seen[0].owner, &seen[0].etag), (&owned.owner, &owned.etag));
        assert!(!seen[0].expires_in.is_zero());
    }

    #[tokio::test]
    async fn a_crash_before_the_rename_leaves_the_old_content() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileCheckpoints::open(folder.path()).unwrap();
        store.set_checkpoint("g", 0, checkpoint(1)).await.unwrap();
        let group = Group::new(folder.path(), "g");
        let mut next = group.read().unwrap();
        next.set_checkpoint(0, checkpoint(2));
        group.stage(&next).unwrap();
        // Cut in the middle of the write, as a power cut may leave it.
        let staged = fs::read(&group.staged).unwrap();
        fs::write(&group.staged, &staged[..staged.len() / 2]).unwrap();
        let store = FileCheckpoints::open(folder.path()).unwrap();
        assert_eq!(store.checkpoints("g").await.unwrap()[&0], checkpoint(1));
        store.set_checkpoint("g", 0, checkpoint(3)).await.unwrap();
        assert_eq!(store.checkpoints("g").await.unwrap()[&0], checkpoint(3));
    }

    #[tokio::test]
    async fn a_damaged_file_is_an_error_and_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileCheckpoints::open(folder.path()).unwrap();
        for (content, kind) in [
            ("{", ErrorKind::JournalCorrupt),
            (r#"{"version":2,"partitions":{}}"#, ErrorKind::JournalVersion),
        ] {
            fs::write(folder.path().join("g.json"), content).unwrap();
            assert_eq!(store.checkpoints("g").await.unwrap_err().kind(), kind);
            assert_eq!(store.set_checkpoint("g", 0, checkpoint(1)).await.unwrap_err().kind(), kind);
            assert_eq!(fs::read_to_string(folder.path().join("g.json")).unwrap(), content);
        }
    }

    /// Each store has its own handle on the lock, as each process would.
    #[tokio::test(flavor = "multi_thread")]
    async fn writers_at_the_same_time_lose_nothing_and_one_claim_wins() {
        let folder = tempfile::tempdir().unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..8_u32 {
            let store = FileCheckpoints::open(folder.path()).unwrap();
            tasks.spawn(async move {
                for sequence in 0..5 {
                    store.set_checkpoint("g", writer, checkpoint(sequence)).await.unwrap();
                }
                let claim = Claim { partition: 99, ..claim(&writer.to_string(), None) };
                store.claim("g", claim).await.unwrap().is_some()
            });
        }
        let won = tasks.join_all().await.into_iter().filter(|won| *won).count();
        assert_eq!(won, 1);
        let store = FileCheckpoints::open(folder.path()).unwrap();
        let stored = store.checkpoints("g").await.unwrap();
        assert_eq!(stored, (0..8).map(|writer| (writer, checkpoint(4))).collect());
    }
}
