//! Packets of both MQTT versions in one shape: bytes in, [`Packet`] out; [`Reply`] in, bytes out.
//!
//! The codec is given whole packets only, so that what a client merely announces never makes the hub reserve memory.

use std::{
    fmt::{self, Write as _},
    num::NonZeroU16,
};

use bytes::{BufMut, BytesMut};
use bytestring::ByteString;
use rmqtt_codec::{
    error::DecodeError,
    types::{Publish, QoS},
    v3, v5,
};
use tokio_util::codec::{Decoder, Encoder};
use whimbrel::{
    transport::Settlement,
    wire::v5::{self as names, Place, Status},
};

/// A version of MQTT the hub speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// 3.1.1.
    V3,
    /// 5.
    V5,
}

/// What arrived is not MQTT as the specification has it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl From<DecodeError> for Malformed {
    fn from(_: DecodeError) -> Self {
        Self
    }
}

/// First byte of a CONNECT packet.
pub(crate) const CONNECT: u8 = 0x10;

/// Bytes of the first packet in `bytes`, fixed header included; `None` until the header is complete.
pub(crate) fn packet_bytes(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let mut remaining = 0_usize;
    for (index, byte) in bytes.iter().skip(1).take(4).enumerate() {
        remaining |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some(remaining + index + 2));
        }
    }
    if bytes.len() > 4 { Err(Malformed) } else { Ok(None) }
}

/// A client's first packet.
#[derive(Debug)]
pub(crate) enum Hello {
    /// MQTT 3.1.1.
    V3(Box<v3::Connect>),
    /// MQTT 5.
    V5(Box<v5::Connect>),
    /// A CONNECT of another version.
    OtherVersion,
    /// A CONNECT without a client id that asks for a kept session.
    NoClientId,
}

/// Takes the CONNECT packet that `buffer` starts with, as [`packet_bytes`] found. The codec is the one to go on with.
pub(crate) fn read_hello(buffer: &mut BytesMut) -> Result<(Hello, Codec), Malformed> {
    match version(buffer)? {
        None => Ok((Hello::OtherVersion, Codec::V3(v3::Codec::new(0)))),
        Some(Version::V3) => {
            let mut codec = v3::Codec::new(0);
            let hello = match codec.decode(buffer) {
                Ok(Some((v3::Packet::Connect(connect), _))) => Hello::V3(connect),
                Err(DecodeError::InvalidClientId) => Hello::NoClientId,
                _ => return Err(Malformed),
            };
            Ok((hello, Codec::V3(codec)))
        }
        Some(Version::V5) => {
            let mut codec = v5::Codec::new(0, 0);
            let hello = match codec.decode(buffer) {
                Ok(Some((v5::Packet::Connect(connect), _))) => Hello::V5(connect),
                // A new codec: this one stopped in the middle of a packet.
                Err(DecodeError::InvalidClientId) => {
                    return Ok((Hello::NoClientId, Codec::V5(v5::Codec::new(0, 0))));
                }
                _ => return Err(Malformed),
            };
            Ok((hello, Codec::V5(codec)))
        }
    }
}

/// Version of a CONNECT packet by its protocol name and level; `None` for one the hub does not speak.
fn version(packet: &[u8]) -> Result<Option<Version>, Malformed> {
    if packet.first() != Some(&CONNECT) {
        return Err(Malformed);
    }
    let header = 1 + packet.iter().skip(1).take_while(|byte| *byte & 0x80 != 0).count() + 1;
    let body = packet.get(header..).ok_or(Malformed)?;
    if let Some(rest) = body.strip_prefix(b"\0\x04MQTT") {
        return match rest.first() {
            Some(4) => Ok(Some(Version::V3)),
            Some(5) => Ok(Some(Version::V5)),
            Some(_) => Ok(None),
            None => Err(Malformed),
        };
    }
    if body.starts_with(b"\0\x06MQIsdp") { Ok(None) } else { Err(Malformed) }
}

