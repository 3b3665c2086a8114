//! A disk in memory that stalls, is full, or fails to sync, as it is told.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard},
};

use whimbrel::journal::{Disk, DiskFile, MemoryDisk};

/// What is wrong with the disk now.
#[derive(Default)]
pub(super) struct Faults {
    now: Mutex<Now>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
struct Now {
    stalled: bool,
    full: bool,
    broken: bool,
}

impl Faults {
    /// Syncs do not return.
    pub(super) fn stall(&self) {
        self.now().stalled = true;
    }

    /// They do again.
    pub(super) fn resume(&self) {
        self.now().stalled = false;
        self.changed.notify_all();
    }

    /// No file can grow.
    pub(super) fn fill(&self) {
        self.now().full = true;
    }

    /// They can again.
    pub(super) fn empty(&self) {
        self.now().full = false;
    }

    /// Syncs fail.
    pub(super) fn break_syncs(&self) {
        self.now().broken = true;
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap()
    }

    fn check_growth(&self) -> io::Result<()> {
        if self.now().full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

/// The disk.
#[derive(Default)]
pub(super) struct FaultyDisk {
    disk: MemoryDisk,
    faults: Arc<Faults>,
}

impl FaultyDisk {
    pub(super) fn faults(&self) -> Arc<Faults> {
        Arc::clone(&self.faults)
    }
}

impl Disk for FaultyDisk {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        self.disk.list()
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(name, create)?;
        Ok(Arc::new(FaultyFile { file, faults: self.faults() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.disk.sync_names()
    }

    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        self.disk.lock()
    }

    fn describe(&self) -> String {
        self.disk.describe()
    }
}

struct FaultyFile {
    file: Arc<dyn DiskFile>,
    faults: Arc<Faults>,
}

impl DiskFile for FaultyFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if offset + bytes.len() as u64 > self.file.size()? {
            self.faults.check_growth()?;
        }
        self.file.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        let mut now = self.faults.now();
        while now.stalled {
            now = self.faults.changed.wait(now).unwrap();
        }
        if now.broken { Err(io::Error::other("broken")) } else { Ok(()) }
    }
}
