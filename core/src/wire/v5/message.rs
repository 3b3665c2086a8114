//! A message as the properties of a PUBLISH.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use super::{NUMBER, Number, mark::decimal};
use crate::{
    Error, ErrorKind, Lane, Message, Properties, Result, SystemProperties,
    message::{SystemName, SystemValue},
    wire::{names, time},
};

/// The user properties of `message`, system properties first: each name in two parts, so that none has to be put together
/// before it is written, and the value. The content type is not among them: it is a property of MQTT 5 itself.
///
/// System properties that have no name of their own on MQTT 5 travel as application properties under their MQTT 3.1.1
/// name, such as `@$.schema`.
pub fn user_properties(message: &Message) -> impl Iterator<Item = ([&str; 2], Cow<'_, str>)> {
    let system = message.system().iter().filter(|(name, _)| *name != SystemName::ContentType);
    let system = system.map(|(name, value)| match own_name(name) {
        Some(own) => (["", own], own_text(value)),
        None => (["@$.", names::key(name)], topic_text(value)),
    });
    let application = message.properties().iter();
    system.chain(application.map(|(name, value)| (["@", name], Cow::Borrowed(value))))
}

/// What a PUBLISH carried.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// The message; in the lane its number says, or else telemetry.
    pub message: Message,
    /// Its number, if the sender's outbox gave one.
    pub number: Option<Number>,
}

/// The message of a PUBLISH with these properties. Of a repeated name the last one counts. Unknown names that start with
/// `whimbrel-` are passed over: newer clients may send them.
///
/// # Errors
/// `InvalidArgument` for a user property outside the contract, and for a time or number that cannot be read; names the
/// property, never the value.
pub fn message<'a>(
    content_type: Option<&str>,
    user_properties: impl IntoIterator<Item = (&'a str, &'a str)>,
    body: impl Into<Bytes>,
) -> Result<Received> {
    let mut number = None;
    let read = read(content_type, user_properties, |name, value| match name {
        NUMBER => {
            number = Some(Number::parse(value).ok_or_else(|| malformed(name))?);
            Ok(())
        }
        _ if name.starts_with(OURS) => Ok(()),
        _ => {
            let message = "a user property is neither in the contract nor starts with \"@\"";
            Err(Error::new(ErrorKind::InvalidArgument, OPERATION, message).with("name", shown(name)))
        }
    })?;
    let lane = number.map_or(Lane::Telemetry, |number: Number| number.lane);
    let message = Message::from_parts(lane, body.into(), read.0, read.1);
    Ok(Received { message, number })
}

/// The properties of a message; names that are in no message of either direction go to `other`.
pub(super) fn read<'a>(
    content_type: Option<&str>,
    user_properties: impl IntoIterator<Item = (&'a str, &'a str)>,
    mut other: impl FnMut(&str, &str) -> Result<()>,
) -> Result<(Properties, SystemProperties)> {
    let mut system =
        SystemProperties { content_type: content_type.map(str::to_owned), ..SystemProperties::default() };
    let mut application = Vec::new();
    for (name, value) in user_properties {
        if let Some(name) = name.strip_prefix('@') {
            if !name.is_empty() && !names::set(&mut system, name, value) {
                application.push((name.to_owned(), value.to_owned()));
            }
            continue;
        }
        let text = || Some(value.to_owned());
        match name {
            "message-id" => system.message_id = text(),
            "correlation-id" => system.correlation_id = text(),
            "user-id" => system.user_id = text(),
            "content-encoding" => system.content_encoding = text(),
            "creation-time" => {
                system.creation_time = Some(from_millis(value).ok_or_else(|| malformed(name))?);
            }
            _ => other(name, value)?,
        }
    }
    Ok((Properties::from_pairs(application), system))
}

/// The name MQTT 5 has for it; the content type has a place of its own.
fn own_name(name: SystemName) -> Option<&'static str> {
    match name {
        SystemName::MessageId => Some("message-id"),
        SystemName::CorrelationId => Some("correlation-id"),
        SystemName::UserId => Some("user-id"),
        SystemName::ContentEncoding => Some("content-encoding"),
        SystemName::CreationTime => Some("creation-time"),
        SystemName::ContentType
        | SystemName::ExpiryTime
        | SystemName::To
        | SystemName::MessageSchema
        | SystemName::OutputName
        | SystemName::InterfaceId
        | SystemName::Component
        | SystemName::DiagnosticId
        | SystemName::DiagnosticContext => None,
    }
}

