//! `/v1/events`, groups and partitions.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod http_support;

use std::collections::BTreeMap;

use http_support::{Fixture, Following, lines, refusal};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use whimbrel::Message;

async fn read(hub: &Fixture, query: &str) -> Response {
    hub.request(Method::GET, &format!("/v1/events?{query}")).send().await.unwrap()
}

fn texts(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["body"]["text"].as_str().unwrap()).collect()
}

/// Ten devices, enough to fill more than one partition, three events each, in turn.
async fn filled() -> (Fixture, Vec<String>) {
    let hub = Fixture::in_memory().await;
    let mut stored = Vec::new();
    for turn in 0..3 {
        for device in 0..10 {
            let text = format!("{turn}-{device}");
            hub.store(&format!("d{device}"), &[Message::telemetry(text.clone())]).await;
            stored.push(text);
        }
    }
    (hub, stored)
}

#[tokio::test]
async fn all_partitions_come_as_one_stream_in_the_order_of_arrival() {
    let (hub, stored) = filled().await;
    let all = lines(read(&hub, "").await).await;
    assert_eq!(texts(&all), stored);
    let mut partitions: Vec<u64> = all.iter().map(|line| line["partition"].as_u64().unwrap()).collect();
    partitions.sort_unstable();
    partitions.dedup();
    assert!(partitions.len() > 1, "ten devices in one partition would test nothing");

    for partition in &partitions {
        let some = lines(read(&hub, &format!("partition={partition}")).await).await;
        let expected: Vec<Value> =
            all.iter().filter(|line| line["partition"] == *partition).cloned().collect();
        assert_eq!(some, expected);
        let sequences: Vec<u64> = some.iter().map(|line| line["sequence"].as_u64().unwrap()).collect();
        assert_eq!(sequences, (0..some.len() as u64).collect::<Vec<_>>());
    }
    let of_device = lines(read(&hub, "device=d3").await).await;
    assert_eq!(texts(&of_device), ["0-3", "1-3", "2-3"]);
    assert_eq!(texts(&lines(read(&hub, "limit=4").await).await), stored[..4]);
    assert!(lines(read(&hub, "limit=0").await).await.is_empty());
    assert!(lines(read(&hub, "from=end").await).await.is_empty());
}

#[tokio::test]
async fn positions() {
    let hub = Fixture::in_memory().await;
    let place =
        hub.store("d", &[Message::telemetry("0"), Message::telemetry("1"), Message::telemetry("2")]).await;
    let partition = place[0].partition;
    let from = async |from: &str| {
        let some = lines(read(&hub, &format!("partition={partition}&from={from}")).await).await;
        texts(&some).iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()
    };
    let all = lines(read(&hub, "").await).await;
    assert_eq!(from("sequence:1").await, ["1", "2"]);
    assert_eq!(from(&format!("offset:{}", all[2]["offset"].as_str().unwrap())).await, ["2"]);
    assert_eq!(from("time:2001-01-01T00:00:00Z").await, ["0", "1", "2"]);
    assert_eq!(from("time:2999-01-01T00:00:00Z").await, Vec::<String>::new());
    assert_eq!(from("ago:1h").await, ["0", "1", "2"]);
    assert_eq!(from("sequence:99").await, Vec::<String>::new());
    for query in [
        "from=yesterday",
        "partition=99",
        "positions=x",
        "follow=maybe",
        "body=xml",
        "heartbeat=0s",
        "form=end",
    ] {
        let status = refusal(read(&hub, query).await).await.0;
        assert!(status == StatusCode::BAD_REQUEST || status == StatusCode::NOT_FOUND, "{query} {status}");
    }
}

