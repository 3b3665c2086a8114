//! Devices send events.

use fe2o3_amqp::link::delivery::Sendable;
use fe2o3_amqp_types::{
    messaging::{Batch, Body, Data, Message as Sections, Outcome, message::__private::Serializable},
    primitives::{Binary, Value},
};
use futures_util::{StreamExt, stream::FuturesOrdered};
use whimbrel::{
    Message,
    wire::amqp::{self, BATCH_FORMAT},
};

use crate::client::{Ground, rejected, sendable};

#[tokio::test]
async fn what_was_accepted_is_stored_as_it_was_sent() {
    let ground = Ground::start().await;
    let key = ground.device("d").await;
    let mut client = ground.device_client("d", &key).await;
    let mut link = client.sender("amqps://localhost:5671/devices/d/messages/events").await.unwrap();
    let message = Message::telemetry("body")
        .message_id("m-1")
        .content_type("application/json")
        .property("room", "attic");
    assert!(matches!(link.send(sendable(&message)).await.unwrap(), Outcome::Accepted(_)));
    // Over several frames.
    let large = Message::telemetry(vec![7; 200_000]);
    assert!(matches!(link.send(sendable(&large)).await.unwrap(), Outcome::Accepted(_)));
    let events = ground.events("d", 2).await;
    assert_eq!(events[0].message().unwrap(), message);
    assert_eq!(events[1].message().unwrap(), large);
    ground.hub.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_too_large_is_rejected_and_the_link_goes_on() {
    let ground = Ground::start().await;
    let key = ground.device("d").await;
    let mut client = ground.device_client("d", &key).await;
    let mut link = client.sender("/devices/d/messages/events").await.unwrap();
    let outcome = link.send(sendable(&Message::telemetry(vec![7; 262_145]))).await.unwrap();
    assert_eq!(rejected(outcome), "amqp:link:message-size-exceeded");
    assert!(matches!(link.send(sendable(&Message::telemetry("x"))).await.unwrap(), Outcome::Accepted(_)));
    ground.hub.stop().await.unwrap();
}

/// Several messages in one.
fn batch(messages: &[Message]) -> Sendable<Body<Value>> {
    let parts = messages
        .iter()
        .map(|message| Data(Binary::from(serde_amqp::to_vec(&Serializable(amqp::encode(message))).unwrap())));
    let message = Sections::builder().body(Body::Data(Batch::new(parts.collect::<Vec<_>>()))).build();
    Sendable { message, message_format: BATCH_FORMAT, settled: None }
}

#[tokio::test]
async fn a_batch_is_stored_whole_or_not_at_all() {
    let ground = Ground::start().await;
    let key = ground.device("d").await;
    let mut client = ground.device_client("d", &key).await;
    let mut link = client.sender("/devices/d/messages/events").await.unwrap();
    let small = |index: usize| Message::telemetry(index.to_string()).message_id(format!("m-{index}"));
    let fine: Vec<_> = (0..500).map(small).collect();
    let many: Vec<_> = (0..501).map(small).collect();
    let large: Vec<_> = (0..3).map(|_| Message::telemetry(vec![7; 90_000])).collect();
    assert_eq!(rejected(link.send(batch(&many)).await.unwrap()), "com.microsoft:argument-error");
    assert_eq!(rejected(link.send(batch(&large)).await.unwrap()), "amqp:link:message-size-exceeded");
    let mut broken = batch(&fine);
    let Body::Data(parts) = &mut broken.message.body else { unreachable!() };
    parts.push(Data(Binary::from(vec![0, 0x53])));
    assert_eq!(rejected(link.send(broken).await.unwrap()), "com.microsoft:argument-error");
    assert!(matches!(link.send(batch(&fine)).await.unwrap(), Outcome::Accepted(_)));
    let events = ground.events("d", 500).await;
    let stored: Vec<_> = events.iter().map(|event| event.message().unwrap()).collect();
    assert_eq!(stored, fine, "nothing of the refused ones, and the others in order");
    ground.hub.stop().await.unwrap();
}

#[tokio::test]
async fn many_under_way_are_answered_and_stored_in_order() {
    const MESSAGES: usize = 5_000;
    let ground = Ground::start().await;
    let key = ground.device("d").await;
    let mut client = ground.device_client("d", &key).await;
    let mut link = client.sender("/devices/d/messages/events").await.unwrap();
    let mut outcomes = FuturesOrdered::new();
    for index in 0..MESSAGES {
        // Those that want no answer are stored among the others.
        let settled = Some(index % 10 == 9);
        let sendable = Sendable { settled, ..sendable(&Message::telemetry(index.to_string())) };
        outcomes.push_back(link.send_batchable(sendable).await.unwrap());
    }
    while let Some(outcome) = outcomes.next().await {
        assert!(matches!(outcome.unwrap(), Outcome::Accepted(_)));
    }
    for (index, event) in ground.events("d", MESSAGES).await.iter().enumerate() {
        assert_eq!(event.message().unwrap().body(), index.to_string().as_bytes());
    }
    ground.hub.stop().await.unwrap();
}
