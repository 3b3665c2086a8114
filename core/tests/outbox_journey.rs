//! The life of messages in an outbox: sent, read, ended; with restarts.

mod outbox_support;

use std::{future::Future, task::Poll, time::Duration};

use outbox_support::{
    DELIVERED, Stage, account, bodies, deliver, numbers, read_all, reading, send_readings, waiting,
};
use whimbrel::{
    Account, DropReason, Durability, ErrorKind, Lane, Message, Outcome, ReceiptState,
    outbox::{Outbox, OutboxOptions, Storage},
};

#[tokio::test]
async fn a_message_goes_from_send_to_its_outcome() {
    let stage = Stage::new();
    let outbox = stage.open();
    let receipt = outbox.send(reading(1).property("room", "attic")).await.unwrap();
    assert_eq!(receipt.state(), ReceiptState::Queued);
    assert_eq!(account(&outbox), Account { accepted: 1, queued: 1, ..Account::default() });

    let read = read_all(&outbox, Lane::Telemetry);
    assert_eq!((read.len(), read[0].sequence), (1, 1));
    assert_eq!(read[0].message.properties().get("room"), Some("attic"));
    assert_eq!(read[0].message.system().message_id.as_deref(), Some(receipt.message_id()));
    outbox.mark_sent(&[(Lane::Telemetry, 1)]);
    assert_eq!(receipt.state(), ReceiptState::Sent);
    outbox.mark_unsent();
    assert_eq!(receipt.state(), ReceiptState::Queued);

    let place = Outcome::Delivered { partition: Some(3), sequence: Some(77) };
    let settle = async { outbox.settle(vec![(Lane::Telemetry, 1, place.clone())]).unwrap() };
    let (outcome, ()) = tokio::join!(receipt.outcome(), settle);
    assert_eq!(outcome.unwrap(), place);
    assert_eq!(receipt.state(), ReceiptState::Settled(place));
    assert_eq!(account(&outbox), Account { accepted: 1, delivered: 1, ..Account::default() });
    outbox.empty().await;
    assert_eq!(outbox.counters().sent, 1);
    assert_eq!(outbox.counters().queued_bytes, 0);
}

#[tokio::test]
async fn what_waits_comes_back_in_order_with_the_same_ids_and_numbers() {
    let stage = Stage::new();
    let outbox = stage.open();
    let id = outbox.id().to_owned();
    let mine = outbox.send(Message::alert("a0").message_id("mine")).await.unwrap();
    send_readings(&outbox, 0..50).await;
    let before = read_all(&outbox, Lane::Telemetry);
    deliver(&outbox, Lane::Telemetry, [1, 2, 3, 7, 20]);
    let balance = account(&outbox);
    outbox.close().unwrap();

    let outbox = stage.open();
    assert_eq!(outbox.id(), id);
    assert_eq!(account(&outbox), balance);
    assert_eq!(outbox.head(Lane::Telemetry), 4);
    let after = read_all(&outbox, Lane::Telemetry);
    let left: Vec<_> = before.iter().filter(|queued| ![1, 2, 3, 7, 20].contains(&queued.sequence)).collect();
    assert_eq!(after.len(), left.len());
    for (after, before) in after.iter().zip(left) {
        assert_eq!((after.sequence, after.number), (before.sequence, before.number));
        assert_eq!(after.message, before.message);
    }
    assert_eq!(waiting(&outbox, Lane::Alert), ["a0"]);
    assert_eq!(outbox.receipt(mine.message_id()).unwrap().unwrap().state(), ReceiptState::Queued);

    let last = after.last().unwrap().number;
    outbox.send(reading(50)).await.unwrap();
    let newest = read_all(&outbox, Lane::Telemetry).pop().unwrap();
    assert_eq!(newest.sequence, 51);
    assert!(newest.number > last + 1, "numbers of different openings never meet");
}

