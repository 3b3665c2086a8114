//! The rules of contract `mqtt.md`, packet by packet; and packets that follow no rule.

use std::num::NonZeroU16;

use bytes::{Bytes, BytesMut};
use rmqtt_codec::{v3, v5::PublishProperties};
use tokio_util::codec::Encoder;
use whimbrel::Lane;

use super::*;
use crate::fronts::mqtt::packet::{self, Codec};

const EVENTS: &str = "devices/d/messages/events/";
const TELEMETRY: &str = "$iothub/telemetry";

fn session(version: Version) -> Session {
    Session::new(version, Admission::sample(None, None), Subscriptions::default(), 100)
}

fn ours() -> Session {
    Session::new(Version::V5, Admission::sample(None, Some("outbox-1")), Subscriptions::default(), 100)
}

fn module(version: Version) -> Session {
    Session::new(version, Admission::sample(Some("m"), None), Subscriptions::default(), 100)
}

fn id(id: u16) -> NonZeroU16 {
    NonZeroU16::new(id).unwrap()
}

/// A QoS 1 publication with packet id 1.
fn publish(topic: &str) -> Publish {
    Publish {
        dup: false,
        retain: false,
        qos: QoS::AtLeastOnce,
        topic: topic.into(),
        packet_id: Some(id(1)),
        properties: None,
        payload: Bytes::from_static(b"body"),
    }
}

fn with(mut publish: Publish, properties: &[(&'static str, &'static str)]) -> Publish {
    publish.properties = Some(PublishProperties {
        user_properties: properties.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        ..PublishProperties::default()
    });
    publish
}

fn at_most_once(mut publish: Publish) -> Publish {
    publish.qos = QoS::AtMostOnce;
    publish.packet_id = None;
    publish
}

fn handle(session: &mut Session, packet: Packet) -> (Batch, Result<(), Close>) {
    let mut batch = Batch::default();
    let handled = session.handle(packet, 50, &mut batch);
    (batch, handled)
}

fn fate(session: &mut Session, publish: Publish) -> Result<Fate, Closed> {
    let (mut batch, handled) = handle(session, Packet::Publish(Box::new(publish)));
    match handled {
        Ok(()) => Ok(batch.publications.remove(0).fate),
        Err(close) => Err(close.reason),
    }
}

fn stored(session: &mut Session, publish: Publish) -> (Message, Option<(Lane, u64)>) {
    match fate(session, publish) {
        Ok(Fate::Store(message, number)) => (message, number),
        other => panic!("not stored: {other:?}"),
    }
}

fn code(close: &Close) -> Option<Code> {
    close.disconnect.map(|(code, ..)| code)
}

#[test]
fn an_event_is_stored_with_its_properties() {
    let topic = "devices/d/messages/events/%24.mid=m1&%24.ct=application%2Fjson&room=a%20b/";
    let expected =
        Message::telemetry("body").message_id("m1").content_type("application/json").property("room", "a b");
    for version in [Version::V3, Version::V5] {
        assert_eq!(stored(&mut session(version), publish(topic)), (expected.clone(), None));
        assert_eq!(stored(&mut session(version), at_most_once(publish(topic))), (expected.clone(), None));
    }
    let on_5 = with(publish(TELEMETRY), &[("message-id", "m1"), ("@room", "a b")]);
    let expected = Message::telemetry("body").message_id("m1").property("room", "a b");
    assert_eq!(stored(&mut session(Version::V5), on_5), (expected, None));
}

#[test]
fn foreign_and_unknown_topics_end_3_1_1_and_are_refused_on_5() {
    for topic in [
        "devices/e/messages/events/",
        "devices/D/messages/events/",
        "devices/d/modules/m/messages/events/",
        "devices/d/messages/devicebound/",
        "devices/d/messages/events2",
        "$iothub/telemetry/",
        "$iothub/commands",
        "a/b",
    ] {
        assert_eq!(fate(&mut session(Version::V3), publish(topic)).unwrap_err(), Closed::Topic, "{topic}");
        let refused = fate(&mut session(Version::V5), with(publish(topic), &[]));
        assert!(matches!(refused, Ok(Fate::Refuse(Status::NOT_FOUND, _))), "{topic}: {refused:?}");
        let (_, ended) = handle(
            &mut session(Version::V5),
            Packet::Publish(Box::new(with(at_most_once(publish(topic)), &[]))),
        );
        assert_eq!(code(&ended.unwrap_err()), Some(Code::TopicNameInvalid), "{topic}");
    }
    assert!(fate(&mut session(Version::V3), publish(TELEMETRY)).is_err(), "3.1.1 has no such topic");
}

