//! MQTT 5 in the shape of Azure's preview, with our own additions where the hub announces them: contract `mqtt.md`,
//! part 2, and [`crate::wire::v5`].

use std::{
    io::Write,
    time::{Duration, SystemTime},
};

use bytes::{BufMut, BytesMut};
use rumqttc::v5::mqttbytes::v5::{Connect, ConnectProperties, Login, Packet};

use super::{
    Version,
    commands::Commands,
    connection::Hello,
    frame::{self, Frame, Reader, kind, length_of_length, put_length, put_string},
    identity::{AGENT, Identity, unix_millis},
    v3::whole_seconds,
};
use crate::{
    Error, ErrorKind, Result,
    auth::Credential,
    delivery::Verdict,
    outbox::Queued,
    transport::Offer,
    wire::v5::{self as wire, Number, Place, Status},
};

/// How long the hub is to keep the session without a connection, in seconds: no command lives longer.
const SESSION_EXPIRY: u32 = 48 * 3_600;

mod property {
    pub(super) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(super) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(super) const RESPONSE_TOPIC: u8 = 0x08;
    pub(super) const CORRELATION_DATA: u8 = 0x09;
    pub(super) const SUBSCRIPTION_ID: u8 = 0x0b;
    pub(super) const SESSION_EXPIRY: u8 = 0x11;
    pub(super) const SERVER_REFERENCE: u8 = 0x1c;
    pub(super) const REASON: u8 = 0x1f;
    pub(super) const USER: u8 = 0x26;
    pub(super) const CONTENT_TYPE: u8 = 0x03;
}

/// Writes messages.
pub(super) struct Codec {
    /// The hub understands our own properties.
    announced: bool,
    /// Largest packet the hub takes.
    max_packet: usize,
    /// Where the properties of the message at hand are put together.
    properties: Vec<u8>,
}

/// What CONNACK said.
pub(super) struct Welcome {
    pub(super) codec: Codec,
    pub(super) receive_maximum: u16,
    pub(super) keep_alive: Option<Duration>,
}

/// The CONNECT packet of a connection made `now`.
///
/// With a key we sign what the preview asks for; with a ready token, which has another string to sign, we send user
/// name and password, as on 3.1.1.
pub(super) fn connect(
    identity: &Identity,
    offer: &Offer,
    keep_alive: Duration,
    now: SystemTime,
) -> Result<Hello> {
    let client_id = identity.client_id();
    let mut properties = ConnectProperties::new();
    properties.max_packet_size = u32::try_from(frame::INCOMING_LIMIT).ok();
    properties.user_properties = vec![
        (wire::API_VERSION_NAME.to_owned(), wire::API_VERSION.to_owned()),
        (wire::HOST.to_owned(), identity.host_name().to_owned()),
        (wire::CLIENT_AGENT.to_owned(), AGENT.to_owned()),
        (wire::OUTBOX.to_owned(), offer.outbox_id.clone()),
    ];
    let mut login = None;
    let mut renew_in = None;
    match &identity.connection_string.credential {
        Credential::X509 => properties.authentication_method = Some(wire::METHOD_X509.to_owned()),
        Credential::Key { policy, key } => {
            let (issued, expires) =
                (unix_millis(now).to_string(), unix_millis(now + identity.token_lifetime).to_string());
            let text = wire::string_to_sign(
                identity.host_name(),
                &client_id,
                policy.as_deref(),
                Some(&issued),
                &expires,
            );
            properties.authentication_method = Some(wire::METHOD_SAS.to_owned());
            properties.authentication_data = Some(key.sign(text.as_bytes()).to_vec().into());
            properties.user_properties.push((wire::SAS_AT.to_owned(), issued));
            properties.user_properties.push((wire::SAS_EXPIRY.to_owned(), expires));
            if let Some(policy) = policy {
                properties.user_properties.push((wire::SAS_POLICY.to_owned(), policy.clone()));
            }
            renew_in = Some(identity.renew_in(now)?);
        }
        Credential::Token(token) => {
            let username = format!("{}/{client_id}", identity.host_name());
            login = Some(Login { username, password: token.clone() });
        }
    }
    // Why the session is kept, and where not: as on 3.1.1.
    let keeps = identity.module_id().is_none();
    properties.session_expiry_interval = keeps.then_some(SESSION_EXPIRY);
    properties.receive_maximum = Some(offer.inbox_window.max(1));
    let connect = Connect {
        keep_alive: whole_seconds(keep_alive),
        client_id,
        clean_start: !keeps,
        properties: Some(properties),
    };
    let mut packet = BytesMut::new();
    Packet::Connect(connect, None, login).write(&mut packet, None).map_err(|error| {
        Error::new(ErrorKind::Internal, "device.connect", "CONNECT cannot be written").caused_by(error)
    })?;
    let commands = Commands::new(Version::V5, identity, offer);
    Ok(Hello { packet, renew_in, v3: None, commands })
}

