//! What happens when an outbox is full.

mod outbox_support;

use std::time::Duration;

use outbox_support::{Stage, account, deliver, numbers, read_all, reading, send_readings, waiting};
use whimbrel::{
    Account, DropReason, ErrorKind, Lane, Message, Outcome, ReceiptState,
    outbox::{Outbox, OutboxOptions, Overflow},
};

fn alert(number: usize) -> Message {
    Message::alert(format!("a{number}"))
}

async fn send_error(outbox: &Outbox, message: Message) -> ErrorKind {
    match outbox.send(message).await {
        Ok(receipt) => panic!("{receipt:?} was accepted"),
        Err(error) => error.kind(),
    }
}

fn dropped(reason: DropReason) -> ReceiptState {
    ReceiptState::Settled(Outcome::Dropped { reason })
}

#[tokio::test]
async fn reject_refuses_and_keeps_a_sixteenth_for_alerts() {
    let outbox = Stage::bounded(32, Overflow::Reject).open();
    send_readings(&outbox, 0..30).await;
    assert_eq!(send_error(&outbox, reading(30)).await, ErrorKind::OutboxFull);
    outbox.send(alert(0)).await.unwrap();
    outbox.send(alert(1)).await.unwrap();
    assert_eq!(send_error(&outbox, alert(2)).await, ErrorKind::OutboxFull);
    let counters = outbox.counters();
    assert_eq!((counters.refused, counters.queued_alerts), (2, 2));
    assert_eq!(account(&outbox), Account { accepted: 32, queued: 32, ..Account::default() });

    deliver(&outbox, Lane::Telemetry, [1, 2, 3]);
    outbox.send(reading(30)).await.unwrap();
    assert_eq!(
        send_error(&outbox, reading(31)).await,
        ErrorKind::OutboxFull,
        "two of the places are for alerts"
    );
    outbox.send(alert(2)).await.unwrap();
    outbox.send(alert(3)).await.unwrap();
    assert_eq!(waiting(&outbox, Lane::Telemetry), numbers(3..31));
}

#[tokio::test]
async fn a_small_bound_is_reached_exactly() {
    let outbox = Stage::bounded(3, Overflow::Reject).open();
    send_readings(&outbox, 0..3).await;
    let error = outbox.send(reading(3)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutboxFull);
    assert!(error.to_string().contains("max_messages: 3"), "{error}");
}

#[tokio::test]
async fn bytes_are_those_of_the_waiting_messages() {
    let options = OutboxOptions { max_bytes: 16_000, ..OutboxOptions::default() };
    let stage = Stage::with(options);
    let outbox = stage.open();
    let kilobyte = || Message::telemetry(vec![1; 1_000]);
    let mut count = 0;
    while outbox.send(kilobyte()).await.is_ok() {
        count += 1;
    }
    assert_eq!(count, 14, "15,000 bytes are for telemetry, and a record is a little longer than its body");
    let bytes = outbox.counters().queued_bytes;
    assert!((14_000..15_000).contains(&bytes), "{bytes}");
    deliver(&outbox, Lane::Telemetry, [1]);
    outbox.send(kilobyte()).await.unwrap();
    outbox.send(Message::alert(vec![1; 800])).await.unwrap();
    assert_eq!(send_error(&outbox, kilobyte()).await, ErrorKind::OutboxFull);
    outbox.close().unwrap();

    let outbox = stage.open();
    assert_eq!(send_error(&outbox, kilobyte()).await, ErrorKind::OutboxFull, "also after opening again");
    let read = read_all(&outbox, Lane::Telemetry).len() as u64;
    deliver(&outbox, Lane::Telemetry, 2..2 + read);
    deliver(&outbox, Lane::Alert, [1]);
    assert_eq!(outbox.counters().queued_bytes, 0);
    outbox.send(kilobyte()).await.unwrap();
}