/// A packet from a client after its CONNECT.
#[derive(Debug)]
pub(crate) enum Packet {
    /// PUBLISH; with properties on MQTT 5.
    Publish(Box<Publish>),
    /// SUBSCRIBE.
    Subscribe {
        /// To be echoed.
        id: NonZeroU16,
        /// Filters and the wanted quality of service.
        filters: Vec<(ByteString, QoS)>,
        /// Whether it carried a subscription identifier.
        identified: bool,
    },
    /// UNSUBSCRIBE.
    Unsubscribe {
        /// To be echoed.
        id: NonZeroU16,
        /// Filters.
        filters: Vec<ByteString>,
    },
    /// PINGREQ.
    Ping,
    /// DISCONNECT.
    Disconnect {
        /// Whether the client asks for its will to be published.
        with_will: bool,
        /// New session expiry interval, seconds.
        session_expiry: Option<u32>,
    },
    /// AUTH.
    Auth(Box<v5::Auth>),
    /// PUBACK of a command.
    Acknowledge {
        /// What it was published under.
        id: NonZeroU16,
        /// What is to become of it.
        settlement: Settlement,
    },
    /// CONNECT again, or a packet only a server may send.
    Forbidden,
}

/// Reads and writes the packets of one connection.
#[derive(Debug)]
pub(crate) enum Codec {
    /// MQTT 3.1.1.
    V3(v3::Codec),
    /// MQTT 5.
    V5(v5::Codec),
}

impl Codec {
    /// The version it speaks.
    pub(crate) fn version(&self) -> Version {
        match self {
            Self::V3(_) => Version::V3,
            Self::V5(_) => Version::V5,
        }
    }

    /// Takes the whole packet that `buffer` starts with, as [`packet_bytes`] found.
    pub(crate) fn read(&mut self, buffer: &mut BytesMut) -> Result<Packet, Malformed> {
        match self {
            Self::V3(codec) => {
                let (packet, _) = codec.decode(buffer)?.ok_or(Malformed)?;
                Ok(from_v3(packet))
            }
            Self::V5(codec) => {
                let (packet, _) = codec.decode(buffer)?.ok_or(Malformed)?;
                Ok(from_v5(packet))
            }
        }
    }
}

fn from_v3(packet: v3::Packet) -> Packet {
    match packet {
        v3::Packet::Publish(publish) => Packet::Publish(publish),
        v3::Packet::Subscribe { packet_id, topic_filters } => {
            Packet::Subscribe { id: packet_id, filters: topic_filters, identified: false }
        }
        v3::Packet::Unsubscribe { packet_id, topic_filters } => {
            Packet::Unsubscribe { id: packet_id, filters: topic_filters }
        }
        v3::Packet::PingRequest => Packet::Ping,
        v3::Packet::Disconnect => Packet::Disconnect { with_will: false, session_expiry: None },
        v3::Packet::PublishAck { packet_id } => {
            Packet::Acknowledge { id: packet_id, settlement: Settlement::Complete }
        }
        _ => Packet::Forbidden,
    }
}

fn from_v5(packet: v5::Packet) -> Packet {
    match packet {
        v5::Packet::Publish(publish) => Packet::Publish(publish),
        v5::Packet::Subscribe(subscribe) => Packet::Subscribe {
            id: subscribe.packet_id,
            identified: subscribe.id.is_some(),
            filters: subscribe
                .topic_filters
                .into_iter()
                .map(|(filter, options)| (filter, options.qos))
                .collect(),
        },
        v5::Packet::Unsubscribe(unsubscribe) => {
            Packet::Unsubscribe { id: unsubscribe.packet_id, filters: unsubscribe.topic_filters }
        }
        v5::Packet::PingRequest => Packet::Ping,
        v5::Packet::Disconnect(disconnect) => Packet::Disconnect {
            // Every reason but 0 is an end the client calls abnormal.
            with_will: disconnect.reason_code != v5::DisconnectReasonCode::NormalDisconnection,
            session_expiry: disconnect.session_expiry_interval_secs,
        },
        v5::Packet::Auth(auth) => Packet::Auth(Box::new(auth)),
        v5::Packet::PublishAck(acknowledgement) => {
            let status = acknowledgement.properties.iter().find(|(name, _)| &**name == names::STATUS);
            let status = status.and_then(|(_, value)| Status::parse(value));
            let settlement = settlement(acknowledgement.reason_code.into(), status);
            Packet::Acknowledge { id: acknowledgement.packet_id, settlement }
        }
        _ => Packet::Forbidden,
    }
}

