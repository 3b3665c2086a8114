//! Locks, expiry, delivery count, purge, deletion, dead letters.

use std::time::Duration;

use tempfile::TempDir;
use whimbrel::ErrorKind;

use super::{Ground, assert_kind, command, ids, next, patiently, ready};
use crate::commands::{CommandOptions, CommandOutcome, CommandState, LockToken, Patience, Settlement};

const LOCK: Duration = Duration::from_secs(60);

/// One ground in memory, one in a folder.
fn grounds(options: &CommandOptions) -> [Ground; 2] {
    let folder: Option<TempDir> = Some(tempfile::tempdir().unwrap());
    [Ground::start(None, options.clone()), Ground::start(folder, options.clone())]
}

#[tokio::test]
async fn a_lock_that_runs_out_gives_the_command_back_to_its_place_without_counting() {
    for ground in grounds(&CommandOptions::default()) {
        let device = ground.device("d").await;
        for id in ["a", "b", "c"] {
            ground.send("d", command(id)).await;
        }
        let mut receiver = ground.commands.receiver(&device);
        let first = next(&mut receiver, 2).await;
        ground.advance(LOCK - Duration::from_secs(1)).await;
        receiver.settle(first[1].lock, Settlement::Complete).await.unwrap();
        ground.advance(Duration::from_secs(1)).await;
        assert_kind(receiver.settle(first[0].lock, Settlement::Complete).await, ErrorKind::LockLost);
        let again = next(&mut receiver, 9).await;
        assert_eq!(ids(&again), ["a", "c"]);
        assert_ne!(again[0].lock, first[0].lock);
        assert_eq!(again[0].delivery_count, 0);
        assert_kind(receiver.settle(first[0].lock, Settlement::Complete).await, ErrorKind::LockLost);
        receiver.settle(again[0].lock, Settlement::Complete).await.unwrap();
    }
}

/// A waiting receiver gets what comes back, without doing anything.
#[tokio::test]
async fn a_waiting_receiver_is_woken_when_a_lock_ends() {
    let ground = Ground::in_memory();
    let device = ground.device("d").await;
    ground.send("d", command("m")).await;
    let (mut first, mut second) = (ground.commands.receiver(&device), ground.commands.receiver(&device));
    next(&mut first, 1).await;
    let waiting = tokio::spawn(async move {
        let held = next(&mut second, 1).await;
        (second, held)
    });
    tokio::task::yield_now().await;
    drop(first);
    let (second, held) = patiently(waiting).await.unwrap();
    assert_eq!((ids(&held), held[0].delivery_count), (vec!["m"], 0));
    let mut third = ground.commands.receiver(&device);
    let waiting = tokio::spawn(async move { next(&mut third, 1).await });
    tokio::task::yield_now().await;
    ground.advance(LOCK).await;
    assert_eq!(patiently(waiting).await.unwrap().len(), 1);
    drop(second);
}

#[tokio::test]
async fn abandoning_counts_and_ends_at_the_limit() {
    let options = CommandOptions { max_delivery_count: 3, ..CommandOptions::default() };
    for ground in grounds(&options) {
        let device = ground.device("d").await;
        ground.send("d", command("m").property("iothub-ack", "negative")).await;
        let mut receiver = ground.commands.receiver(&device);
        for count in 0..3 {
            let held = next(&mut receiver, 1).await;
            assert_eq!(held[0].delivery_count, count);
            receiver.settle(held[0].lock, Settlement::Abandon).await.unwrap();
        }
        assert_eq!(ground.outcome("d", "m").await, Some(CommandOutcome::DeliveryCountExceeded));
        let letters = ground.commands.dead_letters(None, None, 9).await.unwrap();
        assert_eq!((letters.len(), letters[0].delivery_count), (1, 2));
        assert_eq!(letters[0].message.body(), "m");
    }
}

#[tokio::test]
async fn a_lock_that_runs_out_counts_where_it_is_set_so() {
    let options =
        CommandOptions { max_delivery_count: 2, count_lock_expiry: true, ..CommandOptions::default() };
    for ground in grounds(&options) {
        let device = ground.device("d").await;
        ground.send("d", command("m")).await;
        let mut receiver = ground.commands.receiver(&device);
        assert_eq!(next(&mut receiver, 1).await[0].delivery_count, 0);
        ground.advance(LOCK).await;
        assert_eq!(next(&mut receiver, 1).await[0].delivery_count, 1);
        // A receiver that goes does not count, however it is set.
        drop(receiver);
        let mut receiver = ground.commands.receiver(&device);
        assert_eq!(next(&mut receiver, 1).await[0].delivery_count, 1);
        ground.advance(LOCK).await;
        assert_eq!(ground.outcome("d", "m").await, Some(CommandOutcome::DeliveryCountExceeded));
    }
}

