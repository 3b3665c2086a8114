//! A command as PUBLISH. By hand: whether it fits has to be known before it gets a packet id.

use std::num::NonZeroU16;

use bytes::{BufMut, BytesMut};
use whimbrel::wire::{topic, v5};

use super::packet::Version;
use crate::{commands::Delivery, sessions::Assurance};

/// How a client wants its commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) shape: Shape,
    pub(crate) assurance: Assurance,
}

/// Where the properties of a command are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Into the topic, as on 3.1.1; on 5 for clients that subscribed to the topic of 3.1.1.
    Topic(Version),
    /// Into properties of MQTT 5.
    Properties,
}

/// A command that fits into a packet.
#[derive(Debug)]
pub(crate) struct Publication<'a> {
    form: Form,
    topic: String,
    /// With their length in front; empty on 3.1.1.
    properties: Vec<u8>,
    body: &'a [u8],
    /// Bytes behind the fixed header.
    remaining: usize,
}

impl<'a> Publication<'a> {
    /// `delivery` for a client of `device` that takes packets of `limit` bytes; `None` when it does not fit into one.
    pub(crate) fn new(form: Form, device: &str, delivery: &'a Delivery, limit: usize) -> Option<Self> {
        let mut properties = Vec::new();
        let topic = match form.shape {
            Shape::Topic(version) => {
                if version == Version::V5 {
                    properties.push(0);
                }
                topic::c2d(device, &delivery.message)
            }
            Shape::Properties => {
                let mut written = Vec::new();
                write_properties(delivery, &mut written)?;
                write_length(written.len(), &mut properties)?;
                properties.append(&mut written);
                v5::COMMANDS.to_owned()
            }
        };
        if topic.len() > LONGEST_TEXT {
            return None;
        }
        let id = match form.assurance {
            Assurance::AtMostOnce => 0,
            Assurance::AtLeastOnce => 2,
        };
        let body = delivery.message.body();
        let remaining = 2 + topic.len() + id + properties.len() + body.len();
        let mut length = Vec::new();
        write_length(remaining, &mut length)?;
        let fits = 1 + length.len() + remaining <= limit;
        fits.then_some(Self { form, topic, properties, body, remaining })
    }

    /// Writes it, with a packet id where the form asks for one. Neither retained nor a duplicate: when a command comes
    /// again it comes as a new publication.
    pub(crate) fn write(&self, id: Option<NonZeroU16>, out: &mut BytesMut) {
        const PUBLISH: u8 = 0x30;
        const AT_LEAST_ONCE: u8 = 0x02;
        debug_assert_eq!(id.is_some(), self.form.assurance == Assurance::AtLeastOnce);
        let mut header = vec![PUBLISH | if id.is_some() { AT_LEAST_ONCE } else { 0 }];
        // It fits: that was looked at before.
        let _ = write_length(self.remaining, &mut header);
        out.reserve(header.len() + self.remaining);
        out.put_slice(&header);
        out.put_u16(u16::try_from(self.topic.len()).unwrap_or(u16::MAX));
        out.put_slice(self.topic.as_bytes());
        if let Some(id) = id {
            out.put_u16(id.get());
        }
        out.put_slice(&self.properties);
        out.put_slice(self.body);
    }
}

/// `None` when a text is too long for MQTT.
fn write_properties(delivery: &Delivery, out: &mut Vec<u8>) -> Option<()> {
    const CONTENT_TYPE: u8 = 0x03;
    const USER_PROPERTY: u8 = 0x26;
    let message = &delivery.message;
    if let Some(content_type) = &message.system().content_type {
        out.push(CONTENT_TYPE);
        write_text(&[content_type], out)?;
    }
    let (sequence, count) = (delivery.sequence, delivery.delivery_count);
    for (name, value) in v5::command_properties(sequence, delivery.enqueued_at, count, message) {
        out.push(USER_PROPERTY);
        write_text(&name, out)?;
        write_text(&[&value], out)?;
    }
    Some(())
}

