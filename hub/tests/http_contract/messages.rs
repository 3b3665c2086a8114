//! What devices do: events, one or many, and commands with their locks.

use std::time::{Duration, Instant, SystemTime};

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use whimbrel::{ErrorKind, Message};
use whimbrel_hub::commands::{CommandOutcome, CommandState};

use crate::http_support::{Fixture, key_of, lines, number, soon};

const EVENTS: &str = "/devices/d/messages/events?api-version=2021-04-12";
const INBOX: &str = "/devices/d/messages/devicebound";
const BATCH: &str = "application/vnd.microsoft.iothub.json";

async fn ground(settings: &[(&str, &str)]) -> Fixture {
    let hub = Fixture::with(settings).await;
    hub.hub.registry().create("d").await.unwrap();
    hub
}

async fn stored(hub: &Fixture) -> Vec<Value> {
    lines(hub.request(Method::GET, "/v1/events").send().await.unwrap()).await
}

#[tokio::test]
async fn an_event_is_stored_with_what_its_headers_say() {
    let hub = ground(&[]).await;
    let sent = hub
        .as_device("d", Method::POST, EVENTS)
        .await
        .header("content-type", "application/octet-stream")
        .header("iothub-app-room", "attic")
        .header("IoTHub-App-UPPER", "x")
        .header("iothub-messageid", "m-1")
        .header("iothub-correlationid", "c-1")
        .header("iothub-userid", "u-1")
        .header("iothub-contenttype", "application/json")
        .header("iothub-contentencoding", "utf-8")
        .header("iothub-creationtimeutc", "2026-01-31T12:00:00Z")
        .header("iothub-to", "/devices/d/messages/events")
        .header("iothub-ack", "full")
        .header("iothub-operation", "d2c")
        .body(r#"{"t":1}"#)
        .send()
        .await
        .unwrap();
    assert_eq!(sent.status(), StatusCode::NO_CONTENT);
    assert_eq!(sent.headers()["x-ms-request-id"].len(), 36);
    assert_eq!(sent.text().await.unwrap(), "");
    let events = stored(&hub).await;
    let [event] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(event["device"], "d");
    assert_eq!(event["body"], json!({"json": {"t": 1}}));
    assert_eq!(event["properties"], json!({"room": "attic", "upper": "x"}), "feedback is not for events");
    let system = &event["system"];
    for (name, value) in [
        ("message_id", "m-1"),
        ("correlation_id", "c-1"),
        ("user_id", "u-1"),
        ("content_type", "application/json"),
        ("content_encoding", "utf-8"),
        ("creation_time", "2026-01-31T12:00:00.0000000Z"),
        ("to", "/devices/d/messages/events"),
    ] {
        assert_eq!(system[name], value, "{name}");
    }
    assert_eq!(system["auth_method"]["scope"], "device");
    assert_eq!(system["generation"], *hub.hub.registry().get("d").await.unwrap().device.generation);
}

#[tokio::test]
async fn paths_are_found_in_any_case_and_ids_as_they_are() {
    let hub = Fixture::in_memory().await;
    for id in ["a#b?c%d", "D"] {
        hub.hub.registry().create(id).await.unwrap();
        let path = whimbrel::wire::percent::encoded(id);
        for path in [format!("/Devices/{path}/Messages/EVENTS"), format!("/devices/{path}/messages/events/")]
        {
            let key = key_of(&hub.hub.registry().get(id).await.unwrap().device.authentication);
            let token =
                whimbrel::auth::SasToken::issue(&format!("localhost/devices/{id}"), &key, None, soon());
            let sent = hub.bare(Method::POST, &path).header("authorization", token).send().await.unwrap();
            assert_eq!(sent.status(), StatusCode::NO_CONTENT, "{path}");
        }
    }
    let other = hub.as_device("D", Method::POST, "/devices/d/messages/events").await.send().await.unwrap();
    assert_eq!(number(other).await, 401_003, "d is not D");
}

#[tokio::test]
async fn what_is_wrong_with_an_event_is_said() {
    let hub = ground(&[]).await;
    let send = async |name: &'static str, value: Vec<u8>, body: Vec<u8>| {
        let value = reqwest::header::HeaderValue::from_bytes(&value).unwrap();
        hub.as_device("d", Method::POST, EVENTS).await.header(name, value).body(body).send().await.unwrap()
    };
    for (name, value, expected) in [
        ("iothub-expiry", b"tomorrow".to_vec(), 400_004),
        ("iothub-creationtimeutc", b"1".to_vec(), 400_004),
        ("iothub-app-x", b"\xff".to_vec(), 400_004),
    ] {
        assert_eq!(number(send(name, value, Vec::new()).await).await, expected, "{name}");
    }
    let full = 262_144 - 2;
    assert_eq!(send("iothub-app-x", b"y".to_vec(), vec![0; full]).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(number(send("iothub-app-x", b"y".to_vec(), vec![0; full + 1]).await).await, 413_001);
    assert_eq!(number(send("iothub-app-x", b"y".to_vec(), vec![0; 2 << 20]).await).await, 413_001);
    assert_eq!(stored(&hub).await.len(), 1, "what was refused is not stored");
    let get = hub.as_device("d", Method::GET, EVENTS).await.send().await.unwrap();
    assert_eq!(get.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_batch_is_stored_in_order_and_as_a_whole() {
    let hub = ground(&[]).await;
    let send = async |body: String| {
        let request = hub.as_device("d", Method::POST, EVENTS).await;
        request.header("content-type", format!("{BATCH}; charset=utf-8")).body(body).send().await.unwrap()
    };
    let batch = json!([
        {"body": BASE64_STANDARD.encode(b"\xff\x00"), "properties": {
            "iothub-app-Room": "größe", "iothub-messageid": "m", "iothub-contenttype": "x/y", "iothub-ack": "full",
            "dt-subject": "part", "plain": "kept", "iothub-app-n": 3, "iothub-app-none": null,
        }},
        {"body": "text \"quoted\"", "base64Encoded": false},
        {"body": BASE64_STANDARD.encode("padded").trim_end_matches('='), "base64Encoded": true, "properties": null},
        {},
    ]);
    assert_eq!(send(batch.to_string()).await.status(), StatusCode::NO_CONTENT);
    let events = stored(&hub).await;
    let bodies: Vec<_> = events.iter().map(|event| &event["body"]).collect();
    assert_eq!(
        bodies,
        [
            &json!({"base64": "/wA="}),
            &json!({"text": "text \"quoted\""}),
            &json!({"text": "padded"}),
            &json!({"text": ""})
        ]
    );
    assert_eq!(events[0]["properties"], json!({"Room": "größe", "plain": "kept", "n": "3", "none": ""}));
    assert_eq!(events[0]["system"]["message_id"], "m");
    assert_eq!(events[0]["system"]["component"], "part");
    let sequences: Vec<_> = events.iter().map(|event| event["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, [0, 1, 2, 3]);

    let good = json!({"body": "", "base64Encoded": false});
    let many = |count: usize| Value::from(vec![good.clone(); count]).to_string();
    let large = |bytes: usize| json!([{"body": "x".repeat(bytes), "base64Encoded": false}, good]).to_string();
    for (what, body, expected) in [
        ("broken JSON", r#"[{"body":"eA==","properties":{"iothub-app-a":"b"c"}}]"#.to_owned(), 400_006),
        ("no array", "{}".to_owned(), 400_006),
        ("a body that is no text", r#"[{"body":{}}]"#.to_owned(), 400_006),
        ("nothing", String::new(), 400_006),
        ("no message", "[]".to_owned(), 400_004),
        ("501 messages", many(501), 400_004),
        ("no base64", json!([good, {"body": "not base64!"}]).to_string(), 400_004),
        ("a property that is no text", r#"[{"body":"","properties":{"a":{}}}]"#.to_owned(), 400_004),
        ("no time", json!([good, {"body": "", "properties": {"iothub-expiry": "x"}}]).to_string(), 400_004),
        (
            "a property without a name",
            r#"[{"body":"","properties":{"iothub-app-":"x"}}]"#.to_owned(),
            400_004,
        ),
        ("too large", large(262_145), 413_001),
    ] {
        assert_eq!(number(send(body).await).await, expected, "{what}");
    }
    assert_eq!(stored(&hub).await.len(), 4, "all or nothing");
    assert_eq!(send(many(500)).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(send(large(262_144)).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(stored(&hub).await.len(), 506);
}

async fn receive(hub: &Fixture) -> Response {
    hub.as_device("d", Method::GET, INBOX).await.send().await.unwrap()
}

/// The lock of the next command.
async fn lock(hub: &Fixture) -> String {
    let received = receive(hub).await;
    assert_eq!(received.status(), StatusCode::OK);
    let etag = received.headers()["etag"].to_str().unwrap();
    etag.strip_prefix('"').unwrap().strip_suffix('"').unwrap().to_owned()
}

/// How a command is settled.
#[derive(Clone, Copy, Debug)]
enum Way {
    Complete,
    Reject,
    Abandon,
}

async fn settle(hub: &Fixture, lock: &str, way: Way) -> Response {
    let (method, path) = match way {
        Way::Complete => (Method::DELETE, format!("{INBOX}/{lock}?api-version=2021-04-12")),
        Way::Reject => (Method::DELETE, format!("{INBOX}/{lock}?api-version=2021-04-12&reject")),
        Way::Abandon => (Method::POST, format!("{INBOX}/{lock}/abandon")),
    };
    hub.as_device("d", method, &path).await.header("if-match", format!("\"{lock}\"")).send().await.unwrap()
}

async fn send(hub: &Fixture, id: &str) {
    hub.hub.commands().send("d", Message::telemetry(id.to_owned()).message_id(id)).await.unwrap();
}

async fn state(hub: &Fixture, id: &str) -> CommandState {
    hub.hub.commands().status("d", id).await.unwrap().unwrap().state
}

/// How it ended; an end that is decided is told of once it is stored.
async fn outcome(hub: &Fixture, id: &str) -> CommandOutcome {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match state(hub, id).await {
            CommandState::Ended { outcome, .. } => return outcome,
            other => assert!(Instant::now() < deadline, "{id} has not ended: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_command_comes_with_all_its_headers() {
    let hub = ground(&[]).await;
    assert_eq!(receive(&hub).await.status(), StatusCode::NO_CONTENT);
    let command = Message::telemetry("reboot")
        .message_id("m-1")
        .correlation_id("c-1")
        .content_type("text/plain")
        .content_encoding("utf-8")
        .property("delay", "5")
        .property("iothub-ack", "full");
    hub.hub.commands().send("d", command).await.unwrap();
    let received = receive(&hub).await;
    assert_eq!(received.status(), StatusCode::OK);
    let headers = received.headers().clone();
    for (name, value) in [
        ("iothub-messageid", "m-1"),
        ("iothub-correlationid", "c-1"),
        ("iothub-contenttype", "text/plain"),
        ("content-type", "text/plain"),
        ("iothub-contentencoding", "utf-8"),
        ("iothub-app-delay", "5"),
        ("iothub-ack", "full"),
        ("iothub-deliverycount", "0"),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
    let text = |name: &str| headers[name].to_str().unwrap().to_owned();
    assert!(text("iothub-to").eq_ignore_ascii_case("/devices/d/messages/devicebound"));
    text("iothub-sequencenumber").parse::<u64>().unwrap();
    let time = |name| whimbrel::wire::time::parse(&text(name)).unwrap();
    let lives = time("iothub-expiry").duration_since(time("iothub-enqueuedtime")).unwrap();
    assert!(lives > Duration::from_secs(3_590) && lives < Duration::from_secs(3_610), "{lives:?}");
    assert_eq!(received.text().await.unwrap(), "reboot");
    assert_eq!(receive(&hub).await.status(), StatusCode::NO_CONTENT, "it is locked");
}

/// Every way on from a lock, and every way that is no longer open after it.
#[tokio::test]
async fn a_lock_is_settled_once() {
    let hub = ground(&[]).await;
    for (index, (way, expected)) in [
        (Way::Complete, Some(CommandOutcome::Completed)),
        (Way::Reject, Some(CommandOutcome::Rejected)),
        (Way::Abandon, None),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("m{index}");
        send(&hub, &id).await;
        let lock = lock(&hub).await;
        assert_eq!(state(&hub, &id).await, CommandState::Locked);
        let settled = settle(&hub, &lock, way).await;
        assert_eq!(settled.status(), StatusCode::NO_CONTENT, "{way:?}");
        match expected {
            Some(expected) => assert_eq!(outcome(&hub, &id).await, expected),
            None => assert_eq!(state(&hub, &id).await, CommandState::Enqueued),
        }
        for late in [Way::Complete, Way::Reject, Way::Abandon] {
            assert_eq!(number(settle(&hub, &lock, late).await).await, 412_002, "{late:?} after {way:?}");
        }
        hub.hub.commands().purge("d").await.unwrap();
    }
}

#[tokio::test]
async fn wrong_locks_open_nothing() {
    let hub = ground(&[]).await;
    hub.hub.registry().create("other").await.unwrap();
    send(&hub, "m").await;
    let lock = lock(&hub).await;
    for wrong in ["1", "no-lock", "00000000-0000-0000-0000-000000000000", "%22%22"] {
        for way in [Way::Complete, Way::Reject, Way::Abandon] {
            assert_eq!(number(settle(&hub, wrong, way).await).await, 412_002, "{wrong} {way:?}");
        }
    }
    let path = format!("/devices/other/messages/devicebound/{lock}");
    let stolen = hub.as_device("other", Method::DELETE, &path).await.send().await.unwrap();
    assert_eq!(number(stolen).await, 412_002, "the lock of another device");
    assert_eq!(state(&hub, "m").await, CommandState::Locked);
    let upper = settle(&hub, &lock.to_uppercase(), Way::Complete).await;
    assert_eq!(upper.status(), StatusCode::NO_CONTENT, "a GUID has no case");
}

#[tokio::test]
async fn locks_run_side_by_side_and_settle_in_any_order() {
    let hub = ground(&[]).await;
    for id in ["a", "b", "c"] {
        send(&hub, id).await;
    }
    let (a, b, c) = (lock(&hub).await, lock(&hub).await, lock(&hub).await);
    assert_eq!(receive(&hub).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(settle(&hub, &b, Way::Complete).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(settle(&hub, &c, Way::Abandon).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(settle(&hub, &a, Way::Abandon).await.status(), StatusCode::NO_CONTENT);
    for expected in ["a", "c"] {
        let received = receive(&hub).await;
        assert_eq!(received.headers()["iothub-messageid"], expected, "by number, not by return");
        assert_eq!(received.headers()["iothub-deliverycount"], "1");
    }
}

#[tokio::test]
async fn a_lock_ends_by_time_without_counting() {
    let hub = ground(&[("command-lock", "1s")]).await;
    send(&hub, "m").await;
    let first = lock(&hub).await;
    let again = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let received = receive(&hub).await;
            if received.status() == StatusCode::OK {
                return received;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let again = again.await.unwrap();
    assert_eq!(again.headers()["iothub-deliverycount"], "0");
    assert_ne!(again.headers()["etag"].to_str().unwrap().trim_matches('"'), first);
    assert_eq!(number(settle(&hub, &first, Way::Complete).await).await, 412_002, "too late");
}

#[tokio::test]
async fn an_abandoned_command_is_dead_when_it_was_delivered_too_often() {
    let hub = ground(&[("command-max-delivery-count", "3")]).await;
    send(&hub, "m").await;
    for count in 0..3 {
        let received = receive(&hub).await;
        assert_eq!(received.headers()["iothub-deliverycount"], count.to_string());
        let lock = received.headers()["etag"].to_str().unwrap().trim_matches('"').to_owned();
        assert_eq!(settle(&hub, &lock, Way::Abandon).await.status(), StatusCode::NO_CONTENT);
    }
    assert_eq!(receive(&hub).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(outcome(&hub, "m").await, CommandOutcome::DeliveryCountExceeded);
}

#[tokio::test]
async fn an_expired_command_does_not_come() {
    let hub = ground(&[]).await;
    let mut late = Message::telemetry("late").message_id("late");
    late.system_mut().expiry_time = Some(SystemTime::now() - Duration::from_secs(1));
    hub.hub.commands().send("d", late).await.unwrap();
    send(&hub, "fresh").await;
    assert_eq!(receive(&hub).await.headers()["iothub-messageid"], "fresh");
    assert_eq!(outcome(&hub, "late").await, CommandOutcome::Expired);
}

#[tokio::test]
async fn a_purge_takes_locks_along() {
    let hub = ground(&[]).await;
    send(&hub, "locked").await;
    send(&hub, "waiting").await;
    let lock = lock(&hub).await;
    let purged =
        hub.request(Method::DELETE, "/devices/d/commands?api-version=2021-04-12").send().await.unwrap();
    assert_eq!(purged.status(), StatusCode::OK);
    let body: Value = purged.json().await.unwrap();
    assert_eq!(body, json!({"totalMessagesPurged": 2, "deviceId": "d", "moduleId": null}));
    assert_eq!(number(settle(&hub, &lock, Way::Complete).await).await, 412_002);
    for id in ["locked", "waiting"] {
        assert_eq!(outcome(&hub, id).await, CommandOutcome::Purged);
    }
    let unknown = hub.request(Method::DELETE, "/devices/nobody/commands").send().await.unwrap();
    assert_eq!(number(unknown).await, 404_001);
}

#[tokio::test]
async fn a_deleted_device_has_no_inbox() {
    let hub = ground(&[]).await;
    send(&hub, "m").await;
    let token = hub.device_token("d").await;
    hub.hub.registry().delete("d", None).await.unwrap();
    let gone = hub.bare(Method::GET, INBOX).header("authorization", &token).send().await.unwrap();
    assert_eq!(number(gone).await, 401_003);
    hub.hub.registry().create("d").await.unwrap();
    assert_eq!(receive(&hub).await.status(), StatusCode::NO_CONTENT, "created again it starts empty");
    hub.hub.registry().set_enabled("d", false, None).await.unwrap();
    let disabled = hub.as_device("d", Method::GET, INBOX).await.send().await.unwrap();
    assert_eq!(number(disabled).await, 401_003);
    let refused = hub.hub.commands().send("d", Message::telemetry("")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
}