#[tokio::test]
async fn lanes_are_kept_apart() {
    let stage = Stage::new();
    let outbox = stage.open();
    let mixed = (0..10).map(|number| {
        let lane = if number % 3 == 0 { Lane::Alert } else { Lane::Telemetry };
        Message::in_lane(lane, number.to_string())
    });
    let receipts = outbox.send_all(mixed.collect()).await.unwrap();
    assert_eq!(waiting(&outbox, Lane::Alert), ["0", "3", "6", "9"]);
    assert_eq!(waiting(&outbox, Lane::Telemetry), ["1", "2", "4", "5", "7", "8"]);
    deliver(&outbox, Lane::Alert, [2]);
    let settled: Vec<_> =
        (0..10).filter(|&number| receipts[number].state() == ReceiptState::Settled(DELIVERED)).collect();
    assert_eq!(settled, [3], "receipts come in the order of the messages");
    assert_eq!(outbox.counters().queued_alerts, 3);
}

#[tokio::test]
async fn many_are_one_wait_and_one_bad_one_stops_them_all() {
    let stage = Stage::new();
    let outbox = stage.open();
    let large = vec![7_u8; 200_000];
    let receipts =
        outbox.send_all((0..30).map(|_| Message::telemetry(large.clone())).collect()).await.unwrap();
    assert_eq!(receipts.len(), 30, "more than a segment holds");
    assert_eq!(read_all(&outbox, Lane::Telemetry).len(), 30);

    let mut messages: Vec<_> = (0..3).map(reading).collect();
    messages[1] = reading(1).property("$.mid", "no");
    let error = outbox.send_all(messages).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.details().contains(&("index", "1".into())), "{error}");
    assert_eq!(account(&outbox).accepted, 30);
    assert!(outbox.send_all(Vec::new()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_message_that_would_be_too_large_with_its_id_is_refused() {
    let outbox = Stage::new().open();
    let body = vec![0; whimbrel::message::D2C_LIMIT - 10];
    let error = outbox.send(Message::telemetry(body.clone())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PayloadTooLarge);
    outbox.send(Message::telemetry(body).message_id("short")).await.unwrap();
    assert_eq!(account(&outbox).accepted, 1);
}

#[tokio::test]
async fn the_reader_is_told_of_the_backlog_of_new_messages_and_of_those_whose_sender_gave_up_waiting() {
    let stage = Stage::new();
    let outbox = stage.open();
    assert!(is_pending(outbox.readable()), "nothing is there");
    send_readings(&outbox, 0..3).await;
    outbox.readable().await;
    assert_eq!(waiting(&outbox, Lane::Telemetry), numbers(0..3));
    assert!(is_pending(outbox.readable()), "nothing is new");

    let mut send = Box::pin(outbox.send(reading(3)));
    let _ = std::future::poll_fn(|context| Poll::Ready(send.as_mut().poll(context).is_ready())).await;
    drop(send);
    outbox.readable().await;
    assert_eq!(waiting(&outbox, Lane::Telemetry), numbers(0..4));
    assert_eq!(account(&outbox).accepted, 4);
    outbox.close().unwrap();

    let outbox = stage.open();
    outbox.readable().await;
    assert_eq!(waiting(&outbox, Lane::Telemetry), numbers(0..4));
}

#[tokio::test]
async fn a_reader_far_behind_reads_from_the_disk_and_catches_up() {
    for durability in [Durability::OnDisk, Durability::Interval, Durability::Memory] {
        let stage = Stage::with(OutboxOptions { durability, ..OutboxOptions::default() });
        let outbox = stage.open();
        let body = |number: usize| format!("{number:01000}");
        let send = |range: std::ops::Range<usize>| {
            outbox.send_all(range.map(|number| Message::telemetry(body(number))).collect())
        };
        // More than the tail holds, so that it is given up.
        send(0..3_000).await.unwrap();
        let (mut out, mut at) = (Vec::new(), 0);
        for round in 0..30 {
            send(3_000 + round..3_001 + round).await.unwrap();
            at = outbox.read(Lane::Telemetry, at, 110, &mut out).unwrap();
        }
        while out.len() < 3_030 {
            outbox.readable().await;
            at = outbox.read(Lane::Telemetry, at, 1_000, &mut out).unwrap();
        }
        assert_eq!(bodies(&out), (0..3_030).map(body).collect::<Vec<_>>());
        // From now on it keeps up.
        send(3_030..3_031).await.unwrap();
        outbox.readable().await;
        outbox.read(Lane::Telemetry, at, 1_000, &mut out).unwrap();
        assert_eq!(out.len(), 3_031);
        deliver(&outbox, Lane::Telemetry, 1..=3_031);
        assert_eq!(account(&outbox).queued, 0);
    }
}

#[tokio::test]
async fn any_order_of_ends_keeps_the_head_and_the_account() {
    let stage = Stage::new();
    let outbox = stage.open();
    send_readings(&outbox, 0..10).await;
    read_all(&outbox, Lane::Telemetry);
    deliver(&outbox, Lane::Telemetry, [9, 2, 3, 3]);
    assert_eq!(outbox.head(Lane::Telemetry), 1);
    let rejected = Outcome::Rejected { reason: "too hot".into() };
    outbox.settle(vec![(Lane::Telemetry, 1, rejected.clone())]).unwrap();
    assert_eq!(outbox.head(Lane::Telemetry), 4);
    deliver(&outbox, Lane::Telemetry, [1, 2, 0, 11, u64::MAX]);
    let expected = Account { accepted: 10, delivered: 3, rejected: 1, queued: 6, ..Account::default() };
    assert_eq!(account(&outbox), expected);
    assert_eq!(waiting(&outbox, Lane::Telemetry), ["3", "4", "5", "6", "7", "9"]);
    outbox.close().unwrap();
    let outbox = stage.open();
    assert_eq!(account(&outbox), expected);
    assert_eq!(waiting(&outbox, Lane::Telemetry), ["3", "4", "5", "6", "7", "9"]);
}

#[tokio::test]
async fn a_closed_outbox_says_so_and_gives_the_folder_free() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::Directory(folder.path().join("outbox"));
    let outbox = Outbox::open(&storage, OutboxOptions::default()).unwrap();
    let receipt = outbox.send(reading(1)).await.unwrap();
    let error = Outbox::open(&storage, OutboxOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");

    let close = async { outbox.close().unwrap() };
    let (outcome, ()) = tokio::join!(receipt.outcome(), close);
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Closed);
    outbox.close().unwrap();
    assert_eq!(outbox.send(reading(2)).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(outbox.send_all(vec![reading(2)]).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(outbox.settle(Vec::new()).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(outbox.read(Lane::Alert, 0, 1, &mut Vec::new()).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(outbox.receipt("x").unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(receipt.outcome().await.unwrap_err().kind(), ErrorKind::Closed);
    outbox.readable().await;
    outbox.empty().await;

    let again = Outbox::open(&storage, OutboxOptions::default()).unwrap();
    let found = again.receipt(receipt.message_id()).unwrap().unwrap();
    assert_eq!(found.state(), ReceiptState::Queued);
}

#[tokio::test]
async fn dropping_the_last_handle_closes_the_outbox_even_when_receipts_are_left() {
    let stage = Stage::new();
    let outbox = stage.open();
    let receipt = outbox.send(reading(1)).await.unwrap();
    drop(outbox);
    assert_eq!(receipt.state(), ReceiptState::Unknown);
    assert_eq!(receipt.outcome().await.unwrap_err().kind(), ErrorKind::Closed);
    let outbox = loop {
        // The journals end with their threads, which nobody can wait for.
        match stage.try_open() {
            Ok(outbox) => break outbox,
            Err(error) => assert_eq!(error.kind(), ErrorKind::InUse),
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(waiting(&outbox, Lane::Telemetry), ["1"]);
}

#[tokio::test]
async fn an_outbox_in_memory_works_and_forgets() {
    let outbox = Outbox::open(&Storage::Memory, OutboxOptions::default()).unwrap();
    send_readings(&outbox, 0..100).await;
    outbox.readable().await;
    assert_eq!(waiting(&outbox, Lane::Telemetry), numbers(0..100));
    deliver(&outbox, Lane::Telemetry, 1..=100);
    assert_eq!(account(&outbox).delivered, 100);
    let other = Outbox::open(&Storage::Memory, OutboxOptions::default()).unwrap();
    assert_ne!(other.id(), outbox.id());
    assert_eq!(account(&other), Account::default());
}

#[tokio::test]
async fn damaged_records_end_as_dropped_and_the_rest_is_delivered() {
    let stage = Stage::new();
    let outbox = stage.open();
    let body = |number: usize| format!("<reading {number}>");
    outbox.send_all((0..40).map(|number| Message::telemetry(body(number))).collect()).await.unwrap();
    outbox.close().unwrap();
    assert_eq!(stage.telemetry.damage(body(7).as_bytes()), 1);
    assert_eq!(stage.telemetry.damage(body(23).as_bytes()), 1);

    let outbox = stage.open();
    let left: Vec<_> = (0..40).filter(|number| ![7, 23].contains(number)).map(body).collect();
    assert_eq!(waiting(&outbox, Lane::Telemetry), left);
    assert_eq!(outbox.counters().dropped, [(DropReason::Damaged, 2)]);
    assert_eq!(account(&outbox), Account { accepted: 40, dropped: 2, queued: 38, ..Account::default() });
}

#[tokio::test]
async fn a_long_backlog_is_opened_without_reading_it() {
    let stage = Stage::with(OutboxOptions { max_bytes: 64 << 20, ..OutboxOptions::default() });
    let outbox = stage.open();
    for start in (0..60_000).step_by(10_000) {
        let large = (start..start + 10_000).map(|number| Message::telemetry(format!("{number:0200}")));
        outbox.send_all(large.collect()).await.unwrap();
    }
    outbox.close().unwrap();
    let before = stage.telemetry.bytes_read();
    let outbox = stage.open();
    let bytes = stage.telemetry.bytes_read() - before;
    assert!(bytes < 5 << 20, "{bytes} bytes read to open {} bytes", outbox.counters().queued_bytes);
    assert_eq!(account(&outbox).queued, 60_000);
    outbox.readable().await;
    let mut out = Vec::new();
    outbox.read(Lane::Telemetry, 0, 10, &mut out).unwrap();
    assert_eq!(out.len(), 10);
    let more = stage.telemetry.bytes_read() - before - bytes;
    assert!(more < 1 << 20, "{more} bytes read for ten messages");
}

#[tokio::test]
async fn the_oldest_age_is_that_of_the_head() {
    let stage = Stage::new();
    let outbox = stage.open();
    assert_eq!(outbox.counters().oldest_age, None);
    outbox.send(reading(0)).await.unwrap();
    stage.pass(5);
    outbox.send(Message::alert("a")).await.unwrap();
    stage.pass(2);
    assert_eq!(outbox.counters().oldest_age, Some(Duration::from_secs(7)));
    outbox.close().unwrap();
    stage.pass(100);
    let outbox = stage.open();
    stage.pass(1);
    assert_eq!(outbox.counters().oldest_age, Some(Duration::from_secs(108)));
    deliver(&outbox, Lane::Telemetry, [1]);
    assert_eq!(outbox.counters().oldest_age, Some(Duration::from_secs(103)));
}

/// Whether a future waits when it is asked once.
fn is_pending(future: impl Future) -> bool {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    future.as_mut().poll(&mut context).is_pending()
}
