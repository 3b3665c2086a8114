//! A disk that fails, and the end of the hub.

use std::time::Duration;

use whimbrel::ErrorKind;

use super::{Ground, assert_kind, command, ids, next, patiently, ready};
use crate::{
    commands::{CommandOutcome, CommandState, Patience, Settlement},
    store::Store,
};

#[tokio::test]
async fn a_send_that_the_disk_refuses_leaves_nothing() {
    let ground = Ground::in_folder();
    let device = ground.device("d").await;
    let mut receiver = ground.commands.receiver(&device);
    assert!(ready(&mut receiver, 1).await.is_empty());
    ground.break_disk("INSERT ON commands");
    assert_kind(ground.commands.send("d", command("m")).await, ErrorKind::JournalIo);
    assert!(ready(&mut receiver, 1).await.is_empty());
    ground.mend_disk();
    ground.send("d", command("n")).await;
    assert_eq!(ids(&next(&mut receiver, 9).await), ["n"]);
}

#[tokio::test]
async fn a_settlement_that_the_disk_refuses_leaves_the_lock() {
    let ground = Ground::in_folder();
    let device = ground.device("d").await;
    ground.send("d", command("m")).await;
    let mut receiver = ground.commands.receiver(&device);
    let held = next(&mut receiver, 1).await;
    ground.break_disk("DELETE ON commands");
    let settling = receiver.settle(held[0].lock, Settlement::Complete);
    // It was decided already: nobody gets it, and it cannot be settled a second time.
    assert_kind(receiver.settle(held[0].lock, Settlement::Abandon).await, ErrorKind::LockLost);
    assert_kind(settling.await, ErrorKind::JournalIo);
    assert_eq!(ground.state("d", "m").await, Some(CommandState::Locked));
    assert!(ready(&mut receiver, 1).await.is_empty(), "it is still locked");
    ground.mend_disk();
    receiver.settle(held[0].lock, Settlement::Complete).await.unwrap();
    assert_eq!(ground.outcome("d", "m").await, Some(CommandOutcome::Completed));
}

#[tokio::test]
async fn a_settlement_that_fails_after_the_lock_gives_the_command_back() {
    let ground = Ground::in_folder();
    let device = ground.device("d").await;
    ground.send("d", command("m")).await;
    ground.break_disk("DELETE ON commands");
    let mut receiver = ground.commands.receiver(&device);
    let held = next(&mut receiver, 1).await;
    let settling = receiver.settle(held[0].lock, Settlement::Complete);
    drop(receiver);
    assert_kind(settling.await, ErrorKind::JournalIo);
    let mut receiver = ground.commands.receiver(&device);
    let again = next(&mut receiver, 1).await;
    assert_eq!((ids(&again), again[0].delivery_count), (vec!["m"], 0));
}

#[tokio::test]
async fn an_expiry_that_the_disk_refuses_is_tried_again_and_not_delivered_meanwhile() {
    let ground = Ground::in_folder();
    let device = ground.device("d").await;
    ground.send("d", command("m").expires_in(Duration::from_secs(10))).await;
    let mut receiver = ground.commands.receiver(&device);
    assert_eq!(next(&mut receiver, 1).await.len(), 1);
    drop(receiver);
    let mut receiver = ground.commands.receiver(&device);
    ground.break_disk("DELETE ON commands");
    ground.advance(Duration::from_secs(10)).await;
    assert!(ready(&mut receiver, 1).await.is_empty());
    assert_eq!(ground.outcome("d", "m").await, None);
    ground.mend_disk();
    ground.advance(Duration::from_secs(1)).await;
    assert_eq!(ground.outcome("d", "m").await, Some(CommandOutcome::Expired));
}

#[tokio::test]
async fn feedback_that_cannot_be_settled_stays_locked() {
    let ground = Ground::in_folder();
    ground.device("d").await;
    ground.send("d", command("m").property("iothub-ack", "full")).await;
    ground.commands.purge("d").await.unwrap();
    let mut reader = ground.commands.feedback(Patience::None);
    let held = patiently(reader.next()).await.unwrap();
    ground.break_disk("DELETE ON command_feedback");
    assert_kind(reader.settle(held.lock, Settlement::Complete).await, ErrorKind::JournalIo);
    ground.mend_disk();
    reader.settle(held.lock, Settlement::Complete).await.unwrap();
}

