//! What happens to connections that are open: takeover, revocation, silence, wills, sessions, the end of the hub.

use std::time::Duration;

use rmqtt_codec::{
    MqttPacket,
    types::QoS,
    v3,
    v5::{self, DisconnectReasonCode as Code},
};

use crate::client::{Client, Device, Ground, bodies, publication};

const VERSIONS: [u8; 2] = [4, 5];

async fn is_alive(client: &mut Client) -> bool {
    if client.is_v5() {
        client.send(v5::Packet::PingRequest).await;
    } else {
        client.send(v3::Packet::PingRequest).await;
    }
    matches!(
        client.receive().await,
        Some(MqttPacket::V3(v3::Packet::PingResponse) | MqttPacket::V5(v5::Packet::PingResponse))
    )
}

/// Connects with a will.
async fn with_will(ground: &Ground, device: &Device, version: u8) -> Client {
    let mut client = ground.dial(version).await;
    let (topic, message) = (format!("{}kind=last", device.events_topic()), "gone");
    if version == 4 {
        let will = v3::LastWill {
            qos: QoS::AtLeastOnce,
            retain: true,
            topic: topic.into(),
            message: message.into(),
        };
        let welcome = client.enter_v3(v3::Connect { last_will: Some(will), ..device.hello_v3() }).await;
        assert_eq!(welcome.return_code, v3::ConnectAckReason::ConnectionAccepted);
    } else {
        let will = v5::LastWill {
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: topic.into(),
            message: message.into(),
            will_delay_interval_sec: None,
            correlation_data: None,
            message_expiry_interval: None,
            content_type: None,
            user_properties: Vec::new(),
            is_utf8_payload: None,
            response_topic: None,
        };
        let welcome = client.enter_v5(v5::Connect { last_will: Some(will), ..device.hello_v5() }).await;
        assert_eq!(welcome.reason_code, v5::ConnectAckReason::Success);
    }
    client
}

#[tokio::test]
async fn a_newer_connection_takes_over() {
    let ground = Ground::start().await;
    for (name, old_version, new_version) in [("a", 4, 4), ("b", 5, 5), ("c", 4, 5), ("d", 5, 4)] {
        let device = ground.device(name).await;
        let mut old = ground.connect(&device, old_version).await;
        let mut new = ground.connect(&device, new_version).await;
        old.closed_with(Code::SessionTakenOver).await;
        assert!(is_alive(&mut new).await);
    }
}

#[tokio::test]
async fn a_device_that_is_revoked_is_dropped_and_only_it() {
    let ground = Ground::start().await;
    for version in VERSIONS {
        let mut others = Vec::new();
        for what in ["disable", "delete", "rotate"] {
            let device = ground.device(&format!("{what}-{version}")).await;
            let other = ground.device(&format!("other-{what}-{version}")).await;
            let mut client = ground.connect(&device, version).await;
            others.push(ground.connect(&other, version).await);
            let registry = ground.hub.registry();
            match what {
                "disable" => drop(registry.set_enabled(device.id(), false, None).await.unwrap()),
                "delete" => registry.delete(device.id(), None).await.unwrap(),
                _ => {
                    let slot = whimbrel_hub::registry::KeySlot::Primary;
                    drop(registry.rotate_key(device.id(), slot, None).await.unwrap());
                }
            }
            client.closed_with(Code::NotAuthorized).await;
        }
        for mut other in others {
            assert!(is_alive(&mut other).await);
        }
    }
}

#[tokio::test]
async fn silence_ends_a_connection_after_one_and_a_half_keep_alives() {
    let ground = Ground::start().await;
    for version in VERSIONS {
        let device = ground.device(&format!("d{version}")).await;
        let mut client = ground.dial(version).await;
        if version == 4 {
            client.enter_v3(v3::Connect { keep_alive: 1, ..device.hello_v3() }).await;
        } else {
            client.enter_v5(v5::Connect { keep_alive: 1, ..device.hello_v5() }).await;
        }
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(700)).await;
            assert!(is_alive(&mut client).await, "it spoke in time");
        }
        client.closed_with(Code::KeepAliveTimeout).await;
    }
}

#[tokio::test]
async fn the_will_of_a_connection_that_breaks_is_an_event() {
    let ground = Ground::start().await;
    for version in VERSIONS {
        let device = ground.device(&format!("d{version}")).await;
        let mut client = with_will(&ground, &device, version).await;
        client.publish(publication(&device.events_topic(), 1, "here")).await;
        client.acknowledged().await;
        drop(client);
        let events = ground.events(device.id(), 2).await;
        assert_eq!(bodies(&events), ["here", "gone"]);
        let message = events[1].message().unwrap();
        let properties: Vec<_> = message.properties().iter().collect();
        assert_eq!(properties, [("kind", "last"), ("iothub-MessageType", "Will")]);
    }
}

