//! Disks that are full, and disks that fail.

mod outbox_support;

use std::time::{Duration, Instant};

use outbox_support::{
    DELIVERED, Stage, account, deliver, numbers, read_all, reading, send_readings, waiting,
};
use whimbrel::{
    DropReason, ErrorKind, Lane, Message, ReceiptState,
    outbox::{Outbox, OutboxOptions},
};

/// Small segments, so that a disk fills up soon.
fn stage() -> Stage {
    Stage::with(OutboxOptions { max_bytes: 16 << 20, ..OutboxOptions::default() })
}

/// Sends messages of each size until none fits any more.
async fn fill(outbox: &Outbox, sizes: &[usize]) -> u64 {
    let mut accepted = 0;
    for &size in sizes {
        let error = loop {
            match outbox.send(Message::telemetry(vec![5; size])).await {
                Ok(_) => accepted += 1,
                Err(error) => break error,
            }
            assert!(accepted < 1_000, "a full disk takes only what was prepared before");
        };
        assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
    }
    accepted
}

#[tokio::test]
async fn on_a_full_disk_send_says_so_delivery_goes_on_and_makes_room() {
    let stage = stage();
    let outbox = stage.open();
    // Several segments, so that there is one that can be used again.
    let large = (0..30).map(|_| Message::telemetry(vec![5; 100_000])).collect();
    outbox.send_all(large).await.unwrap();
    stage.telemetry.set_full(true);
    let accepted = 30 + fill(&outbox, &[100_000, 1_000, 1]).await;
    assert_eq!(account(&outbox).accepted, accepted, "what was refused was not taken in");
    assert_eq!(read_all(&outbox, Lane::Telemetry).len() as u64, accepted);
    outbox.send(Message::alert("the other disk has room")).await.unwrap();

    // Deliver what waits: the segments are used again, on a disk as full as before.
    deliver(&outbox, Lane::Telemetry, 1..=accepted);
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(error) = outbox.send(reading(1)).await {
        assert_eq!(error.kind(), ErrorKind::DiskFull);
        assert!(Instant::now() < deadline, "room was made, and is not found");
        tokio::task::yield_now().await;
    }
    let last = account(&outbox);
    assert_eq!((last.delivered, last.queued), (accepted, 2));
    outbox.close().unwrap();
    stage.telemetry.set_full(false);
    let outbox = stage.open();
    assert_eq!(account(&outbox), last);
    assert_eq!(waiting(&outbox, Lane::Telemetry), ["1"]);
}

#[tokio::test]
async fn a_full_disk_works_again_when_space_returns() {
    let stage = stage();
    let outbox = stage.open();
    stage.telemetry.set_full(true);
    let accepted = fill(&outbox, &[100_000]).await;
    stage.telemetry.set_full(false);
    let receipt = outbox.send(reading(1)).await.unwrap();
    assert_eq!(account(&outbox).queued, accepted + 1);
    assert_eq!(receipt.state(), ReceiptState::Queued);
}

#[tokio::test]
async fn an_end_that_finds_no_room_on_the_disk_is_written_with_what_comes_next() {
    let stage = stage();
    let outbox = stage.open();
    send_readings(&outbox, 0..3_000).await;
    stage.telemetry.set_full(true);
    // Less is left than the note of 3,000 ends takes, but more than a message does.
    let accepted = 3_000 + fill(&outbox, &[100_000, 5_000]).await;
    read_all(&outbox, Lane::Telemetry);
    deliver(&outbox, Lane::Telemetry, 1..=3_000);
    stage.telemetry.set_full(false);
    outbox.send(reading(3_000)).await.unwrap();
    let last = account(&outbox);
    assert_eq!((last.delivered, last.queued), (3_000, accepted + 1 - 3_000));
    outbox.close().unwrap();
    assert_eq!(account(&stage.open()), last);
}

#[tokio::test]
async fn a_batch_that_fills_the_disk_leaves_nothing_to_be_delivered() {
    let stage = stage();
    let outbox = stage.open();
    send_readings(&outbox, 0..3).await;
    stage.telemetry.set_full(true);
    let mut batch = vec![Message::alert("with the others")];
    batch.extend((0..60).map(|_| Message::telemetry(vec![5; 100_000])));
    let error = outbox.send_all(batch).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DiskFull);
    assert_eq!(waiting(&outbox, Lane::Telemetry), numbers(0..3));
    assert_eq!(waiting(&outbox, Lane::Alert).len(), 0);
    let balance = account(&outbox);
    assert_eq!((balance.queued, balance.accepted), (3, 3 + balance.dropped));
    assert_eq!(outbox.counters().dropped, [(DropReason::NoRoom, balance.dropped)]);
    stage.telemetry.set_full(false);
    outbox.send(reading(3)).await.unwrap();
    assert_eq!(waiting(&outbox, Lane::Telemetry), numbers(0..4));
    outbox.close().unwrap();
    assert_eq!(waiting(&stage.open(), Lane::Telemetry), numbers(0..4));
}