#[test]
fn a_module_reaches_its_own_topic_only() {
    let mut module = module(Version::V3);
    assert!(fate(&mut module, publish("devices/d/modules/m/messages/events/")).is_ok());
    assert!(fate(&mut module, publish(EVENTS)).is_err());
    assert!(fate(&mut module, publish("devices/d/modules/n/messages/events/")).is_err());
}

#[test]
fn quality_of_service_2_ends_the_connection() {
    for version in [Version::V3, Version::V5] {
        let publish = Publish { qos: QoS::ExactlyOnce, ..publish(EVENTS) };
        let (batch, ended) = handle(&mut session(version), Packet::Publish(Box::new(publish)));
        assert!(batch.publications.is_empty());
        assert_eq!(code(&ended.unwrap_err()), Some(Code::QosNotSupported));
    }
}

#[test]
fn retain_and_dup_become_properties() {
    let flagged = Publish { retain: true, dup: true, ..publish(EVENTS) };
    let (message, _) = stored(&mut session(Version::V3), flagged.clone());
    let expected = Message::telemetry("body").property("mqtt-retain", "true").property("mqtt-dup", "true");
    assert_eq!(message, expected);
    let (_, ended) = handle(&mut session(Version::V5), Packet::Publish(Box::new(flagged)));
    assert_eq!(code(&ended.unwrap_err()), Some(Code::RetainNotSupported), "CONNACK said so");
}

#[test]
fn numbers_count_for_those_who_offered_an_outbox() {
    let numbered = |dup| Publish { dup, ..with(publish(TELEMETRY), &[("whimbrel-n", "a7")]) };
    assert_eq!(stored(&mut ours(), numbered(false)), (Message::alert("body"), Some((Lane::Alert, 7))));
    assert_eq!(stored(&mut ours(), numbered(true)).0, Message::alert("body"), "the same message again");
    let (message, number) = stored(&mut session(Version::V5), numbered(true));
    assert_eq!((message.properties().get("mqtt-dup"), number), (Some("true"), None));
    let session = ours();
    let message = Message::telemetry("");
    let origin = session.event(&message, Some((Lane::Telemetry, 9))).origin.unwrap();
    assert_eq!((origin.outbox, origin.lane, origin.number), ("outbox-1", Lane::Telemetry, 9));
    assert!(self::session(Version::V5).event(&message, Some((Lane::Telemetry, 9))).origin.is_none());
}

#[test]
fn properties_outside_the_specification_are_refused_on_5() {
    for (name, value) in [("room", "x"), ("creation-time", "noon"), ("whimbrel-n", "x")] {
        let publish = with(publish(TELEMETRY), &[(name, value)]);
        let refused = fate(&mut session(Version::V5), publish.clone());
        assert!(matches!(refused, Ok(Fate::Refuse(Status::BAD_REQUEST, _))), "{name}: {refused:?}");
        let unanswerable = Packet::Publish(Box::new(at_most_once(publish)));
        let ended = handle(&mut session(Version::V5), unanswerable).1.unwrap_err();
        let told = (Code::ImplementationSpecificError, Some(Status::BAD_REQUEST));
        assert_eq!(ended.disconnect.map(|(code, status, _)| (code, status)), Some(told), "{name}");
    }
}

#[test]
fn the_size_counts_body_and_properties_but_not_what_the_hub_stamps() {
    let sized = |bytes: usize| {
        let topic = format!("{EVENTS}name=value");
        Publish { payload: vec![0; bytes - "namevalue".len()].into(), dup: true, ..publish(&topic) }
    };
    assert!(fate(&mut session(Version::V3), sized(100)).is_ok());
    assert_eq!(fate(&mut session(Version::V3), sized(101)).unwrap_err(), Closed::TooLarge);
    let refused = fate(&mut session(Version::V5), sized(101));
    assert!(matches!(refused, Ok(Fate::Refuse(Status::BAD_REQUEST, _))), "{refused:?}");
}

