//! `/v1`: commands sent, followed, purged; dead letters; feedback.

use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use whimbrel::Message;

use crate::http_support::{Fixture, refusal};

const COMMANDS: &str = "/v1/devices/d/commands";

async fn ground(settings: &[(&str, &str)]) -> Fixture {
    let hub = Fixture::with(settings).await;
    hub.hub.registry().create("d").await.unwrap();
    hub
}

fn send(hub: &Fixture, query: &str) -> RequestBuilder {
    hub.request(Method::POST, &format!("{COMMANDS}{query}"))
}

/// What was sent, from the answer.
async fn sent(request: RequestBuilder) -> Value {
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    let location = answer.headers()["location"].to_str().unwrap().to_owned();
    let sent: Value = answer.json().await.unwrap();
    assert_eq!(location, format!("{COMMANDS}/{}", sent["message_id"].as_str().unwrap()));
    sent
}

/// The next command, as the device gets it: headers and body; and it completes it.
async fn received(hub: &Fixture) -> (reqwest::header::HeaderMap, Vec<u8>) {
    let inbox = "/devices/d/messages/devicebound";
    let answer = hub.as_device("d", Method::GET, inbox).await.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let headers = answer.headers().clone();
    let lock = headers["etag"].to_str().unwrap().trim_matches('"').to_owned();
    let done = hub.as_device("d", Method::DELETE, &format!("{inbox}/{lock}")).await.send().await.unwrap();
    assert_eq!(done.status(), StatusCode::NO_CONTENT);
    (headers, answer.bytes().await.unwrap().to_vec())
}