#[tokio::test]
async fn a_batch_that_does_not_fit_is_refused_as_a_whole() {
    let outbox = Stage::bounded(15, Overflow::Reject).open();
    send_readings(&outbox, 0..10).await;
    let batch = || (0..6).map(|number| if number < 3 { alert(number) } else { reading(number) }).collect();
    assert_eq!(outbox.send_all(batch()).await.unwrap_err().kind(), ErrorKind::OutboxFull);
    assert_eq!((account(&outbox).accepted, outbox.counters().refused), (10, 6));
    deliver(&outbox, Lane::Telemetry, [1]);
    outbox.send_all(batch()).await.unwrap();
    assert_eq!(account(&outbox).queued, 15);
}

#[tokio::test]
async fn drop_oldest_gives_up_the_oldest_telemetry() {
    let stage = Stage::bounded(10, Overflow::DropOldest);
    let outbox = stage.open();
    let first = outbox.send(reading(0)).await.unwrap();
    send_readings(&outbox, 1..10).await;
    outbox.send(reading(10)).await.unwrap();
    assert_eq!(first.outcome().await.unwrap(), Outcome::Dropped { reason: DropReason::MadeRoom });
    outbox.send(alert(0)).await.unwrap();
    send_readings(&outbox, 11..14).await;
    assert_eq!(waiting(&outbox, Lane::Telemetry), numbers(5..14));
    assert_eq!(waiting(&outbox, Lane::Alert), ["a0"]);
    assert_eq!(outbox.counters().dropped, [(DropReason::MadeRoom, 5)]);
    let expected = Account { accepted: 15, dropped: 5, queued: 10, ..Account::default() };
    assert_eq!(account(&outbox), expected);
    outbox.close().unwrap();
    let outbox = stage.open();
    assert_eq!(account(&outbox), expected);
    assert_eq!(outbox.receipt(first.message_id()).unwrap().unwrap().state(), dropped(DropReason::MadeRoom));
}

#[tokio::test]
async fn drop_oldest_works_on_a_backlog_that_is_on_the_disk_only() {
    let stage = Stage::bounded(10, Overflow::DropOldest);
    let outbox = stage.open();
    let named = (0..10).map(|number| reading(number).message_id(format!("id-{number}")));
    outbox.send_all(named.collect()).await.unwrap();
    outbox.close().unwrap();
    let outbox = stage.open();
    send_readings(&outbox, 10..14).await;
    assert_eq!(waiting(&outbox, Lane::Telemetry), numbers(4..14));
    for number in 0..4 {
        let receipt = outbox.receipt(&format!("id-{number}")).unwrap().unwrap();
        assert_eq!(receipt.state(), dropped(DropReason::MadeRoom));
    }
    assert_eq!(outbox.receipt("id-4").unwrap().unwrap().state(), ReceiptState::Queued);
}

#[tokio::test]
async fn alerts_are_never_dropped_for_telemetry() {
    let stage = Stage::bounded(4, Overflow::DropOldest);
    let outbox = stage.open();
    send_readings(&outbox, 0..2).await;
    outbox.send_all((0..4).map(alert).collect()).await.unwrap();
    assert_eq!(waiting(&outbox, Lane::Telemetry), numbers(0..0));
    let receipt = outbox.send(reading(2)).await.unwrap();
    assert_eq!(receipt.state(), dropped(DropReason::NoRoom), "telemetry finds only alerts");
    assert_eq!(waiting(&outbox, Lane::Alert), ["a0", "a1", "a2", "a3"]);
    outbox.send(alert(4)).await.unwrap();
    assert_eq!(waiting(&outbox, Lane::Alert), ["a1", "a2", "a3", "a4"], "an alert may displace an alert");
    let both = vec![reading(3), alert(5)];
    let receipts = outbox.send_all(both).await.unwrap();
    assert_eq!(receipts[0].state(), dropped(DropReason::NoRoom));
    assert_eq!(receipts[1].state(), ReceiptState::Queued);
    assert_eq!(account(&outbox), Account { accepted: 10, dropped: 6, queued: 4, ..Account::default() });
}