#[tokio::test]
async fn the_count_is_durable() {
    let ground = Ground::in_folder();
    let device = ground.device("d").await;
    ground.send("d", command("m")).await;
    let mut receiver = ground.commands.receiver(&device);
    let held = next(&mut receiver, 1).await;
    receiver.settle(held[0].lock, Settlement::Abandon).await.unwrap();
    drop(receiver);
    let ground = ground.restart().await;
    let mut receiver = ground.commands.receiver(&device);
    assert_eq!(next(&mut receiver, 1).await[0].delivery_count, 1);
}

#[tokio::test]
async fn what_expires_ends_whether_its_device_is_there_or_not() {
    for ground in grounds(&CommandOptions::default()) {
        let present = ground.device("present").await;
        ground.device("absent").await;
        let mut receiver = ground.commands.receiver(&present);
        for device in ["present", "absent"] {
            ground.send(device, command("short").expires_in(Duration::from_secs(10))).await;
            ground.send(device, command("long")).await;
        }
        ground.advance(Duration::from_secs(9)).await;
        assert_eq!(ground.state("absent", "short").await, Some(CommandState::Enqueued));
        ground.advance(Duration::from_secs(1)).await;
        for device in ["present", "absent"] {
            let ended = CommandState::Ended { outcome: CommandOutcome::Expired, at: ground.now() };
            assert_eq!(ground.state(device, "short").await, Some(ended), "{device}");
            assert_eq!(ground.state(device, "long").await, Some(CommandState::Enqueued));
        }
        assert_eq!(ids(&next(&mut receiver, 9).await), ["long"]);
        assert_eq!(ground.commands.dead_letters(Some("absent"), None, 9).await.unwrap().len(), 1);
        assert_eq!(ground.in_use(), 1);
    }
}

/// Such as a link without credit.
#[tokio::test]
async fn a_receiver_that_never_asks_keeps_nothing_from_expiring() {
    let ground = Ground::in_folder();
    let device = ground.device("d").await;
    let receiver = ground.commands.receiver(&device);
    ground.send("d", command("m").expires_in(Duration::from_secs(10))).await;
    ground.advance(Duration::from_secs(10)).await;
    assert_eq!(ground.outcome("d", "m").await, Some(CommandOutcome::Expired));
    drop(receiver);
    assert_eq!(ground.in_use(), 0);
}

/// The hub's clock was wrong and is set: what is over by the new time ends at the next look.
#[tokio::test]
async fn setting_the_clock_expires_what_is_in_memory_too() {
    let ground = Ground::in_memory();
    let device = ground.device("d").await;
    let mut receiver = ground.commands.receiver(&device);
    for id in ["held", "waiting"] {
        ground.send("d", command(id)).await;
    }
    let held = next(&mut receiver, 1).await;
    ground.clock.set_wall(ground.now() + Duration::from_secs(7_200));
    ground.commands.inner.sweep(false).await.unwrap();
    ground.settled().await;
    assert_eq!(ground.outcome("d", "waiting").await, Some(CommandOutcome::Expired));
    receiver.settle(held[0].lock, Settlement::Complete).await.unwrap();
    assert_eq!(ground.outcome("d", "held").await, Some(CommandOutcome::Completed));
}

#[tokio::test]
async fn a_locked_command_outlives_its_time_as_long_as_the_lock_does() {
    let ground = Ground::in_memory();
    let device = ground.device("d").await;
    for id in ["completed", "left"] {
        ground.send("d", command(id).expires_in(Duration::from_secs(10))).await;
    }
    let mut receiver = ground.commands.receiver(&device);
    let held = next(&mut receiver, 2).await;
    ground.advance(Duration::from_secs(30)).await;
    assert_eq!(ground.state("d", "completed").await, Some(CommandState::Locked));
    receiver.settle(held[0].lock, Settlement::Complete).await.unwrap();
    assert_eq!(ground.outcome("d", "completed").await, Some(CommandOutcome::Completed));
    drop(receiver);
    ground.settled().await;
    assert_eq!(ground.outcome("d", "left").await, Some(CommandOutcome::Expired));
}

#[tokio::test]
async fn a_purge_ends_everything_and_takes_locks_away() {
    for ground in grounds(&CommandOptions::default()) {
        let device = ground.device("d").await;
        assert_kind(ground.commands.purge("nobody").await, ErrorKind::NotFound);
        assert_eq!(ground.commands.purge("d").await.unwrap(), 0);
        for id in ["a", "b", "c"] {
            ground.send("d", command(id)).await;
        }
        let mut receiver = ground.commands.receiver(&device);
        let held = next(&mut receiver, 1).await;
        assert_eq!(ground.commands.purge("d").await.unwrap(), 3);
        assert_kind(receiver.settle(held[0].lock, Settlement::Complete).await, ErrorKind::LockLost);
        for id in ["a", "b", "c"] {
            assert_eq!(ground.outcome("d", id).await, Some(CommandOutcome::Purged));
        }
        assert!(ground.commands.dead_letters(None, None, 9).await.unwrap().is_empty());
        ground.send("d", command("after")).await;
        assert_eq!(ids(&next(&mut receiver, 9).await), ["after"]);
    }
}