#[tokio::test]
async fn a_command_is_whatever_curl_sends() {
    let hub = ground(&[]).await;
    let plain =
        sent(send(&hub, "").header("content-type", "application/x-www-form-urlencoded").body("reboot")).await;
    let (headers, body) = received(&hub).await;
    assert_eq!(body, b"reboot");
    assert_eq!(headers["iothub-messageid"], *plain["message_id"].as_str().unwrap(), "an id is made");
    assert!(!headers.contains_key("iothub-contenttype"), "what curl says of everything says nothing");

    let query =
        "?message_id=m-1&correlation_id=c&user_id=u&ack=full&ttl=2m&content_encoding=utf-8&api-version=1";
    let request =
        send(&hub, query).header("iothub-app-room", "attic").header("iothub-messageid", "overridden");
    let named = sent(request.header("content-type", "application/json; x=y").body("{}")).await;
    assert_eq!((&named["device"], &named["message_id"]), (&json!("d"), &json!("m-1")));
    let (headers, body) = received(&hub).await;
    assert_eq!(body, b"{}");
    assert_eq!(headers["iothub-sequencenumber"], named["sequence"].to_string());
    for (name, value) in [
        ("iothub-messageid", "m-1"),
        ("iothub-correlationid", "c"),
        ("iothub-userid", "u"),
        ("iothub-ack", "full"),
        ("iothub-app-room", "attic"),
        ("iothub-contenttype", "application/json; x=y"),
        ("iothub-contentencoding", "utf-8"),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
    let time = |name: &str| whimbrel::wire::time::parse(headers[name].to_str().unwrap()).unwrap();
    let lives = time("iothub-expiry").duration_since(time("iothub-enqueuedtime")).unwrap();
    assert!(lives > Duration::from_secs(110) && lives <= Duration::from_secs(120), "{lives:?}");

    sent(send(&hub, "").body(vec![0xff, 0])).await;
    assert_eq!(received(&hub).await.1, [0xff, 0]);
}

#[tokio::test]
async fn a_command_can_be_one_document() {
    let hub = ground(&[]).await;
    let envelope = |body: Value| {
        send(&hub, "").header("content-type", "application/vnd.whimbrel.command+json").body(body.to_string())
    };
    sent(envelope(json!({
        "message_id": "m-1", "ack": "negative", "ttl": "1h30m", "properties": {"Room": "attic"},
        "body": {"json": {"a": [1, 2]}},
    })))
    .await;
    let (headers, body) = received(&hub).await;
    assert_eq!(body, br#"{"a":[1,2]}"#);
    assert_eq!(
        (&headers["iothub-contenttype"], &headers["iothub-ack"]),
        (&"application/json".parse().unwrap(), &"negative".parse().unwrap())
    );
    assert_eq!(headers["iothub-app-room"], "attic");
    sent(envelope(json!({"body": {"text": "größe"}, "content_type": "text/plain"}))).await;
    assert_eq!(received(&hub).await.1, "größe".as_bytes());
    sent(envelope(json!({"body": {"base64": "/wA="}}))).await;
    assert_eq!(received(&hub).await.1, [0xff, 0]);
    let far = envelope(json!({"expires_at": "2999-01-01T00:00:00Z"})).send().await.unwrap();
    assert_eq!(refusal(far).await.0, StatusCode::BAD_REQUEST);
    sent(envelope(json!({}))).await;
    assert_eq!(received(&hub).await.1, b"");
}

#[tokio::test]
async fn what_is_wrong_with_a_command_is_said() {
    let hub = ground(&[("command-depth", "2")]).await;
    hub.hub.registry().create("off").await.unwrap();
    hub.hub.registry().set_enabled("off", false, None).await.unwrap();
    let document = "application/vnd.whimbrel.command+json";
    for (path, kind, body, expected) in [
        ("/v1/devices/nobody/commands", "", "x", (404, "NOT_FOUND")),
        ("/v1/devices/off/commands", "", "x", (404, "NOT_FOUND")),
        ("/v1/devices/d/commands?ttl=5", "", "x", (400, "INVALID_ARGUMENT")),
        ("/v1/devices/d/commands?ttl=0s", "", "x", (400, "INVALID_ARGUMENT")),
        ("/v1/devices/d/commands?ttl=49h", "", "x", (400, "INVALID_ARGUMENT")),
        ("/v1/devices/d/commands?expires_at=soon", "", "x", (400, "INVALID_ARGUMENT")),
        ("/v1/devices/d/commands?expires_at=2999-01-01T00:00:00Z&ttl=1h", "", "x", (400, "INVALID_ARGUMENT")),
        ("/v1/devices/d/commands?ack=maybe", "", "x", (400, "INVALID_ARGUMENT")),
        ("/v1/devices/d/commands?message_id=a%20b", "", "x", (400, "INVALID_ARGUMENT")),
        ("/v1/devices/d/commands?colour=red", "", "x", (400, "INVALID_ARGUMENT")),
        ("/v1/devices/d/commands", document, "x", (400, "INVALID_ARGUMENT")),
        ("/v1/devices/d/commands", document, "", (400, "INVALID_ARGUMENT")),
        ("/v1/devices/d/commands", document, r#"{"colour":"red"}"#, (400, "INVALID_ARGUMENT")),
        ("/v1/devices/d/commands", document, r#"{"body":{"base64":"!"}}"#, (400, "INVALID_ARGUMENT")),
        ("/v1/devices/d/commands", document, r#"{"properties":{"a b":"c"}}"#, (400, "INVALID_ARGUMENT")),
    ] {
        let mut request = hub.request(Method::POST, path).body(body);
        if !kind.is_empty() {
            request = request.header("content-type", kind);
        }
        let (status, name, _) = refusal(request.send().await.unwrap()).await;
        assert_eq!((status.as_u16(), name.as_str()), expected, "{path} {body}");
    }
    let large = send(&hub, "").body(vec![b'x'; 65_537]).send().await.unwrap();
    assert_eq!(refusal(large).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let larger = send(&hub, "").body(vec![b'x'; 2 << 20]).send().await.unwrap();
    assert_eq!(refusal(larger).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    for _ in 0..2 {
        sent(send(&hub, "").body("fits")).await;
    }
    let full = refusal(send(&hub, "").body("x").send().await.unwrap()).await;
    assert_eq!((full.0, full.1.as_str()), (StatusCode::CONFLICT, "QUEUE_FULL"));
    assert_eq!(hub.get("/v1/devices/d").await["pending_commands"], 2);
    let purged: Value = hub.request(Method::DELETE, COMMANDS).send().await.unwrap().json().await.unwrap();
    assert_eq!(purged, json!({"purged": 2}));
    assert_eq!(hub.get("/v1/devices/d").await["pending_commands"], 0);
}

#[tokio::test]
async fn an_outcome_is_asked_for_and_waited_for() {
    let hub = ground(&[]).await;
    let status = async |query: &str| hub.get(&format!("{COMMANDS}/m{query}")).await;
    let unknown = hub.request(Method::GET, &format!("{COMMANDS}/m?wait=30s")).send().await.unwrap();
    assert_eq!(refusal(unknown).await.0, StatusCode::NOT_FOUND, "what is not there is not waited for");

    sent(send(&hub, "?message_id=m").body("x")).await;
    let waiting = status("").await;
    assert_eq!((&waiting["state"], &waiting["outcome"]), (&json!("enqueued"), &json!(null)));
    assert_eq!(waiting["generation"], *hub.hub.registry().get("d").await.unwrap().device.generation);
    let begun = Instant::now();
    assert_eq!(status("?wait=200ms").await["state"], "enqueued");
    assert!(begun.elapsed() >= Duration::from_millis(200));

    let begun = Instant::now();
    let ((one, other), ()) =
        tokio::join!(async { tokio::join!(status("?wait=30s"), status("?wait=30s")) }, async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            received(&hub).await;
        });
    assert!(begun.elapsed() < Duration::from_secs(10), "the end is told, not found out");
    for ended in [one, other, status("").await, status("?wait=30s").await] {
        assert_eq!((&ended["state"], &ended["outcome"]), (&json!("ended"), &json!("Success")));
        assert!(ended["ended_at"].is_string());
    }
    for wait in ["61s", "soon", ""] {
        let path = format!("{COMMANDS}/m?wait={wait}");
        let refused = hub.request(Method::GET, &path).send().await.unwrap();
        assert_eq!(refusal(refused).await.0, StatusCode::BAD_REQUEST, "{wait}");
    }
}

#[tokio::test]
async fn a_stopping_hub_lets_nobody_wait() {
    let hub = ground(&[]).await;
    sent(send(&hub, "?message_id=m").body("x")).await;
    let outcome = tokio::spawn(hub.request(Method::GET, &format!("{COMMANDS}/m?wait=60s")).send());
    let feedback = tokio::spawn(hub.request(Method::GET, "/v1/feedback?wait=60s").send());
    tokio::time::sleep(Duration::from_millis(200)).await;
    let Fixture { hub, http, .. } = hub;
    let begun = Instant::now();
    hub.stop().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(outcome.await.unwrap().unwrap().json::<Value>().await.unwrap()["state"], "enqueued");
    assert_eq!(feedback.await.unwrap().unwrap().status(), StatusCode::NO_CONTENT);
    drop(http);
}

async fn reject(hub: &Fixture) {
    let inbox = "/devices/d/messages/devicebound";
    let answer = hub.as_device("d", Method::GET, inbox).await.send().await.unwrap();
    let lock = answer.headers()["etag"].to_str().unwrap().trim_matches('"').to_owned();
    let done =
        hub.as_device("d", Method::DELETE, &format!("{inbox}/{lock}?reject")).await.send().await.unwrap();
    assert_eq!(done.status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn dead_letters_are_listed_shown_and_sent_again() {
    let hub = ground(&[]).await;
    hub.hub.registry().create("other").await.unwrap();
    let mut late = Message::telemetry("x");
    late.system_mut().expiry_time = Some(std::time::SystemTime::now() - Duration::from_secs(1));
    hub.hub.commands().send("other", late).await.unwrap();
    for id in ["a", "b"] {
        sent(send(&hub, &format!("?message_id={id}")).header("iothub-app-k", "v").body(format!("body {id}")))
            .await;
        reject(&hub).await;
    }
    let list = async |query: &str| hub.get(&format!("/v1/dead-letters{query}")).await;
    // The one that expired is found by a timer.
    let all = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let all = list("").await;
            if all["dead_letters"].as_array().unwrap().len() == 3 {
                return all;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let all = all.await.unwrap();
    assert_eq!(all.get("next"), None);
    let own = list("?device=d").await;
    let own = own["dead_letters"].as_array().unwrap();
    assert_eq!(own.len(), 2);
    assert_eq!((&own[0]["device"], &own[0]["outcome"]), (&json!("d"), &json!("Rejected")));
    assert_eq!((&own[0]["body"], &own[0]["properties"]), (&json!({"text": "body a"}), &json!({"k": "v"})));
    assert_eq!(own[0]["system"]["message_id"], "a");
    assert_eq!(own[0]["delivery_count"], 0);
    let first = list("?device=d&limit=1").await;
    assert_eq!(first["next"], own[0]["id"]);
    let second = list(&format!("?device=d&limit=1&after={}", first["next"])).await;
    assert_eq!(second["dead_letters"][0]["id"], own[1]["id"]);

    let id = own[0]["id"].as_u64().unwrap();
    let shown = hub.get(&format!("/v1/dead-letters/{id}?body=base64")).await;
    assert_eq!(shown["body"], json!({"base64": "Ym9keSBh"}));
    let resend = || hub.request(Method::POST, &format!("/v1/dead-letters/{id}/resend"));
    assert_eq!(sent(resend()).await["message_id"], "a");
    assert_eq!(received(&hub).await.1, b"body a");
    assert_eq!(refusal(resend().send().await.unwrap()).await.0, StatusCode::NOT_FOUND);
    let gone = hub.request(Method::GET, &format!("/v1/dead-letters/{id}")).send().await.unwrap();
    assert_eq!(refusal(gone).await.0, StatusCode::NOT_FOUND);
    for path in ["?limit=0", "?limit=1001", "?after=x", "/x", "?device=d&colour=red"] {
        let refused = hub.request(Method::GET, &format!("/v1/dead-letters{path}")).send().await.unwrap();
        assert_eq!(refusal(refused).await.0, StatusCode::BAD_REQUEST, "{path}");
    }
}

#[tokio::test]
async fn feedback_comes_at_once_and_is_waited_for() {
    let hub = ground(&[]).await;
    let take =
        async |query: &str| hub.request(Method::GET, &format!("/v1/feedback{query}")).send().await.unwrap();
    assert_eq!(take("").await.status(), StatusCode::NO_CONTENT);
    sent(send(&hub, "?message_id=m&ack=full").body("x")).await;
    let begun = Instant::now();
    let (waited, ()) = tokio::join!(take("?wait=30s"), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        received(&hub).await;
    });
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(waited.status(), StatusCode::OK);
    let batch: Value = waited.json().await.unwrap();
    assert_eq!(batch["records"][0]["originalMessageId"], "m");
    assert_eq!(batch["records"][0]["statusCode"], "Success");
    assert_eq!(take("").await.status(), StatusCode::NO_CONTENT, "it is locked");
    let lock = batch["lock"].as_str().unwrap();
    let settle = |method, tail: String| hub.request(method, &format!("/v1/feedback/{tail}")).send();
    let abandoned = settle(Method::POST, format!("{lock}/abandon")).await.unwrap();
    assert_eq!(abandoned.status(), StatusCode::NO_CONTENT);
    let lost = refusal(settle(Method::DELETE, lock.to_owned()).await.unwrap()).await;
    assert_eq!((lost.0, lost.1.as_str()), (StatusCode::PRECONDITION_FAILED, "LOCK_LOST"));
    let batch: Value = take("?wait=5s").await.json().await.unwrap();
    let lock = batch["lock"].as_str().unwrap().to_owned();
    assert_eq!(settle(Method::DELETE, lock).await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(take("?wait=100ms").await.status(), StatusCode::NO_CONTENT);
    assert_eq!(refusal(take("?wait=2h").await).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn many_wait_and_each_is_told_its_own() {
    let hub = std::sync::Arc::new(ground(&[("command-depth", "200")]).await);
    let mut waiting = Vec::new();
    for index in 0..100 {
        sent(send(&hub, &format!("?message_id=m{index}")).body("x")).await;
        let hub = std::sync::Arc::clone(&hub);
        waiting.push(tokio::spawn(async move {
            hub.get(&format!("{COMMANDS}/m{index}?wait=30s")).await["outcome"].clone()
        }));
    }
    for index in 0..100 {
        if index % 2 == 0 {
            received(&hub).await;
        } else {
            reject(&hub).await
        }
    }
    for (index, waiting) in waiting.into_iter().enumerate() {
        assert_eq!(waiting.await.unwrap(), if index % 2 == 0 { "Success" } else { "Rejected" }, "{index}");
    }
}
