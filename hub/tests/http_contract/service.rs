//! What services do with the contract's endpoints: feedback and figures.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use whimbrel::Message;

use crate::http_support::{Fixture, number};

const FEEDBACK: &str = "/messages/servicebound/feedback";

async fn ended(hub: &Fixture, id: &str) {
    let command = Message::telemetry("").message_id(id).property("iothub-ack", "full");
    hub.hub.commands().send("d", command).await.unwrap();
    hub.hub.commands().purge("d").await.unwrap();
}

async fn lock(hub: &Fixture, ids: &[&str]) -> String {
    let received = hub.request(Method::GET, FEEDBACK).send().await.unwrap();
    assert_eq!(received.status(), StatusCode::OK);
    let headers = received.headers().clone();
    assert_eq!(headers["content-type"], "application/vnd.microsoft.iothub.feedback.json");
    assert!(whimbrel::wire::time::parse(headers["iothub-enqueuedtime"].to_str().unwrap()).is_some());
    let records: Value = received.json().await.unwrap();
    let records = records.as_array().unwrap();
    let found: Vec<_> = records.iter().map(|record| record["originalMessageId"].as_str().unwrap()).collect();
    assert_eq!(found, ids);
    for record in records {
        assert_eq!((&record["statusCode"], &record["description"]), (&json!("Purged"), &json!("Purged")));
        assert_eq!(record["deviceId"], "d");
    }
    headers["etag"].to_str().unwrap().trim_matches('"').to_owned()
}

#[tokio::test]
async fn feedback_is_locked_given_back_and_completed() {
    let hub = Fixture::with(&[("feedback-linger", "0s")]).await;
    hub.hub.registry().create("d").await.unwrap();
    let none = hub.request(Method::GET, FEEDBACK).send().await.unwrap();
    assert_eq!(none.status(), StatusCode::NO_CONTENT);
    ended(&hub, "a").await;
    ended(&hub, "b").await;
    let first = lock(&hub, &["a", "b"]).await;
    let none = hub.request(Method::GET, FEEDBACK).send().await.unwrap();
    assert_eq!(none.status(), StatusCode::NO_CONTENT, "it is locked");

    let settle = |method: Method, tail: String| hub.request(method, &format!("{FEEDBACK}/{tail}")).send();
    let abandoned = settle(Method::POST, format!("{first}/abandon")).await.unwrap();
    assert_eq!(abandoned.status(), StatusCode::NO_CONTENT);
    assert_eq!(number(settle(Method::DELETE, first.clone()).await.unwrap()).await, 412_002);
    let second = lock(&hub, &["a", "b"]).await;
    assert_ne!(first, second);
    assert_eq!(settle(Method::DELETE, second.clone()).await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(number(settle(Method::POST, format!("{second}/abandon")).await.unwrap()).await, 412_002);
    assert_eq!(number(settle(Method::DELETE, "nonsense".into()).await.unwrap()).await, 412_002);
    let none = hub.request(Method::GET, FEEDBACK).send().await.unwrap();
    assert_eq!(none.status(), StatusCode::NO_CONTENT, "completed feedback does not come again");
}

#[tokio::test]
async fn figures() {
    let hub = Fixture::in_memory().await;
    for id in ["a", "b", "c"] {
        hub.hub.registry().create(id).await.unwrap();
    }
    hub.hub.registry().set_enabled("b", false, None).await.unwrap();
    assert_eq!(
        hub.get("/statistics/devices").await,
        json!({"totalDeviceCount": 3, "enabledDeviceCount": 2, "disabledDeviceCount": 1})
    );
    assert_eq!(hub.get("/Statistics/Service").await, json!({"connectedDeviceCount": 0}));
}