/// What a PUBACK of MQTT 5 says about a command.
///
/// The contract names three answers: reason 0, and 131 with status `0603` or `0100`. For all others: a status says by its
/// retryable bit whether the command is abandoned or rejected. Without one that can be read, the reasons 145 (packet
/// identifier in use) and 151 (quota exceeded) pass and the command is abandoned, all other failures reject it: MQTT
/// itself knows no second try after them.
fn settlement(reason: u8, status: Option<Status>) -> Settlement {
    match (reason, status) {
        (..0x80, _) => Settlement::Complete,
        (_, Some(status)) if status.is_retryable() => Settlement::Abandon,
        (_, Some(_)) => Settlement::Reject,
        (145 | 151, None) => Settlement::Abandon,
        (_, None) => Settlement::Reject,
    }
}

/// How a publication is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is stored; on MQTT 5 with the place, for clients that asked for places.
    Stored(Option<Place>),
    /// It is refused; on MQTT 5 only.
    Refused(Status, &'static str),
}

/// Writes PUBACK. By hand: it is the packet the hub sends most.
pub(crate) fn write_acknowledgement(id: NonZeroU16, answer: Answer, out: &mut BytesMut) {
    const ACKNOWLEDGEMENT: u8 = 0x40;
    let reason = match answer {
        Answer::Stored(None) => {
            out.put_slice(&[ACKNOWLEDGEMENT, 2]);
            out.put_u16(id.get());
            return;
        }
        Answer::Stored(Some(_)) => 0,
        Answer::Refused(status, _) => status.reason(),
    };
    let start = out.len();
    out.put_slice(&[ACKNOWLEDGEMENT, 0]);
    out.put_u16(id.get());
    out.put_slice(&[reason, 0]);
    let content = out.len();
    match answer {
        Answer::Stored(Some(place)) => write_user_property(names::PLACE, format_args!("{place}"), out),
        Answer::Stored(None) => {}
        Answer::Refused(status, reason) => {
            write_user_property(names::STATUS, format_args!("{status}"), out);
            write_user_property(names::REASON, format_args!("{reason}"), out);
        }
    }
    // The texts are short: one byte holds each length.
    let length = out.len() - content;
    debug_assert!(length < 124, "properties of an acknowledgement must stay short");
    set_byte(out, start + 1, length + 4);
    set_byte(out, content - 1, length);
}

fn write_user_property(name: &str, value: fmt::Arguments<'_>, out: &mut BytesMut) {
    const USER_PROPERTY: u8 = 0x26;
    out.put_u8(USER_PROPERTY);
    out.put_slice(&[0, u8::try_from(name.len()).unwrap_or(u8::MAX)]);
    out.put_slice(name.as_bytes());
    out.put_slice(&[0, 0]);
    let start = out.len();
    // Writing into memory cannot fail.
    let _ = out.write_fmt(value);
    set_byte(out, start - 1, out.len() - start);
}

fn set_byte(out: &mut BytesMut, index: usize, value: usize) {
    if let Some(byte) = out.get_mut(index) {
        *byte = u8::try_from(value).unwrap_or(u8::MAX);
    }
}

