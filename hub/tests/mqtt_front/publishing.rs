//! PUBLISH and PUBACK: order, batches, refusals, de-duplication.

use bytes::BytesMut;
use rmqtt_codec::{
    MqttPacket,
    types::{Publish, QoS},
    v3,
    v5::{self, DisconnectReasonCode as Code},
};
use whimbrel::wire::v5 as names;

use crate::client::{Acknowledged, Client, Device, Ground, bodies, publication, with_properties};

const VERSIONS: [u8; 2] = [4, 5];

fn encode(client: &mut Client, publish: Publish, out: &mut BytesMut) {
    if client.is_v5() {
        client.encode(v5::Packet::Publish(Box::new(publish)), out);
    } else {
        client.encode(v3::Packet::Publish(Box::new(publish)), out);
    }
}

/// Connects as a client that offers de-duplication.
async fn connect_ours(ground: &Ground, device: &Device, outbox: &str) -> Client {
    let mut client = ground.dial(5).await;
    let hello =
        v5::Connect { user_properties: vec![(names::OUTBOX.into(), outbox.into())], ..device.hello_v5() };
    assert_eq!(client.enter_v5(hello).await.reason_code, v5::ConnectAckReason::Success);
    client
}

fn numbered(id: u16, number: &str) -> Publish {
    with_properties(publication(names::TELEMETRY, id, number.to_owned()), &[(names::NUMBER, number)])
}

#[tokio::test]
async fn acknowledgements_come_in_order_of_the_publications() {
    let ground = Ground::start().await;
    for version in VERSIONS {
        let device = ground.device(&format!("d{version}")).await;
        let mut client = match version {
            4 => ground.connect(&device, 4).await,
            _ => connect_ours(&ground, &device, "o").await,
        };
        // Ids in no order: it is the order of arrival that counts. All in one write, QoS 0 in between.
        let ids: Vec<u16> = (1..=1000).map(|id| id * 7 % 1009).collect();
        let mut bytes = BytesMut::new();
        for id in &ids {
            encode(&mut client, publication(&device.events_topic(), *id, id.to_string()), &mut bytes);
            let unacknowledged = Publish {
                qos: QoS::AtMostOnce,
                packet_id: None,
                ..publication(&device.events_topic(), 1, "0")
            };
            encode(&mut client, unacknowledged, &mut bytes);
        }
        client.send_bytes(&bytes).await;
        for id in &ids {
            assert_eq!(client.acknowledged().await.id, *id);
        }
        let events = ground.events(device.id(), 2000).await;
        let expected: Vec<String> = ids.iter().flat_map(|id| [id.to_string(), "0".to_owned()]).collect();
        assert_eq!(bodies(&events), expected);
    }
}

#[tokio::test]
async fn packets_in_pieces_are_packets() {
    let ground = Ground::start().await;
    let device = ground.device("d").await;
    for version in VERSIONS {
        let mut client = ground.connect(&device, version).await;
        let mut bytes = BytesMut::new();
        for id in 1..=3 {
            encode(&mut client, publication(&device.events_topic(), id, "x".repeat(200)), &mut bytes);
        }
        for byte in &bytes {
            client.send_bytes(&[*byte]).await;
            tokio::task::yield_now().await;
        }
        for id in 1..=3 {
            assert_eq!(client.acknowledged().await.id, id);
        }
    }
}

#[tokio::test]
async fn the_largest_message_fits_and_one_more_byte_does_not() {
    let ground = Ground::start().await;
    let device = ground.device("d").await;
    let topic = device.events_topic();
    let mut client = ground.connect(&device, 4).await;
    for (id, extra) in [(1, 0), (2, 0)] {
        client.publish(publication(&topic, id, vec![b'x'; 262_144 + extra])).await;
        assert_eq!(client.acknowledged().await.id, id);
    }
    client.publish(publication(&topic, 3, vec![b'x'; 262_145])).await;
    client.closed().await;

    let mut client = connect_ours(&ground, &device, "o").await;
    client.publish(publication(&topic, 1, vec![b'x'; 262_144])).await;
    assert_eq!(client.acknowledged().await.reason, 0);
    client.publish(publication(&topic, 2, vec![b'x'; 262_145])).await;
    let refused = client.acknowledged().await;
    assert_eq!((refused.reason, refused.property("status")), (131, Some("0100")));
    client.publish(publication(&topic, 3, vec![b'x'; 400_000])).await;
    client.closed_with(Code::PacketTooLarge).await;

    let mut client = ground.connect(&device, 5).await;
    client.publish(publication(&topic, 1, vec![b'x'; 262_144])).await;
    client.closed_with(Code::PacketTooLarge).await;
    assert_eq!(ground.stored("d").await.len(), 3);
}

