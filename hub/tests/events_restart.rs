//! What the event log knows after it was closed, dropped, or found with an old index.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod log_support;

use std::{
    collections::HashMap,
    fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use log_support::{Log, all, sender, text, texts};
use whimbrel::{
    ErrorKind, Lane, Message,
    journal::{Disk, DiskFile, RealDisk},
    testing::Dice,
};
use whimbrel_hub::{
    events::{Event, NewEvent, Origin, Position, Retention},
    registry::Registry,
    store::{Embedded, StoreOptions},
};

/// Segments that change often.
fn small() -> StoreOptions {
    StoreOptions { segment_bytes: 256 << 10, tail_bytes: 128 << 10, ..StoreOptions::default() }
}

fn keep(bytes: u64) -> Retention {
    Retention { bytes, time: Duration::MAX }
}

/// Sends a message of an outbox; whether it was stored.
async fn offer(log: &Log, device: &str, outbox: &str, number: u64) -> bool {
    let origin = Some(Origin { outbox, lane: Lane::Telemetry, number });
    let (sender, message, mut places) = (sender(device), text(&number.to_string()), Vec::new());
    let ticket = log.append(&[NewEvent { sender: &sender, message: &message, origin }], &mut places).unwrap();
    log.durable(ticket).await.unwrap();
    places[0].sequence.is_some()
}

/// Version of the tables of a log that is not open.
fn version(folder: &Path) -> u32 {
    let database = rusqlite::Connection::open(folder.join("hub.sqlite")).unwrap();
    database.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
}

/// Changes the database of a log that is not open.
fn edit(folder: &Path, sql: &str) {
    let database = rusqlite::Connection::open(folder.join("hub.sqlite")).unwrap();
    database.execute_batch(sql).unwrap();
}

const FORGET_INDEX: &str = "DELETE FROM log_state; DELETE FROM log_marks;";

/// Opens a log as soon as whoever dropped its last handle has let go of it.
async fn open_when_free(folder: &Path, options: &StoreOptions, disk: impl Fn() -> Arc<dyn Disk>) -> Log {
    let options = StoreOptions { folder: Some(folder.to_owned()), ..options.clone() };
    loop {
        match Embedded::open_on(disk(), &options) {
            Ok(store) => return Log::start(store),
            Err(error) => assert_eq!(error.kind(), ErrorKind::InUse, "{error:?}"),
        }
        tokio::task::yield_now().await;
    }
}

fn real_disk(folder: &Path) -> Arc<dyn Disk> {
    Arc::new(RealDisk::create(folder.join("events")).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_knows_since_when_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let before = SystemTime::now() - Duration::from_millis(1);
    let log = Log::open_in(folder.path(), StoreOptions::default());
    let made = log.created_at();
    assert!(made >= before && made <= SystemTime::now());
    log.close().await.unwrap();
    drop(log);
    tokio::time::sleep(Duration::from_millis(5)).await;
    let log = Log::open_in(folder.path(), StoreOptions::default());
    assert_eq!(log.created_at(), made);
    log.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goes_on_where_it_stopped() {
    enum Stop {
        Close,
        Drop,
        CloseAndForgetIndex,
    }
    for stop in [Stop::Close, Stop::Drop, Stop::CloseAndForgetIndex] {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open_in(folder.path(), small());
        for number in 1..=50 {
            for device in ["d1", "d2", "d3", "d4", "d5"] {
                assert!(offer(&log, device, "box", number).await);
            }
        }
        log.add_group("g").await.unwrap();
        log.set_checkpoint("g", 0, 3).await.unwrap();
        let states = log.partitions();
        let before = all(&log, 0, Position::Beginning).await;
        match stop {
            Stop::Close => log.close().await.unwrap(),
            Stop::Drop => {}
            Stop::CloseAndForgetIndex => {
                log.close().await.unwrap();
                edit(folder.path(), FORGET_INDEX);
            }
        }
        drop(log);

        let log = open_when_free(folder.path(), &small(), || real_disk(folder.path())).await;
        assert_eq!(log.partitions(), states);
        let after = all(&log, 0, Position::Beginning).await;
        assert_eq!(texts(&after), texts(&before));
        let places = |events: &[Event]| -> Vec<(u64, u64, SystemTime)> {
            events.iter().map(|event| (event.sequence, event.offset, event.enqueued_at)).collect()
        };
        assert_eq!(places(&after), places(&before));
        assert_eq!(log.groups().await.unwrap(), ["$Default", "g"]);
        assert_eq!(log.checkpoint("g", 0).await.unwrap(), Some(3));

        for device in ["d1", "d2", "d3", "d4", "d5"] {
            assert!(!offer(&log, device, "box", 50).await, "stored before the restart");
            assert!(offer(&log, device, "box", 51).await);
        }
        let state = log.partitions()[0];
        let last = all(&log, 0, Position::Sequence(states[0].next)).await;
        assert_eq!(last.len() as u64, state.next - states[0].next);
        assert!(last.iter().all(|event| event.offset > states[0].last_offset.unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opening_reads_the_end_alone() {
    struct Counting(RealDisk, Arc<AtomicU64>);
    struct CountingFile(Arc<dyn DiskFile>, Arc<AtomicU64>);
    impl Disk for Counting {
        fn list(&self) -> io::Result<Vec<(String, u64)>> {
            self.0.list()
        }
        fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
            Ok(Arc::new(CountingFile(self.0.open(name, create)?, Arc::clone(&self.1))))
        }
        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.0.rename(from, to)
        }
        fn remove(&self, name: &str) -> io::Result<()> {
            self.0.remove(name)
        }
        fn sync_names(&self) -> io::Result<()> {
            self.0.sync_names()
        }
        fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
            self.0.lock()
        }
        fn describe(&self) -> String {
            self.0.describe()
        }
    }
    impl DiskFile for CountingFile {
        fn size(&self) -> io::Result<u64> {
            self.0.size()
        }
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.read_at(offset, buffer)?;
            self.1.fetch_add(count as u64, Ordering::Relaxed);
            Ok(count)
        }
        fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            self.0.write_at(offset, bytes)
        }
        fn sync(&self) -> io::Result<()> {
            self.0.sync()
        }
    }

    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        folder: Some(folder.path().to_owned()),
        segment_bytes: 1 << 20,
        ..StoreOptions::default()
    };
    let log = Log::start(Embedded::open(&options).unwrap());
    let bodies = vec!["x".repeat(1_000); 500];
    for _ in 0..40 {
        log.send_all("d1", &bodies).await;
    }
    let states = log.partitions();
    log.close().await.unwrap();
    drop(log);

    let read = Arc::new(AtomicU64::new(0));
    let disk = || -> Arc<dyn Disk> {
        Arc::new(Counting(RealDisk::create(folder.path().join("events")).unwrap(), Arc::clone(&read)))
    };
    let log = open_when_free(folder.path(), &options, disk).await;
    assert_eq!(log.partitions(), states);
    let opening = read.load(Ordering::Relaxed);
    assert!(opening < 3 << 20, "{opening} bytes read of 20 MiB");
    // Nor does reading near the end.
    let found = all(&log, log.partition_of("d1"), Position::Sequence(19_990)).await;
    assert_eq!(found.len(), 10);
    let reading = read.load(Ordering::Relaxed) - opening;
    assert!(reading < 3 << 20, "{reading} bytes read of 20 MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions { folder: Some(folder.path().to_owned()), ..small() };
    let open = |options: &StoreOptions| Embedded::open(options).map(drop).map_err(|error| error.kind());
    for partitions in [0, 33] {
        assert_eq!(open(&StoreOptions { partitions, ..options.clone() }), Err(ErrorKind::InvalidArgument));
    }
    let log = Log::start(Embedded::open(&options).unwrap());
    log.send("d1", "x").await;
    assert_eq!(open(&options), Err(ErrorKind::InUse));
    log.close().await.unwrap();
    drop(log);

    let error = Embedded::open(&StoreOptions { partitions: 5, ..options.clone() }).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("created with: 4, set to: 5"), "{error}");

    let known = version(folder.path());
    edit(folder.path(), &format!("PRAGMA user_version = {}", known + 1));
    assert_eq!(open(&options), Err(ErrorKind::JournalVersion));
    edit(folder.path(), &format!("PRAGMA user_version = {known}"));
    // Opening failed without harm.
    let log = Log::start(Embedded::open(&options).unwrap());
    assert_eq!(all(&log, log.partition_of("d1"), Position::Beginning).await.len(), 1);
    log.close().await.unwrap();
    drop(log);
    fs::write(folder.path().join("hub.sqlite"), "this is no database, whatever it is").unwrap();
    assert_eq!(open(&options), Err(ErrorKind::JournalCorrupt));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_retention_removed_stays_away() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = Log::open_in(folder.path(), small());
    let partition = log.partition_of("d1");
    for round in 0..5 {
        for _ in 0..20 {
            log.send_all("d1", &vec!["x".repeat(1_000); 100]).await;
        }
        log.store.maintain(keep(1 << 20), SystemTime::now()).await.unwrap();
        let state = log.partitions()[partition as usize];
        assert_eq!(state.next, (round + 1) * 2_000);
        assert!(state.next - state.first < 1_100);
        log.close().await.unwrap();
        drop(log);
        if round == 3 {
            // Even when the whole index has to be made again.
            edit(folder.path(), FORGET_INDEX);
        }
        log = Log::open_in(folder.path(), small());
        assert_eq!(log.partitions()[partition as usize], state);
        let events = all(&log, partition, Position::Beginning).await;
        assert_eq!(events.first().map(|event| event.sequence), Some(state.first));
    }
    let used: u64 = fs::read_dir(folder.path().join("events"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(used < 5 << 20, "{used} bytes of files for 1 MiB of events");
    // All of it goes, and the numbers go on.
    log.store.maintain(keep(0), SystemTime::now() + Duration::from_secs(3_600)).await.unwrap();
    log.close().await.unwrap();
    drop(log);
    let log = Log::open_in(folder.path(), small());
    let state = log.partitions()[partition as usize];
    assert_eq!((state.first, state.next), (10_000, 10_000));
    assert_eq!(log.send("d1", "next").await, 10_000);
}

/// A database put back from a backup, beside a log that went on without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_index_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("hub.sqlite");
    let devices: Vec<String> = (0..10).map(|index| format!("d{index}")).collect();
    let mut number = 0;
    let mut fill = async |log: &Log| {
        for _ in 0..300 {
            number += 1;
            for device in &devices {
                assert!(offer(log, device, "box", number).await);
            }
        }
        number
    };
    let log = Log::open_in(folder.path(), small());
    fill(&log).await;
    log.close().await.unwrap();
    drop(log);
    let old = fs::read(&database).unwrap();

    let log = Log::open_in(folder.path(), small());
    fill(&log).await;
    let last = fill(&log).await;
    log.store.maintain(keep(400 << 10), SystemTime::now()).await.unwrap();
    let states = log.partitions();
    assert!(states.iter().all(|state| state.first > 0 && state.first < state.next));
    log.close().await.unwrap();
    drop(log);
    fs::write(&database, &old).unwrap();

    let log = Log::open_in(folder.path(), small());
    assert_eq!(log.partitions(), states);
    for state in &states {
        let events = all(&log, state.partition, Position::Beginning).await;
        let sequences: Vec<u64> = events.iter().map(|event| event.sequence).collect();
        assert_eq!(sequences, (state.first..state.next).collect::<Vec<_>>());
    }
    for device in &devices {
        assert!(!offer(&log, device, "box", last).await);
        assert!(offer(&log, device, "box", last + 1).await);
    }
}

/// Someone removed the log and kept the database: numbers are not used a second time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_without_its_log_keeps_the_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open_in(folder.path(), small());
    for index in 0..50 {
        log.send("d1", &index.to_string()).await;
    }
    let partition = log.partition_of("d1");
    log.close().await.unwrap();
    drop(log);
    fs::remove_dir_all(folder.path().join("events")).unwrap();

    let log = Log::open_in(folder.path(), small());
    let state = log.partitions()[partition as usize];
    assert_eq!((state.first, state.next), (50, 50));
    let mut reader = log.reader(partition, Position::Beginning).await.unwrap();
    let mut out = Vec::new();
    let mut waiting = Box::pin(reader.next(10, &mut out));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    assert_eq!(log.send("d1", "new").await, 50);
    waiting.await.unwrap();
    assert_eq!(texts(&out), ["new"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_made_again_starts_afresh_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Log::open_in(folder.path(), small());
    let log = open();
    let registry = Registry::new(Arc::clone(&log.store), "h");
    let send = async |log: &Log, generation: &str, number| {
        let sender = whimbrel_hub::access::Admitted { generation: generation.into(), ..sender("d1") };
        let origin = Some(Origin { outbox: "box", lane: Lane::Alert, number });
        let (message, mut places) = (text("x"), Vec::new());
        let batch = [NewEvent { sender: &sender, message: &message, origin }];
        let ticket = log.append(&batch, &mut places).unwrap();
        log.durable(ticket).await.unwrap();
        places[0].sequence.is_some()
    };
    let first = registry.create("d1").await.unwrap().device.generation;
    assert!(send(&log, &first, 9).await);
    registry.delete("d1", None).await.unwrap();
    let second = registry.create("d1").await.unwrap().device.generation;
    assert!(send(&log, &second, 1).await);
    assert!(!send(&log, &second, 1).await);
    log.close().await.unwrap();
    drop((log, registry));
    let log = open();
    assert!(!send(&log, &second, 1).await);
    assert!(send(&log, &second, 2).await);
}

/// What the log should hold, told by someone who does nothing but remember.
#[derive(Default)]
struct Model {
    partitions: HashMap<u32, Vec<(String, String)>>,
    marks: HashMap<(String, u64, bool), u64>,
}

/// Random batches with resends, retention, readers and restarts against the model. The seed is in the failure's text.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_histories() {
    for seed in 1..=8 {
        history(seed).await;
    }
}

async fn history(seed: u64) {
    let mut dice = Dice::new(seed);
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        segment_bytes: 64 << 10,
        tail_bytes: [0, 8 << 10, 1 << 20][dice.below(3) as usize],
        partitions: [1, 4, 7][dice.below(3) as usize],
        ..StoreOptions::default()
    };
    let (mut model, mut was_cut) = (Model::default(), false);
    let mut log = Log::open_in(folder.path(), options.clone());
    for _ in 0..60 {
        match dice.below(10) {
            0 => {
                if dice.below(2) == 0 {
                    log.close().await.unwrap();
                }
                drop(log);
                if !was_cut && dice.below(2) == 0 {
                    // As long as the log is whole, the index can be made again.
                    edit(folder.path(), FORGET_INDEX);
                }
                log = open_when_free(folder.path(), &options, || real_disk(folder.path())).await;
            }
            1 => {
                was_cut = true;
                let bytes = dice.below(300) << 10;
                log.store.maintain(keep(bytes), SystemTime::now()).await.unwrap();
            }
            2 => check(&log, &model, &mut dice, seed).await,
            _ => append(&log, &mut model, &mut dice, seed).await,
        }
    }
    check(&log, &model, &mut dice, seed).await;
}

async fn append(log: &Log, model: &mut Model, dice: &mut Dice, seed: u64) {
    for _ in 0..dice.below(20) {
        let device = format!("d{}", dice.below(6));
        let (outbox, alert) = (dice.below(2), dice.below(4) == 0);
        let mark = model.marks.entry((device.clone(), outbox, alert)).or_insert(0);
        let start = mark.saturating_sub(dice.below(5));
        let numbers: Vec<u64> = (start..start + 1 + dice.below(30)).collect();
        let body = "x".repeat(dice.below(800) as usize);
        let bodies: Vec<String> =
            numbers.iter().map(|number| format!("{outbox}{alert}{number}{body}")).collect();
        let messages: Vec<Message> = bodies.iter().map(|body| text(body)).collect();
        let (sender, outbox) = (sender(&device), outbox.to_string());
        let lane = if alert { Lane::Alert } else { Lane::Telemetry };
        let batch: Vec<NewEvent<'_>> = std::iter::zip(&numbers, &messages)
            .map(|(number, message)| {
                let origin = Some(Origin { outbox: &outbox, lane, number: *number });
                NewEvent { sender: &sender, message, origin }
            })
            .collect();
        let mut places = Vec::new();
        let ticket = log.append(&batch, &mut places).unwrap();
        log.durable(ticket).await.unwrap();
        let partition = log.partition_of(&device);
        let events = model.partitions.entry(partition).or_default();
        for ((number, body), place) in numbers.iter().zip(bodies).zip(&places) {
            let expected = (*number >= *mark).then_some(events.len() as u64);
            assert_eq!(place.sequence, expected, "seed {seed}");
            if expected.is_some() {
                events.push((device.clone(), body));
                *mark = number + 1;
            }
        }
    }
}

async fn check(log: &Log, model: &Model, dice: &mut Dice, seed: u64) {
    for state in log.partitions() {
        let expected = model.partitions.get(&state.partition).map(Vec::as_slice).unwrap_or_default();
        assert_eq!(state.next, expected.len() as u64, "seed {seed}");
        let from = dice.below(state.next + 3);
        let start = from.max(state.first);
        for (position, start) in [(Position::Beginning, state.first), (Position::Sequence(from), start)] {
            let events = all(log, state.partition, position).await;
            let sequences: Vec<u64> = events.iter().map(|event| event.sequence).collect();
            assert_eq!(sequences, (start..state.next).collect::<Vec<_>>(), "seed {seed}, {position:?}");
            for (event, text) in std::iter::zip(&events, texts(&events)) {
                let (device, body) = &expected[event.sequence as usize];
                assert_eq!((&*event.device, &text), (&**device, body), "seed {seed}");
            }
        }
    }
}
