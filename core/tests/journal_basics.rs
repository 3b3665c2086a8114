//! What a journal promises on a disk that works.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{sync::Arc, time::Duration};

use whimbrel::{
    ErrorKind,
    journal::{
        Disk, Journal, JournalOptions, Kind, MemoryDisk, Read, Reader, RealDisk, Record, Recovery, Ticket,
        Urgency,
    },
};

fn small() -> JournalOptions {
    JournalOptions { segment_bytes: 64 * 1024, ..JournalOptions::default() }
}

fn open(disk: &Arc<dyn Disk>, options: JournalOptions) -> (Journal, Recovery) {
    Journal::open(disk.clone(), options).unwrap()
}

fn data(journal: &Journal, payload: &[u8]) -> Ticket {
    let record = Record { kind: Kind::Data, parts: &[payload] };
    journal.append(&[record], Urgency::Lazy, &mut |_| {}).unwrap().ticket
}

fn drain(reader: &mut Reader) -> Vec<(u64, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some(read) = reader.next().unwrap() {
        match read {
            Read::Record(lsn, payload) => all.push((lsn, payload.to_vec())),
            Read::Damaged(damage) => panic!("{damage:?}"),
        }
    }
    all
}

fn payload(lsn: u64, len: usize) -> Vec<u8> {
    let mut payload = lsn.to_le_bytes().to_vec();
    payload.resize(len.max(8), lsn as u8);
    payload
}

fn disks() -> Vec<(Arc<dyn Disk>, Option<tempfile::TempDir>)> {
    let folder = tempfile::tempdir().unwrap();
    let real = RealDisk::create(folder.path().join("journal")).unwrap();
    vec![(Arc::new(MemoryDisk::default()), None), (Arc::new(real), Some(folder))]
}

#[test]
fn records_and_notes_are_there_after_closing_and_after_dropping() {
    for (disk, _folder) in disks() {
        let (journal, recovery) = open(&disk, JournalOptions::default());
        assert_eq!((recovery.first, recovery.next, recovery.snapshot), (1, 1, None));
        let records = [
            Record { kind: Kind::Data, parts: &[b"on", b"e"] },
            Record { kind: Kind::Note, parts: &[b"noted"] },
            Record { kind: Kind::Data, parts: &[] },
        ];
        let appended =
            journal.append(&records, Urgency::Now, &mut |state| state.extend_from_slice(b"state")).unwrap();
        assert_eq!(appended.first, 1);
        journal.wait_durable(appended.ticket).unwrap();
        assert!(journal.is_durable(appended.ticket));
        let expected = vec![(1, b"one".to_vec()), (2, Vec::new())];
        assert_eq!(drain(&mut journal.reader(0)), expected);
        journal.close().unwrap();
        for _ in 0..3 {
            let (journal, recovery) = open(&disk, JournalOptions::default());
            assert_eq!((recovery.first, recovery.next, recovery.torn_bytes), (1, 3, 0));
            assert_eq!(recovery.snapshot.as_deref(), Some(b"state".as_slice()));
            assert_eq!(recovery.notes, [b"noted".as_slice()]);
            assert!(recovery.damaged.is_empty());
            assert_eq!((journal.first_lsn(), journal.next_lsn(), journal.durable_lsn()), (1, 3, 2));
            assert_eq!(drain(&mut journal.reader(1)), expected);
            drop(journal); // nothing is staged: others can open at once
        }
    }
}

#[test]
fn many_segments_are_written_read_trimmed_and_used_again() {
    for (disk, _folder) in disks() {
        let (journal, _) = open(&disk, small());
        let mut reader = journal.reader(1);
        let mut next = 1;
        let mut read = 1;
        for round in 0..40 {
            for _ in 0..20 {
                data(&journal, &payload(next, 100 + next as usize % 4000));
                next += 1;
            }
            journal.wait_durable(journal.latest()).unwrap();
            for (lsn, bytes) in drain(&mut reader) {
                assert_eq!((lsn, bytes), (read, payload(read, 100 + read as usize % 4000)));
                read += 1;
            }
            assert_eq!(read, next);
            if round % 3 == 2 {
                journal.trim(next - 11).unwrap();
                journal.wait_durable(journal.latest()).unwrap();
            }
        }
        journal.close().unwrap();
        let stats = journal.stats();
        assert!(stats.disk_bytes <= 7 * 64 * 1024, "{stats:?}");
        assert!(stats.prepared_bytes <= 9 * 64 * 1024, "trimmed segments were not used again: {stats:?}");
        drop((journal, reader));

        let (journal, recovery) = open(&disk, small());
        assert_eq!((recovery.first, recovery.next), (next - 30, next));
        let left = drain(&mut journal.reader(1));
        assert_eq!(left.len(), 30);
        assert_eq!(left[0], (next - 30, payload(next - 30, 100 + (next - 30) as usize % 4000)));
        assert_eq!(drain(&mut journal.reader(next - 3)).len(), 3);
    }
}