#[tokio::test]
async fn tokens_that_are_wrong_settle_nothing() {
    let ground = Ground::in_memory();
    let (device, other) = (ground.device("d").await, ground.device("other").await);
    ground.send("d", command("m")).await;
    let unknown = LockToken::generate().unwrap();
    assert_kind(ground.commands.settle(&device, unknown, Settlement::Complete).await, ErrorKind::LockLost);
    let taken = ground.commands.take(&device).await.unwrap().unwrap();
    assert!(ground.commands.take(&device).await.unwrap().is_none());
    for settlement in [Settlement::Complete, Settlement::Abandon, Settlement::Reject] {
        assert_kind(ground.commands.settle(&device, unknown, settlement).await, ErrorKind::LockLost);
        assert_kind(ground.commands.settle(&other, taken.lock, settlement).await, ErrorKind::LockLost);
    }
    ground.commands.settle(&device, taken.lock, Settlement::Reject).await.unwrap();
    assert_kind(ground.commands.settle(&device, taken.lock, Settlement::Reject).await, ErrorKind::LockLost);
    assert_eq!(ground.outcome("d", "m").await, Some(CommandOutcome::Rejected));
}

#[tokio::test]
async fn a_device_that_is_deleted_takes_its_commands_along() {
    for ground in grounds(&CommandOptions::default()) {
        let device = ground.device("d").await;
        for id in ["a", "b"] {
            ground.send("d", command(id).property("iothub-ack", "full")).await;
        }
        let mut receiver = ground.commands.receiver(&device);
        let held = next(&mut receiver, 1).await;
        receiver.settle(held[0].lock, Settlement::Complete).await.unwrap();
        let held = next(&mut receiver, 1).await;
        let mut outcomes = ground.commands.outcomes();
        let waiting = tokio::spawn(async move {
            let outcome = receiver.next(1, &mut Vec::new()).await;
            (receiver, outcome)
        });
        ground.registry.delete("d", None).await.unwrap();
        let fresh = ground.device("d").await;
        let (mut receiver, outcome) = patiently(waiting).await.unwrap();
        assert_kind(outcome, ErrorKind::NotFound);
        assert_kind(receiver.next(1, &mut Vec::new()).await, ErrorKind::NotFound);
        assert!(receiver.settle(held[0].lock, Settlement::Complete).await.is_err());
        assert_kind(ground.commands.take(&device).await, ErrorKind::NotFound);
        assert!(ground.commands.take_feedback(Patience::Contract).await.unwrap().is_none());
        assert!(ground.commands.status("d", "a").await.unwrap().is_none());

        // The one created anew starts empty, and has nothing to do with the old one's connections.
        assert_eq!(ground.commands.pending("d").await.unwrap(), 0);
        ground.send("d", command("c")).await;
        let mut renewed = ground.commands.receiver(&fresh);
        assert_eq!(ids(&next(&mut renewed, 9).await), ["c"]);
        drop(receiver);
        assert!(ready(&mut renewed, 1).await.is_empty());
        let mut heard = Vec::new();
        let silence = tokio::time::timeout(Duration::from_millis(5), outcomes.next(1, &mut heard));
        assert!(silence.await.is_err(), "what goes with its device has no outcome");
    }
}

/// The store may have removed the device before anybody here has heard of it.
#[tokio::test]
async fn settling_what_is_gone_from_the_store_is_a_lost_lock() {
    let ground = Ground::in_folder();
    let device = ground.device("d").await;
    ground.send("d", command("m")).await;
    let mut receiver = ground.commands.receiver(&device);
    let held = next(&mut receiver, 1).await;
    ground.other_program("DELETE FROM commands");
    assert_kind(receiver.settle(held[0].lock, Settlement::Complete).await, ErrorKind::LockLost);
    assert!(ready(&mut receiver, 1).await.is_empty());
}

