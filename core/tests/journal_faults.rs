//! What the journal does with flipped bits, full disks, and a disk that refuses to write.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{collections::BTreeSet, sync::Arc};

use whimbrel::{
    ErrorKind,
    journal::{Journal, JournalOptions, Kind, Read, Record, Recovery, Ticket, Urgency},
    testing::{CrashDisk, Deeds, Survivors},
};

fn options() -> JournalOptions {
    JournalOptions { segment_bytes: 64 * 1024, spare_segments: 1, sync_interval: None }
}

fn open(disk: &CrashDisk) -> (Journal, Recovery) {
    Journal::open(Arc::new(disk.clone()), options()).unwrap()
}

fn payload(lsn: u64, len: usize) -> Vec<u8> {
    (0..len).map(|at| (lsn as usize * 7 + at) as u8).collect()
}

fn append(journal: &Journal, payload: &[u8]) -> whimbrel::Result<Ticket> {
    let record = Record { kind: Kind::Data, parts: &[payload] };
    let state = b"state of the owner";
    journal
        .append(&[record], Urgency::Lazy, &mut |snapshot| snapshot.extend_from_slice(state))
        .map(|appended| appended.ticket)
}

/// Two segments with 60 records; the second has small ones only. Everything is durable.
fn small_log() -> (CrashDisk, Vec<Vec<u8>>) {
    let disk = CrashDisk::new();
    let (journal, _) = open(&disk);
    let payloads: Vec<Vec<u8>> =
        (1..=60).map(|lsn| payload(lsn, if lsn <= 20 { 3_000 } else { 10 + lsn as usize })).collect();
    for (index, payload) in payloads.iter().enumerate() {
        append(&journal, payload).unwrap();
        if index % 7 == 0 {
            let note = Record { kind: Kind::Note, parts: &[b"a note"] };
            journal.append(&[note], Urgency::Lazy, &mut |_| {}).unwrap();
        }
        if index % 5 == 0 {
            journal.wait_durable(journal.latest()).unwrap();
        }
    }
    journal.close().unwrap();
    (disk.copy(), payloads)
}

/// Reads everything; returns what was delivered, and whether anything was said to be damaged or torn.
fn read_all(disk: &CrashDisk, payloads: &[Vec<u8>], what: &str) -> (BTreeSet<u64>, bool) {
    let (journal, recovery) = Journal::open(Arc::new(disk.clone()), options()).expect(what);
    let mut said = !recovery.damaged.is_empty() || recovery.torn_bytes > 0;
    let mut delivered = BTreeSet::new();
    let mut next = 1;
    let mut reader = journal.reader(1);
    while let Some(read) = reader.next().expect(what) {
        match read {
            Read::Record(lsn, read) => {
                assert_eq!(lsn, next, "{what}");
                assert_eq!(read, payloads[lsn as usize - 1], "{what}: record {lsn}");
                delivered.insert(lsn);
                next = lsn + 1;
            }
            Read::Damaged(damage) => {
                assert_eq!(damage.first, next, "{what}");
                said = true;
                next = damage.last + 1;
            }
        }
    }
    assert_eq!(next, recovery.next, "{what}");
    (delivered, said)
}

/// Offsets worth flipping in a segment: everything but zeros that are far from anything.
fn offsets(content: &[u8]) -> Vec<u64> {
    let near = |at: usize| {
        content[at.saturating_sub(64)..(at + 64).min(content.len())].iter().any(|byte| *byte != 0)
    };
    (0..content.len()).filter(|at| near(*at)).map(|at| at as u64).collect()
}

#[test]
fn a_flipped_bit_anywhere_costs_one_record_at_most_and_is_told() {
    let (disk, payloads) = small_log();
    let all: BTreeSet<u64> = (1..=60).collect();
    assert_eq!(read_all(&disk.copy(), &payloads, "undamaged"), (all.clone(), false));
    let (mut flips, mut hurt) = (0, 0);
    for name in disk.names() {
        let content = disk.content(&name).unwrap();
        // The large records of the first segment are alike inside: their middles are sampled.
        let sparse = name == "segment-00000001";
        for offset in offsets(&content)
            .into_iter()
            .filter(|at| !sparse || at % 3_016 < 4_200 && at % 7 == 0 || *at < 4_300)
        {
            let damaged = disk.copy();
            let bit = (offset % 8) as u32;
            assert!(damaged.flip(&name, offset, bit));
            let what = format!("bit {bit} of byte {offset} of {name}");
            let (delivered, said) = read_all(&damaged, &payloads, &what);
            let lost: Vec<_> = all.difference(&delivered).collect();
            assert!(lost.len() <= 1, "{what}: {lost:?} lost");
            assert!(lost.is_empty() || said, "{what}: {lost:?} lost, and nothing said");
            flips += 1;
            hurt += usize::from(!lost.is_empty());
        }
    }
    assert!(flips > 8_000 && hurt > 3_000, "{flips} flips, {hurt} of them hurt");
}

#[test]
fn damaged_bytes_are_put_aside_once() {
    let (disk, payloads) = small_log();
    assert!(disk.flip("segment-00000001", 9_000, 3));
    for _ in 0..3 {
        let (delivered, said) = read_all(&disk, &payloads, "flipped");
        assert!(said && delivered.len() == 59);
    }
    let aside: Vec<String> = disk.names().into_iter().filter(|name| name.starts_with("damaged/")).collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert!(disk.content(&aside[0]).unwrap().len() >= 3_000);
}

