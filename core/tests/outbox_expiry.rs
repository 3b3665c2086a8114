//! Messages that end by their time.

mod outbox_support;

use std::time::Duration;

use outbox_support::{Stage, account, deliver, read_all, reading, send_readings, waiting};
use whimbrel::{
    Lane, Message, Outcome, ReceiptState,
    outbox::{Clock, OutboxOptions},
};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_message_ends_when_its_time_comes_wherever_it_waits() {
    let stage = Stage::new();
    let outbox = stage.open();
    let start = stage.clock.now().monotonic;
    send_readings(&outbox, 0..1).await;
    let short = outbox.send(reading(1).expires_in(MINUTE)).await.unwrap();
    let long = outbox.send(reading(2).expires_in(3 * MINUTE)).await.unwrap();
    send_readings(&outbox, 3..4).await;
    assert_eq!(outbox.expire().unwrap(), Some(start + MINUTE));
    stage.pass(59);
    outbox.expire().unwrap();
    assert_eq!(short.state(), ReceiptState::Queued);
    stage.pass(1);
    assert_eq!(outbox.expire().unwrap(), Some(start + 3 * MINUTE), "behind one that lives for ever");
    assert_eq!(short.outcome().await.unwrap(), Outcome::Expired);
    assert_eq!(long.state(), ReceiptState::Queued);
    assert_eq!(waiting(&outbox, Lane::Telemetry), ["0", "2", "3"]);
    stage.pass(120);
    assert_eq!(waiting(&outbox, Lane::Telemetry), ["0", "3"], "reading ends them too");
    assert_eq!(outbox.expire().unwrap(), None);
    assert_eq!(account(&outbox).expired, 2);
}

#[tokio::test]
async fn a_long_backlog_ends_from_its_head_on() {
    let options = OutboxOptions { max_age: Some(MINUTE), ..OutboxOptions::default() };
    let stage = Stage::with(options);
    let outbox = stage.open();
    // More than deadlines are watched, more than the tail holds, and more than one sweep ends.
    let messages = (0..5_000).map(|number| Message::telemetry(format!("{number:0300}")));
    outbox.send_all(messages.collect()).await.unwrap();
    stage.pass(30);
    let last = outbox.send(reading(5_000)).await.unwrap();
    stage.pass(30);
    let mut rounds = 0;
    while outbox.expire().unwrap().is_some_and(|at| at <= stage.clock.now().monotonic) {
        rounds += 1;
        assert!(rounds < 10, "each round has to end some");
    }
    assert_eq!((account(&outbox).expired, account(&outbox).queued), (5_000, 1));
    assert_eq!(last.state(), ReceiptState::Queued);
    outbox.close().unwrap();
    stage.pass(29);
    let outbox = stage.open();
    assert_eq!(waiting(&outbox, Lane::Telemetry), ["5000"]);
    stage.pass(1);
    assert_eq!(outbox.expire().unwrap(), None);
    assert_eq!((account(&outbox).expired, account(&outbox).queued), (5_001, 0));
}

#[tokio::test]
async fn time_away_counts_and_a_clock_set_back_only_makes_messages_live_longer() {
    for (away, wall_back, alive) in [(20, 0, true), (50, 0, false), (20, 3_600, true), (50, 3_600, true)] {
        let stage = Stage::new();
        let outbox = stage.open();
        outbox.send(reading(0).expires_in(MINUTE)).await.unwrap();
        stage.pass(20);
        outbox.close().unwrap();
        stage.pass(away);
        let wall = stage.clock.now().wall;
        stage.clock.set_wall(wall - Duration::from_secs(wall_back));
        let outbox = stage.open();
        assert_eq!(
            waiting(&outbox, Lane::Telemetry).len() == 1,
            alive,
            "away {away} s, set back {wall_back} s"
        );
        stage.pass(60);
        assert_eq!(waiting(&outbox, Lane::Telemetry).len(), 0, "but never for ever");
    }
}

