//! Feedback, and who gets it when.

use std::time::Duration;

use futures_util::FutureExt;
use whimbrel::ErrorKind;

use super::{Ground, admitted, assert_kind, command, patiently};
use crate::commands::{CommandOptions, CommandOutcome, FeedbackBatch, FeedbackReader, Patience, Settlement};

/// Sends commands that ask for feedback, and completes them.
async fn complete(ground: &Ground, ids: &[&str]) {
    let known = ground.registry.get("d").await.unwrap();
    let device = admitted("d", &known.device.generation);
    for id in ids {
        ground.send("d", command(id).property("iothub-ack", "full")).await;
        let taken = ground.commands.take(&device).await.unwrap().unwrap();
        ground.commands.settle(&device, taken.lock, Settlement::Complete).await.unwrap();
    }
}

fn ids(batch: &FeedbackBatch) -> Vec<&str> {
    batch.records.iter().map(|record| record.original_message_id.as_str()).collect()
}

async fn next(reader: &mut FeedbackReader) -> FeedbackBatch {
    patiently(reader.next()).await.unwrap()
}

#[tokio::test]
async fn records_are_about_what_was_asked() {
    for ground in [Ground::in_memory(), Ground::in_folder()] {
        let device = ground.device("d").await;
        for wanted in ["none", "positive", "negative", "full"] {
            for outcome in ["Success", "Rejected", "Purged"] {
                ground
                    .send("d", command(&format!("{wanted}-{outcome}")).property("iothub-ack", wanted))
                    .await;
                match outcome {
                    "Purged" => {
                        assert_eq!(ground.commands.purge("d").await.unwrap(), 1);
                    }
                    _ => {
                        let how =
                            if outcome == "Success" { Settlement::Complete } else { Settlement::Reject };
                        let taken = ground.commands.take(&device).await.unwrap().unwrap();
                        ground.commands.settle(&device, taken.lock, how).await.unwrap();
                    }
                }
            }
        }
        ground.send("d", command("unasked")).await;
        ground.commands.purge("d").await.unwrap();
        let batch = next(&mut ground.commands.feedback(Patience::None)).await;
        let wanted = [
            "positive-Success",
            "negative-Rejected",
            "negative-Purged",
            "full-Success",
            "full-Rejected",
            "full-Purged",
        ];
        assert_eq!(ids(&batch), wanted);
        for record in &batch.records {
            assert!(record.original_message_id.ends_with(&*record.status_code));
            assert_eq!(record.status_code, record.description);
            assert_eq!((&*record.device_id, &*record.device_generation_id), ("d", &*device.generation));
            assert_eq!(record.ended_at(), Some(ground.now()));
        }
        assert_eq!(batch.enqueued_at, ground.now());
    }
}

#[tokio::test]
async fn a_command_without_an_id_has_feedback_without_one() {
    let ground = Ground::in_memory();
    ground.device("d").await;
    ground.send("d", whimbrel::Message::telemetry("m").property("iothub-ack", "negative")).await;
    ground.commands.purge("d").await.unwrap();
    let batch = next(&mut ground.commands.feedback(Patience::None)).await;
    assert_eq!(ids(&batch), [""]);
    assert_eq!(batch.records[0].outcome().unwrap(), CommandOutcome::Purged);
}

#[tokio::test]
async fn contract_readers_get_full_batches_or_wait_from_one_to_the_next() {
    let options = CommandOptions { feedback_batch: 3, ..CommandOptions::default() };
    let ground = Ground::start(None, options);
    ground.device("d").await;
    // There was none before.
    complete(&ground, &["a"]).await;
    assert_eq!(ids(&ground.commands.take_feedback(Patience::Contract).await.unwrap().unwrap()), ["a"]);
    complete(&ground, &["b", "c"]).await;
    ground.advance(Duration::from_secs(14)).await;
    assert!(ground.commands.take_feedback(Patience::Contract).await.unwrap().is_none());
    let mut reader = ground.commands.feedback(Patience::Contract);
    assert!(reader.next().now_or_never().is_none());
    complete(&ground, &["d", "e"]).await;
    assert_eq!(ids(&next(&mut reader).await), ["b", "c", "d"]);
    assert!(ground.commands.take_feedback(Patience::Contract).await.unwrap().is_none());
    ground.advance(Duration::from_secs(15)).await;
    assert_eq!(ids(&next(&mut reader).await), ["e"]);
}

/// One is enough, and it is woken without the clock moving.
#[tokio::test]
async fn our_own_readers_get_a_record_at_once() {
    let ground = Ground::in_folder();
    ground.device("d").await;
    let mut reader = ground.commands.feedback(Patience::None);
    for id in ["a", "b"] {
        let waiting = tokio::spawn(async move {
            let batch = next(&mut reader).await;
            (reader, batch)
        });
        tokio::task::yield_now().await;
        complete(&ground, &[id]).await;
        let (back, batch) = patiently(waiting).await.unwrap();
        reader = back;
        assert_eq!(ids(&batch), [id]);
        reader.settle(batch.lock, Settlement::Complete).await.unwrap();
    }
}