/// How a filter of SUBSCRIBE is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Granted {
    /// With this quality of service.
    Yes(QoS),
    /// Refused; on MQTT 5 with this reason.
    No(v5::SubscribeAckReason),
}

/// What the hub says besides acknowledging publications.
#[derive(Debug)]
pub(crate) enum Reply {
    /// SUBACK.
    Subscribed(NonZeroU16, Vec<Granted>),
    /// UNSUBACK; for each filter, whether there was such a subscription.
    Unsubscribed(NonZeroU16, Vec<bool>),
    /// PINGRESP.
    Pong,
    /// AUTH after re-authentication, with the method; MQTT 5 only.
    Reauthenticated(ByteString),
    /// DISCONNECT; nothing on 3.1.1, which has no such packet.
    Disconnect(v5::DisconnectReasonCode, Option<Status>, &'static str),
}

impl Codec {
    /// Writes a reply. One that does not fit into what the client accepts is left out, as the specification has it.
    pub(crate) fn write(&mut self, reply: Reply, out: &mut BytesMut) {
        let before = out.len();
        let written = match self {
            Self::V3(codec) => match to_v3(reply) {
                Some(packet) => codec.encode(packet, out),
                None => Ok(()),
            },
            Self::V5(codec) => codec.encode(to_v5(reply), out),
        };
        if written.is_err() {
            out.truncate(before);
        }
    }

    /// Writes CONNACK for MQTT 3.1.1.
    pub(crate) fn write_welcome_v3(code: v3::ConnectAckReason, session_present: bool, out: &mut BytesMut) {
        out.put_slice(&[0x20, 2, u8::from(session_present), code.into()]);
    }

    /// Writes CONNACK for MQTT 5.
    pub(crate) fn write_welcome_v5(&mut self, welcome: v5::ConnectAck, out: &mut BytesMut) {
        if let Self::V5(codec) = self {
            let before = out.len();
            if codec.encode(v5::Packet::ConnectAck(Box::new(welcome)), out).is_err() {
                out.truncate(before);
            }
        }
    }