fn own_text(value: SystemValue<'_>) -> Cow<'_, str> {
    match value {
        SystemValue::Text(text) => text.into(),
        SystemValue::Time(at) => millis(at).to_string().into(),
    }
}

/// Milliseconds since 1970, rounded down; before it negative.
pub(super) fn millis(at: SystemTime) -> i64 {
    let (seconds, nanos) = time::since_epoch(at);
    seconds.saturating_mul(1_000).saturating_add(i64::from(nanos / 1_000_000))
}

fn topic_text(value: SystemValue<'_>) -> Cow<'_, str> {
    match value {
        SystemValue::Text(text) => text.into(),
        SystemValue::Time(at) => time::format(at).into(),
    }
}

/// Milliseconds since 1970, before it with a sign.
pub(super) fn from_millis(text: &str) -> Option<SystemTime> {
    match text.strip_prefix('-') {
        Some(before) => SystemTime::UNIX_EPOCH.checked_sub(Duration::from_millis(decimal(before)?)),
        None => SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(decimal(text)?)),
    }
}

pub(super) fn malformed(name: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, OPERATION, "a user property cannot be read")
        .with("name", shown(name))
}

/// As much of a name a peer chose as an error should carry.
fn shown(name: &str) -> String {
    name.chars().take(64).flat_map(char::escape_debug).collect()
}

const OPERATION: &str = "v5.message";
const OURS: &str = "whimbrel-";

#[cfg(test)]
mod tests {
    use super::*;

    fn written(message: &Message) -> Vec<(String, String)> {
        user_properties(message).map(|(name, value)| (name.concat(), value.into_owned())).collect()
    }

    fn read(properties: &[(&str, &str)]) -> Result<Received> {
        message(None, properties.iter().copied(), "")
    }

    #[test]
    fn every_property_has_its_name() {
        let mut sent = Message::telemetry("body")
            .message_id("m")
            .content_type("application/json")
            .content_encoding("utf-8")
            .creation_time(SystemTime::UNIX_EPOCH + Duration::from_millis(1_769_860_800_123))
            .property("room", "attic");
        sent.system_mut().expiry_time = Some(SystemTime::UNIX_EPOCH);
        sent.system_mut().message_schema = Some("s".into());
        let properties = written(&sent);
        let expected = [
            ("message-id", "m"),
            ("content-encoding", "utf-8"),
            ("creation-time", "1769860800123"),
            ("@$.exp", "1970-01-01T00:00:00.0000000Z"),
            ("@$.schema", "s"),
            ("@room", "attic"),
        ];
        let borrowed: Vec<(&str, &str)> =
            properties.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(borrowed, expected);
        let received = message(Some("application/json"), borrowed, "body").unwrap();
        assert_eq!(received, Received { message: sent, number: None });
    }

    #[test]
    fn the_number_tells_the_lane() {
        let received = read(&[(NUMBER, "a7"), ("whimbrel-later", "x")]).unwrap();
        assert_eq!(received.number, Some(Number { lane: Lane::Alert, number: 7 }));
        assert_eq!(received.message, Message::alert(""));
    }

    #[test]
    fn lenient_cases() {
        for (properties, expected) in [
            (vec![("@a", "1"), ("@a", "2")], Message::telemetry("").property("a", "2")),
            (vec![("@", "1")], Message::telemetry("")),
            (vec![("@@a", "1")], Message::telemetry("").property("@a", "1")),
            (vec![("@$.mid", "m")], Message::telemetry("").message_id("m")),
            (vec![("@$.xyz", "m")], Message::telemetry("").property("$.xyz", "m")),
            (
                vec![("creation-time", "-1")],
                Message::telemetry("").creation_time(SystemTime::UNIX_EPOCH - Duration::from_millis(1)),
            ),
        ] {
            assert_eq!(read(&properties).unwrap().message, expected, "{properties:?}");
        }
    }

    #[test]
    fn what_is_refused_is_named() {
        for name in ["colour", "Message-Id", "", "sequence-no"] {
            let error = read(&[(name, "secret")]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert_eq!(error.details(), [("name", name.to_owned())]);
            assert!(!error.to_string().contains("secret"));
        }
        for (name, value) in [("creation-time", "today"), ("creation-time", "--1"), (NUMBER, "7")] {
            assert_eq!(read(&[(name, value)]).unwrap_err().details(), [("name", name.to_owned())]);
        }
    }
}