/// Reads CONNACK.
pub(super) fn welcome(frame: &Frame<'_>) -> Result<Welcome> {
    let refused = |kind, message| Error::new(kind, "device.connect", message);
    let unsupported = || refused(ErrorKind::Unsupported, "the server does not speak MQTT 5");
    let code = match *frame.body {
        // The short form is that of 3.1.1: a server that knows no 5 says so in the way it knows.
        [_, 1] => return Err(unsupported()),
        [_, code, _, ..] => code,
        _ => return Err(frame::violation("the server sent a malformed CONNACK (section 3.2)")),
    };
    let properties = match Packet::read(&mut BytesMut::from(frame.whole), None) {
        Ok(Packet::ConnAck(connack)) => connack.properties,
        _ if code >= 0x80 => None,
        _ => return Err(frame::violation("the server sent a malformed CONNACK (section 3.2)")),
    };
    let kind = match code {
        0 => {
            let announced = properties.iter().flat_map(|known| &known.user_properties);
            return Ok(Welcome {
                codec: Codec {
                    announced: announced.into_iter().any(|(name, _)| name == wire::ANNOUNCE),
                    max_packet: properties
                        .as_ref()
                        .and_then(|known| usize::try_from(known.max_packet_size?).ok())
                        .unwrap_or(usize::MAX),
                    properties: Vec::new(),
                },
                receive_maximum: properties
                    .as_ref()
                    .and_then(|known| known.receive_max)
                    .filter(|limit| *limit != 0)
                    .unwrap_or(u16::MAX),
                keep_alive: properties
                    .and_then(|known| known.server_keep_alive)
                    .filter(|seconds| *seconds != 0)
                    .map(|seconds| Duration::from_secs(seconds.into())),
            });
        }
        0x84 => return Err(unsupported()),
        0x85 | 0x86 | 0x87 | 0x8a | 0x8c => ErrorKind::Unauthorized,
        0x97 | 0x9f => ErrorKind::Throttled,
        0x80 | 0x83 | 0x88 | 0x89 => ErrorKind::Unreachable,
        _ => ErrorKind::Protocol,
    };
    let message = match kind {
        ErrorKind::Unauthorized => {
            "the hub refused the credentials: check the key, the clock, and that the device exists and is enabled"
        }
        ErrorKind::Throttled => "the hub asks to slow down",
        ErrorKind::Unreachable => "the hub is not available now",
        _ => "the server refused the connection",
    };
    let error = refused(kind, message).with("reason code", code);
    Err(match properties.and_then(|known| known.reason_string) {
        Some(reason) => error.with("reason", reason),
        None => error,
    })
}

/// Reads PUBACK.
pub(super) fn answer(body: &[u8]) -> Option<(u16, Verdict)> {
    let mut reader = Reader(body);
    let packet_id = reader.u16()?;
    let code = if reader.is_empty() { 0 } else { reader.u8()? };
    let said = if reader.is_empty() { Said::default() } else { Said::read(&mut reader)? };
    let verdict = if code < 0x80 {
        let place = said.place.and_then(Place::parse);
        Verdict::Stored {
            partition: place.map(|place| place.partition),
            sequence: place.and_then(|place| place.sequence),
        }
    } else {
        let status = said.status.and_then(Status::parse);
        let retryable = match status {
            Some(status) => status.is_retryable(),
            // Without a status: what is wrong with the message stays wrong, everything else may pass.
            None => !matches!(code, 0x87 | 0x90 | 0x95 | 0x99),
        };
        let mut reason = format!("reason code {code:#04x}");
        if let Some(status) = status {
            reason.push_str(&format!(", status {status:?}"));
        }
        if let Some(text) = said.reason {
            reason.push_str(": ");
            reason.push_str(text);
        }
        Verdict::Refused { retryable, reason }
    };
    Some((packet_id, verdict))
}

