//! Devices receive commands, services send them.

use std::time::{Duration, SystemTime};

use fe2o3_amqp::{
    Receiver, Sender,
    link::{DetachError, delivery::Delivery},
};
use fe2o3_amqp_types::{
    definitions::ReceiverSettleMode,
    messaging::{Accepted, Body, DeliveryState, Modified, Outcome, Rejected, Released},
    performatives::Performative,
    primitives::{Symbol, Value},
};
use futures_util::{StreamExt, stream::FuturesOrdered};
use tokio::time::timeout;
use whimbrel::{
    Message,
    auth::SasToken,
    wire::{
        amqp::{self, annotation},
        feedback::{CONTENT_TYPE, CommandOutcome, Feedback},
    },
};

use crate::{
    client::{Client, Ground, PATIENCE, condition, in_an_hour, rejected, sendable},
    raw::Raw,
};

const QUEUE: &str = "/devices/d/messages/devicebound";

fn command(device: &str, id: &str) -> Message {
    let mut message = Message::telemetry("reboot").message_id(id).property("iothub-ack", "full");
    message.system_mut().to = Some(amqp::device_commands(device));
    message
}

async fn next(receiver: &mut Receiver) -> Delivery<Body<Value>> {
    timeout(PATIENCE, receiver.recv::<Body<Value>>()).await.expect("no command came").unwrap()
}

async fn nothing(receiver: &mut Receiver) {
    let silence = timeout(Duration::from_millis(150), receiver.recv::<Body<Value>>()).await;
    assert!(
        silence.is_err(),
        "{:?}",
        silence.map(|delivery| delivery.map(|delivery| delivery.into_message()))
    );
}

fn id_of(delivery: &Delivery<Body<Value>>) -> String {
    let message = amqp::decode(delivery.message().clone(), whimbrel::Lane::Telemetry).unwrap().message;
    message.system().message_id.clone().unwrap()
}

