//! From sending to the outcome.

use std::time::Duration;

use whimbrel::ErrorKind;

use super::{Ground, assert_kind, command, ids, next, patiently, ready};
use crate::{
    commands::{CommandOutcome, CommandState, Patience, Settlement},
    store::CommandRow,
};

#[tokio::test]
async fn a_command_is_sent_delivered_and_completed() {
    for ground in [Ground::in_memory(), Ground::in_folder()] {
        let device = ground.device("d").await;
        let mut outcomes = ground.commands.outcomes();
        let mut receiver = ground.commands.receiver(&device);
        let sequence = ground.send("d", command("m").property("iothub-ack", "Full")).await;
        let [delivery] = next(&mut receiver, 10).await.try_into().unwrap();
        assert_eq!((delivery.sequence, delivery.delivery_count), (sequence, 0));
        assert_eq!(delivery.message.body(), "m");
        assert_eq!(delivery.message.properties().get("iothub-ack"), Some("full"));
        assert_eq!(delivery.message.system().to.as_deref(), Some("/devices/d/messages/deviceBound"));
        assert_eq!(
            delivery.message.system().expiry_time,
            Some(delivery.enqueued_at + Duration::from_secs(3600))
        );
        assert_eq!(ground.state("d", "m").await, Some(CommandState::Locked));
        assert_eq!(ground.commands.pending("d").await.unwrap(), 1);

        receiver.settle(delivery.lock, Settlement::Complete).await.unwrap();
        let ended = CommandState::Ended { outcome: CommandOutcome::Completed, at: ground.now() };
        assert_eq!(ground.state("d", "m").await, Some(ended));
        assert_eq!(ground.commands.pending("d").await.unwrap(), 0);
        assert!(ready(&mut receiver, 10).await.is_empty());
        assert_kind(receiver.settle(delivery.lock, Settlement::Complete).await, ErrorKind::LockLost);

        let mut heard = Vec::new();
        outcomes.next(10, &mut heard).await.unwrap();
        assert_eq!(heard.len(), 1);
        assert_eq!((heard[0].sequence, heard[0].state), (sequence, ended));
        let batch = ground.commands.take_feedback(Patience::Contract).await.unwrap().unwrap();
        assert_eq!(batch.records[0].original_message_id, "m");
        assert_eq!(batch.records[0].outcome().unwrap(), CommandOutcome::Completed);
        assert_eq!(batch.records[0].device_generation_id, *device.generation);
        ground.commands.settle_feedback(batch.lock, Settlement::Complete).await.unwrap();
        assert!(ground.commands.take_feedback(Patience::Contract).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn what_waited_before_the_restart_is_delivered_after_it() {
    let ground = Ground::in_folder();
    let device = ground.device("d").await;
    for id in ["a", "b", "c"] {
        ground.send("d", command(id)).await;
    }
    let mut receiver = ground.commands.receiver(&device);
    let first = next(&mut receiver, 2).await;
    assert_eq!(ids(&first), ["a", "b"]);
    receiver.settle(first[0].lock, Settlement::Complete).await.unwrap();
    drop(receiver);
    let ground = ground.restart().await;
    let mut receiver = ground.commands.receiver(&device);
    assert_eq!(ids(&next(&mut receiver, 10).await), ["b", "c"]);
}

#[tokio::test]
async fn a_command_that_was_loaded_does_not_arrive_a_second_time() {
    let ground = Ground::in_memory();
    let device = ground.device("d").await;
    ground.send("d", command("c")).await;
    let mut receiver = ground.commands.receiver(&device);
    let delivery = next(&mut receiver, 1).await.remove(0);
    // Whoever stored it tells of it only now: the queue was read in between.
    let late = || {
        let mut record = Vec::new();
        whimbrel::wire::record::encode(&command("c"), &mut record);
        let row = CommandRow {
            sequence: delivery.sequence,
            enqueued_at: delivery.enqueued_at,
            expires_at: ground.now() + Duration::from_secs(60),
            delivery_count: 0,
            record: record.into(),
        };
        ground.commands.inner.arrived("d", &device.generation, row);
    };
    late();
    assert!(ready(&mut receiver, 1).await.is_empty(), "it is locked");
    patiently(receiver.settle(delivery.lock, Settlement::Complete)).await.unwrap();
    late();
    assert!(ready(&mut receiver, 1).await.is_empty(), "it is over");
    assert_eq!(ground.commands.pending("d").await.unwrap(), 0);
}
