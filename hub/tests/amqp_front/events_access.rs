//! Who may read events, what there is to be read, and who else is reading.

use std::time::{Duration, Instant};

use fe2o3_amqp_types::{
    definitions::ErrorCondition,
    primitives::{Symbol, Value},
};
use whimbrel::wire::amqp;

use super::events_client::{
    Client, Wish, condition, device_of, device_token, event_hubs_token, forged_token, hub, hub_token,
    store_numbers,
};

const DEFAULT: &str = "plant7/ConsumerGroups/$Default/Partitions/0";

#[tokio::test]
async fn a_policy_that_may_not_read_and_a_device_are_refused() {
    let hub = hub(1).await;
    store_numbers(&hub, "d", 0..1).await;
    let device = hub.registry().create("d").await.unwrap().connection_string();
    for (audience, token, status) in [
        // Good for something else: the token is taken, the link is not.
        ("plant7.example/devices/d", device_token(&device), 200),
        ("plant7.example", hub_token(&hub, "registryRead", "plant7.example"), 200),
        ("plant7.example", hub_token(&hub, "device", "plant7.example"), 200),
        // Good for nothing.
        ("sb://plant7.example/plant7", device_token(&device), 401),
        ("sb://plant7.example/plant7", forged_token(&hub, "sb://plant7.example/plant7"), 401),
        ("sb://plant7.example/plant7", event_hubs_token(&hub, "service", "sb://other.example/plant7"), 401),
    ] {
        let mut client = Client::stranger(&hub).await;
        assert_eq!(client.put_token(audience, &token).await, status, "{audience}");
        for address in [DEFAULT, "/messages/events/ConsumerGroups/$Default/Partitions/0"] {
            let error = client.attach(address, &Wish::default()).await.ended().await;
            assert_eq!(condition(&error), "amqp:unauthorized-access", "{audience}");
        }
        client.close().await;
    }
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn tokens_of_every_way_to_sign_and_every_scope_are_good() {
    let hub = hub(1).await;
    store_numbers(&hub, "d", 0..1).await;
    const LOG: &str = "sb://plant7.example/plant7";
    const PARTITION: &str = "sb://plant7.example/plant7/ConsumerGroups/$Default/Partitions/0";
    for (audience, token) in [
        (LOG, event_hubs_token(&hub, "service", LOG)),
        (LOG, event_hubs_token(&hub, "iothubowner", "sb://PLANT7.example/plant7/")),
        (PARTITION, event_hubs_token(&hub, "service", LOG)),
        // Just this partition, as one client asks for it.
        (PARTITION, event_hubs_token(&hub, "service", PARTITION)),
        (PARTITION, hub_token(&hub, "service", "plant7.example")),
        ("plant7.example/messages/events", hub_token(&hub, "service", "plant7.example/messages/events")),
    ] {
        let mut client = Client::stranger(&hub).await;
        assert_eq!(client.put_token(audience, &token).await, 200, "{audience}");
        assert_eq!(client.read(0, None).await.event().await.number(), 0);
        client.close().await;
    }
    // A token for one partition is not one for the next.
    let mut client = Client::stranger(&hub).await;
    let next = "sb://plant7.example/plant7/ConsumerGroups/$Default/Partitions/1";
    assert_eq!(client.put_token(next, &event_hubs_token(&hub, "service", PARTITION)).await, 401);
    assert_eq!(client.put_token(next, &event_hubs_token(&hub, "service", next)).await, 200);
    let error = client.read(0, None).await.ended().await;
    assert_eq!(condition(&error), "amqp:unauthorized-access");

    let mut client = Client::signed_in(&hub, "service").await;
    assert_eq!(client.read(0, None).await.event().await.number(), 0);
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let hub = hub(4).await;
    let mut client = Client::reader(&hub).await;
    for (address, said) in [
        ("plant7/ConsumerGroups/nobody/Partitions/0", "nobody"),
        ("plant7/ConsumerGroups/$Default/Partitions/4", "partition 4"),
        ("plant7/ConsumerGroups/$Default/Partitions/x", "partition x"),
        ("messages/events/ConsumerGroups/$Default/Partitions/-1", "partition -1"),
    ] {
        let error = client.attach(address, &Wish::default()).await.ended().await;
        assert_eq!(condition(&error), "amqp:not-found", "{address}");
        assert!(error.description.unwrap().contains(said), "{address}");
    }
    // Another event hub is none of the token's business.
    let mut owner = Client::stranger(&hub).await;
    assert_eq!(owner.put_token("plant7.example", &hub_token(&hub, "service", "plant7.example")).await, 200);
    let error =
        owner.attach("plant8/ConsumerGroups/$Default/Partitions/0", &Wish::default()).await.ended().await;
    assert_eq!(condition(&error), "amqp:not-found");
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn a_higher_epoch_takes_the_partition_and_a_lower_one_does_not_get_it() {
    let hub = hub(2).await;
    store_numbers(&hub, &device_of(&hub, 0), 0..10).await;
    let with = |epoch| Wish { epoch, ..Wish::default() };
    // On connections of their own, as programs that compete are.
    let (mut one, mut other) = (Client::reader(&hub).await, Client::reader(&hub).await);
    let mut first = one.attach(DEFAULT, &with(Some(1))).await;
    assert_eq!(first.numbers(10).await.len(), 10);
    for epoch in [Some(0), None] {
        let error = other.attach(DEFAULT, &with(epoch)).await.ended().await;
        assert_eq!(condition(&error), "amqp:link:stolen", "{epoch:?}");
    }
    // Elsewhere everybody is free.
    let mut elsewhere = one.read(1, None).await;

    let mut second = other.attach(DEFAULT, &with(Some(2))).await;
    assert_eq!(condition(&first.ended().await), "amqp:link:stolen");
    assert_eq!(second.numbers(10).await.len(), 10);
    // The same one again: the last one wins.
    let mut third = one.attach(DEFAULT, &with(Some(2))).await;
    assert_eq!(condition(&second.ended().await), "amqp:link:stolen");
    assert_eq!(third.numbers(10).await.len(), 10);
    third.receiver.close().await.unwrap();

    // With nobody there any epoch will do, and none.
    store_numbers(&hub, &device_of(&hub, 1), 0..1).await;
    assert_eq!(elsewhere.event().await.number(), 0);
    let mut shared = other.attach(DEFAULT, &with(None)).await;
    assert_eq!(shared.numbers(10).await.len(), 10);
    let mut alone = one.attach(DEFAULT, &with(Some(0))).await;
    assert_eq!(condition(&shared.ended().await), "amqp:link:stolen");
    assert_eq!(alone.numbers(10).await.len(), 10);
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn five_readers_share_a_partition_and_a_sixth_does_not() {
    let hub = hub(1).await;
    hub.events().add_group("other").await.unwrap();
    store_numbers(&hub, "d", 0..3).await;
    let mut client = Client::reader(&hub).await;
    let mut readings = Vec::new();
    for _ in 0..5 {
        readings.push(client.read(0, None).await);
    }
    let error = client.read(0, None).await.ended().await;
    assert_eq!(condition(&error), "amqp:resource-limit-exceeded");
    for reading in &mut readings {
        assert_eq!(reading.numbers(3).await, [0, 1, 2]);
    }
    let mut other = client.attach("plant7/ConsumerGroups/other/Partitions/0", &Wish::default()).await;
    assert_eq!(other.numbers(3).await, [0, 1, 2]);
    // One goes, another one may come.
    readings.pop().unwrap().receiver.close().await.unwrap();
    assert_eq!(client.read(0, None).await.numbers(3).await, [0, 1, 2]);
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn management_describes_the_log_and_its_partitions() {
    let hub = hub(3).await;
    let device = device_of(&hub, 1);
    store_numbers(&hub, &device, 0..10).await;
    let mut client = Client::reader(&hub).await;
    let token = event_hubs_token(&hub, "service", "sb://plant7.example/plant7/$management");
    let common = [("operation", "READ"), ("name", "plant7"), ("security_token", token.as_str())];
    let ask = |more: &[(&'static str, &'static str)]| {
        let mut properties = common.to_vec();
        properties.extend(more);
        properties
    };
    let (status, _, body) = client.manage(&ask(&[("type", "com.microsoft:eventhub")])).await;
    assert_eq!(status, 200);
    assert_eq!(field(&body, "name"), Value::String("plant7".into()));
    assert_eq!(field(&body, "partition_count"), Value::Int(3));
    assert_eq!(field(&body, "created_at"), Value::Timestamp(amqp::timestamp(hub.events().created_at())));
    let ids = ["0", "1", "2"].map(|id| Value::String(id.into()));
    assert_eq!(field(&body, "partition_ids"), Value::Array(ids.to_vec().into()));

    let state = hub.events().partitions()[1];
    let partition = [("type", "com.microsoft:partition"), ("partition", "1")];
    let (status, _, body) = client.manage(&ask(&partition)).await;
    assert_eq!(status, 200);
    for (name, expected) in [
        ("name", Value::String("plant7".into())),
        ("partition", Value::String("1".into())),
        ("begin_sequence_number", Value::Long(0)),
        ("last_enqueued_sequence_number", Value::Long(9)),
        ("last_enqueued_offset", Value::String(state.last_offset.unwrap().to_string())),
        ("last_enqueued_time_utc", Value::Timestamp(amqp::timestamp(state.last_enqueued_at.unwrap()))),
        ("is_partition_empty", Value::Bool(false)),
    ] {
        assert_eq!(field(&body, name), expected, "{name}");
    }
    let (_, _, body) = client.manage(&ask(&[("type", "com.microsoft:partition"), ("partition", "2")])).await;
    assert_eq!(field(&body, "is_partition_empty"), Value::Bool(true));
    assert_eq!(field(&body, "last_enqueued_sequence_number"), Value::Long(-1));

    let bad = event_hubs_token(&hub, "registryRead", "sb://plant7.example/plant7");
    let mut forged = ask(&[("type", "com.microsoft:eventhub")]);
    forged[2].1 = &bad;
    let mut other = ask(&[("type", "com.microsoft:eventhub")]);
    other[1].1 = "plant8";
    let mut write = ask(&[("type", "com.microsoft:eventhub")]);
    write[0].1 = "WRITE";
    for (asked, expected) in [
        (forged, 401),
        (other, 404),
        (write, 400),
        (ask(&[("type", "com.microsoft:partition"), ("partition", "3")]), 404),
        (ask(&[("type", "com.microsoft:partition")]), 404),
        (ask(&[("type", "com.microsoft:other")]), 400),
        (ask(&[]), 400),
    ] {
        let (status, text, body) = client.manage(&asked).await;
        assert_eq!((status, body), (expected, Value::Null), "{asked:?}");
        assert!(!text.is_empty());
    }
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn a_program_that_knows_the_hub_alone_is_sent_to_the_event_log() {
    let hub = hub(1).await;
    store_numbers(&hub, "d", 0..3).await;
    let port = hub.amqps_addr().unwrap().port();
    let mut client = Client::signed_in(&hub, "service").await;
    for address in ["amqps://plant7.example/messages/events/$management", "/messages/events/$management"] {
        let attached = client.attach(address, &Wish::default()).await;
        let at = Instant::now();
        let error = attached.ended().await;
        assert!(at.elapsed() > Duration::from_millis(20), "some listen for the detach only once attached");
        assert!(matches!(&error.condition, ErrorCondition::LinkError(_)));
        assert_eq!(condition(&error), "amqp:link:redirect");
        let info = error.info.unwrap();
        let info = |name: &str| info.get(&Symbol::from(name)).cloned();
        assert_eq!(info("hostname"), Some(Value::String("plant7.example".into())));
        assert_eq!(
            info("address"),
            Some(Value::String(format!("amqps://plant7.example:{port}/plant7/$management")))
        );
    }
    // What it finds there with the same policy is the same log; and who reads on the spot is not sent away.
    let mut reading =
        client.attach("/messages/events/ConsumerGroups/$Default/Partitions/0", &Wish::default()).await;
    assert_eq!(reading.numbers(3).await, [0, 1, 2]);
    let mut there = Client::reader(&hub).await;
    let asked = [("operation", "READ"), ("name", "plant7"), ("type", "com.microsoft:eventhub")];
    assert_eq!(there.manage(&asked).await.0, 200);
    // A stranger is not told.
    let mut stranger = Client::stranger(&hub).await;
    let error = stranger.attach("/messages/events/$management", &Wish::default()).await.ended().await;
    assert_eq!(condition(&error), "amqp:unauthorized-access");
    hub.stop().await.unwrap();
}

fn field(body: &Value, name: &str) -> Value {
    let Value::Map(map) = body else { panic!("{body:?}") };
    map.get(&Value::String(name.to_owned())).cloned().unwrap_or_else(|| panic!("{name} in {map:?}"))
}