#[test]
fn a_wiped_header_costs_nothing_and_a_wiped_segment_only_itself() {
    let (disk, payloads) = small_log();
    for name in ["segment-00000001", "segment-00000002"] {
        for offset in [0, 64 * 1024 - 4096] {
            let damaged = disk.copy();
            damaged.scribble(name, offset, &[0; 4096]);
            assert_eq!(read_all(&damaged, &payloads, name).0.len(), 60);
        }
    }
    let damaged = disk.copy();
    damaged.scribble("segment-00000001", 0, &[0x5a; 64 * 1024]);
    let (delivered, said) = read_all(&damaged, &payloads, "first segment wiped");
    assert!(said && delivered.contains(&60) && !delivered.contains(&1), "{delivered:?}");
}

#[test]
fn a_full_disk_refuses_and_works_again_when_space_returns() {
    let disk = CrashDisk::new();
    let (journal, _) = open(&disk);
    disk.set_capacity(Some(200 * 1024));
    let mut taken = 0;
    let error = loop {
        match append(&journal, &payload(taken + 1, 2_000)) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
    assert!(taken >= 80, "{taken}");
    assert_eq!(journal.next_lsn(), taken + 1, "nothing was staged");
    journal.wait_durable(journal.latest()).unwrap();
    for _ in 0..3 {
        assert_eq!(append(&journal, &payload(0, 2_000)).unwrap_err().kind(), ErrorKind::DiskFull);
    }
    // Space comes back from outside.
    disk.set_capacity(Some(280 * 1024));
    for _ in 0..20 {
        taken += 1;
        append(&journal, &payload(taken, 2_000)).unwrap();
    }
    // And by trimming, while the disk stays full.
    while append(&journal, &payload(taken + 1, 2_000)).is_ok() {
        taken += 1;
    }
    for round in 0..10 {
        journal.trim(taken - 2).unwrap();
        if round % 2 == 0 {
            journal.wait_durable(journal.latest()).unwrap();
        }
        // On a full disk a trim does not wait for the next append, which could not be taken.
        while !journal.is_durable(journal.latest()) {
            std::thread::yield_now();
        }
        let before = taken;
        while taken < before + 200 && append(&journal, &payload(taken + 1, 2_000)).is_ok() {
            taken += 1;
        }
        assert!(taken > before, "round {round}: nothing was won by trimming");
    }
    journal.close().unwrap();
    let (journal, recovery) = open(&disk);
    assert_eq!(recovery.next, taken + 1);
    let mut reader = journal.reader(1);
    while let Some(read) = reader.next().unwrap() {
        let Read::Record(lsn, read) = read else { panic!("{read:?}") };
        assert_eq!(read, payload(lsn, 2_000));
    }
}

#[test]
fn after_a_failed_write_or_sync_nothing_is_accepted_until_reopened() {
    for kind in [Deeds::Write, Deeds::Sync] {
        let disk = CrashDisk::new();
        let (journal, _) = open(&disk);
        let good = append(&journal, b"good").unwrap();
        journal.wait_durable(good).unwrap();
        disk.fail(kind, 0);
        let bad = append(&journal, b"bad").unwrap();
        assert_eq!(journal.wait_durable(bad).unwrap_err().kind(), ErrorKind::JournalIo);
        assert_eq!(append(&journal, b"more").unwrap_err().kind(), ErrorKind::JournalIo);
        assert_eq!(journal.trim(1).unwrap_err().kind(), ErrorKind::JournalIo);
        assert!(journal.is_durable(good) && !journal.is_durable(bad));
        journal.wait_durable(good).unwrap();
        journal.close().unwrap_err();
        let (journal, recovery) = open(&disk);
        assert!(recovery.next >= 2);
        journal.wait_durable(append(&journal, b"again").unwrap()).unwrap();
    }
}

#[test]
fn what_a_reopened_journal_shows_is_durable_even_when_the_last_sync_had_failed() {
    let disk = CrashDisk::new();
    let (journal, _) = open(&disk);
    journal.wait_durable(append(&journal, b"first").unwrap()).unwrap();
    disk.fail(Deeds::Sync, 0);
    journal.wait_durable(append(&journal, &payload(2, 5_000)).unwrap()).unwrap_err();
    journal.close().unwrap_err();
    // The system still shows what it failed to store. Who reopens the journal is given it, and acts on it.
    let (journal, recovery) = open(&disk);
    assert_eq!(recovery.next, 3);
    let left = disk.cut(disk.position(), Survivors::None);
    drop(journal);
    let (_, recovery) = open(&left);
    assert_eq!(recovery.next, 3, "a record that was shown is gone");
}

#[tokio::test]
async fn a_waiting_task_learns_of_the_failure() {
    let disk = CrashDisk::new();
    let (journal, _) = open(&disk);
    disk.fail(Deeds::Sync, 0);
    let record = Record { kind: Kind::Data, parts: &[b"lost"] };
    let appended = journal.append(&[record], Urgency::Now, &mut |_| {}).unwrap();
    assert_eq!(journal.durable(appended.ticket).await.unwrap_err().kind(), ErrorKind::JournalIo);
}
