//! Commands: every outcome, restarts of either side, feedback.

use std::time::Duration;

use whimbrel::{
    DeviceClient, ErrorKind, Message,
    service::{CommandOutcome, FeedbackWanted, SendOptions, ServiceClient, Tracked},
};

use super::{World, soon};

async fn send(service: &ServiceClient, device: &str) -> Tracked {
    service.send(device, Message::telemetry("go"), SendOptions::default()).await.unwrap()
}

async fn outcome(tracked: &Tracked) -> CommandOutcome {
    soon("the outcome", tracked.outcome()).await.unwrap()
}

#[tokio::test]
async fn every_outcome_reaches_whoever_sent_the_command() {
    let world = World::new().await;
    let service = world.service().await;
    let device = world.device("d1").await;
    let inbox = device.inbox();

    let tracked = send(&service, "d1").await;
    let command = soon("a command", inbox.next()).await.unwrap().unwrap();
    assert_eq!(command.message_id(), Some(tracked.message_id()));
    command.complete().await.unwrap();
    assert_eq!(outcome(&tracked).await, CommandOutcome::Completed);

    let tracked = send(&service, "d1").await;
    soon("a command", inbox.next()).await.unwrap().unwrap().reject().await.unwrap();
    assert_eq!(outcome(&tracked).await, CommandOutcome::Rejected);

    let tracked = send(&service, "d1").await;
    let abandon = async {
        while let Some(command) = inbox.next().await.unwrap() {
            command.abandon().await.unwrap();
        }
    };
    tokio::select! {
        () = abandon => unreachable!("the device goes on"),
        outcome = outcome(&tracked) => assert_eq!(outcome, CommandOutcome::DeliveryCountExceeded),
    }
    device.close().await.unwrap();

    let options = SendOptions::default().expires_in(Duration::from_millis(50));
    let tracked = service.send("d1", Message::telemetry("late"), options).await.unwrap();
    assert_eq!(outcome(&tracked).await, CommandOutcome::Expired);

    let tracked = send(&service, "d1").await;
    assert_eq!(service.registry().purge_commands("d1").await.unwrap(), 1);
    assert_eq!(outcome(&tracked).await, CommandOutcome::Purged);
    service.close().await;
}

#[tokio::test]
async fn what_the_hub_refuses_says_why() {
    let world = World::new().await;
    let service = world.service().await;
    let refused = async |device: &str, message: Message, options: SendOptions| {
        service.send(device, message, options).await.unwrap_err().kind()
    };
    let usual = SendOptions::default();
    assert_eq!(refused("nobody", Message::telemetry(""), usual).await, ErrorKind::NotFound);
    let large = Message::telemetry(vec![0; 70_000]);
    assert_eq!(refused("d1", large, usual).await, ErrorKind::PayloadTooLarge);
    let strange = Message::telemetry("").property("a", "b c");
    assert_eq!(refused("d1", strange, usual).await, ErrorKind::InvalidArgument);
    world.hub().registry().create("d1").await.unwrap();
    let too_long = usual.expires_in(Duration::from_secs(49 * 3_600));
    assert_eq!(refused("d1", Message::telemetry(""), too_long).await, ErrorKind::InvalidArgument);
    for _ in 0..50 {
        send(&service, "d1").await;
    }
    assert_eq!(refused("d1", Message::telemetry(""), usual).await, ErrorKind::QueueFull);
    service.close().await;
}

/// By the message id, which is all that the program has kept.
#[tokio::test]
async fn a_restarted_service_follows_its_commands() {
    let world = World::new().await;
    world.hub().registry().create("d1").await.unwrap();
    let service = world.service().await;
    let (ended, waiting) = (send(&service, "d1").await, send(&service, "d1").await);
    let ids = [ended.message_id().to_owned(), waiting.message_id().to_owned()];
    drop((ended, waiting));
    service.close().await;

    let device = world.device("d1").await;
    let inbox = device.inbox();
    soon("a command", inbox.next()).await.unwrap().unwrap().complete().await.unwrap();
    let second = soon("a command", inbox.next()).await.unwrap().unwrap();

    let service = world.service().await;
    let ended = service.tracked("d1", &ids[0]).unwrap();
    assert_eq!(outcome(&ended).await, CommandOutcome::Completed, "it ended while nobody listened");
    let waiting = service.tracked("d1", &ids[1]).unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(200), waiting.outcome()).await.is_err());
    second.reject().await.unwrap();
    assert_eq!(outcome(&waiting).await, CommandOutcome::Rejected);
    let unknown = service.tracked("d1", "never-sent").unwrap();
    assert_eq!(soon("an answer", unknown.outcome()).await.unwrap_err().kind(), ErrorKind::NotFound);
    device.close().await.unwrap();
    service.close().await;
}

#[tokio::test]
async fn a_restarted_hub_still_tells_how_commands_ended() {
    let mut world = World::new().await;
    let service = world.service().await;
    let device = world.device("d1").await;
    let tracked = send(&service, "d1").await;
    let before = send(&service, "d1").await;
    soon("a command", device.inbox().next()).await.unwrap().unwrap().complete().await.unwrap();
    assert_eq!(outcome(&tracked).await, CommandOutcome::Completed);
    // The outcome that comes while the service cannot hear it.
    world.amqp.cut();
    soon("a command", device.inbox().next()).await.unwrap().unwrap().reject().await.unwrap();
    assert_eq!(outcome(&before).await, CommandOutcome::Rejected);

    let across = send(&service, "d1").await;
    world.restart().await;
    let sent_meanwhile = soon("the hub", service.send("d1", Message::telemetry("x"), SendOptions::default()));
    let sent_meanwhile = sent_meanwhile.await.unwrap();
    complete_all(&device, 2).await;
    assert_eq!(outcome(&across).await, CommandOutcome::Completed);
    assert_eq!(outcome(&sent_meanwhile).await, CommandOutcome::Completed);
    device.close().await.unwrap();
    service.close().await;
}

async fn complete_all(device: &DeviceClient, count: usize) {
    for _ in 0..count {
        let command = soon("a command", device.inbox().next()).await.unwrap().unwrap();
        command.complete().await.unwrap();
    }
}

#[tokio::test]
async fn feedback_comes_at_once_and_goes_when_it_is_completed() {
    let world = World::new().await;
    let service = world.service().await;
    let device = world.device("d1").await;
    let mut reader = service.feedback().unwrap();
    let begun = std::time::Instant::now();
    let options = SendOptions::default().feedback(FeedbackWanted::Full);
    let tracked = service.send("d1", Message::telemetry("go"), options).await.unwrap();
    complete_all(&device, 1).await;
    let batch = soon("feedback", reader.next()).await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "the contract's readers wait 15 s");
    let record = &batch.records()[0];
    assert_eq!(record.original_message_id, tracked.message_id());
    assert_eq!(record.outcome().unwrap(), CommandOutcome::Completed);
    // Given back, it comes again; completed, it does not.
    batch.abandon().await.unwrap();
    let batch = soon("feedback", reader.next()).await.unwrap().unwrap();
    assert_eq!(batch.records()[0].original_message_id, tracked.message_id());
    batch.complete().await.unwrap();
    // None was asked for.
    send(&service, "d1").await;
    complete_all(&device, 1).await;
    let more = tokio::time::timeout(Duration::from_millis(300), reader.next()).await;
    assert!(more.is_err(), "{more:?}");
    reader.close().await;
    device.close().await.unwrap();
    service.close().await;
}
