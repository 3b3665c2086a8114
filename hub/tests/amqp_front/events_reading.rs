//! Reading the events of a partition: where it starts, what comes, and how fast a reader may be or not.

use std::time::Duration;

use fe2o3_amqp_types::{
    definitions::SenderSettleMode,
    messaging::{Body, MessageId},
    primitives::{SimpleValue, Symbol, Value},
};
use tokio::time::timeout;
use whimbrel::{Lane, Message, wire::amqp};
use whimbrel_hub::events::NewEvent;

use super::events_client::{Client, Wish, condition, device_of, hub, sender, store, store_numbers};

#[tokio::test]
async fn each_kind_of_position_starts_where_it_says() {
    let hub = hub(4).await;
    let device = device_of(&hub, 2);
    for batch in 0..5 {
        store_numbers(&hub, &device, batch * 10..(batch + 1) * 10).await;
        // Batches are told apart by their time.
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let mut client = Client::reader(&hub).await;
    let mut all = Vec::new();
    let mut reading = client.read(2, None).await;
    for _ in 0..50 {
        all.push(reading.event().await);
    }
    assert!(reading.is_quiet().await);
    let numbers: Vec<u64> = all.iter().map(|event| event.number()).collect();
    assert_eq!(numbers, (0..50).collect::<Vec<_>>());
    assert_eq!(all.iter().map(|event| event.sequence()).collect::<Vec<_>>(), numbers);

    let (offset, time) = (all[17].offset(), all[20].logged_at());
    let first_at = |from: i64| all.iter().find(|event| event.logged_at() >= from).unwrap().number();
    for (filter, expected) in [
        ("amqp.annotation.x-opt-offset > '-1'".to_owned(), 0),
        (format!("amqp.annotation.x-opt-offset > '{offset}'"), 18),
        (format!("amqp.annotation.x-opt-offset >= '{offset}'"), 17),
        (format!("amqp.annotation.x-opt-offset >= {offset}"), 17),
        ("amqp.annotation.x-opt-sequence-number > '30'".to_owned(), 31),
        ("amqp.annotation.x-opt-sequence-number >= '30'".to_owned(), 30),
        ("amqp.annotation.x-opt-sequence-number > '-1'".to_owned(), 0),
        (format!("amqp.annotation.x-opt-enqueued-time >= '{time}'"), first_at(time)),
        (format!("amqp.annotation.x-opt-enqueued-time > '{time}'"), first_at(time + 1)),
        (format!("amqp.annotation.x-opt-enqueuedtimeutc > '{time}'"), first_at(time + 1)),
    ] {
        let mut reading = client.read(2, Some(&filter)).await;
        assert_eq!(reading.event().await.number(), expected, "{filter}");
        reading.receiver.close().await.unwrap();
    }
    // Only what comes from now on.
    let mut latest = client.read(2, Some("amqp.annotation.x-opt-offset > '@latest'")).await;
    let mut beyond = client.read(2, Some("amqp.annotation.x-opt-sequence-number > '51'")).await;
    assert!(latest.is_quiet().await && beyond.is_quiet().await);
    store_numbers(&hub, &device, 50..53).await;
    assert_eq!(latest.numbers(3).await, [50, 51, 52]);
    assert_eq!(beyond.event().await.number(), 52);
    client.close().await;
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn a_malformed_filter_is_refused_with_a_text() {
    let hub = hub(1).await;
    let mut client = Client::reader(&hub).await;
    for filter in ["nonsense", "amqp.annotation.x-opt-offset > '@first'", "amqp.annotation.x-opt-other > '1'"]
    {
        let error = client.read(0, Some(filter)).await.ended().await;
        assert_eq!(condition(&error), "com.microsoft:argument-error");
        assert!(error.description.unwrap().contains(filter), "{filter}");
    }
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn an_event_comes_with_all_the_device_and_the_hub_have_said() {
    let hub = hub(1).await;
    let mut message = Message::telemetry(r#"{"t":21.5}"#)
        .message_id("m-1")
        .correlation_id("c-1")
        .content_type("application/json")
        .content_encoding("utf-8")
        .creation_time(std::time::UNIX_EPOCH + Duration::from_secs(1_769_860_800))
        .property("room", "größe")
        .property("mqtt-retain", "true")
        .property("iothub-connection-device-id", "somebody else");
    message.system_mut().user_id = Some("u-1".into());
    store(&hub, "device-9", std::slice::from_ref(&message)).await;
    let mut client = Client::reader(&hub).await;
    let event = client.read(0, None).await.event().await;

    let text = |name| event.annotation(name).and_then(amqp::text);
    assert_eq!(text("x-opt-offset"), Some(event.offset().as_str()));
    assert_eq!(text("iothub-connection-device-id"), Some("device-9"));
    assert_eq!(text("iothub-connection-auth-generation-id"), Some("17"));
    assert_eq!(text("iothub-message-source"), Some("Telemetry"));
    assert_eq!(text("iothub-connection-auth-method"), Some(&*sender("d").auth_method));
    assert_eq!(event.annotation("x-opt-sequence-number"), Some(&Value::Long(0)));
    assert!(matches!(event.annotation("x-opt-enqueued-time"), Some(Value::Timestamp(_))));
    assert!(matches!(event.annotation("iothub-enqueuedtime"), Some(Value::Timestamp(_))));
    assert!(event.0.delivery_annotations.is_none(), "nobody asked for the runtime metric");

    let properties = event.0.properties.clone().unwrap();
    assert_eq!(properties.message_id, Some(MessageId::String("m-1".into())));
    assert_eq!(properties.user_id.unwrap().to_vec(), b"u-1");
    assert_eq!(properties.content_type, Some(Symbol::from("application/json")));
    let application = event.0.application_properties.clone().unwrap().0;
    let application = |name: &str| application.get(name).cloned();
    assert_eq!(application("room"), Some(SimpleValue::String("größe".into())));
    assert_eq!(application("mqtt-retain"), Some(SimpleValue::String("true".into())));
    let at = SimpleValue::String("2026-01-31T12:00:00.0000000Z".into());
    assert_eq!(application("iothub-creation-time-utc"), Some(at));
    assert_eq!(amqp::decode(event.0, Lane::Telemetry).unwrap().message, message);
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn the_runtime_metric_comes_to_those_who_ask() {
    let hub = hub(1).await;
    store_numbers(&hub, "d", 0..10).await;
    let mut client = Client::reader(&hub).await;
    let wish = Wish { metric: true, ..Wish::default() };
    let mut reading = client.attach("plant7/ConsumerGroups/$Default/Partitions/0", &wish).await;
    let events = [reading.event().await, reading.event().await];
    let last = hub.events().partitions()[0];
    for event in events {
        let metric = event.0.delivery_annotations.unwrap().0;
        let found = |name| amqp::annotation(&metric, name).cloned().unwrap();
        assert_eq!(found("last_enqueued_sequence_number"), Value::Long(9));
        assert_eq!(found("last_enqueued_offset"), Value::String(last.last_offset.unwrap().to_string()));
        let at = Value::Timestamp(amqp::timestamp(last.last_enqueued_at.unwrap()));
        assert_eq!(found("last_enqueued_time_utc"), at);
        assert!(matches!(found("runtime_info_retrieval_time_utc"), Value::Timestamp(_)));
    }
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn settled_or_not_every_event_comes_once_and_in_order() {
    let hub = hub(1).await;
    store_numbers(&hub, "d", 0..3_000).await;
    let mut client = Client::reader(&hub).await;
    for settle in [SenderSettleMode::Settled, SenderSettleMode::Unsettled, SenderSettleMode::Mixed] {
        let wish = Wish { settle, credit: 100, ..Wish::default() };
        let mut reading = client.attach("plant7/ConsumerGroups/$Default/Partitions/0", &wish).await;
        assert_eq!(reading.numbers(3_000).await, (0..3_000).collect::<Vec<_>>());
        reading.receiver.close().await.unwrap();
    }
    client.close().await;
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn credit_is_kept_to() {
    let hub = hub(1).await;
    store_numbers(&hub, "d", 0..100).await;
    let mut client = Client::reader(&hub).await;
    let wish = Wish { credit: 0, ..Wish::default() };
    let mut reading = client.attach("plant7/ConsumerGroups/$Default/Partitions/0", &wish).await;
    assert!(reading.is_quiet().await);
    let mut next = 0;
    for credit in [1, 2, 7] {
        reading.receiver.set_credit(credit).await.unwrap();
        for _ in 0..credit {
            let delivery = reading.receiver.recv::<Body<Value>>().await.unwrap();
            reading.receiver.accept(&delivery).await.unwrap();
            let number = super::events_client::Read(delivery.into_message()).number();
            assert_eq!(number, next);
            next += 1;
        }
        assert!(reading.is_quiet().await, "no more than {credit}");
    }
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn groups_are_independent_and_their_names_have_no_case() {
    let hub = hub(1).await;
    hub.events().add_group("Audit").await.unwrap();
    store_numbers(&hub, "d", 0..20).await;
    let mut client = Client::reader(&hub).await;
    let mut default = client.read(0, None).await;
    assert_eq!(default.numbers(15).await, (0..15).collect::<Vec<_>>());
    for address in [
        "plant7/ConsumerGroups/audit/Partitions/0",
        "amqps://plant7.example/PLANT7/consumergroups/AUDIT/partitions/0",
        "/messages/events/ConsumerGroups/Audit/Partitions/0",
        "amqps://plant7.example:5671/messages/events/ConsumerGroups/%24default/Partitions/0",
    ] {
        let mut other = client.attach(address, &Wish::default()).await;
        assert_eq!(other.numbers(20).await, (0..20).collect::<Vec<_>>(), "{address}");
    }
    assert_eq!(default.numbers(5).await, [15, 16, 17, 18, 19]);
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn thirty_two_partitions_are_read_on_one_connection() {
    let hub = hub(32).await;
    let devices: Vec<String> = (0..32).map(|partition| device_of(&hub, partition)).collect();
    for device in &devices {
        store_numbers(&hub, device, 0..50).await;
    }
    let mut client = Client::reader(&hub).await;
    let mut readings = Vec::new();
    for partition in 0..32 {
        readings.push(client.read(partition, None).await);
    }
    for (partition, reading) in readings.iter_mut().enumerate() {
        for number in 0..50 {
            let event = reading.event().await;
            assert_eq!((event.number(), event.sequence()), (number, number), "partition {partition}");
            let device =
                event.annotation("iothub-connection-device-id").and_then(amqp::text).unwrap().to_owned();
            assert_eq!(device, devices[partition]);
        }
    }
    client.close().await;
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn large_events_come_whole_and_between_small_ones() {
    let hub = hub(1).await;
    let large = |number: usize| vec![number as u8; 200_000 + number];
    for number in 0..12 {
        store(&hub, "d", &[Message::telemetry(large(number)), Message::telemetry("small")]).await;
    }
    let mut client = Client::reader(&hub).await;
    let mut reading = client.read(0, None).await;
    for number in 0..12 {
        assert!(reading.event().await.body() == large(number), "event {number}");
        assert_eq!(reading.event().await.body(), b"small");
    }
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn a_reader_that_takes_nothing_holds_up_nobody_else() {
    let hub = hub(2).await;
    let (slow, fast) = (device_of(&hub, 0), device_of(&hub, 1));
    let large = vec![Message::telemetry(vec![1; 200_000]); 20];
    store(&hub, &slow, &large).await;
    let mut client = Client::reader(&hub).await;
    // Credit for all of it, and nobody takes it from the session.
    let wish = Wish { credit: 0, ..Wish::default() };
    let mut idle = client.attach("plant7/ConsumerGroups/$Default/Partitions/0", &wish).await;
    idle.receiver.set_credit(1).await.unwrap();
    let mut reading = client.read(1, None).await;
    for round in 0..20 {
        store_numbers(&hub, &fast, round * 10..(round + 1) * 10).await;
        let expected: Vec<_> = (round * 10..(round + 1) * 10).collect();
        assert_eq!(reading.numbers(10).await, expected);
    }
    hub.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_during_ingest_see_every_event_once() {
    const EVENTS: u64 = 20_000;
    let hub = hub(2).await;
    let devices = [device_of(&hub, 0), device_of(&hub, 1)];
    let events = hub.events().clone();
    let senders = devices.clone().map(|device| {
        let events = events.clone();
        tokio::spawn(async move {
            let sender = sender(&device);
            let mut next = 0;
            while next < EVENTS {
                let messages: Vec<_> = (next..(next + 40).min(EVENTS))
                    .map(|number| Message::telemetry(number.to_string()))
                    .collect();
                next += messages.len() as u64;
                let batch: Vec<_> = messages
                    .iter()
                    .map(|message| NewEvent { sender: &sender, message, origin: None })
                    .collect();
                let ticket = events.append(&batch, &mut Vec::new()).unwrap();
                events.durable(ticket).await.unwrap();
                tokio::task::yield_now().await;
            }
        })
    });
    let mut readers = Vec::new();
    for partition in [0, 0, 1] {
        let mut client = Client::reader(&hub).await;
        let mut reading = client.read(partition, None).await;
        readers.push(tokio::spawn(async move {
            for expected in 0..EVENTS {
                let event = reading.event().await;
                assert_eq!((event.number(), event.sequence()), (expected, expected));
            }
            client.close().await;
        }));
    }
    for task in senders.into_iter().chain(readers) {
        timeout(Duration::from_secs(60), task).await.unwrap().unwrap();
    }
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn stopping_the_hub_ends_links_with_a_reason() {
    let hub = hub(1).await;
    store_numbers(&hub, "d", 0..10).await;
    let mut client = Client::reader(&hub).await;
    let mut reading = client.read(0, None).await;
    assert_eq!(reading.numbers(10).await.len(), 10);
    let ended = tokio::spawn(reading.ended());
    hub.stop().await.unwrap();
    assert_eq!(condition(&ended.await.unwrap()), "amqp:link:detach-forced");
}