#[tokio::test]
async fn a_followed_stream_goes_on_and_resumes_without_gap_or_repeat() {
    let (hub, stored) = filled().await;
    let mut first = Following::new(read(&hub, "follow=true&from=end").await);
    let mut positions: BTreeMap<String, u64> = first
        .positions()
        .split(',')
        .map(|pair| pair.split_once(':').map(|(p, next)| (p.to_owned(), next.parse().unwrap())).unwrap())
        .collect();
    assert_eq!(positions.len(), 4);
    assert_eq!(positions.values().sum::<u64>(), stored.len() as u64);

    let mut expected = Vec::new();
    let mut seen = Vec::new();
    for index in 0..8 {
        hub.store(&format!("d{index}"), &[Message::telemetry(format!("live {index}"))]).await;
        expected.push(format!("live {index}"));
        let event = first.event().await;
        positions.insert(event["partition"].to_string(), event["sequence"].as_u64().unwrap() + 1);
        seen.push(event["body"]["text"].as_str().unwrap().to_owned());
    }
    drop(first);
    for index in 0..8 {
        hub.store(&format!("d{index}"), &[Message::telemetry(format!("away {index}"))]).await;
        expected.push(format!("away {index}"));
    }
    let resume: Vec<String> =
        positions.iter().map(|(partition, next)| format!("{partition}:{next}")).collect();
    let query = format!("follow=true&from=end&positions={}", resume.join(","));
    let mut second = Following::new(read(&hub, &query).await);
    assert_eq!(second.positions(), resume.join(","));
    for _ in 0..8 {
        seen.push(second.event().await["body"]["text"].as_str().unwrap().to_owned());
    }
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_stopping_hub_ends_streams_cleanly() {
    let hub = Fixture::in_memory().await;
    let mut stream = Following::new(read(&hub, "follow=true").await);
    let Fixture { hub, .. } = hub;
    hub.stop().await.unwrap();
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn a_silent_stream_shows_that_it_lives() {
    let hub = Fixture::in_memory().await;
    let mut stream = Following::new(read(&hub, "follow=true&heartbeat=1s").await);
    assert_eq!(stream.next().await.unwrap(), "");
}

#[tokio::test]
async fn groups_keep_how_far_they_have_got() {
    let hub = Fixture::in_memory().await;
    let place =
        hub.store("d", &[Message::telemetry("0"), Message::telemetry("1"), Message::telemetry("2")]).await;
    let partition = place[0].partition;
    assert_eq!(hub.get("/v1/groups").await, json!(["$Default"]));
    let add = || hub.request(Method::PUT, "/v1/groups/billing").send();
    assert_eq!(add().await.unwrap().status(), StatusCode::CREATED);
    assert_eq!(refusal(add().await.unwrap()).await.0, StatusCode::CONFLICT);

    let set = |group: &str, partition: u32, body: &'static str| {
        let path = format!("/v1/groups/{group}/checkpoints/{partition}");
        hub.request(Method::PUT, &path).body(body).send()
    };
    let read_on = async |group: &str| {
        let some = lines(read(&hub, &format!("group={group}&from=checkpoint")).await).await;
        texts(&some).iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(read_on("billing").await, ["0", "1", "2"], "without a checkpoint from the beginning");
    let stored = set("billing", partition, r#"{"sequence":1}"#).await.unwrap();
    assert_eq!(stored.status(), StatusCode::NO_CONTENT);
    assert_eq!(read_on("billing").await, ["2"]);
    assert_eq!(read_on("$Default").await, ["0", "1", "2"], "groups do not touch each other");
    let checkpoints = hub.get("/v1/groups/billing/checkpoints").await;
    assert_eq!(checkpoints[partition.to_string()], 1);
    assert_eq!(checkpoints.as_object().unwrap().values().filter(|value| value.is_null()).count(), 3);

    assert_eq!(
        refusal(set("billing", partition, r#"{"sequence":99}"#).await.unwrap()).await.0,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(refusal(set("billing", partition, "{}").await.unwrap()).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(
        refusal(set("nobody", partition, r#"{"sequence":0}"#).await.unwrap()).await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(refusal(read(&hub, "group=nobody").await).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn partitions_say_what_they_hold() {
    let hub = Fixture::in_memory().await;
    let place = hub.store("d", &[Message::telemetry("0"), Message::telemetry("1")]).await;
    let partitions = hub.get("/v1/partitions").await;
    let of =
        |index: u32| partitions.as_array().unwrap().iter().find(|p| p["partition"] == index).unwrap().clone();
    let used = of(place[0].partition);
    assert_eq!((&used["first"], &used["next"]), (&json!(0), &json!(2)));
    assert!(used["last_enqueued_at"].is_string());
    let empty = of((place[0].partition + 1) % 4);
    assert_eq!(
        (&empty["first"], &empty["next"], &empty["last_offset"]),
        (&json!(0), &json!(0), &json!(null))
    );
}

#[tokio::test]
async fn health_and_figures() {
    let hub = Fixture::in_memory().await;
    hub.hub.registry().create("d").await.unwrap();
    hub.store("d", &[Message::telemetry("0")]).await;
    for path in ["/v1/health", "/v1/health/live", "/v1/health/ready"] {
        assert_eq!(hub.bare(Method::GET, path).send().await.unwrap().status(), StatusCode::OK, "{path}");
    }
    let page = hub.request(Method::GET, "/metrics").send().await.unwrap();
    assert!(page.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    let page = page.text().await.unwrap();
    for line in [
        "whimbrel_hub_devices{status=\"enabled\"} 1",
        "whimbrel_hub_mqtt_connections 0",
        "whimbrel_hub_http_requests_total{route=\"/v1/health/live\",method=\"GET\",status=\"200\"} 1",
        "# EOF",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
    let partition = hub.hub.events().partition_of("d");
    let stored = format!("whimbrel_hub_events_stored_total{{partition=\"{partition}\"}} 1");
    assert!(page.contains(&stored), "{stored} is not in\n{page}");
}

#[tokio::test]
async fn a_partition_changes_hands_by_compare_and_swap() {
    let folder = tempfile::tempdir().unwrap();
    let start = async || {
        let builder = whimbrel_hub::Hub::builder().data_dir(folder.path());
        Fixture::over(builder.start().await.unwrap())
    };
    let hub = start().await;
    let claim = async |hub: &Fixture, owner: &str, epoch: u64, lasts: u64, condition: (&str, &str)| {
        hub.request(Method::PUT, "/v1/groups/$default/ownerships/0")
            .header(condition.0, condition.1)
            .json(&json!({"owner": owner, "epoch": epoch, "lasts_ms": lasts}))
            .send()
            .await
            .unwrap()
    };
    let first: Value = claim(&hub, "a", 1, 60_000, ("if-none-match", "*")).await.json().await.unwrap();
    assert_eq!(first["owner"], "a");
    let etag = format!("\"{}\"", first["etag"].as_str().unwrap());
    for condition in [("if-none-match", "*"), ("if-match", "\"77\""), ("if-match", "x")] {
        let (status, name, _) = refusal(claim(&hub, "b", 2, 60_000, condition).await).await;
        assert_eq!((status, name.as_str()), (StatusCode::PRECONDITION_FAILED, "CONFLICT"));
    }
    let (status, ..) = refusal(claim(&hub, "b", 2, 60_000, ("x-none", "")).await).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, ..) = refusal(claim(&hub, "b", 2, 100_000_000, ("if-match", &etag)).await).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "over a day");

    hub.hub.stop().await.unwrap();
    let hub = start().await;
    let kept = hub.get("/v1/groups/$Default/ownerships").await;
    assert_eq!((&kept[0]["owner"], &kept[0]["etag"]), (&json!("a"), &first["etag"]), "durable");
    assert!(kept[0]["expires_in_ms"].as_u64().unwrap() > 50_000);
    let stolen: Value = claim(&hub, "b", 2, 60_000, ("if-match", &etag)).await.json().await.unwrap();
    assert_eq!((&stolen["owner"], &stolen["epoch"]), (&json!("b"), &json!(2)));
    assert_eq!(refusal(claim(&hub, "a", 1, 60_000, ("if-match", &etag)).await).await.0, 412);
    let etag = format!("\"{}\"", stolen["etag"].as_str().unwrap());
    let given_up: Value = claim(&hub, "b", 2, 0, ("if-match", &etag)).await.json().await.unwrap();
    assert_eq!(given_up["expires_in_ms"], 0);
    let missing = hub.request(Method::GET, "/v1/groups/nobody/ownerships").send().await.unwrap();
    assert_eq!(refusal(missing).await.0, StatusCode::NOT_FOUND);
}