/// The properties of an answer that mean something to us.
#[derive(Default)]
struct Said<'a> {
    place: Option<&'a str>,
    status: Option<&'a str>,
    reason: Option<&'a str>,
}

impl<'a> Said<'a> {
    /// Reads the properties of PUBACK or DISCONNECT.
    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let mut said = Self::default();
        let length = reader.length()?;
        let mut properties = Reader(reader.bytes(length)?);
        while !properties.is_empty() {
            match properties.u8()? {
                property::REASON => said.reason = Some(properties.string()?),
                property::USER => {
                    let (name, value) = (properties.string()?, properties.string()?);
                    match name {
                        wire::PLACE => said.place = Some(value),
                        wire::STATUS => said.status = Some(value),
                        wire::REASON => said.reason = said.reason.or(Some(value)),
                        _ => {}
                    }
                }
                property::SESSION_EXPIRY => drop(properties.bytes(4)?),
                property::SERVER_REFERENCE => drop(properties.string()?),
                _ => return None,
            }
        }
        Some(said)
    }
}

/// The properties of a PUBLISH that mean something to us.
#[derive(Debug, Default)]
pub(super) struct Carried<'a> {
    pub(super) content_type: Option<&'a str>,
    pub(super) user: Vec<(&'a str, &'a str)>,
}

impl<'a> Carried<'a> {
    /// Reads the properties of PUBLISH; `None` when they are malformed. A topic alias is: we announce none.
    pub(super) fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let mut carried = Self::default();
        let length = reader.length()?;
        let mut properties = Reader(reader.bytes(length)?);
        while !properties.is_empty() {
            match properties.u8()? {
                property::CONTENT_TYPE => carried.content_type = Some(properties.string()?),
                property::USER => carried.user.push((properties.string()?, properties.string()?)),
                property::PAYLOAD_FORMAT => drop(properties.u8()?),
                property::MESSAGE_EXPIRY => drop(properties.bytes(4)?),
                property::RESPONSE_TOPIC => drop(properties.string()?),
                property::CORRELATION_DATA => {
                    let length = properties.u16()?;
                    properties.bytes(usize::from(length))?;
                }
                property::SUBSCRIPTION_ID => drop(properties.length()?),
                _ => return None,
            }
        }
        Some(carried)
    }
}

/// Appends PUBACK of a command that is not completed: the reason code, and the status that says what is meant.
pub(super) fn put_refusal(out: &mut BytesMut, packet_id: u16, status: Status) {
    let mut properties = Vec::with_capacity(24);
    put_user(&mut properties, ["", wire::STATUS], &status.to_string());
    out.put_u8(kind::PUBACK);
    put_length(out, 2 + 1 + length_of_length(properties.len()) + properties.len());
    out.put_u16(packet_id);
    out.put_u8(status.reason());
    put_length(out, properties.len());
    out.put_slice(&properties);
}

/// What the server's DISCONNECT means.
pub(super) fn goodbye(frame: Frame<'_>) -> Error {
    let mut reader = Reader(frame.body);
    let code = reader.u8().unwrap_or(0);
    let said = Said::read(&mut reader).unwrap_or_default();
    let (kind, message) = match code {
        0x8e => (
            ErrorKind::Conflict,
            "another client has connected with the identity of this device, and took it over",
        ),
        0x96 | 0x97 | 0x9f => (ErrorKind::Throttled, "the hub asks to slow down"),
        0x8b => (ErrorKind::Unreachable, "the hub is shutting down"),
        // Whether the credentials are still good, the next CONNECT will tell.
        0x87 => {
            (ErrorKind::Unreachable, "the hub ended the connection: the credentials expired or have changed")
        }
        0x81 | 0x82 | 0x90 | 0x93 | 0x94 | 0x95 | 0x99..=0x9b => {
            (ErrorKind::Protocol, "the hub found fault with what we sent")
        }
        _ => (ErrorKind::Unreachable, "the hub ended the connection"),
    };
    let mut error = Error::new(kind, "device.receive", message).with("reason code", code);
    if let Some(status) = said.status {
        error = error.with("status", status);
    }
    match said.reason {
        Some(reason) => error.with("reason", reason),
        None => error,
    }
}