#[tokio::test]
async fn locks_of_feedback_end_by_time_by_settling_and_with_the_reader() {
    let ground = Ground::in_memory();
    ground.device("d").await;
    complete(&ground, &["a", "b"]).await;
    let mut first = ground.commands.feedback(Patience::None);
    let held = next(&mut first).await;
    assert_eq!((ids(&held), held.delivery_count), (vec!["a", "b"], 0));
    let mut second = ground.commands.feedback(Patience::None);
    assert!(second.next().now_or_never().is_none(), "each record goes to one reader");
    drop(first);
    let held = next(&mut second).await;
    assert_eq!((ids(&held), held.delivery_count), (vec!["a", "b"], 0));
    ground.advance(Duration::from_secs(60)).await;
    assert_kind(second.settle(held.lock, Settlement::Complete).await, ErrorKind::LockLost);
    let held = next(&mut second).await;
    second.settle(held.lock, Settlement::Abandon).await.unwrap();
    let held = next(&mut second).await;
    assert_eq!((ids(&held), held.delivery_count), (vec!["a", "b"], 1));
    // Settled by another than it was given to: the token is what counts.
    ground.commands.settle_feedback(held.lock, Settlement::Reject).await.unwrap();
    assert_kind(ground.commands.settle_feedback(held.lock, Settlement::Reject).await, ErrorKind::LockLost);
    assert!(second.next().now_or_never().is_none());
}

#[tokio::test]
async fn feedback_that_is_abandoned_too_often_is_dropped() {
    let options = CommandOptions { feedback_max_delivery_count: 2, ..CommandOptions::default() };
    let ground = Ground::start(Some(tempfile::tempdir().unwrap()), options);
    ground.device("d").await;
    complete(&ground, &["a"]).await;
    let mut reader = ground.commands.feedback(Patience::None);
    let held = next(&mut reader).await;
    reader.settle(held.lock, Settlement::Abandon).await.unwrap();
    drop(reader);
    let ground = ground.restart().await;
    let mut reader = ground.commands.feedback(Patience::None);
    let held = next(&mut reader).await;
    assert_eq!(held.delivery_count, 1, "the count is durable");
    reader.settle(held.lock, Settlement::Abandon).await.unwrap();
    assert!(ground.commands.inner.take_feedback(Patience::None, None).await.unwrap().is_none());
}

#[tokio::test]
async fn feedback_is_kept_for_its_time_and_across_restarts() {
    let ground = Ground::in_folder();
    ground.device("d").await;
    complete(&ground, &["a"]).await;
    ground.advance(Duration::from_secs(1800)).await;
    complete(&ground, &["b"]).await;
    let ground = ground.restart().await;
    ground.advance(Duration::from_secs(1800)).await;
    let mut reader = ground.commands.feedback(Patience::None);
    let held = next(&mut reader).await;
    assert_eq!(ids(&held), ["b"]);
    reader.settle(held.lock, Settlement::Complete).await.unwrap();
    let ground = ground.restart().await;
    assert!(ground.commands.inner.take_feedback(Patience::None, None).await.unwrap().is_none());
}

#[tokio::test]
async fn feedback_of_a_deleted_device_is_gone_from_memory_too() {
    let ground = Ground::start(None, CommandOptions { feedback_batch: 1, ..CommandOptions::default() });
    ground.device("d").await;
    ground.device("other").await;
    complete(&ground, &["a", "b", "c"]).await;
    ground.send("other", command("o").property("iothub-ack", "full")).await;
    ground.commands.purge("other").await.unwrap();
    let mut reader = ground.commands.feedback(Patience::None);
    // The rest is in memory now.
    let held = next(&mut reader).await;
    assert_eq!(ids(&held), ["a"]);
    ground.registry.delete("d", None).await.unwrap();
    patiently(async {
        while ground.commands.inner.feedback.devices().iter().any(|device| &**device == "d") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(ids(&next(&mut reader).await), ["o"]);
    reader.settle(held.lock, Settlement::Abandon).await.unwrap();
    assert!(ground.commands.inner.take_feedback(Patience::None, None).await.unwrap().is_none());
}

/// More than is read from the store at once, by two readers.
#[tokio::test]
async fn a_long_backlog_is_read_to_its_end_in_order() {
    let options = CommandOptions { depth: 2_000, ..CommandOptions::default() };
    let ground = Ground::start(Some(tempfile::tempdir().unwrap()), options);
    ground.device("d").await;
    let send = async |index: u32| {
        let id = index.to_string();
        let sent = ground.commands.send("d", command(&id).property("iothub-ack", "full")).await.unwrap();
        (sent.sequence, id)
    };
    let mut sent = futures_util::future::join_all((0..1_500).map(send)).await;
    sent.sort_unstable();
    assert_eq!(ground.commands.purge("d").await.unwrap(), 1_500);
    let mut readers = [Patience::None, Patience::Contract].map(|patience| ground.commands.feedback(patience));
    let mut seen = Vec::new();
    while seen.len() < 1_500 {
        // What is left at the end makes no full batch.
        let turn = if 1_500 - seen.len() < 64 { 0 } else { seen.len() / 64 % 2 };
        let batch = next(&mut readers[turn]).await;
        assert!(batch.records.len() <= 64);
        seen.extend(batch.records.iter().map(|record| record.original_message_id.clone()));
        readers[turn].settle(batch.lock, Settlement::Complete).await.unwrap();
    }
    assert!(seen.iter().eq(sent.iter().map(|(_, id)| id)), "not in the order in which the commands ended");
}