#[test]
fn the_snapshot_of_the_newest_segment_and_the_notes_behind_it_give_the_state() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
    let mut sum = 0_u64;
    let (journal, _) = open(&disk, small());
    for number in 1..=300_u64 {
        let filler = vec![1; 1000];
        let note = number.to_le_bytes();
        let records =
            [Record { kind: Kind::Note, parts: &[&note] }, Record { kind: Kind::Data, parts: &[&filler] }];
        journal
            .append(&records, Urgency::Lazy, &mut |state| state.extend_from_slice(&sum.to_le_bytes()))
            .unwrap();
        sum += number;
    }
    journal.close().unwrap();
    let (_journal, recovery) = open(&disk, small());
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    assert!(recovery.notes.len() < 70, "the notes of old segments are not needed");
    let state =
        number(&recovery.snapshot.unwrap()) + recovery.notes.iter().map(|note| number(note)).sum::<u64>();
    assert_eq!(state, sum);
}

#[test]
fn a_snapshot_larger_than_a_segment_is_kept() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
    let snapshot = payload(9, 300_000);
    let (journal, _) = open(&disk, small());
    for lsn in 1..100 {
        let filler = payload(lsn, 3000);
        let record = Record { kind: Kind::Data, parts: &[&filler] };
        journal.append(&[record], Urgency::Lazy, &mut |state| state.extend_from_slice(&snapshot)).unwrap();
    }
    journal.close().unwrap();
    let (journal, recovery) = open(&disk, small());
    assert_eq!(recovery.snapshot.unwrap(), snapshot);
    assert_eq!(drain(&mut journal.reader(1)).len(), 99);
}

#[test]
fn a_batch_is_taken_as_a_whole_or_refused() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
    let (journal, _) = open(&disk, small());
    let most = vec![7; journal.batch_limit() as usize - 16];
    for len in [most.len(), 10, most.len()] {
        data(&journal, &most[..len]);
    }
    let error = journal
        .append(
            &[
                Record { kind: Kind::Data, parts: &[b"x"] },
                Record { kind: Kind::Data, parts: &[&most, b"y"] },
            ],
            Urgency::Now,
            &mut |_| panic!("nothing is written"),
        )
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PayloadTooLarge);
    assert_eq!(journal.next_lsn(), 4);
    journal.close().unwrap();
    let lens: Vec<usize> = drain(&mut journal.reader(1)).iter().map(|(_, payload)| payload.len()).collect();
    assert_eq!(lens, [most.len(), 10, most.len()]);
}

#[test]
fn only_one_opener_at_a_time_and_the_second_learns_who() {
    for (disk, folder) in disks() {
        let (journal, _) = open(&disk, small());
        let second: Arc<dyn Disk> = match &folder {
            Some(folder) => Arc::new(RealDisk::create(folder.path().join("journal")).unwrap()),
            None => disk.clone(),
        };
        let error = Journal::open(second, small()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InUse);
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        journal.close().unwrap();
        open(&disk, small());
    }
}

#[test]
fn a_closed_journal_takes_nothing_more() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
    let (journal, _) = open(&disk, small());
    data(&journal, b"last");
    journal.close().unwrap();
    journal.close().unwrap();
    let error = journal.append(&[], Urgency::Now, &mut |_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(drain(&mut journal.reader(1)).len(), 1);
}

#[test]
fn dropping_commits_what_was_staged() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
    let (journal, _) = open(&disk, small());
    data(&journal, b"lazy");
    drop(journal);
    let (_journal, recovery) = open_when_free(&disk);
    assert_eq!(recovery.next, 2);
}

