//! A hub and our own device client: every way in, being thrown out, stopping under traffic.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod http_support;

use std::{collections::BTreeSet, time::Duration};

use http_support::{Fixture, lines};
use reqwest::Method;
use whimbrel::{ConnectionState, DeviceClient, DeviceOptions, Message, Outcome};
use whimbrel_hub::{Hub, Listen, ServiceFile};

async fn options(hub: &Hub, id: &str) -> DeviceOptions {
    let secret = hub.registry().create(id).await.unwrap().connection_string();
    let options = DeviceOptions::from_connection_string(&secret).unwrap().outbox_in_memory();
    options
        .ca_pem(hub.ca_certificate().unwrap().pem)
        .backoff(Duration::from_millis(10), Duration::from_millis(50))
}

/// `device` and body text of everything stored, in order.
async fn stored(fixture: &Fixture) -> Vec<(String, String)> {
    let all = lines(fixture.request(Method::GET, "/v1/events").send().await.unwrap()).await;
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    all.iter().map(|line| (text(&line["device"]), text(&line["body"]["text"]))).collect()
}

#[tokio::test]
async fn devices_come_in_by_every_door() {
    let fixture = Fixture::in_memory().await;
    let hub = &fixture.hub;
    for (scheme, address) in [
        ("mqtt", hub.mqtt_addr()),
        ("mqtts", hub.mqtts_addr()),
        ("ws", hub.http_addr()),
        ("wss", hub.https_addr()),
    ] {
        let server = format!("{scheme}://{}", address.unwrap());
        let client = DeviceClient::open(options(hub, scheme).await.server(server)).await.unwrap();
        let large = "x".repeat(200_000);
        let receipts =
            client.send_all([Message::telemetry("small"), Message::telemetry(large.clone())]).await.unwrap();
        let partition = Some(hub.events().partition_of(scheme));
        for receipt in &receipts {
            let outcome = receipt.outcome().await.unwrap();
            assert!(
                matches!(outcome, Outcome::Delivered { partition: p, sequence: Some(_) } if p == partition),
                "{scheme}: {outcome:?}"
            );
        }
        client.close().await.unwrap();
        let of_device = stored(&fixture).await.into_iter().filter(|(device, _)| device == scheme);
        assert!(of_device.map(|(_, text)| text).eq(["small".to_owned(), large]), "{scheme}");
    }
}

#[tokio::test]
async fn a_disabled_device_is_thrown_out_and_comes_back_when_enabled() {
    let fixture = Fixture::in_memory().await;
    let hub = &fixture.hub;
    let server = format!("mqtt://{}", hub.mqtt_addr().unwrap());
    let client = DeviceClient::open(options(hub, "d").await.server(server)).await.unwrap();
    client.send(Message::telemetry("before")).await.unwrap().outcome().await.unwrap();
    let mut connection = client.connection();
    hub.registry().set_enabled("d", false, None).await.unwrap();
    connection.wait_for(|state| matches!(state, ConnectionState::Unauthorized { .. })).await.unwrap();
    let receipt = client.send(Message::telemetry("meanwhile")).await.unwrap();
    assert_eq!(stored(&fixture).await.len(), 1);
    hub.registry().set_enabled("d", true, None).await.unwrap();
    assert!(matches!(receipt.outcome().await.unwrap(), Outcome::Delivered { .. }));
    assert_eq!(stored(&fixture).await.len(), 2);
}

/// What was acknowledged is there after a restart, nothing is there twice, and what was not goes to the next hub.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_under_traffic_loses_and_repeats_nothing() {
    const ROUNDS: usize = 5;
    const MESSAGES: usize = 2_000;
    let folder = tempfile::tempdir().unwrap();
    let start = |listen| Hub::builder().data_dir(folder.path()).mqtt(listen).start();
    let mut hub = start(Listen::loopback(0)).await.unwrap();
    let address = hub.mqtt_addr().unwrap();
    let options = options(&hub, "d").await.server(format!("mqtt://{address}"));
    let client = DeviceClient::open(options).await.unwrap();

    let sender = tokio::spawn({
        let client = client.clone();
        async move {
            for index in 0..MESSAGES {
                client.send(Message::telemetry(index.to_string())).await.unwrap();
                if index % 50 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        }
    });
    for round in 1..=ROUNDS {
        // Stop while there is something under way.
        while client.account().delivered < (round * MESSAGES / (ROUNDS + 2)) as u64 {
            tokio::task::yield_now().await;
        }
        hub.stop().await.unwrap();
        hub = start(Listen::on(address)).await.unwrap();
        let delivered = client.account().delivered;
        let kept: u64 = hub.events().partitions().iter().map(|partition| partition.next).sum();
        assert!(kept >= delivered, "{kept} stored, {delivered} acknowledged");
    }
    sender.await.unwrap();
    assert_eq!(client.flush(Duration::from_secs(60)).await.unwrap(), 0);
    client.close().await.unwrap();
    let fixture = Fixture::over(hub);
    let texts: Vec<String> = stored(&fixture).await.into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts.iter().collect::<BTreeSet<_>>().len(), texts.len(), "something was stored twice");
    assert!(texts.iter().map(|text| text.parse::<usize>().unwrap()).eq(0..MESSAGES), "lost, or out of order");
    fixture.hub.stop().await.unwrap();
    assert!(ServiceFile::read(folder.path()).is_ok(), "kept for the next start");
}