/// How a command ended, as soon as it has.
async fn ended(ground: &Ground, id: &str) -> CommandOutcome {
    let wait = async {
        loop {
            let status = ground.hub.commands().status("d", id).await.unwrap().unwrap();
            if let whimbrel_hub::commands::CommandState::Ended { outcome, .. } = status.state {
                return outcome;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap()
}

/// A hub with device `d`, and what it takes to be that device.
async fn ground() -> (Ground, Client, String) {
    let ground = Ground::start().await;
    let key = ground.device("d").await;
    let client = ground.device_client("d", &key).await;
    let token = SasToken::issue("localhost/devices/d", &key, None, in_an_hour());
    (ground, client, token)
}

#[tokio::test]
async fn a_command_arrives_with_its_annotations_and_every_outcome_settles_it() {
    let (ground, mut client, _) = ground().await;
    let mut receiver = client.receiver("amqps://localhost/devices/d/messages/deviceBound").await;
    for id in ["accepted", "rejected", "abandoned", "undeliverable"] {
        ground.hub.commands().send("d", command("d", id)).await.unwrap();
    }
    let first = next(&mut receiver).await;
    assert_eq!(first.delivery_tag().len(), 16, "the lock token");
    let decoded = amqp::decode(first.message().clone(), whimbrel::Lane::Telemetry).unwrap();
    assert_eq!(decoded.message.body(), "reboot");
    assert!(decoded.message.system().to.as_deref().unwrap().eq_ignore_ascii_case(QUEUE));
    assert_eq!(decoded.message.properties().get("iothub-ack"), Some("full"));
    assert!(decoded.message.system().expiry_time.is_some());
    let note = |name| amqp::annotation(&decoded.annotations, name);
    assert!(matches!(note(annotation::SEQUENCE), Some(Value::Ulong(_))));
    assert_eq!(note(annotation::DELIVERY_COUNT), Some(&Value::Ubyte(0)));
    assert!(matches!(note(annotation::ENQUEUED_AT), Some(Value::Timestamp(_))));
    // The same token twice: .NET's order as a tag, a UUID's as an annotation.
    let Some(Value::Uuid(uuid)) = note(annotation::LOCK).cloned() else {
        panic!("{:?}", note(annotation::LOCK))
    };
    let (tag, uuid) = (first.delivery_tag(), uuid.into_inner());
    assert_eq!([tag[3], tag[2], tag[1], tag[0], tag[5], tag[4], tag[7], tag[6]], uuid[..8]);
    assert_eq!(tag[8..], uuid[8..]);

    receiver.accept(&first).await.unwrap();
    assert_eq!(ended(&ground, "accepted").await, CommandOutcome::Completed);
    let second = next(&mut receiver).await;
    receiver.reject(&second, None).await.unwrap();
    assert_eq!(ended(&ground, "rejected").await, CommandOutcome::Rejected);
    let third = next(&mut receiver).await;
    let fourth = next(&mut receiver).await;
    assert_eq!((id_of(&third), id_of(&fourth)), ("abandoned".into(), "undeliverable".into()));
    let modified = |undeliverable| Modified {
        delivery_failed: Some(true),
        undeliverable_here: Some(undeliverable),
        message_annotations: None,
    };
    receiver.modify(&fourth, modified(true)).await.unwrap();
    assert_eq!(ended(&ground, "undeliverable").await, CommandOutcome::Rejected);
    receiver.release(&third).await.unwrap();
    let again = next(&mut receiver).await;
    receiver.modify(&again, modified(false)).await.unwrap();
    let again = next(&mut receiver).await;
    let annotations = amqp::decode(again.message().clone(), whimbrel::Lane::Telemetry).unwrap().annotations;
    assert_eq!(amqp::annotation(&annotations, annotation::DELIVERY_COUNT), Some(&Value::Ubyte(2)));
    receiver.accept(&again).await.unwrap();
    assert_eq!(ended(&ground, "abandoned").await, CommandOutcome::Completed);
    ground.hub.stop().await.unwrap();
}

#[tokio::test]
async fn with_settle_mode_second_the_hub_answers_what_became_of_it() {
    let (ground, _client, token) = ground().await;
    for id in ["1", "2", "3"] {
        ground.hub.commands().send("d", command("d", id)).await.unwrap();
    }
    let mut raw = Raw::open(&ground, "d@sas.localhost", &token).await;
    raw.receive_from(QUEUE, ReceiverSettleMode::Second, 3).await;
    let mut numbers = Vec::new();
    for _ in 0..3 {
        let transfer = raw.transfer().await;
        assert_eq!(transfer.settled, Some(false));
        numbers.push(transfer.delivery_id.unwrap());
    }
    raw.dispose(numbers[1], false, DeliveryState::Accepted(Accepted {})).await;
    let answer = raw.disposition().await;
    assert_eq!((answer.first, answer.settled), (numbers[1], true));
    assert_eq!(answer.state, Some(DeliveryState::Accepted(Accepted {})));
    assert_eq!(ended(&ground, "2").await, CommandOutcome::Completed);
    raw.dispose(numbers[0], false, DeliveryState::Rejected(Rejected { error: None })).await;
    assert!(matches!(raw.disposition().await.state, Some(DeliveryState::Rejected(Rejected { error: None }))));
    // Purged meanwhile: the lock is lost.
    ground.hub.commands().purge("d").await.unwrap();
    raw.dispose(numbers[2], false, DeliveryState::Released(Released {})).await;
    let Some(DeliveryState::Rejected(Rejected { error: Some(error) })) = raw.disposition().await.state else {
        panic!("the late settlement was not refused")
    };
    assert_eq!(condition(&error), "com.microsoft:message-lock-lost");
    raw.close().await;
    ground.hub.stop().await.unwrap();
}

#[tokio::test]
async fn commands_are_locked_against_credit_only_and_a_drain_is_answered() {
    let (ground, _client, token) = ground().await;
    for id in ["1", "2"] {
        ground.hub.commands().send("d", command("d", id)).await.unwrap();
    }
    let mut raw = Raw::open(&ground, "d@sas.localhost", &token).await;
    raw.receive_from(QUEUE, ReceiverSettleMode::First, 1).await;
    raw.transfer().await;
    // The other one is free for whoever asks.
    let state = ground.hub.commands().status("d", "2").await.unwrap().unwrap().state;
    assert_eq!(state, whimbrel_hub::commands::CommandState::Enqueued);
    raw.credit(1, 5, true).await;
    raw.transfer().await;
    let Performative::Flow(flow) = raw.hear().await else { panic!("the drain was not answered") };
    assert_eq!((flow.delivery_count, flow.link_credit), (Some(6), Some(0)));
    raw.close().await;
    ground.hub.stop().await.unwrap();
}

#[tokio::test]
async fn a_lost_link_returns_its_locks_at_once_and_uncounted() {
    let (ground, mut client, token) = ground().await;
    ground.hub.commands().send("d", command("d", "1")).await.unwrap();
    let mut receiver = client.receiver(QUEUE).await;
    next(&mut receiver).await;
    drop(client);
    drop(receiver);
    let mut raw = Raw::open(&ground, "d@sas.localhost", &token).await;
    raw.receive_from(QUEUE, ReceiverSettleMode::First, 10).await;
    raw.transfer().await;
    drop(raw);
    let mut client = ground.policy_client("device").await;
    let mut receiver = client.receiver(QUEUE).await;
    let delivery = next(&mut receiver).await;
    let annotations =
        amqp::decode(delivery.message().clone(), whimbrel::Lane::Telemetry).unwrap().annotations;
    assert_eq!(amqp::annotation(&annotations, annotation::DELIVERY_COUNT), Some(&Value::Ubyte(0)));
    receiver.close().await.unwrap();
    ground.hub.stop().await.unwrap();
}

#[tokio::test]
async fn a_lock_that_runs_out_brings_the_command_again_and_the_late_answer_does_nothing() {
    let ground = Ground::start_with(|builder| builder.set("command-lock", "1s").unwrap()).await;
    let key = ground.device("d").await;
    let mut client = ground.device_client("d", &key).await;
    ground.hub.commands().send("d", command("d", "1")).await.unwrap();
    let mut receiver = client.receiver(QUEUE).await;
    let first = next(&mut receiver).await;
    let second = next(&mut receiver).await;
    assert_ne!(first.delivery_tag(), second.delivery_tag());
    receiver.accept(&first).await.unwrap();
    receiver.accept(&second).await.unwrap();
    assert_eq!(ended(&ground, "1").await, CommandOutcome::Completed);
    ground.hub.stop().await.unwrap();
}

#[tokio::test]
async fn one_link_receives_the_newer_and_the_older_hears_why() {
    let (ground, mut older, token) = ground().await;
    let mut old = older.receiver(QUEUE).await;
    ground.hub.commands().send("d", command("d", "1")).await.unwrap();
    next(&mut old).await;
    let mut raw = Raw::open(&ground, "d@sas.localhost", &token).await;
    raw.receive_from(QUEUE, ReceiverSettleMode::First, 10).await;
    raw.transfer().await;
    let error = timeout(PATIENCE, old.recv::<Body<Value>>()).await.unwrap().unwrap_err();
    assert!(format!("{error:?}").contains("LinkCreationConflict"), "{error:?}");
    raw.close().await;
    ground.hub.stop().await.unwrap();
}

#[tokio::test]
async fn a_device_that_is_disabled_or_deleted_loses_its_links() {
    let (ground, mut client, _) = ground().await;
    let mut events = client.sender("/devices/d/messages/events").await.unwrap();
    let mut commands = client.receiver(QUEUE).await;
    ground.hub.registry().set_enabled("d", false, None).await.unwrap();
    let error = timeout(PATIENCE, commands.recv::<Body<Value>>()).await.unwrap().unwrap_err();
    assert!(
        format!("{error:?}").contains("UnauthorizedAccess")
            || format!("{error:?}").contains("IotHubUnauthorized"),
        "{error:?}"
    );
    let DetachError::RemoteClosedWithError(error) = timeout(PATIENCE, events.on_detach()).await.unwrap()
    else {
        panic!()
    };
    assert_eq!(condition(&error), "amqp:unauthorized-access");
    assert!(client.sender("/devices/d/messages/events").await.is_err());
    ground.hub.stop().await.unwrap();
}

#[tokio::test]
async fn a_service_sends_and_hears_why_it_cannot() {
    let ground = Ground::start_with(|builder| builder.set("command-depth", "2").unwrap()).await;
    ground.device("d").await;
    ground.device("full").await;
    let mut client = ground.policy_client("service").await;
    let mut sender = client.sender("/messages/devicebound").await.unwrap();
    let accepted = sender.send(sendable(&command("d", "1"))).await.unwrap();
    assert!(matches!(accepted, Outcome::Accepted(_)), "{accepted:?}");
    assert_eq!(ground.hub.commands().pending("d").await.unwrap(), 1);
    for id in ["1", "2"] {
        sender.send(sendable(&command("full", id))).await.unwrap();
    }
    let to = |to: Option<&str>| {
        let mut message = command("d", "x");
        message.system_mut().to = to.map(Into::into);
        message
    };
    let far = || {
        let mut message = command("d", "x");
        message.system_mut().expiry_time = Some(SystemTime::now() + Duration::from_secs(49 * 3600));
        message
    };
    for (message, expected) in [
        (command("nobody", "x"), "amqp:not-found"),
        (command("full", "x"), "amqp:resource-limit-exceeded"),
        (command("d", "x").property("large", "x".repeat(65_536)), "amqp:link:message-size-exceeded"),
        (to(None), "amqp:not-allowed"),
        (to(Some("/messages/devicebound")), "amqp:not-allowed"),
        (command("d", "x").property("iothub-ack", "sometimes"), "com.microsoft:argument-error"),
        (far(), "com.microsoft:argument-error"),
    ] {
        let outcome = sender.send(sendable(&message)).await.unwrap();
        let Outcome::Rejected(Rejected { error: Some(ref error) }) = outcome else { panic!("{outcome:?}") };
        let info = error.info.as_ref().unwrap();
        assert!(matches!(info.get(&Symbol::from("com.microsoft:tracking-id")), Some(Value::String(_))));
        assert!(matches!(info.get(&Symbol::from("com.microsoft:error-code")), Some(Value::Int(_))));
        assert_eq!(rejected(outcome), expected);
    }
    assert!(matches!(sender.send(sendable(&command("d", "2"))).await.unwrap(), Outcome::Accepted(_)));
    ground.hub.stop().await.unwrap();
}

#[tokio::test]
async fn many_commands_under_way_share_commits_and_keep_their_order() {
    let ground = Ground::start_with(|builder| builder.set("command-depth", "500").unwrap()).await;
    let key = ground.device("d").await;
    let mut client = ground.owner_client().await;
    let mut sender = client.sender("/messages/devicebound").await.unwrap();
    let mut outcomes = FuturesOrdered::new();
    for number in 0..500 {
        let message = command("d", &number.to_string());
        outcomes.push_back(sender.send_batchable(sendable(&message)).await.unwrap());
    }
    while let Some(outcome) = timeout(PATIENCE, outcomes.next()).await.unwrap() {
        assert!(matches!(outcome.unwrap(), Outcome::Accepted(_)));
    }
    let mut device = ground.device_client("d", &key).await;
    let mut receiver = device.receiver(QUEUE).await;
    for number in 0..500 {
        let delivery = next(&mut receiver).await;
        assert_eq!(id_of(&delivery), number.to_string());
        receiver.accept(&delivery).await.unwrap();
    }
    nothing(&mut receiver).await;
    ground.hub.stop().await.unwrap();
}

async fn feedback_link(client: &mut Client, at_once: bool) -> Receiver {
    let builder = Receiver::builder().name("feedback").source(amqp::FEEDBACK);
    let builder = match at_once {
        true => builder.add_desired_capabilities(Symbol::from(amqp::AT_ONCE)),
        false => builder,
    };
    builder.attach(&mut client.session).await.unwrap()
}

fn records(delivery: &Delivery<Body<Value>>) -> Vec<Feedback> {
    let message = amqp::decode(delivery.message().clone(), whimbrel::Lane::Telemetry).unwrap().message;
    assert_eq!(message.system().content_type.as_deref(), Some(CONTENT_TYPE));
    assert_eq!(message.system().user_id.as_deref(), Some("localhost"));
    serde_json::from_slice(message.body()).unwrap()
}

#[tokio::test]
async fn feedback_comes_in_batches_and_outcomes_as_they_happen() {
    let ground = Ground::start_with(|builder| builder.set("feedback-linger", "200ms").unwrap()).await;
    let key = ground.device("d").await;
    let mut service = ground.policy_client("service").await;
    let mut feedback = feedback_link(&mut service, false).await;
    let mut outcomes = service.receiver(amqp::OUTCOMES).await;
    let mut device = ground.device_client("d", &key).await;
    let mut commands = device.receiver(QUEUE).await;
    // The link for outcomes hears what happens from when it is attached on.
    tokio::time::sleep(Duration::from_millis(50)).await;
    for id in ["1", "2"] {
        ground.hub.commands().send("d", command("d", id)).await.unwrap();
        let delivery = next(&mut commands).await;
        commands.accept(&delivery).await.unwrap();
    }
    let mut heard = Vec::new();
    while heard.len() < 2 {
        let delivery = next(&mut outcomes).await;
        heard.extend(records(&delivery));
        outcomes.accept(&delivery).await.unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let delivery = next(&mut feedback).await;
        assert_eq!(delivery.delivery_tag().len(), 16);
        let annotations =
            amqp::decode(delivery.message().clone(), whimbrel::Lane::Telemetry).unwrap().annotations;
        assert!(matches!(amqp::annotation(&annotations, annotation::ENQUEUED_AT), Some(Value::Timestamp(_))));
        seen.extend(records(&delivery));
        feedback.accept(&delivery).await.unwrap();
    }
    for records in [heard, seen] {
        let ids: Vec<_> = records.iter().map(|record| record.original_message_id.as_str()).collect();
        assert_eq!(ids, ["1", "2"]);
        assert!(records.iter().all(|record| record.outcome().unwrap() == CommandOutcome::Completed));
        assert!(
            records.iter().all(|record| record.device_id == "d" && !record.device_generation_id.is_empty())
        );
    }
    ground.hub.stop().await.unwrap();
}

#[tokio::test]
async fn feedback_at_once_and_again_when_it_was_released() {
    let (ground, mut device, _) = ground().await;
    let mut service = ground.policy_client("service").await;
    let mut feedback = feedback_link(&mut service, true).await;
    let mut commands = device.receiver(QUEUE).await;
    ground.hub.commands().send("d", command("d", "1")).await.unwrap();
    let delivery = next(&mut commands).await;
    commands.accept(&delivery).await.unwrap();
    let began = std::time::Instant::now();
    let batch = next(&mut feedback).await;
    assert!(began.elapsed() < Duration::from_secs(5), "the contract's 15 s do not count here");
    feedback.release(&batch).await.unwrap();
    let batch = next(&mut feedback).await;
    assert_eq!(records(&batch)[0].original_message_id, "1");
    feedback.accept(&batch).await.unwrap();
    nothing(&mut feedback).await;
    ground.hub.stop().await.unwrap();
}

#[tokio::test]
async fn what_each_grant_may_attach() {
    let (ground, mut device, _) = ground().await;
    ground.device("other").await;
    let refused = async |client: &mut Client, address: &str, sends: bool| -> Option<String> {
        if sends {
            return client.sender(address).await.err().map(|error| condition(&error));
        }
        let mut receiver = client.receiver(address).await;
        match timeout(Duration::from_millis(100), receiver.recv::<Body<Value>>()).await {
            Err(_) => None,
            Ok(Ok(_)) => panic!("nothing was to come"),
            Ok(Err(error)) => Some(format!("{error:?}")),
        }
    };
    let mut anybody = ground.stranger().await;
    let mut service = ground.policy_client("service").await;
    let mut gateway = ground.policy_client("device").await;
    let mut reader = ground.policy_client("registryRead").await;
    // Address, whether the client sends, and who may: device d, any device, service.
    for (address, sends, own, devices, services) in [
        ("/devices/d/messages/events", true, true, true, false),
        (QUEUE, false, true, true, false),
        ("/devices/other/messages/events", true, false, true, false),
        ("/devices/other/messages/devicebound", false, false, true, false),
        ("/messages/devicebound", true, false, false, true),
        ("/messages/serviceBound/feedback", false, false, false, true),
        ("/messages/whimbrel/outcomes", false, false, false, true),
        ("/messages/servicebound/filenotifications", false, false, false, true),
        ("/devices/nobody/messages/events", true, false, false, false),
        ("/devices/d/twin", true, false, false, false),
        ("/devices/d/methods/devicebound", false, false, false, false),
        ("/messages/devicebound", false, false, false, false),
        ("/devices/d/messages/devicebound", true, false, false, false),
        ("/elsewhere", true, false, false, false),
    ] {
        for (who, client, allowed) in [
            ("nobody", &mut anybody, false),
            ("the device", &mut device, own),
            ("a gateway", &mut gateway, devices),
            ("a service", &mut service, services),
            ("a reader of the registry", &mut reader, false),
        ] {
            let refusal = refused(client, address, sends).await;
            assert_eq!(refusal.is_none(), allowed, "{who} at {address}: {refusal:?}");
        }
    }
    ground.hub.stop().await.unwrap();
}

#[tokio::test]
async fn tokens_that_end_take_their_links_along_unless_renewed() {
    let ground = Ground::start_with(|builder| builder.set("token-grace", "500ms").unwrap()).await;
    let key = ground.device("d").await;
    let soon = || SystemTime::now() + Duration::from_secs(1);
    let token = |expires_at| SasToken::issue("localhost/devices/d", &key, None, expires_at);
    let address = "/devices/d/messages/events";
    let mut renewed = ground.stranger().await;
    let mut left = ground.stranger().await;
    for client in [&mut renewed, &mut left] {
        assert_eq!(client.put_token("localhost/devices/d", &token(soon())).await.0, 200);
    }
    let mut stays: Sender = renewed.sender(address).await.unwrap();
    let mut goes: Sender = left.sender(address).await.unwrap();
    assert_eq!(renewed.put_token("localhost/devices/d", &token(in_an_hour())).await.0, 200);
    let DetachError::RemoteClosedWithError(error) = timeout(PATIENCE, goes.on_detach()).await.unwrap() else {
        panic!()
    };
    assert_eq!(condition(&error), "amqp:unauthorized-access");
    let outcome = stays.send(sendable(&Message::telemetry("x"))).await.unwrap();
    assert!(matches!(outcome, Outcome::Accepted(_)));
    ground.hub.stop().await.unwrap();
}