/// Opens a journal as soon as whoever dropped its last handle has let go of it.
fn open_when_free(disk: &Arc<dyn Disk>) -> (Journal, Recovery) {
    loop {
        match Journal::open(disk.clone(), small()) {
            Ok(opened) => return opened,
            Err(error) => assert_eq!(error.kind(), ErrorKind::InUse, "{error}"),
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_dropped_or_closed_journal_is_let_go_of_only_when_its_segments_are_tidied_up() {
    for (disk, _folder) in disks() {
        let mut next = 1;
        for round in 0..300_u64 {
            let (journal, recovery) = open_when_free(&disk);
            assert_eq!(recovery.next, next);
            // Segments are full and trimmed just now: renaming and removing them goes on behind the last handle.
            for _ in 0..round % 13 * 20 {
                data(&journal, &payload(next, 1_000));
                next += 1;
            }
            journal.trim(next - 1).unwrap();
            match round % 3 {
                0 => {
                    journal.close().unwrap();
                    let (again, _) = Journal::open(disk.clone(), small()).expect("closed is let go of");
                    drop(again);
                }
                1 => journal.wait_durable(journal.latest()).unwrap(),
                _ => {}
            }
        }
    }
}

#[test]
fn threads_share_commits_and_every_record_is_there_once() {
    for (disk, _folder) in disks() {
        let (journal, _) = open(&disk, small());
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let journal = &journal;
                scope.spawn(move || {
                    for number in 0..50_u64 {
                        let ticket = data(journal, &(thread << 32 | number).to_le_bytes());
                        journal.wait_durable(ticket).unwrap();
                        assert!(journal.is_durable(ticket));
                    }
                });
            }
        });
        let read = drain(&mut journal.reader(1));
        assert!(read.iter().map(|(lsn, _)| *lsn).eq(1..=400));
        let mut seen: Vec<u64> =
            read.iter().map(|(_, payload)| u64::from_le_bytes(payload[..].try_into().unwrap())).collect();
        for thread in 0..8 {
            let of_thread = seen.iter().filter(|value| *value >> 32 == thread).map(|value| value & 0xff);
            assert!(of_thread.eq(0..50), "order within a thread");
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 400);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_share_commits() {
    for (disk, _folder) in disks() {
        let (journal, _) = open(&disk, small());
        let tasks: Vec<_> = (0..64_u64)
            .map(|task| {
                let journal = journal.clone();
                tokio::spawn(async move {
                    for _ in 0..20 {
                        let appended = {
                            let payload = task.to_le_bytes();
                            let record = Record { kind: Kind::Data, parts: &[&payload] };
                            journal.append(&[record], Urgency::Now, &mut |_| {}).unwrap()
                        };
                        journal.durable(appended.ticket).await.unwrap();
                        assert!(journal.durable_lsn() >= appended.first);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(drain(&mut journal.reader(1)).len(), 64 * 20);
        journal.close().unwrap();
    }
}

#[tokio::test]
async fn a_cancelled_wait_changes_nothing() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
    let (journal, _) = open(&disk, small());
    let ticket = data(&journal, b"kept");
    {
        let wait = journal.durable(ticket);
        tokio::pin!(wait);
        let _ = futures_poll(wait.as_mut()).await;
    }
    journal.durable(ticket).await.unwrap();
    assert_eq!(drain(&mut journal.reader(1)).len(), 1);
}

/// Polls once.
async fn futures_poll<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut future).poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn lazy_records_reach_the_disk_by_interval_and_by_size() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
    let options = JournalOptions { sync_interval: Some(Duration::from_millis(1)), ..small() };
    let (journal, _) = open(&disk, options);
    let mut reader = journal.reader(1);
    data(&journal, b"by interval");
    while reader.next().unwrap().is_none() {
        std::thread::yield_now();
    }
    journal.close().unwrap();
    drop((journal, reader));

    let (journal, _) = open(&disk, JournalOptions { segment_bytes: 1 << 20, ..JournalOptions::default() });
    let ticket = data(&journal, b"by size");
    for _ in 0..300 {
        data(&journal, &[1; 1024]);
    }
    while !journal.is_durable(ticket) {
        std::thread::yield_now();
    }
}

#[test]
fn lazy_records_wait_for_somebody() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
    let (journal, _) = open(&disk, small());
    let ticket = data(&journal, b"lazy");
    assert_eq!(journal.stats().commits, 0);
    assert!(!journal.is_durable(ticket));
    assert_eq!(journal.durable_lsn(), 0);
    assert!(journal.reader(1).next().unwrap().is_none());
    journal.wait_durable(ticket).unwrap();
    assert_eq!((journal.stats().commits, journal.durable_lsn()), (1, 1));
}

#[test]
fn a_reader_follows_and_skips_what_is_trimmed() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
    let (journal, _) = open(&disk, small());
    let mut reader = journal.reader(1);
    assert!(reader.next().unwrap().is_none());
    for lsn in 1..=200 {
        data(&journal, &payload(lsn, 2000));
    }
    journal.wait_durable(journal.latest()).unwrap();
    assert!(matches!(reader.next().unwrap(), Some(Read::Record(1, _))));
    journal.trim(150).unwrap();
    assert!(matches!(reader.next().unwrap(), Some(Read::Record(151, _))));
    journal.close().unwrap();
    assert!(matches!(reader.next().unwrap(), Some(Read::Record(152, _))));
    assert!(matches!(journal.reader(1).next().unwrap(), Some(Read::Record(151, _))));
}

#[test]
fn live_bytes_follow_appends_and_trims() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
    let (journal, _) = open(&disk, JournalOptions::default());
    for lsn in 1..=10_000 {
        data(&journal, &payload(lsn, 240));
    }
    journal.wait_durable(journal.latest()).unwrap();
    assert_eq!(journal.stats().live_bytes, 256 * 10_000);
    assert_eq!(journal.stats().appended_bytes, 240 * 10_000);
    journal.trim(9_000).unwrap();
    let live = journal.stats().live_bytes;
    assert!((256 * 1_000..=256 * 1_000 + 64 * 1024).contains(&live), "{live}");
    journal.trim(10_000).unwrap();
    assert_eq!(journal.stats().live_bytes, 0);
}

#[test]
fn an_empty_journal_takes_little_space() {
    let folder = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::create(folder.path()).unwrap());
    let (journal, _) = open(&disk, JournalOptions::default());
    assert!(journal.stats().disk_bytes <= 256 * 1024, "{:?}", journal.stats());
}