#[tokio::test]
async fn dead_letters_are_listed_looked_at_and_sent_again() {
    for ground in grounds(&CommandOptions::default()) {
        let device = ground.device("d").await;
        ground.device("other").await;
        let mut receiver = ground.commands.receiver(&device);
        for id in ["a", "b", "c"] {
            ground.send("d", command(id).property("room", "attic")).await;
            let held = next(&mut receiver, 1).await;
            receiver.settle(held[0].lock, Settlement::Reject).await.unwrap();
        }
        let all = ground.commands.dead_letters(Some("d"), None, 2).await.unwrap();
        assert_eq!(all.len(), 2);
        let rest = ground.commands.dead_letters(None, Some(all[1].id), 9).await.unwrap();
        assert_eq!(rest.len(), 1);
        assert_eq!(rest[0].message.system().message_id.as_deref(), Some("c"));
        assert!(ground.commands.dead_letters(Some("other"), None, 9).await.unwrap().is_empty());
        assert_kind(ground.commands.dead_letter(0).await, ErrorKind::NotFound);
        assert_kind(ground.commands.dead_letter(99).await, ErrorKind::NotFound);
        assert_kind(ground.commands.resend(99).await, ErrorKind::NotFound);

        ground.advance(Duration::from_secs(7_200)).await;
        let letter = ground.commands.dead_letter(all[0].id).await.unwrap();
        assert_eq!((letter.outcome, &*letter.device), (CommandOutcome::Rejected, "d"));
        let sent = ground.commands.resend(letter.id).await.unwrap();
        assert!(sent.sequence > letter.sequence);
        assert_kind(ground.commands.dead_letter(letter.id).await, ErrorKind::NotFound);
        assert_kind(ground.commands.resend(letter.id).await, ErrorKind::NotFound);
        let held = next(&mut receiver, 9).await;
        assert_eq!(ids(&held), ["a"]);
        assert_eq!(held[0].message.properties().get("room"), Some("attic"));
        let expires = held[0].message.system().expiry_time.unwrap();
        assert_eq!(expires, ground.now() + Duration::from_secs(3600));
        receiver.settle(held[0].lock, Settlement::Complete).await.unwrap();
        assert_eq!(ground.outcome("d", "a").await, Some(CommandOutcome::Completed));
    }
}

#[tokio::test]
async fn a_full_queue_leaves_the_dead_letter_where_it_is() {
    let ground = Ground::start(None, CommandOptions { depth: 1, ..CommandOptions::default() });
    let device = ground.device("d").await;
    ground.send("d", command("a")).await;
    let taken = ground.commands.take(&device).await.unwrap().unwrap();
    ground.commands.settle(&device, taken.lock, Settlement::Reject).await.unwrap();
    ground.send("d", command("b")).await;
    let letters = ground.commands.dead_letters(None, None, 9).await.unwrap();
    assert_kind(ground.commands.resend(letters[0].id).await, ErrorKind::QueueFull);
    ground.commands.dead_letter(letters[0].id).await.unwrap();
}

#[tokio::test]
async fn outcomes_and_dead_letters_are_kept_for_their_time() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let options = CommandOptions {
        dead_letter_retention: 2 * DAY,
        outcome_retention: 3 * DAY,
        ..CommandOptions::default()
    };
    for ground in grounds(&options) {
        let device = ground.device("d").await;
        ground.send("d", command("m")).await;
        let taken = ground.commands.take(&device).await.unwrap().unwrap();
        ground.commands.settle(&device, taken.lock, Settlement::Reject).await.unwrap();
        ground.advance(2 * DAY).await;
        assert_eq!(ground.commands.dead_letters(None, None, 9).await.unwrap().len(), 1);
        ground.advance(Duration::from_secs(1)).await;
        assert!(ground.commands.dead_letters(None, None, 9).await.unwrap().is_empty());
        assert_eq!(ground.outcome("d", "m").await, Some(CommandOutcome::Rejected));
        ground.advance(DAY).await;
        assert_eq!(ground.state("d", "m").await, None);
    }
}

#[tokio::test]
async fn a_reader_of_outcomes_that_is_too_slow_is_told_and_goes_on() {
    let ground = Ground::start(None, CommandOptions { depth: 10_000, ..CommandOptions::default() });
    ground.device("d").await;
    let mut outcomes = ground.commands.outcomes();
    let mut last = 0;
    for round in 0..3 {
        let sending = (0..3_000).map(|index| ground.commands.send("d", command(&format!("{round}-{index}"))));
        let sent = futures_util::future::try_join_all(sending).await.unwrap();
        last = sent.iter().map(|sent| sent.sequence).max().unwrap();
        ground.commands.purge("d").await.unwrap();
    }
    let mut heard = Vec::new();
    let error = outcomes.next(1, &mut heard).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let missed: usize = error.details()[0].1.parse().unwrap();
    while heard.len() < 9_000 - missed {
        outcomes.next(100, &mut heard).await.unwrap();
    }
    assert!(heard.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
    assert_eq!(heard.last().unwrap().sequence, last);
}