    /// Bounds what is written to what an MQTT 5 client said it accepts.
    pub(crate) fn accept_up_to(&mut self, packet_bytes: u32) {
        if let Self::V5(codec) = self {
            codec.set_max_outbound_size(packet_bytes);
        }
    }
}

fn to_v3(reply: Reply) -> Option<v3::Packet> {
    Some(match reply {
        Reply::Subscribed(packet_id, granted) => v3::Packet::SubscribeAck {
            packet_id,
            status: granted
                .into_iter()
                .map(|granted| match granted {
                    Granted::Yes(qos) => v3::SubscribeReturnCode::Success(qos),
                    Granted::No(_) => v3::SubscribeReturnCode::Failure,
                })
                .collect(),
        },
        Reply::Unsubscribed(packet_id, _) => v3::Packet::UnsubscribeAck { packet_id },
        Reply::Pong => v3::Packet::PingResponse,
        Reply::Reauthenticated(_) | Reply::Disconnect(..) => return None,
    })
}

fn to_v5(reply: Reply) -> v5::Packet {
    match reply {
        Reply::Subscribed(packet_id, granted) => v5::Packet::SubscribeAck(v5::SubscribeAck {
            packet_id,
            properties: Vec::new(),
            reason_string: None,
            status: granted
                .into_iter()
                .map(|granted| match granted {
                    Granted::Yes(QoS::AtMostOnce) => v5::SubscribeAckReason::GrantedQos0,
                    Granted::Yes(_) => v5::SubscribeAckReason::GrantedQos1,
                    Granted::No(reason) => reason,
                })
                .collect(),
        }),
        Reply::Unsubscribed(packet_id, found) => v5::Packet::UnsubscribeAck(v5::UnsubscribeAck {
            packet_id,
            properties: Vec::new(),
            reason_string: None,
            status: found
                .into_iter()
                .map(|found| match found {
                    true => v5::UnsubscribeAckReason::Success,
                    false => v5::UnsubscribeAckReason::NoSubscriptionExisted,
                })
                .collect(),
        }),
        Reply::Pong => v5::Packet::PingResponse,
        Reply::Reauthenticated(method) => v5::Packet::Auth(v5::Auth {
            reason_code: v5::AuthReasonCode::Success,
            auth_method: Some(method),
            auth_data: None,
            reason_string: None,
            user_properties: Vec::new(),
        }),
        Reply::Disconnect(code, status, reason) => {
            let mut disconnect = v5::Disconnect::new(code);
            let mut property = |name: &'static str, value: ByteString| {
                disconnect.user_properties.push((name.into(), value));
            };
            if let Some(status) = status {
                property(names::STATUS, status.to_string().into());
            }
            if !reason.is_empty() {
                property(names::REASON, reason.into());
            }
            v5::Packet::Disconnect(disconnect)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_known_as_soon_as_the_header_is() {
        for (bytes, expected) in [
            (&[][..], Ok(None)),
            (&[0x30], Ok(None)),
            (&[0x30, 0], Ok(Some(2))),
            (&[0x30, 0x80], Ok(None)),
            (&[0x30, 0x80, 0x01], Ok(Some(131))),
            (&[0x30, 0xFF, 0xFF, 0xFF, 0x7F, 0xFF], Ok(Some(268_435_460))),
            (&[0x30, 0xFF, 0xFF, 0xFF], Ok(None)),
            (&[0x30, 0xFF, 0xFF, 0xFF, 0xFF], Err(Malformed)),
        ] {
            assert_eq!(packet_bytes(bytes), expected, "{bytes:02x?}");
        }
    }

    fn hello(bytes: &[u8]) -> Result<Hello, Malformed> {
        read_hello(&mut bytes.into()).map(|(hello, _)| hello)
    }

    #[test]
    fn the_version_is_told_by_name_and_level() {
        let rest = b"\x02\0\x3c\0\x01d";
        let packet = |name: &[u8], level: u8, rest: &[u8]| {
            let body = [&[0, name.len() as u8], name, &[level], rest].concat();
            [&[0x10, body.len() as u8], &body[..]].concat()
        };
        assert!(matches!(hello(&packet(b"MQTT", 4, rest)), Ok(Hello::V3(_))));
        assert!(matches!(hello(&packet(b"MQTT", 5, b"\x02\0\x3c\0\0\x01d")), Ok(Hello::V5(_))));
        assert!(matches!(hello(&packet(b"MQIsdp", 3, rest)), Ok(Hello::OtherVersion)));
        assert!(matches!(hello(&packet(b"MQTT", 6, rest)), Ok(Hello::OtherVersion)));
        assert!(matches!(hello(&packet(b"MQTT", 4, b"\0\0\x3c\0\0")), Ok(Hello::NoClientId)));
        assert!(hello(&packet(b"HTTP", 4, rest)).is_err());
        assert!(hello(b"\x30\x03\0\x01t").is_err(), "a PUBLISH is no hello");
        assert!(hello(b"\x10\x00").is_err());
    }

    #[test]
    fn acknowledgements_are_read_back_as_they_were_meant() {
        let id = NonZeroU16::new(0x1234).unwrap();
        let written = |answer| {
            let mut out = BytesMut::new();
            write_acknowledgement(id, answer, &mut out);
            write_acknowledgement(id, answer, &mut out);
            let mut codec = v5::Codec::new(0, 0);
            let (first, _) = codec.decode(&mut out).unwrap().unwrap();
            let (second, _) = codec.decode(&mut out).unwrap().unwrap();
            assert_eq!(first, second);
            assert!(out.is_empty());
            match first {
                v5::Packet::PublishAck(acknowledgement) => acknowledgement,
                other => panic!("{other:?}"),
            }
        };
        let user = |pairs: &[(&'static str, &'static str)]| -> v5::UserProperties {
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
        };
        let plain = v5::PublishAck { packet_id: id, ..v5::PublishAck::default() };
        assert_eq!(written(Answer::Stored(None)), plain);
        let largest = Place { partition: u32::MAX, sequence: Some(u64::MAX) };
        assert_eq!(
            written(Answer::Stored(Some(largest))).properties,
            user(&[("whimbrel-at", "4294967295:18446744073709551615")])
        );
        let resend = Place { partition: 3, sequence: None };
        assert_eq!(written(Answer::Stored(Some(resend))).properties, user(&[("whimbrel-at", "3:")]));
        let refused = written(Answer::Refused(Status::NOT_FOUND, "no such topic"));
        assert_eq!(refused.reason_code, v5::PublishAckReason::ImplementationSpecificError);
        assert_eq!(refused.properties, user(&[("status", "0504"), ("reason", "no such topic")]));
    }

    #[test]
    fn the_short_form_is_that_of_both_versions() {
        let mut out = BytesMut::new();
        write_acknowledgement(NonZeroU16::new(7).unwrap(), Answer::Stored(None), &mut out);
        assert_eq!(&out[..], [0x40, 2, 0, 7]);
    }

    #[test]
    fn an_acknowledgement_of_5_settles_by_reason_and_status() {
        let status = |text| Some(Status::parse(text).unwrap());
        for (reason, status, expected) in [
            (0, None, Settlement::Complete),
            (16, None, Settlement::Complete),
            // Nonsense: the reason is what MQTT goes by.
            (0, status("0603"), Settlement::Complete),
            (131, status("0603"), Settlement::Abandon),
            (131, status("0100"), Settlement::Reject),
            (131, status("0503"), Settlement::Abandon),
            (131, status("0104"), Settlement::Reject),
            (131, status("06ff"), Settlement::Abandon),
            (131, status("01ff"), Settlement::Reject),
            (131, status("0001"), Settlement::Reject),
            (131, None, Settlement::Reject),
            (128, None, Settlement::Reject),
            (151, None, Settlement::Abandon),
            (145, None, Settlement::Abandon),
            (153, None, Settlement::Reject),
        ] {
            assert_eq!(settlement(reason, status), expected, "{reason} {status:?}");
        }
    }

    #[test]
    fn acknowledgements_are_read_in_every_length() {
        let mut v3 = Codec::V3(v3::Codec::new(0));
        let v5 = || Codec::V5(v5::Codec::new(0, 0));
        let read = |codec: &mut Codec, bytes: &[u8]| match codec.read(&mut BytesMut::from(bytes)) {
            Ok(Packet::Acknowledge { id, settlement }) => Some((id.get(), settlement)),
            _ => None,
        };
        assert_eq!(read(&mut v3, b"\x40\x02\x01\x02"), Some((0x0102, Settlement::Complete)));
        assert_eq!(read(&mut v3, b"\x40\x02\0\0"), None, "no packet has the id 0");
        assert_eq!(read(&mut v5(), b"\x40\x02\0\x07"), Some((7, Settlement::Complete)));
        assert_eq!(read(&mut v5(), b"\x40\x03\0\x07\x83"), Some((7, Settlement::Reject)));
        assert_eq!(read(&mut v5(), b"\x40\x04\0\x07\x83\0"), Some((7, Settlement::Reject)));
        let abandon = b"\x40\x13\0\x07\x83\x0f\x26\0\x06status\0\x040603";
        assert_eq!(read(&mut v5(), abandon), Some((7, Settlement::Abandon)));
        let unreadable = b"\x40\x13\0\x07\x83\x0f\x26\0\x06status\0\x04busy";
        assert_eq!(read(&mut v5(), unreadable), Some((7, Settlement::Reject)));
    }
}