impl Codec {
    /// Appends PUBLISH; on `Err` nothing, and the message can never be sent.
    pub(super) fn publish(
        &mut self,
        queued: &Queued,
        packet_id: u16,
        out: &mut BytesMut,
    ) -> std::result::Result<(), String> {
        self.properties.clear();
        let properties = &mut self.properties;
        let message = &queued.message;
        if let Some(content_type) = &message.system().content_type {
            properties.put_u8(property::CONTENT_TYPE);
            put_string(properties, content_type);
        }
        if self.announced {
            put_number(properties, queued);
        }
        for (name, value) in wire::user_properties(message) {
            put_user(properties, name, &value);
        }
        let body = message.body();
        let length = 2
            + wire::TELEMETRY.len()
            + 2
            + length_of_length(self.properties.len())
            + self.properties.len()
            + body.len();
        let whole = 1 + length_of_length(length) + length;
        if whole > self.max_packet {
            return Err(format!(
                "its packet of {whole} bytes is over the {} that the hub takes",
                self.max_packet
            ));
        }
        out.reserve(whole);
        out.put_u8(kind::PUBLISH_QOS1);
        put_length(out, length);
        put_string(out, wire::TELEMETRY);
        out.put_u16(packet_id);
        put_length(out, self.properties.len());
        out.put_slice(&self.properties);
        out.put_slice(body);
        Ok(())
    }
}

/// Appends a user property.
fn put_user(out: &mut Vec<u8>, [prefix, name]: [&str; 2], value: &str) {
    out.put_u8(property::USER);
    // `Message::validate` keeps names under what a topic holds.
    out.put_u16((prefix.len() + name.len()) as u16);
    out.put_slice(prefix.as_bytes());
    out.put_slice(name.as_bytes());
    put_string(out, value);
}

/// Appends the number the hub de-duplicates by, such as `t42`.
fn put_number(out: &mut Vec<u8>, queued: &Queued) {
    out.put_u8(property::USER);
    put_string(out, wire::NUMBER);
    let length_at = out.len();
    out.put_u16(0);
    // Writing to memory cannot fail.
    let _ = write!(out, "{}", Number { lane: queued.lane, number: queued.number });
    let length = (out.len() - length_at - 2) as u16;
    if let Some(place) = out.get_mut(length_at..length_at + 2) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_a_server_sends_is_an_answer_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = answer(&bytes);
            let _ = frame::first(&bytes);
            for first in [kind::CONNACK, kind::DISCONNECT] {
                let mut whole = vec![first];
                put_length(&mut whole, bytes.len());
                whole.extend(&bytes);
                let frame = frame::first(&whole).unwrap().unwrap();
                let _ = welcome(&frame);
                let _ = goodbye(frame);
            }
        }

        #[test]
        fn an_answer_is_read_whatever_else_it_says(
            packet_id: u16,
            partition: u32,
            sequence: u64,
            others in proptest::collection::vec(("[a-z]{1,9}", ".{0,9}"), 0..4),
            at in 0usize..4,
        ) {
            let place = Place { partition, sequence: Some(sequence) }.to_string();
            let mut properties = Vec::new();
            for (index, (name, value)) in others.iter().enumerate() {
                if index == at.min(others.len() - 1) {
                    put_user(&mut properties, ["", wire::PLACE], &place);
                }
                put_user(&mut properties, ["", name], value);
            }
            if others.is_empty() {
                put_user(&mut properties, ["", wire::PLACE], &place);
            }
            let mut body = packet_id.to_be_bytes().to_vec();
            body.push(0);
            put_length(&mut body, properties.len());
            body.extend(properties);
            let stored = Verdict::Stored { partition: Some(partition), sequence: Some(sequence) };
            prop_assert_eq!(answer(&body), Some((packet_id, stored)));
        }
    }
}