#[tokio::test]
async fn drop_oldest_drops_nothing_for_what_can_never_fit() {
    let options =
        OutboxOptions { max_bytes: 4_000, overflow: Overflow::DropOldest, ..OutboxOptions::default() };
    let outbox = Stage::with(options).open();
    send_readings(&outbox, 0..10).await;
    assert_eq!(send_error(&outbox, Message::telemetry(vec![0; 5_000])).await, ErrorKind::OutboxFull);
    let batch = (0..5).map(|_| Message::telemetry(vec![0; 1_000])).collect();
    assert_eq!(outbox.send_all(batch).await.unwrap_err().kind(), ErrorKind::OutboxFull);
    assert_eq!(waiting(&outbox, Lane::Telemetry), numbers(0..10));
    outbox.send(Message::telemetry(vec![0; 3_500])).await.unwrap();
    assert!(outbox.counters().queued_bytes <= 4_000);
}

#[tokio::test]
async fn drop_newest_accepts_and_drops_at_the_door() {
    let stage = Stage::bounded(16, Overflow::DropNewest);
    let outbox = stage.open();
    let receipts = outbox.send_all((0..20).map(reading).collect()).await.unwrap();
    let kept = receipts.iter().filter(|receipt| receipt.state() == ReceiptState::Queued).count();
    assert_eq!(kept, 15, "as many of the first ones as fit");
    let away = receipts.last().unwrap();
    assert_eq!(away.outcome().await.unwrap(), Outcome::Dropped { reason: DropReason::NoRoom });
    let named = outbox.send(reading(20).message_id("late")).await.unwrap();
    assert_eq!(named.state(), dropped(DropReason::NoRoom));
    outbox.send(alert(0)).await.unwrap();
    assert_eq!(outbox.send(alert(1)).await.unwrap().state(), dropped(DropReason::NoRoom));
    let expected = Account { accepted: 23, dropped: 7, queued: 16, ..Account::default() };
    assert_eq!(account(&outbox), expected);
    assert_eq!(outbox.counters().dropped, [(DropReason::NoRoom, 7)]);
    assert_eq!(outbox.counters().refused, 0);
    outbox.close().unwrap();

    let outbox = stage.open();
    assert_eq!(account(&outbox), expected);
    for id in [away.message_id(), "late"] {
        assert_eq!(outbox.receipt(id).unwrap().unwrap().state(), dropped(DropReason::NoRoom), "{id}");
    }
    assert_eq!(waiting(&outbox, Lane::Telemetry), numbers(0..15));
}

#[tokio::test]
async fn turning_messages_away_for_days_takes_no_disk() {
    let stage = Stage::bounded(2, Overflow::DropNewest);
    let outbox = stage.open();
    send_readings(&outbox, 0..2).await;
    let before = outbox.counters().written_bytes;
    for _ in 0..20 {
        outbox.send_all((0..1_000).map(reading).collect()).await.unwrap();
    }
    assert_eq!(outbox.counters().written_bytes, before);
    assert_eq!(account(&outbox).dropped, 20_000);
    outbox.close().unwrap();
    let outbox = stage.open();
    assert_eq!(account(&outbox).dropped, 20_000);
}

#[tokio::test]
async fn what_has_expired_makes_room_before_anything_else() {
    let stage = Stage::bounded(4, Overflow::Reject);
    let outbox = stage.open();
    send_readings(&outbox, 0..1).await;
    for number in 1..4 {
        outbox.send(reading(number).expires_in(Duration::from_secs(60))).await.unwrap();
    }
    assert_eq!(send_error(&outbox, reading(4)).await, ErrorKind::OutboxFull);
    stage.pass(60);
    outbox.send(reading(4)).await.unwrap();
    assert_eq!(waiting(&outbox, Lane::Telemetry), ["0", "4"]);
    assert_eq!(account(&outbox).expired, 3);
}

#[tokio::test]
async fn options_that_cannot_work_are_refused() {
    let zero = [
        OutboxOptions { max_bytes: 0, ..OutboxOptions::default() },
        OutboxOptions { max_messages: 0, ..OutboxOptions::default() },
        OutboxOptions { sync_interval: Duration::ZERO, ..OutboxOptions::default() },
        OutboxOptions { max_age: Some(Duration::ZERO), ..OutboxOptions::default() },
    ];
    for options in zero {
        assert_eq!(Stage::with(options).try_open().unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}