/// What cannot be read is not delivered, keeps nobody from the rest, and ends by time.
#[tokio::test]
async fn a_damaged_command_is_passed_over() {
    let ground = Ground::in_folder();
    let device = ground.device("d").await;
    for id in ["damaged", "whole"] {
        ground.send("d", command(id)).await;
    }
    ground.other_program("UPDATE commands SET message = x'00' WHERE sequence = 1");
    let mut receiver = ground.commands.receiver(&device);
    assert_eq!(ids(&next(&mut receiver, 9).await), ["whole"]);
    ground.advance(Duration::from_secs(3600)).await;
    assert_eq!(ground.outcome("d", "damaged").await, Some(CommandOutcome::Expired));
    assert_eq!(ground.outcome("d", "whole").await, Some(CommandOutcome::Expired));
    let rows = ground.store.dead_letters(None, 0, 9).await.unwrap();
    let damaged = rows.iter().find(|row| row.sequence == 1).unwrap().id;
    assert_kind(ground.commands.dead_letter(damaged).await, ErrorKind::JournalCorrupt);
    let letters = ground.commands.dead_letters(None, None, 9).await.unwrap();
    assert_eq!(letters.len(), 1, "a list leaves out what cannot be read");
}

#[tokio::test]
async fn the_end_ends_everybody_and_loses_nothing() {
    let ground = Ground::in_folder();
    let device = ground.device("d").await;
    for id in ["a", "b"] {
        ground.send("d", command(id).property("iothub-ack", "full")).await;
    }
    let commands = ground.commands.clone();
    let mut holder = commands.receiver(&device);
    let held = next(&mut holder, 1).await;
    let (mut waiting, mut reader, mut outcomes) =
        (commands.receiver(&device), commands.feedback(Patience::None), commands.outcomes());
    next(&mut waiting, 1).await;
    let waiting = tokio::spawn(async move { waiting.next(1, &mut Vec::new()).await });
    let reading = tokio::spawn(async move { reader.next().await });
    let hearing = tokio::spawn(async move { outcomes.next(1, &mut Vec::new()).await });
    tokio::task::yield_now().await;
    // Handed in before the end: it is done.
    let settling = holder.settle(held[0].lock, Settlement::Complete);
    let folder = ground.folder.as_ref().unwrap().path().to_owned();
    patiently(commands.close()).await;
    settling.await.unwrap();
    assert_kind(patiently(waiting).await.unwrap(), ErrorKind::Closed);
    assert_kind(patiently(reading).await.unwrap(), ErrorKind::Closed);
    // It may have heard of the completion first.
    let _ = patiently(hearing).await.unwrap();

    assert_kind(holder.next(1, &mut Vec::new()).await, ErrorKind::Closed);
    assert_kind(holder.settle(held[0].lock, Settlement::Complete).await, ErrorKind::Closed);
    assert_kind(commands.send("d", command("c")).await, ErrorKind::Closed);
    assert_kind(commands.take(&device).await, ErrorKind::Closed);
    assert_kind(commands.settle(&device, held[0].lock, Settlement::Complete).await, ErrorKind::Closed);
    assert_kind(commands.purge("d").await, ErrorKind::Closed);
    assert_kind(commands.take_feedback(Patience::Contract).await, ErrorKind::Closed);
    assert_kind(commands.settle_feedback(held[0].lock, Settlement::Complete).await, ErrorKind::Closed);
    patiently(commands.close()).await;
    ground.store.close().await.unwrap();
    assert_kind(commands.pending("d").await, ErrorKind::Closed);
    assert_kind(commands.status("d", "a").await, ErrorKind::Closed);
    drop((holder, commands));

    let Ground { commands, registry, store, folder: kept, options, clock } = ground;
    drop((commands, registry, store));
    assert_eq!(kept.as_ref().unwrap().path(), folder);
    let ground = Ground::open(kept, options, clock);
    assert_eq!(ground.outcome("d", "a").await, Some(CommandOutcome::Completed));
    assert_eq!(ids(&next(&mut ground.commands.receiver(&device), 9).await), ["b"]);
}
