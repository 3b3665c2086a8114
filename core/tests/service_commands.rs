//! Commands and feedback against a scripted hub: lost answers, lost connections, refusals, Azure's way.

#![cfg(feature = "service")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod service_support;

use std::time::{Duration, Instant};

use fe2o3_amqp_types::{
    definitions::{self, AmqpError, LinkError},
    messaging::Outcome,
};
use service_support::{SOON, Server, command, feedback, property};
use tokio::time::timeout;
use whimbrel::{
    ErrorKind, Message,
    service::{CommandOutcome, FeedbackWanted, SendOptions, ServiceClient},
    wire::amqp,
};

async fn send(client: &ServiceClient, id: &str) -> whimbrel::Result<whimbrel::service::Tracked> {
    client.send("d1", Message::telemetry("go").message_id(id), SendOptions::default()).await
}

/// `send` in the background.
fn sending(
    client: &ServiceClient,
    id: &'static str,
) -> tokio::task::JoinHandle<whimbrel::Result<whimbrel::service::Tracked>> {
    let client = client.clone();
    tokio::spawn(async move { send(&client, id).await })
}

#[tokio::test]
async fn send_returns_with_the_hubs_answer_and_the_outcome_follows() {
    let mut server = Server::start().await;
    let client = server.client().await;
    let options =
        SendOptions::default().expires_in(Duration::from_secs(60)).feedback(FeedbackWanted::Negative);
    let sent = tokio::spawn({
        let client = client.clone();
        async move { client.send("d 1", Message::telemetry("go"), options).await }
    });
    assert_eq!(sent.await.unwrap().unwrap_err().kind(), ErrorKind::InvalidArgument, "not a device id");
    let sent = tokio::spawn({
        let client = client.clone();
        async move { client.send("d#1", Message::telemetry("go"), options).await }
    });
    let (mut outcomes, mut commands) = server.desk().await;
    let (id, delivery) = command(&mut commands).await;
    assert_eq!(id.len(), 32, "one was made");
    assert_eq!(property(&delivery, "iothub-ack").as_deref(), Some("negative"));
    let properties = delivery.message().properties.as_ref().unwrap();
    assert_eq!(properties.to.as_deref(), Some("/devices/d%231/messages/devicebound"));
    assert!(properties.absolute_expiry_time.is_some());
    assert!(!sent.is_finished(), "the hub has not answered");
    commands.accept(&delivery).await.unwrap();
    let tracked = sent.await.unwrap().unwrap();
    assert_eq!((tracked.device(), tracked.message_id()), ("d#1", id.as_str()));

    let waiting = tokio::spawn({
        let tracked = tracked.clone();
        async move { tracked.outcome().await }
    });
    let others =
        feedback(&[("d#2", &id, CommandOutcome::Expired), ("d#1", "other", CommandOutcome::Expired)]);
    outcomes.send(others).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!waiting.is_finished());
    outcomes.send(feedback(&[("d#1", &id, CommandOutcome::Rejected)])).await.unwrap();
    assert_eq!(timeout(SOON, waiting).await.unwrap().unwrap().unwrap(), CommandOutcome::Rejected);
    assert_eq!(tracked.outcome().await.unwrap(), CommandOutcome::Rejected);
    let again = client.tracked("d#1", "other").unwrap();
    assert_eq!(again.outcome().await.unwrap(), CommandOutcome::Expired, "kept for whoever asks later");
    client.close().await;
    assert_eq!(send(&client, "x").await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn commands_do_not_wait_for_each_other_and_each_gets_its_own_answer() {
    let mut server = Server::start().await;
    let client = server.client().await;
    let sent: Vec<_> = ["full", "unknown", "busy", "fine"].map(|id| sending(&client, id)).into();
    let (_outcomes, mut commands) = server.desk().await;
    let mut deliveries = Vec::new();
    for _ in 0..4 {
        deliveries.push(command(&mut commands).await);
    }
    for (id, delivery) in deliveries.iter().rev() {
        let refuse = |condition: definitions::ErrorCondition| {
            definitions::Error::new(condition, Some(format!("about {id}")), None)
        };
        match id.as_str() {
            "full" => commands.reject(delivery, refuse(AmqpError::ResourceLimitExceeded.into())).await,
            "unknown" => commands.reject(delivery, refuse(AmqpError::NotFound.into())).await,
            "busy" => {
                let condition = "com.microsoft:device-container-throttled";
                let condition = definitions::ErrorCondition::Custom(condition.into());
                commands.reject(delivery, refuse(condition)).await
            }
            _ => commands.accept(delivery).await,
        }
        .unwrap();
    }
    let mut kinds = Vec::new();
    for sent in sent {
        kinds.push(timeout(SOON, sent).await.unwrap().unwrap().map(|_| ()).map_err(|error| error.kind()));
    }
    let expected = [Err(ErrorKind::QueueFull), Err(ErrorKind::NotFound), Err(ErrorKind::Throttled), Ok(())];
    assert_eq!(kinds, expected);
    client.close().await;
}

#[tokio::test]
async fn a_lost_connection_before_the_answer_means_the_same_command_again() {
    let mut server = Server::start().await;
    let client = server.client().await;
    let sent: Vec<_> = ["first", "second"].map(|id| sending(&client, id)).into();
    let (_outcomes, mut commands) = server.desk().await;
    let (first, _) = command(&mut commands).await;
    let (second, delivery) = command(&mut commands).await;
    let order = [first.clone(), second.clone()];
    commands.accept(&delivery).await.unwrap();
    // The answer to the second one may or may not have arrived.
    server.cut();
    drop(commands);

    let (_outcomes, mut commands) = server.desk().await;
    let (again, delivery) = command(&mut commands).await;
    assert_eq!(again, order[0], "in the order they were sent");
    commands.accept(&delivery).await.unwrap();
    if let Ok(Ok(delivery)) =
        timeout(Duration::from_millis(200), commands.recv::<fe2o3_amqp_types::messaging::Body<_>>()).await
    {
        let delivery: fe2o3_amqp::Delivery<
            fe2o3_amqp_types::messaging::Body<fe2o3_amqp_types::primitives::Value>,
        > = delivery;
        commands.accept(&delivery).await.unwrap();
    }
    for sent in sent {
        timeout(SOON, sent).await.unwrap().unwrap().unwrap();
    }
    client.close().await;
}

#[tokio::test]
async fn a_link_the_hub_closes_is_opened_again() {
    let mut server = Server::start().await;
    let client = server.client().await;
    let sent = sending(&client, "m");
    let (_outcomes, mut commands) = server.desk().await;
    command(&mut commands).await;
    let error = definitions::Error::new(LinkError::DetachForced, None, None);
    // The client's library answers with the same error.
    let _ = commands.close_with_error(error).await;
    let (_outcomes, mut commands) = server.desk().await;
    let (id, delivery) = command(&mut commands).await;
    assert_eq!(id, "m");
    commands.accept(&delivery).await.unwrap();
    sent.await.unwrap().unwrap();
    client.close().await;
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_nothing_to_be_sent() {
    let mut server = Server::start().await;
    let options = server.options().send_timeout(Duration::from_millis(300));
    let client = ServiceClient::connect(options).await.unwrap();
    let silent = sending(&client, "unanswered");
    let (_outcomes, mut commands) = server.desk().await;
    command(&mut commands).await;
    let error = silent.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("unanswered"), "{error}");
    server.cut();
    drop(commands);
    // Nobody waits any more: the next command is all there is.
    let sent = sending(&client, "next");
    let (_outcomes, mut commands) = server.desk().await;
    let (id, delivery) = command(&mut commands).await;
    assert_eq!(id, "next");
    commands.accept(&delivery).await.unwrap();
    sent.await.unwrap().unwrap();
    client.close().await;
}

#[tokio::test]
async fn a_refused_token_fails_the_call_at_once() {
    let mut server = Server::start().await;
    server.rules().token_status = 401;
    let client = server.client().await;
    let begun = Instant::now();
    assert_eq!(send(&client, "m").await.unwrap_err().kind(), ErrorKind::Unauthorized);
    assert!(begun.elapsed() < Duration::from_secs(5));
    // The hub learns of the policy meanwhile.
    server.rules().token_status = 200;
    let sent = sending(&client, "n");
    let (_outcomes, mut commands) = server.desk().await;
    let (_, delivery) = command(&mut commands).await;
    commands.accept(&delivery).await.unwrap();
    sent.await.unwrap().unwrap();
    client.close().await;
}

#[tokio::test]
async fn tokens_are_renewed_on_the_same_connection() {
    let mut server = Server::start().await;
    let client =
        ServiceClient::connect(server.options().token_lifetime(Duration::from_secs(2))).await.unwrap();
    let sent = sending(&client, "m");
    let (_outcomes, mut commands) = server.desk().await;
    let (_, delivery) = command(&mut commands).await;
    commands.accept(&delivery).await.unwrap();
    let _tracked = sent.await.unwrap().unwrap();
    let renewed = async {
        while server.rules().tokens.len() < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, renewed).await.unwrap();
    let tokens = server.rules().tokens.clone();
    assert!(tokens.iter().all(|(connection, _)| *connection == tokens[0].0), "{tokens:?}");
    assert_ne!(tokens[0].1, tokens[2].1);
    client.close().await;
}

/// As Azure IoT Hub has it: outcomes come by feedback, for which full feedback is asked.
#[tokio::test]
async fn a_hub_without_outcomes_is_followed_by_its_feedback() {
    let mut server = Server::start().await;
    server.rules().refused.insert(amqp::OUTCOMES.to_owned());
    let client = server.client().await;
    let sent = sending(&client, "m");
    let mut commands = server.link_to(amqp::COMMANDS).await.receiver();
    let (_, delivery) = command(&mut commands).await;
    assert_eq!(property(&delivery, "iothub-ack").as_deref(), Some("full"), "though none was asked for");
    commands.accept(&delivery).await.unwrap();
    let tracked = sent.await.unwrap().unwrap();
    let mut pump = server.link_to(amqp::FEEDBACK).await.sender();
    let answer = pump.send(feedback(&[("d1", "m", CommandOutcome::Completed)])).await.unwrap();
    assert!(matches!(answer, Outcome::Accepted(_)), "{answer:?}");
    assert_eq!(timeout(SOON, tracked.outcome()).await.unwrap().unwrap(), CommandOutcome::Completed);
    let unreadable = pump.send(amqp::encode(&Message::telemetry("{"))).await.unwrap();
    assert!(matches!(unreadable, Outcome::Rejected(_)), "it would come again and again");

    // A reader of the program takes over from the client's own reading, and outcomes go on.
    let other = client.tracked("d1", "n").unwrap();
    let mut reader = client.feedback().unwrap();
    let mut queue = server.link_to(amqp::FEEDBACK).await.sender();
    assert!(pump.send(feedback(&[])).await.is_err(), "the client's own link has ended");
    let batch = tokio::spawn(async move {
        let batch = reader.next().await.unwrap().unwrap();
        assert_eq!(batch.records()[0].outcome().unwrap(), CommandOutcome::Purged);
        batch.complete().await.unwrap();
        let batch = reader.next().await.unwrap().unwrap();
        batch.abandon().await.unwrap();
        // Dropped without a word: given back.
        drop(reader.next().await.unwrap().unwrap());
        reader
    });
    let answer = queue.send(feedback(&[("d1", "n", CommandOutcome::Purged)])).await.unwrap();
    assert!(matches!(answer, Outcome::Accepted(_)), "{answer:?}");
    assert_eq!(other.outcome().await.unwrap(), CommandOutcome::Purged);
    for _ in 0..2 {
        let answer = queue.send(feedback(&[])).await.unwrap();
        assert!(matches!(answer, Outcome::Released(_)), "{answer:?}");
    }
    timeout(SOON, batch).await.unwrap().unwrap().close().await;
    client.close().await;
}

#[tokio::test]
async fn feedback_goes_on_over_a_lost_connection_and_an_old_lock_is_lost() {
    let mut server = Server::start().await;
    let client = server.client().await;
    let mut reader = client.feedback().unwrap();
    let mut queue = server.link_to(amqp::FEEDBACK).await.sender();
    let unanswered = queue.send_batchable(feedback(&[("d1", "a", CommandOutcome::Completed)])).await.unwrap();
    let old = timeout(SOON, reader.next()).await.unwrap().unwrap().unwrap();
    server.cut();
    drop((queue, unanswered));
    let mut queue = server.link_to(amqp::FEEDBACK).await.sender();
    let sent = tokio::spawn(async move {
        queue.send(feedback(&[("d1", "a", CommandOutcome::Completed)])).await.unwrap()
    });
    let again = timeout(SOON, reader.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(again.records(), old.records());
    assert_eq!(old.complete().await.unwrap_err().kind(), ErrorKind::LockLost);
    again.complete().await.unwrap();
    assert!(matches!(sent.await.unwrap(), Outcome::Accepted(_)));
    client.close().await;
    assert!(reader.next().await.unwrap().is_none());
}
