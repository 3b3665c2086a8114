//! An outbox on disks and a clock that a test holds in its hands.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, clippy::indexing_slicing)]

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use whimbrel::{
    Account, Lane, Message, Outcome,
    journal::{Disk, DiskFile, MemoryDisk},
    outbox::{ManualClock, Outbox, OutboxOptions, Overflow, Queued, Sequence},
};

pub const DELIVERED: Outcome = Outcome::Delivered { partition: None, sequence: None };

/// The disks of an outbox, which outlive it.
pub struct Stage {
    pub alert: Arc<FaultyDisk>,
    pub telemetry: Arc<FaultyDisk>,
    pub clock: Arc<ManualClock>,
    pub options: OutboxOptions,
}

impl Stage {
    pub fn new() -> Self {
        Self::with(OutboxOptions::default())
    }

    pub fn with(options: OutboxOptions) -> Self {
        Self {
            alert: FaultyDisk::new(),
            telemetry: FaultyDisk::new(),
            clock: Arc::new(ManualClock::new()),
            options,
        }
    }

    /// An outbox for `max_messages` that does `overflow` when it is full.
    pub fn bounded(max_messages: u64, overflow: Overflow) -> Self {
        Self::with(OutboxOptions { max_messages, overflow, ..OutboxOptions::default() })
    }

    pub fn open(&self) -> Outbox {
        self.try_open().unwrap()
    }

    pub fn try_open(&self) -> whimbrel::Result<Outbox> {
        let (alert, telemetry) = (self.alert.clone(), self.telemetry.clone());
        Outbox::open_on(alert, telemetry, self.options.clone(), self.clock.clone())
    }

    pub fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

/// Telemetry with the number as its body.
pub fn reading(number: usize) -> Message {
    Message::telemetry(number.to_string())
}

pub async fn send_readings(outbox: &Outbox, numbers: std::ops::Range<usize>) {
    outbox.send_all(numbers.map(reading).collect()).await.unwrap();
}

/// Everything that can be read of a lane, from its head on.
pub fn read_all(outbox: &Outbox, lane: Lane) -> Vec<Queued> {
    let (mut out, mut at) = (Vec::new(), 0);
    loop {
        let before = out.len();
        at = outbox.read(lane, at, 100, &mut out).unwrap();
        if out.len() == before {
            return out;
        }
    }
}

pub fn bodies(messages: &[Queued]) -> Vec<String> {
    messages.iter().map(|queued| String::from_utf8(queued.message.body().to_vec()).unwrap()).collect()
}

/// The bodies of everything that waits in a lane.
pub fn waiting(outbox: &Outbox, lane: Lane) -> Vec<String> {
    bodies(&read_all(outbox, lane))
}

pub fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

pub fn deliver(outbox: &Outbox, lane: Lane, sequences: impl IntoIterator<Item = Sequence>) {
    let settled = sequences.into_iter().map(|sequence| (lane, sequence, DELIVERED));
    outbox.settle(settled.collect()).unwrap();
}

/// The account, which has to balance.
pub fn account(outbox: &Outbox) -> Account {
    let account = outbox.account();
    assert!(account.balances(), "{account:?}");
    assert_eq!(account, outbox.counters().account);
    account
}

/// A disk in memory that fails when told to.
#[derive(Default)]
pub struct FaultyDisk {
    pub disk: MemoryDisk,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct Faults {
    full: AtomicBool,
    no_sync: AtomicBool,
    bytes_read: AtomicU64,
}

impl FaultyDisk {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Whether files can be created and grow.
    pub fn set_full(&self, full: bool) {
        self.faults.full.store(full, Ordering::SeqCst);
    }

    /// Whether syncs fail.
    pub fn set_failing(&self, failing: bool) {
        self.faults.no_sync.store(failing, Ordering::SeqCst);
    }

    /// Bytes read from files so far.
    pub fn bytes_read(&self) -> u64 {
        self.faults.bytes_read.load(Ordering::SeqCst)
    }

    /// Flips a bit in every place where `needle` is on the disk, and returns how many there were.
    pub fn damage(&self, needle: &[u8]) -> usize {
        let mut count = 0;
        for (name, size) in self.disk.list().unwrap() {
            let file = self.disk.open(&name, false).unwrap();
            let mut bytes = vec![0; size as usize];
            file.read_at(0, &mut bytes).unwrap();
            let places = bytes.windows(needle.len()).enumerate().filter(|(_, window)| *window == needle);
            for (at, _) in places {
                file.write_at(at as u64, &[needle[0] ^ 1]).unwrap();
                count += 1;
            }
        }
        count
    }
}

impl Disk for FaultyDisk {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        self.disk.list()
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        if create && self.faults.full.load(Ordering::SeqCst) && self.disk.open(name, false).is_err() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(Arc::new(FaultyFile { file: self.disk.open(name, create)?, faults: self.faults.clone() }))
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
        "faulty disk".into()
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
        let count = self.file.read_at(offset, buffer)?;
        self.faults.bytes_read.fetch_add(count as u64, Ordering::SeqCst);
        Ok(count)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.faults.full.load(Ordering::SeqCst) && offset + bytes.len() as u64 > self.file.size()? {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        if self.faults.no_sync.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is gone"));
        }
        self.file.sync()
    }
}