#[tokio::test]
async fn the_time_of_day_means_nothing_while_running() {
    let stage = Stage::new();
    let outbox = stage.open();
    outbox.send(reading(0).expires_in(MINUTE)).await.unwrap();
    stage.clock.set_wall(stage.clock.now().wall + Duration::from_secs(86_400));
    outbox.expire().unwrap();
    assert_eq!(waiting(&outbox, Lane::Telemetry), ["0"]);
    stage.clock.set_wall(stage.clock.now().wall - Duration::from_secs(2 * 86_400));
    stage.pass(60);
    outbox.expire().unwrap();
    assert_eq!(waiting(&outbox, Lane::Telemetry).len(), 0);
}

#[tokio::test]
async fn what_is_on_its_way_is_for_the_hub_to_decide_until_the_link_breaks() {
    let stage = Stage::new();
    let outbox = stage.open();
    let mut receipts = Vec::new();
    for number in 0..3 {
        receipts.push(outbox.send(reading(number).expires_in(MINUTE)).await.unwrap());
    }
    assert_eq!(read_all(&outbox, Lane::Telemetry).len(), 3);
    outbox.mark_sent(&[(Lane::Telemetry, 1), (Lane::Telemetry, 2)]);
    stage.pass(61);
    outbox.expire().unwrap();
    assert_eq!(receipts[0].state(), ReceiptState::Sent);
    assert_eq!(receipts[2].state(), ReceiptState::Settled(Outcome::Expired), "it was not sent");
    deliver(&outbox, Lane::Telemetry, [1]);
    outbox.mark_unsent();
    outbox.expire().unwrap();
    assert_eq!(receipts[1].state(), ReceiptState::Settled(Outcome::Expired));
    let balance = account(&outbox);
    assert_eq!((balance.delivered, balance.expired, balance.queued), (1, 2, 0));
}

#[tokio::test]
async fn an_expiring_message_between_lasting_ones_is_found_after_a_broken_link_too() {
    let stage = Stage::new();
    let outbox = stage.open();
    send_readings(&outbox, 0..1).await;
    let middle = outbox.send(reading(1).expires_in(MINUTE)).await.unwrap();
    send_readings(&outbox, 2..3).await;
    read_all(&outbox, Lane::Telemetry);
    outbox.mark_sent(&[(Lane::Telemetry, 1), (Lane::Telemetry, 2), (Lane::Telemetry, 3)]);
    stage.pass(60);
    outbox.expire().unwrap();
    outbox.mark_unsent();
    outbox.expire().unwrap();
    assert_eq!(middle.state(), ReceiptState::Settled(Outcome::Expired));
    assert_eq!(waiting(&outbox, Lane::Telemetry), ["0", "2"]);
}

#[tokio::test]
async fn time_suspended_counts_by_the_time_of_day() {
    let stage = Stage::new();
    let outbox = stage.open();
    stage.pass(1_000);
    let first = outbox.send(reading(0).expires_in(MINUTE)).await.unwrap();
    stage.pass(20);
    outbox.suspend().unwrap();
    let age = outbox.counters().oldest_age.unwrap();
    assert_eq!(age, Duration::from_secs(20));
    stage.pass(20);
    outbox.resume().unwrap();
    let start = stage.clock.now().monotonic;
    let second = outbox.send(reading(1).expires_in(MINUTE)).await.unwrap();
    assert_eq!(outbox.expire().unwrap(), Some(start + Duration::from_secs(20)));
    stage.pass(19);
    outbox.expire().unwrap();
    assert_eq!(first.state(), ReceiptState::Queued);
    stage.pass(1);
    outbox.expire().unwrap();
    assert_eq!(first.outcome().await.unwrap(), Outcome::Expired);
    assert_eq!(second.state(), ReceiptState::Queued);
    // A clock set back meanwhile only makes messages live longer.
    outbox.suspend().unwrap();
    stage.clock.set_wall(stage.clock.now().wall - Duration::from_secs(3_600));
    stage.pass(10);
    outbox.resume().unwrap();
    stage.pass(59);
    outbox.expire().unwrap();
    assert_eq!(second.state(), ReceiptState::Queued);
    stage.pass(1);
    outbox.expire().unwrap();
    assert_eq!(second.outcome().await.unwrap(), Outcome::Expired);
}