fn write_text(parts: &[&str], out: &mut Vec<u8>) -> Option<()> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    out.put_u16(u16::try_from(length).ok()?);
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
    Some(())
}

/// A length in one to four bytes; `None` for one that needs more.
fn write_length(mut length: usize, out: &mut Vec<u8>) -> Option<()> {
    if length > LONGEST_REST {
        return None;
    }
    loop {
        let byte = (length & 0x7F) as u8;
        length >>= 7;
        if length == 0 {
            out.push(byte);
            return Some(());
        }
        out.push(byte | 0x80);
    }
}

const LONGEST_TEXT: usize = 65_535;
/// Most that may follow the fixed header of a packet.
const LONGEST_REST: usize = 0x0FFF_FFFF;

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;
    use rmqtt_codec::{
        types::{Publish, QoS},
        v3, v5 as codec,
    };
    use tokio_util::codec::Decoder;
    use whimbrel::{Lane, Message};

    use super::*;
    use crate::commands::LockToken;

    const AT_LEAST_ONCE: Form = form(Shape::Properties, Assurance::AtLeastOnce);

    const fn form(shape: Shape, assurance: Assurance) -> Form {
        Form { shape, assurance }
    }

    fn delivery(message: Message) -> Delivery {
        Delivery {
            lock: LockToken::parse("00000000-0000-0000-0000-000000000000").unwrap(),
            sequence: 7,
            enqueued_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_769_860_800_123),
            delivery_count: 2,
            message,
        }
    }

    fn read(version: Version, mut bytes: BytesMut) -> Publish {
        let publish = match version {
            Version::V3 => match v3::Codec::new(0).decode(&mut bytes).unwrap().unwrap().0 {
                v3::Packet::Publish(publish) => publish,
                other => panic!("{other:?}"),
            },
            Version::V5 => match codec::Codec::new(0, 0).decode(&mut bytes).unwrap().unwrap().0 {
                codec::Packet::Publish(publish) => publish,
                other => panic!("{other:?}"),
            },
        };
        assert!(bytes.is_empty(), "{} bytes too many", bytes.len());
        *publish
    }

    fn written(form: Form, delivery: &Delivery) -> BytesMut {
        let id = (form.assurance == Assurance::AtLeastOnce).then(|| NonZeroU16::new(0x1234).unwrap());
        let mut out = BytesMut::new();
        Publication::new(form, "d", delivery, usize::MAX).unwrap().write(id, &mut out);
        out
    }

    #[test]
    fn on_every_version_and_quality_of_service() {
        let delivery = delivery(
            Message::telemetry("reboot").message_id("m").content_type("text/plain").property("p", "v"),
        );
        let topic = "devices/d/messages/devicebound/%24.mid=m&%24.ct=text%2Fplain&\
                     %24.to=%2Fdevices%2Fd%2Fmessages%2FdeviceBound&p=v";
        for (shape, version) in [
            (Shape::Topic(Version::V3), Version::V3),
            (Shape::Topic(Version::V5), Version::V5),
            (Shape::Properties, Version::V5),
        ] {
            for (assurance, qos) in
                [(Assurance::AtMostOnce, QoS::AtMostOnce), (Assurance::AtLeastOnce, QoS::AtLeastOnce)]
            {
                let publish = read(version, written(form(shape, assurance), &delivery));
                assert_eq!((publish.qos, publish.retain, publish.dup), (qos, false, false));
                let id = (qos == QoS::AtLeastOnce).then_some(0x1234);
                assert_eq!(publish.packet_id.map(NonZeroU16::get), id);
                assert_eq!(publish.payload, "reboot");
                let Some(properties) = publish.properties.filter(|_| shape == Shape::Properties) else {
                    assert_eq!(&*publish.topic, topic);
                    continue;
                };
                assert_eq!(
                    (&*publish.topic, properties.content_type.as_deref()),
                    (v5::COMMANDS, Some("text/plain"))
                );
                let user: Vec<_> =
                    properties.user_properties.iter().map(|(name, value)| (&**name, &**value)).collect();
                let expected = [
                    ("sequence-no", "7"),
                    ("enqueued-time", "1769860800123"),
                    ("delivery-count", "2"),
                    ("message-id", "m"),
                    ("@p", "v"),
                ];
                assert_eq!(user, expected);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_known_to_the_byte() {
        for shape in [Shape::Topic(Version::V3), Shape::Topic(Version::V5), Shape::Properties] {
            for assurance in [Assurance::AtMostOnce, Assurance::AtLeastOnce] {
                // Around the sizes where the length takes another byte.
                for body in [0, 1, 20, 50, 100, 127, 128, 16_000, 16_300, 16_384, 65_536] {
                    let delivery = delivery(Message::telemetry(vec![b'x'; body]).property("p", "v"));
                    let bytes = written(form(shape, assurance), &delivery).len();
                    let fits =
                        |limit| Publication::new(form(shape, assurance), "d", &delivery, limit).is_some();
                    assert!(fits(bytes) && !fits(bytes - 1), "{shape:?} {assurance:?} {body}");
                }
            }
        }
    }

    #[test]
    fn texts_mqtt_cannot_carry_do_not_fit() {
        for (length, fits) in [(65_535, true), (65_536, false)] {
            let mut message = Message::telemetry("");
            message.system_mut().user_id = Some("x".repeat(length));
            assert_eq!(Publication::new(AT_LEAST_ONCE, "d", &delivery(message), usize::MAX).is_some(), fits);
        }
        // Valid, until the hub adds the address of a device with such a name.
        let device = "#".repeat(128);
        let message = Message::telemetry("").property("p", "x".repeat(65_200));
        message.validate_command().unwrap();
        let form = form(Shape::Topic(Version::V3), Assurance::AtLeastOnce);
        assert!(Publication::new(form, &device, &delivery(message), usize::MAX).is_none());
    }

    fn text() -> impl Strategy<Value = String> {
        let special = prop::sample::select(vec![
            "%", "&", "=", "+", "/", "?", "$.", "%24.", "#", "@", " ", "\n", "\u{202e}",
        ]);
        let piece = prop_oneof![special.prop_map(str::to_owned), any::<String>()];
        prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat().replace('\0', ""))
    }

    proptest! {
        /// Whatever a service puts into a command, the device reads it, and nothing else.
        #[test]
        fn hostile_values_stay_values(
            pairs in prop::collection::vec((text(), text()), 0..5),
            system in prop::collection::vec(prop::option::of(text()), 5),
            body in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let pairs = pairs.into_iter().filter(|(name, _)| {
                !name.is_empty() && !name.starts_with("$.") && !name.eq_ignore_ascii_case("iothub-ack")
            });
            let mut message = Message::telemetry(body).with_properties(pairs.collect());
            let mut system = system.into_iter();
            let mut next = || system.next().flatten();
            *message.system_mut() = whimbrel::SystemProperties {
                message_id: next(),
                correlation_id: next(),
                content_type: next(),
                content_encoding: next(),
                user_id: next(),
                to: Some("/devices/d/messages/deviceBound".into()),
                ..Default::default()
            };
            let delivery = delivery(message);
            for version in [Version::V3, Version::V5] {
                let bytes = written(form(Shape::Topic(version), Assurance::AtLeastOnce), &delivery);
                let publish = read(version, bytes);
                let bag = topic::parse_c2d(&publish.topic, "d").unwrap();
                prop_assert_eq!(bag.into_message(Lane::Telemetry, publish.payload), delivery.message.clone());
            }
            let publish = read(Version::V5, written(AT_LEAST_ONCE, &delivery));
            let properties = publish.properties.unwrap();
            let user = properties.user_properties.iter().map(|(name, value)| (&**name, &**value));
            let received = v5::command(properties.content_type.as_deref(), user, publish.payload).unwrap();
            prop_assert_eq!(received.message, delivery.message);
            prop_assert_eq!((received.sequence, received.delivery_count), (Some(7), Some(2)));
        }
    }
}
