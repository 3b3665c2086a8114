//! The event log when the power fails, a sync fails, or the disk is full.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod log_support;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use log_support::{Log, all, sender, text, texts};
use whimbrel::{
    Error, ErrorKind, Lane, Message,
    testing::{CrashDisk, Deeds, Dice, Survivors},
};
use whimbrel_hub::{
    events::{NewEvent, Origin, Place, Position, Retention},
    store::{Embedded, StoreOptions},
};

const DEVICES: u64 = 5;
const KEEP_ALL: Retention = Retention { bytes: u64::MAX, time: Duration::MAX };

fn open(disk: &CrashDisk, folder: &Path) -> Result<Log, Error> {
    let options = StoreOptions {
        folder: Some(folder.to_owned()),
        segment_bytes: 64 << 10,
        tail_bytes: 32 << 10,
        ..StoreOptions::default()
    };
    Embedded::open_on(Arc::new(disk.clone()), &options).map(|store| Log::start(store))
}

/// Sends numbered messages of a device; durable when it returns.
async fn send(log: &Log, device: u64, numbers: std::ops::Range<u64>) -> Result<Vec<Place>, Error> {
    let sender = sender(&format!("d{device}"));
    let messages: Vec<Message> =
        numbers.clone().map(|number| text(&format!("{number} {}", "x".repeat(100)))).collect();
    let batch: Vec<NewEvent<'_>> = std::iter::zip(numbers, &messages)
        .map(|(number, message)| {
            let origin = Some(Origin { outbox: "box", lane: Lane::Telemetry, number });
            NewEvent { sender: &sender, message, origin }
        })
        .collect();
    let mut places = Vec::new();
    let ticket = log.append(&batch, &mut places)?;
    log.durable(ticket).await?;
    Ok(places)
}

/// Numbers stored per device, by partition and in order; the sequence numbers have no gap.
async fn stored(log: &Log) -> BTreeMap<String, Vec<(u64, Place)>> {
    let mut found: BTreeMap<String, Vec<(u64, Place)>> = BTreeMap::new();
    for state in log.partitions() {
        let events = all(log, state.partition, Position::Beginning).await;
        let sequences: Vec<u64> = events.iter().map(|event| event.sequence).collect();
        assert_eq!(sequences, (state.first..state.next).collect::<Vec<_>>());
        for (event, text) in std::iter::zip(&events, texts(&events)) {
            let number = text.split(' ').next().unwrap().parse().unwrap();
            let place = Place { partition: event.partition, sequence: Some(event.sequence) };
            found.entry(event.device.to_string()).or_default().push((number, place));
        }
    }
    found
}

fn numbers(stored: &[(u64, Place)]) -> Vec<u64> {
    stored.iter().map(|(number, _)| *number).collect()
}

/// Makes a copy of the database as it is now.
fn copy_database(folder: &Path, copy: &Path) {
    let database = rusqlite::Connection::open(folder.join("hub.sqlite")).unwrap();
    database.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
}