#[tokio::test]
async fn a_packet_that_is_announced_too_large_ends_the_connection_before_it_comes() {
    let ground = Ground::start().await;
    let device = ground.device("d").await;
    for version in VERSIONS {
        let mut client = ground.connect(&device, version).await;
        client.send_bytes(&[0x32, 0xFF, 0xFF, 0xFF, 0x7F]).await;
        client.closed_with(Code::PacketTooLarge).await;
    }
}

#[tokio::test]
async fn what_came_before_an_offence_is_stored_and_acknowledged() {
    let ground = Ground::start().await;
    let device = ground.device("d").await;
    let topic = device.events_topic();
    let offences: [(&str, Code, Publish); 2] = [
        ("QoS 2", Code::QosNotSupported, Publish { qos: QoS::ExactlyOnce, ..publication(&topic, 3, "no") }),
        (
            "a foreign topic at QoS 0",
            Code::TopicNameInvalid,
            Publish {
                qos: QoS::AtMostOnce,
                packet_id: None,
                ..publication("devices/e/messages/events/", 1, "no")
            },
        ),
    ];
    let mut stored = 0;
    for (what, code, offence) in offences {
        for version in VERSIONS {
            let mut client = ground.connect(&device, version).await;
            let mut bytes = BytesMut::new();
            for id in 1..=2 {
                encode(&mut client, publication(&topic, id, "yes"), &mut bytes);
            }
            encode(&mut client, offence.clone(), &mut bytes);
            encode(&mut client, publication(&topic, 4, "too late"), &mut bytes);
            client.send_bytes(&bytes).await;
            for id in 1..=2 {
                assert_eq!(client.acknowledged().await.id, id, "{what}");
            }
            client.closed_with(code).await;
            stored += 2;
            assert_eq!(bodies(&ground.stored("d").await), vec!["yes"; stored], "{what}");
        }
    }
}

#[tokio::test]
async fn offences_end_a_connection_with_their_reason() {
    let ground = Ground::start().await;
    let device = ground.device("d").await;
    for (what, bytes, code) in [
        ("a reserved packet", &[0xF0, 0x00][..], None),
        ("a length without end", &[0x30, 0xFF, 0xFF, 0xFF, 0xFF], Some(Code::MalformedPacket)),
        ("a topic longer than its packet", &[0x30, 0x03, 0x00, 0x09, b't'], Some(Code::MalformedPacket)),
        ("packet id 0", &[0x32, 0x05, 0x00, 0x01, b't', 0x00, 0x00], Some(Code::MalformedPacket)),
        ("a topic that is no text", &[0x30, 0x04, 0x00, 0x02, 0xC3, 0x28], Some(Code::MalformedPacket)),
        ("SUBSCRIBE with wrong flags", &[0x80, 0x06, 0, 1, 0, 1, b't', 1], Some(Code::MalformedPacket)),
        ("a packet of the server", &[0x90, 0x03, 0x00, 0x01, 0x00], None),
    ] {
        for version in VERSIONS {
            let mut client = ground.connect(&device, version).await;
            client.send_bytes(bytes).await;
            match (version, code) {
                (5, None) => {
                    let said = client.receive().await;
                    assert!(
                        matches!(said, Some(MqttPacket::V5(v5::Packet::Disconnect(_)))),
                        "{what}: {said:?}"
                    );
                    client.closed().await;
                }
                (_, code) => drop(client.closed_with(code.unwrap_or(Code::ProtocolError)).await),
            }
        }
    }
}