#[tokio::test]
async fn after_a_failed_sync_nothing_more_is_promised_until_opened_again() {
    let stage = stage();
    let outbox = stage.open();
    let safe = outbox.send(reading(0)).await.unwrap();
    read_all(&outbox, Lane::Telemetry);
    stage.telemetry.set_failing(true);
    assert_eq!(outbox.send(reading(1)).await.unwrap_err().kind(), ErrorKind::JournalIo);
    assert_eq!(outbox.send(reading(2)).await.unwrap_err().kind(), ErrorKind::JournalIo);
    assert_eq!(waiting(&outbox, Lane::Telemetry), ["0"], "what is not on the disk does not leave");
    outbox.send(Message::alert("the other disk is well")).await.unwrap();

    let error = outbox.settle(vec![(Lane::Telemetry, 1, DELIVERED)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::JournalIo);
    assert_eq!(safe.outcome().await.unwrap(), DELIVERED, "it is delivered all the same");
    account(&outbox);
    assert_eq!(outbox.close().unwrap_err().kind(), ErrorKind::JournalIo);

    stage.telemetry.set_failing(false);
    let outbox = stage.open();
    let left = waiting(&outbox, Lane::Telemetry);
    assert!(left.contains(&"0".to_owned()), "nobody could write down that it was delivered");
    account(&outbox);
    send_readings(&outbox, 5..6).await;
    assert_eq!(waiting(&outbox, Lane::Telemetry).last().unwrap(), "5");
}

#[tokio::test]
async fn an_outbox_whose_disk_failed_works_again_after_suspending_and_resuming() {
    let stage = stage();
    let outbox = stage.open();
    let safe = outbox.send(reading(0)).await.unwrap();
    stage.telemetry.set_failing(true);
    assert_eq!(outbox.send(reading(1)).await.unwrap_err().kind(), ErrorKind::JournalIo);
    assert_eq!(outbox.suspend().unwrap_err().kind(), ErrorKind::JournalIo);
    outbox.suspend().unwrap();
    assert_eq!(outbox.resume().unwrap_err().kind(), ErrorKind::JournalIo, "it still fails");
    assert_eq!(outbox.send(reading(1)).await.unwrap_err().kind(), ErrorKind::Closed);
    let before = account(&outbox);
    stage.telemetry.set_failing(false);
    outbox.resume().unwrap();
    assert!(account(&outbox).queued <= before.queued, "what was not promised may be gone");
    let later = outbox.send(reading(2)).await.unwrap();
    let left = waiting(&outbox, Lane::Telemetry);
    assert_eq!((left.first().unwrap().as_str(), left.last().unwrap().as_str()), ("0", "2"));
    let all: Vec<_> = read_all(&outbox, Lane::Telemetry).iter().map(|queued| queued.sequence).collect();
    deliver(&outbox, Lane::Telemetry, all);
    assert_eq!(safe.outcome().await.unwrap(), DELIVERED);
    assert_eq!(later.outcome().await.unwrap(), DELIVERED);
    outbox.close().unwrap();
    outbox.suspend().unwrap();
    assert_eq!(outbox.resume().unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn who_reads_while_it_is_suspended_or_was_is_told_and_reads_the_new_books_afterwards() {
    let stage = stage();
    let outbox = stage.open();
    send_readings(&outbox, 0..3_000).await;
    let mut out = Vec::new();
    let at = outbox.read(Lane::Telemetry, 1, 10, &mut out).unwrap();
    outbox.suspend().unwrap();
    let read = stage.telemetry.bytes_read();
    assert_eq!(outbox.read(Lane::Telemetry, at, 10, &mut out).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(outbox.receipt("mine").unwrap_err().kind(), ErrorKind::Closed);
    assert!(outbox.counters().oldest_age.is_some());
    assert_eq!(stage.telemetry.bytes_read(), read, "the files are left alone");
    // Another one delivers some.
    let other = stage.open();
    deliver(&other, Lane::Telemetry, 1..=20);
    other.close().unwrap();
    outbox.resume().unwrap();
    assert_eq!((account(&outbox).delivered, outbox.head(Lane::Telemetry)), (20, 21));
    out.clear();
    outbox.read(Lane::Telemetry, at, 10, &mut out).unwrap();
    assert_eq!(outbox_support::bodies(&out), numbers(20..30));
}