/// At every moment of a history: what was acknowledged is there, a resend of what was not is stored once, and the saved
/// index never claims what the power took.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts() {
    let folder = tempfile::tempdir().unwrap();
    let disk = CrashDisk::new();
    let log = open(&disk, folder.path()).unwrap();
    let mut dice = Dice::new(7);
    let mut next = [0; DEVICES as usize];
    // When it was acknowledged; device, number, place.
    let mut acknowledged: Vec<(usize, u64, u64, Place)> = Vec::new();
    // Copies of the database, with the moment each was complete.
    let copies = tempfile::tempdir().unwrap();
    let copy = |moment: usize| copies.path().join(moment.to_string());
    let mut moments = vec![disk.position()];
    copy_database(folder.path(), &copy(moments[0]));
    let mut now = SystemTime::now();
    for _ in 0..80 {
        let device = dice.below(DEVICES);
        let start = next[device as usize];
        let end = start + 1 + dice.below(25);
        for (number, place) in (start..).zip(send(&log, device, start..end).await.unwrap()) {
            acknowledged.push((disk.position(), device, number, place));
        }
        next[device as usize] = end;
        if dice.chance(15) {
            // Each time later than the index is saved anyhow.
            now += Duration::from_secs(31);
            log.store.maintain(KEEP_ALL, now).await.unwrap();
            moments.push(disk.position());
            copy_database(folder.path(), &copy(*moments.last().unwrap()));
        }
    }
    let end = disk.position();
    assert!(end > 150 && moments.len() > 8, "{end} things done, {} copies", moments.len());

    for position in moments[0]..=end {
        let survivors = match position % 3 {
            0 => Survivors::None,
            1 => Survivors::All,
            _ => Survivors::Some(position as u64),
        };
        let disk = disk.cut(position, survivors);
        let moment = moments.iter().rfind(|moment| **moment <= position).unwrap();
        let with_index = || {
            let folder = tempfile::tempdir().unwrap();
            fs::copy(copy(*moment), folder.path().join("hub.sqlite")).unwrap();
            folder
        };
        let folder = with_index();
        let log = open(&disk, folder.path()).unwrap();
        let found = stored(&log).await;
        for (_, device, number, place) in acknowledged.iter().filter(|(at, ..)| *at <= position) {
            let events = &found[&format!("d{device}")];
            assert!(events.contains(&(*number, *place)), "{number} of d{device} is lost after {position}");
        }
        for device in 0..DEVICES {
            let known =
                acknowledged.iter().filter(|(at, from, ..)| *at <= position && *from == device).count();
            send(&log, device, known as u64..next[device as usize] + 3).await.unwrap();
        }
        let whole = stored(&log).await;
        for (device, events) in &whole {
            let expected = next[device[1..].parse::<usize>().unwrap()] + 3;
            let context = format!("{device} after {position}, {survivors:?}");
            assert_eq!(numbers(events), (0..expected).collect::<Vec<_>>(), "{context}");
        }

        // The power fails again, and the index was not saved meanwhile.
        let disk = disk.cut(disk.position(), Survivors::None);
        let folder = with_index();
        let log = open(&disk, folder.path()).unwrap();
        assert_eq!(stored(&log).await, whole, "after {position}, {survivors:?}, and again");
        for device in 0..DEVICES {
            let places = send(&log, device, 0..next[device as usize] + 3).await.unwrap();
            assert!(places.iter().all(|place| place.sequence.is_none()));
        }
    }
}

/// A commit that failed is not acknowledged, and after opening again its messages are taken as new.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_commit_claims_nothing() {
    for kind in [Deeds::Sync, Deeds::Write] {
        let folder = tempfile::tempdir().unwrap();
        let disk = CrashDisk::new();
        let log = open(&disk, folder.path()).unwrap();
        send(&log, 1, 0..5).await.unwrap();
        disk.fail(kind, 0);
        assert_eq!(send(&log, 1, 5..10).await.unwrap_err().kind(), ErrorKind::JournalIo);
        // Not even as a resend of something stored: nothing was.
        assert_eq!(send(&log, 1, 5..10).await.unwrap_err().kind(), ErrorKind::JournalIo);
        log.store.maintain(KEEP_ALL, SystemTime::now() + Duration::from_secs(60)).await.unwrap_err();
        let partition = log.partition_of("d1");
        assert_eq!(all(&log, partition, Position::Beginning).await.len(), 5);
        log.close().await.unwrap_err();
        drop(log);

        let log = open(&disk.cut(disk.position(), Survivors::None), folder.path()).unwrap();
        assert_eq!(numbers(&stored(&log).await["d1"]), [0, 1, 2, 3, 4]);
        let places = send(&log, 1, 3..10).await.unwrap();
        assert_eq!(places.iter().filter(|place| place.sequence.is_some()).count(), 5);
        assert_eq!(numbers(&stored(&log).await["d1"]), (0..10).collect::<Vec<_>>());
    }
}

/// A full disk is an error without consequences, and gives way when retention or somebody else makes space.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let disk = CrashDisk::new();
    let log = open(&disk, folder.path()).unwrap();
    send(&log, 1, 0..5).await.unwrap();
    disk.set_capacity(Some(disk.used() + (100 << 10)));
    let mut next = 5;
    let error = loop {
        match send(&log, 1, next..next + 20).await {
            Ok(_) => next += 20,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
    let state = log.partitions()[log.partition_of("d1") as usize];
    assert_eq!(state.next, next);
    // Everything else goes on.
    assert_eq!(stored(&log).await["d1"].len() as u64, next);
    log.add_group("g").await.unwrap();
    assert_eq!(send(&log, 1, next..next + 20).await.unwrap_err().kind(), ErrorKind::DiskFull);

    disk.set_capacity(None);
    send(&log, 1, next..next + 20).await.unwrap();
    assert_eq!(numbers(&stored(&log).await["d1"]), (0..next + 20).collect::<Vec<_>>());
}