#[tokio::test]
async fn five_refuses_with_a_status_and_goes_on() {
    let ground = Ground::start().await;
    let device = ground.device("d").await;
    let mut client = ground.connect(&device, 5).await;
    let plain = |id| with_properties(publication(names::TELEMETRY, id, "ok"), &[("@a", "b")]);
    let mut bytes = BytesMut::new();
    for publish in [
        plain(1),
        publication("elsewhere", 2, "no"),
        with_properties(publication(names::TELEMETRY, 3, "no"), &[("a", "b")]),
        plain(4),
    ] {
        encode(&mut client, publish, &mut bytes);
    }
    client.send_bytes(&bytes).await;
    let mut answers = Vec::new();
    for _ in 0..4 {
        let answer = client.acknowledged().await;
        answers.push((answer.id, answer.reason, answer.property("status").map(str::to_owned)));
    }
    let status = |text: &str| Some(text.to_owned());
    assert_eq!(answers, [(1, 0, None), (2, 131, status("0504")), (3, 131, status("0100")), (4, 0, None)]);
    let events = ground.stored("d").await;
    assert_eq!(bodies(&events), ["ok", "ok"]);
    assert_eq!(events[0].message().unwrap().properties().get("a"), Some("b"));
}

#[tokio::test]
async fn more_than_receive_maximum_is_no_reason_to_part() {
    let ground = Ground::start().await;
    let device = ground.device("d").await;
    let mut client = ground.connect(&device, 5).await;
    let mut bytes = BytesMut::new();
    for id in 1..=1000 {
        encode(&mut client, publication(&device.events_topic(), id, "x".repeat(1000)), &mut bytes);
    }
    client.send_bytes(&bytes).await;
    for id in 1..=1000 {
        assert_eq!(client.acknowledged().await.id, id);
    }
}

#[tokio::test]
async fn a_resend_is_stored_once_and_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut ground = Ground::start_with(|builder| builder.data_dir(folder.path())).await;
    let mut device = ground.device("d").await;
    let place = |answer: &Acknowledged| answer.property(names::PLACE).unwrap_or_default().to_owned();
    let partition = ground.hub.events().partition_of("d");
    for round in 0..2 {
        let mut client = connect_ours(&ground, &device, "one").await;
        for (id, number) in [(1, "t1"), (2, "t2"), (3, "a1")] {
            client.publish(numbered(id, number)).await;
            let expected = match round {
                0 => format!("{partition}:{}", id - 1),
                _ => format!("{partition}:"),
            };
            assert_eq!(place(&client.acknowledged().await), expected, "{number}, round {round}");
        }
        // The same number of another outbox is another message.
        let mut other = connect_ours(&ground, &device, &format!("other-{round}")).await;
        other.publish(numbered(1, "t1")).await;
        assert!(place(&other.acknowledged().await).len() > 2);
        drop((client, other));
        // Also after the hub was stopped and started again.
        let Ground { hub } = ground;
        hub.stop().await.unwrap();
        ground = Ground::start_with(|builder| builder.data_dir(folder.path())).await;
        let connection = ground.hub.registry().get("d").await.unwrap().connection_string();
        device = Device::new(&connection);
    }
    assert_eq!(bodies(&ground.stored("d").await), ["t1", "t2", "a1", "t1", "t1"]);
}

#[tokio::test]
async fn flags_of_3_1_1_become_properties() {
    let ground = Ground::start().await;
    let device = ground.device("d").await;
    let mut client = ground.connect(&device, 4).await;
    client.publish(Publish { retain: true, dup: true, ..publication(&device.events_topic(), 1, "x") }).await;
    client.acknowledged().await;
    let message = ground.stored("d").await[0].message().unwrap();
    let properties: Vec<_> = message.properties().iter().collect();
    assert_eq!(properties, [("mqtt-retain", "true"), ("mqtt-dup", "true")]);
}

#[tokio::test]
async fn an_event_carries_who_sent_it_as_the_connection_proved() {
    let ground = Ground::start().await;
    let device = ground.device("d").await;
    let mut client = ground.connect(&device, 4).await;
    let topic = format!("{}%24.cdid=other&iothub-connection-device-id=other", device.events_topic());
    client.publish(publication(&topic, 1, "x")).await;
    client.acknowledged().await;
    let event = ground.stored("d").await.remove(0);
    assert_eq!((&*event.device, event.module.as_deref()), ("d", None));
    assert!(event.auth_method.contains("\"device\"") && event.auth_method.contains("\"sas\""));
}