#[test]
fn topic_aliases_stand_for_topics() {
    let alias = |topic: &str, alias: u16| {
        let mut publish = with(publish(topic), &[]);
        publish.properties.as_mut().unwrap().topic_alias = NonZeroU16::new(alias);
        publish
    };
    let mut session = session(Version::V5);
    assert!(fate(&mut session, alias(TELEMETRY, 10)).is_ok());
    assert!(fate(&mut session, alias("", 10)).is_ok());
    assert!(fate(&mut session, alias("elsewhere", 10)).is_ok_and(|fate| matches!(fate, Fate::Refuse(..))));
    assert!(fate(&mut session, alias("", 10)).is_ok_and(|fate| matches!(fate, Fate::Refuse(..))));
    for (topic, number) in [("", 9), (TELEMETRY, 11), ("", u16::MAX)] {
        let packet = Packet::Publish(Box::new(alias(topic, number)));
        assert_eq!(code(&handle(&mut session, packet).1.unwrap_err()), Some(Code::TopicAliasInvalid));
    }
    let nothing = Packet::Publish(Box::new(with(publish(""), &[])));
    assert_eq!(code(&handle(&mut session, nothing).1.unwrap_err()), Some(Code::ProtocolError));
}

fn subscribe(session: &mut Session, filters: &[(&str, QoS)]) -> Result<Vec<Granted>, Close> {
    let filters = filters.iter().map(|(filter, qos)| ((*filter).into(), *qos)).collect();
    let (batch, handled) = handle(session, Packet::Subscribe { id: id(5), filters, identified: false });
    handled?;
    match batch.effects.into_iter().last() {
        Some(Effect::Subscribed(Reply::Subscribed(id, granted))) if id.get() == 5 => Ok(granted),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_the_own_filter_is_granted() {
    let own = "devices/d/messages/devicebound/#";
    for version in [Version::V3, Version::V5] {
        let mut session = session(version);
        for (wanted, granted) in [
            (QoS::AtMostOnce, QoS::AtMostOnce),
            (QoS::AtLeastOnce, QoS::AtLeastOnce),
            (QoS::ExactlyOnce, QoS::AtLeastOnce),
        ] {
            assert_eq!(subscribe(&mut session, &[(own, wanted)]).unwrap(), [Granted::Yes(granted)]);
        }
        assert_eq!(session.subscriptions.devicebound, Some(Assurance::AtLeastOnce));
    }
    use v5::SubscribeAckReason as Reason;
    for (filter, reason) in [
        ("devices/e/messages/devicebound/#", Reason::WildcardSubscriptionsNotSupported),
        ("devices/d/messages/devicebound/x", Reason::TopicFilterInvalid),
        ("#", Reason::WildcardSubscriptionsNotSupported),
        ("$share/g/devices/d/messages/devicebound/#", Reason::SharedSubscriptionNotSupported),
        ("$iothub/twin/res/#", Reason::WildcardSubscriptionsNotSupported),
        ("a/b", Reason::TopicFilterInvalid),
    ] {
        let asked = [(filter, QoS::AtLeastOnce)];
        assert_eq!(
            subscribe(&mut session(Version::V3), &asked).unwrap_err().reason,
            Closed::Topic,
            "{filter}"
        );
        assert_eq!(subscribe(&mut session(Version::V5), &asked).unwrap(), [Granted::No(reason)], "{filter}");
    }
    let commands = [("$iothub/commands", QoS::AtLeastOnce), ("a", QoS::AtMostOnce)];
    let granted = subscribe(&mut session(Version::V5), &commands).unwrap();
    assert_eq!(granted, [Granted::Yes(QoS::AtLeastOnce), Granted::No(Reason::TopicFilterInvalid)]);
    assert!(subscribe(&mut session(Version::V3), &commands[..1]).is_err());
}

#[test]
fn a_module_subscribes_to_its_inputs() {
    for filter in ["devices/d/modules/m/inputs/#", "devices/d/modules/m/#"] {
        let asked = [(filter, QoS::AtLeastOnce)];
        assert!(subscribe(&mut module(Version::V3), &asked).is_ok(), "{filter}");
        assert!(subscribe(&mut session(Version::V3), &asked).is_err(), "{filter}");
    }
    assert!(subscribe(&mut module(Version::V3), &[("devices/d/modules/n/#", QoS::AtLeastOnce)]).is_err());
}

#[test]
fn more_topics_than_the_contract_allows() {
    let own = ("devices/d/messages/devicebound/#", QoS::AtLeastOnce);
    assert!(subscribe(&mut session(Version::V3), &[own; 5]).is_ok());
    assert!(subscribe(&mut session(Version::V3), &[own; 6]).is_err());
    let granted = subscribe(&mut session(Version::V5), &[own; 51]).unwrap();
    assert_eq!(
        granted[49..],
        [Granted::Yes(QoS::AtLeastOnce), Granted::No(v5::SubscribeAckReason::QuotaExceeded)]
    );
}

#[test]
fn unsubscribing_says_what_there_was() {
    let own = "devices/d/messages/devicebound/#";
    let mut session = session(Version::V5);
    subscribe(&mut session, &[(own, QoS::AtLeastOnce)]).unwrap();
    let packet = Packet::Unsubscribe { id: id(6), filters: vec![own.into(), own.into(), "a".into()] };
    let (batch, handled) = handle(&mut session, packet);
    assert!(handled.is_ok());
    assert!(matches!(
        &batch.effects[..],
        [Effect::Subscribed(Reply::Unsubscribed(_, found))] if *found == [true, false, false]
    ));
    assert_eq!(session.subscriptions(), Subscriptions::default());
}

#[test]
fn what_else_ends_a_connection_and_whether_the_will_goes_out() {
    let end = |version, packet| handle(&mut session(version), packet).1.unwrap_err();
    let bye = |with_will| Packet::Disconnect { with_will, session_expiry: None };
    assert_eq!(end(Version::V3, bye(false)), Close::goodbye(false));
    assert!(end(Version::V5, bye(true)).publishes_will);
    assert_eq!(code(&end(Version::V3, Packet::Forbidden)), Some(Code::ProtocolError));
    assert_eq!(code(&end(Version::V5, Packet::Auth(Box::default()))), Some(Code::ProtocolError));
    assert!(end(Version::V3, Packet::Forbidden).publishes_will);
    assert!(Close::ordered(Order::TakenOver).publishes_will);
    assert!(!Close::ordered(Order::Stop).publishes_will);
    let (batch, _) =
        handle(&mut session(Version::V5), Packet::Disconnect { with_will: false, session_expiry: Some(0) });
    assert!(matches!(batch.effects[..], [Effect::Forget]));
}

#[test]
fn a_ping_is_answered_and_an_acknowledgement_is_passed_on() {
    let (batch, handled) = handle(&mut session(Version::V3), Packet::Ping);
    assert!(handled.is_ok() && matches!(batch.effects[..], [Effect::Reply(Reply::Pong)]));
    let packet = Packet::Acknowledge { id: id(9), settlement: Settlement::Reject };
    let (batch, handled) = handle(&mut session(Version::V5), packet);
    assert!(handled.is_ok());
    assert!(
        matches!(batch.effects[..], [Effect::Acknowledged(acknowledged, Settlement::Reject)] if acknowledged == id(9))
    );
}

#[test]
fn commands_take_the_form_of_the_subscription() {
    let (topic, command) = ("devices/d/messages/devicebound/#", "$iothub/commands");
    let (none, at_least_once) = (QoS::AtMostOnce, QoS::AtLeastOnce);
    let form = |shape, assurance| Some(Form { shape, assurance });
    let (less, more) = (Assurance::AtMostOnce, Assurance::AtLeastOnce);
    let (v3, v5) = (Version::V3, Version::V5);
    for (version, filters, expected) in [
        (v3, vec![], None),
        (v3, vec![(topic, at_least_once)], form(Shape::Topic(v3), more)),
        (v3, vec![(topic, at_least_once), (topic, none)], form(Shape::Topic(v3), less)),
        (v5, vec![(topic, none)], form(Shape::Topic(v5), less)),
        (v5, vec![(command, at_least_once)], form(Shape::Properties, more)),
        (v5, vec![(command, none), (topic, at_least_once)], form(Shape::Properties, more)),
    ] {
        let mut session = session(version);
        if !filters.is_empty() {
            subscribe(&mut session, &filters).unwrap();
        }
        assert_eq!(session.commands(), expected, "{filters:?}");
    }
    let kept = Subscriptions { commands: Some(more), ..Subscriptions::default() };
    assert_eq!(Session::new(v3, Admission::sample(None, None), kept, 100).commands(), None);
}

/// Handles packets as a connection does, until one of them ends it. Gives how many were handled.
fn handle_stream(session: &mut Session, codec: &mut Codec, buffer: &mut BytesMut) -> usize {
    let mut batch = Batch::default();
    let mut handled = 0;
    while let Ok(Some(bytes)) = packet::packet_bytes(buffer) {
        if bytes > session.largest_packet() || bytes > buffer.len() {
            break;
        }
        let before = buffer.len();
        let Ok(packet) = codec.read(buffer) else { break };
        assert_eq!(
            before - buffer.len(),
            bytes,
            "the codec took another number of bytes than the header says"
        );
        if session.handle(packet, bytes, &mut batch).is_err() {
            break;
        }
        handled += 1;
    }
    handled
}

/// Valid packets of a client.
fn valid(version: Version) -> Vec<BytesMut> {
    let filter = "devices/d/messages/devicebound/#";
    let encode = |packets: Vec<Result<v3::Packet, v5::Packet>>| {
        let encoded = packets.into_iter().map(|packet| {
            let mut bytes = BytesMut::new();
            match packet {
                Ok(packet) => v3::Codec::new(0).encode(packet, &mut bytes).unwrap(),
                Err(packet) => v5::Codec::new(0, 0).encode(packet, &mut bytes).unwrap(),
            }
            bytes
        });
        encoded.collect()
    };
    match version {
        Version::V3 => encode(vec![
            Ok(v3::Packet::Publish(Box::new(publish(
                "devices/d/messages/events/%24.mid=m&a=b%20c&%24.exp=x/",
            )))),
            Ok(v3::Packet::Publish(Box::new(at_most_once(publish(EVENTS))))),
            Ok(v3::Packet::Subscribe {
                packet_id: id(2),
                topic_filters: vec![(filter.into(), QoS::AtLeastOnce)],
            }),
            Ok(v3::Packet::Unsubscribe { packet_id: id(3), topic_filters: vec![filter.into()] }),
            Ok(v3::Packet::PublishAck { packet_id: id(4) }),
            Ok(v3::Packet::PingRequest),
        ]),
        Version::V5 => {
            let properties =
                [("@room", "attic"), ("message-id", "m"), ("creation-time", "17"), ("whimbrel-n", "a7")];
            let mut aliased = with(publish(TELEMETRY), &properties);
            aliased.properties.as_mut().unwrap().topic_alias = NonZeroU16::new(3);
            encode(vec![
                Err(v5::Packet::Publish(Box::new(aliased))),
                Err(v5::Packet::Publish(Box::new(with(at_most_once(publish(EVENTS)), &[])))),
                Err(v5::Packet::Subscribe(v5::Subscribe {
                    packet_id: id(2),
                    id: None,
                    user_properties: vec![("a".into(), "b".into())],
                    topic_filters: vec![(COMMANDS.into(), v5::SubscriptionOptions::default())],
                })),
                Err(v5::Packet::Unsubscribe(v5::Unsubscribe {
                    packet_id: id(3),
                    user_properties: Vec::new(),
                    topic_filters: vec![COMMANDS.into()],
                })),
                Err(v5::Packet::PublishAck(v5::PublishAck {
                    reason_string: Some("why".into()),
                    ..v5::PublishAck::default()
                })),
                Err(v5::Packet::Auth(v5::Auth { auth_method: Some("SAS".into()), ..v5::Auth::default() })),
                Err(v5::Packet::PingRequest),
            ])
        }
    }
}

#[test]
fn packets_with_errors_by_the_hundred_thousand() {
    const STREAMS: usize = 250_000;
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut below = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    for version in [Version::V3, Version::V5] {
        let packets = valid(version);
        let mut session = session(version);
        let mut codec = codec(version);
        let whole: BytesMut = packets.iter().flatten().copied().collect();
        // AUTH ends a session that was opened without a method.
        let expected = if version == Version::V3 { packets.len() } else { packets.len() - 2 };
        assert_eq!(handle_stream(&mut session, &mut codec, &mut whole.clone()), expected);
        let (mut handled, mut ended) = (0, 0);
        for _ in 0..STREAMS {
            let mut stream = packets[below(packets.len())].to_vec();
            for _ in 0..=below(3) {
                let at = below(stream.len());
                match below(5) {
                    0 => stream[at] ^= 1 << below(8),
                    1 => stream[at] = below(256) as u8,
                    2 => stream.insert(at, below(256) as u8),
                    3 if stream.len() > 1 => drop(stream.remove(at)),
                    _ => stream.truncate(at.max(1)),
                }
            }
            let mut buffer = BytesMut::from(&stream[..]);
            // After an error a connection is closed: the next stream meets a new codec.
            let mut codec = self::codec(version);
            match handle_stream(&mut session, &mut codec, &mut buffer) {
                0 => ended += 1,
                count => handled += count,
            }
        }
        assert!(
            handled > STREAMS / 20 && ended > STREAMS / 20,
            "{version:?}: {handled} handled, {ended} ended"
        );
    }
}

fn codec(version: Version) -> Codec {
    match version {
        Version::V3 => Codec::V3(v3::Codec::new(0)),
        Version::V5 => Codec::V5(v5::Codec::new(0, 0)),
    }
}