#[tokio::test]
async fn takeover_and_protocol_errors_publish_the_will_and_goodbyes_do_not() {
    let ground = Ground::start().await;
    let device = ground.device("d").await;

    let mut client = with_will(&ground, &device, 4).await;
    client.send(v3::Packet::Disconnect).await;
    client.closed().await;
    let mut client = with_will(&ground, &device, 5).await;
    client.send(v5::Packet::Disconnect(v5::Disconnect::new(Code::NormalDisconnection))).await;
    client.closed().await;
    // The shortest goodbye of 5 is two bytes.
    let mut client = with_will(&ground, &device, 5).await;
    client.send_bytes(&[0xE0, 0x00]).await;
    client.closed().await;
    assert_eq!(bodies(&ground.stored("d").await), [""; 0]);

    let mut client = with_will(&ground, &device, 5).await;
    client.send(v5::Packet::Disconnect(v5::Disconnect::new(Code::DisconnectWithWillMessage))).await;
    client.closed().await;
    assert_eq!(ground.events("d", 1).await.len(), 1);

    let mut old = with_will(&ground, &device, 4).await;
    let mut new = with_will(&ground, &device, 4).await;
    old.closed().await;
    assert_eq!(ground.events("d", 2).await.len(), 2);

    new.send(v3::Packet::Connect(Box::new(device.hello_v3()))).await;
    new.closed().await;
    assert_eq!(ground.events("d", 3).await.len(), 3);
}

#[tokio::test]
async fn a_will_for_somebody_elses_topic_is_refused() {
    let ground = Ground::start().await;
    let device = ground.device("d").await;
    for topic in ["devices/e/messages/events/", "a/b", "devices/d/messages/devicebound/"] {
        let will =
            v3::LastWill { qos: QoS::AtMostOnce, retain: false, topic: topic.into(), message: "x".into() };
        let mut client = ground.dial(4).await;
        let welcome = client.enter_v3(v3::Connect { last_will: Some(will), ..device.hello_v3() }).await;
        assert_eq!(welcome.return_code, v3::ConnectAckReason::NotAuthorized, "{topic}");
        client.closed().await;
    }
}

async fn subscribe(client: &mut Client, device: &Device) {
    let filter = format!("devices/{}/messages/devicebound/#", device.id());
    client
        .send(v3::Packet::Subscribe {
            packet_id: std::num::NonZeroU16::MIN,
            topic_filters: vec![(filter.into(), QoS::AtLeastOnce)],
        })
        .await;
    match client.receive().await {
        Some(MqttPacket::V3(v3::Packet::SubscribeAck { status, .. })) => {
            assert_eq!(status, [v3::SubscribeReturnCode::Success(QoS::AtLeastOnce)]);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_session_that_is_kept_is_found_again() {
    let ground = Ground::start().await;
    let device = ground.device("d").await;
    let enter = async |clean_session| {
        let mut client = ground.dial(4).await;
        let welcome = client.enter_v3(v3::Connect { clean_session, ..device.hello_v3() }).await;
        (client, welcome.session_present)
    };
    let (mut client, present) = enter(false).await;
    assert!(!present, "the first time there is nothing");
    subscribe(&mut client, &device).await;
    let (_client, present) = enter(false).await;
    assert!(present);
    let (_client, present) = enter(true).await;
    assert!(!present, "a clean session starts anew");
    let (_client, present) = enter(false).await;
    assert!(!present, "and keeps nothing");

    let welcome = ground
        .dial(5)
        .await
        .enter_v5(v5::Connect { clean_start: false, session_expiry_interval_secs: 60, ..device.hello_v5() })
        .await;
    assert!(welcome.session_present, "one session for both versions");
}

#[tokio::test]
async fn an_event_that_was_acknowledged_before_the_hub_stopped_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let ground = Ground::start_with(|builder| builder.data_dir(folder.path())).await;
    let mut clients = Vec::new();
    for version in VERSIONS {
        let device = ground.device(&format!("d{version}")).await;
        let client = ground.connect(&device, version).await;
        clients.push((device, client));
    }
    let mut publishing = tokio::task::JoinSet::new();
    for (device, mut client) in clients {
        publishing.spawn(async move {
            let mut acknowledged = 0_u16;
            loop {
                // Whatever happens, the hub answers in order, says goodbye and closes.
                client.publish(publication(&device.events_topic(), acknowledged + 1, "x")).await;
                match client.receive().await {
                    Some(MqttPacket::V3(v3::Packet::PublishAck { .. }))
                    | Some(MqttPacket::V5(v5::Packet::PublishAck(_))) => acknowledged += 1,
                    Some(MqttPacket::V5(v5::Packet::Disconnect(disconnect))) => {
                        assert_eq!(disconnect.reason_code, Code::ServerShuttingDown);
                        return (device, acknowledged);
                    }
                    None => {
                        assert!(!client.is_v5(), "5 is told why");
                        return (device, acknowledged);
                    }
                    other => panic!("{other:?}"),
                }
            }
        });
    }
    for version in VERSIONS {
        ground.events(&format!("d{version}"), 20).await;
    }
    ground.hub.stop().await.unwrap();
    let finished = publishing.join_all().await;

    let ground = Ground::start_with(|builder| builder.data_dir(folder.path())).await;
    for (device, acknowledged) in finished {
        let stored = ground.stored(device.id()).await.len();
        assert!(acknowledged >= 20, "{acknowledged}");
        assert!(stored >= usize::from(acknowledged), "{stored} stored, {acknowledged} acknowledged");
        assert!(stored <= usize::from(acknowledged) + 1, "at most one was on its way");
    }
}
