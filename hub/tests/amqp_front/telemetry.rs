//! Devices send events.

use fe2o3_amqp_types::messaging::Outcome;
use whimbrel::Message;

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
