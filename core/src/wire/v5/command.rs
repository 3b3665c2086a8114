//! A command as the properties of a PUBLISH on [`COMMANDS`](super::COMMANDS).

use std::{borrow::Cow, time::SystemTime};

use bytes::Bytes;

use super::{
    mark::decimal,
    message::{from_millis, malformed, millis, read, user_properties},
};
use crate::{Lane, Message, Result, wire::feedback::FeedbackWanted};

/// The user properties of a command: what the hub knows of it, then those of [`user_properties`]. `iothub-ack` is in
/// lower case, name and value, as in topics. The content type is not among them.
pub fn command_properties(
    sequence: u64,
    enqueued_at: SystemTime,
    delivery_count: u32,
    message: &Message,
) -> impl Iterator<Item = ([&str; 2], Cow<'_, str>)> {
    let stamps = [
        (["", SEQUENCE], sequence.to_string().into()),
        (["", ENQUEUED], millis(enqueued_at).to_string().into()),
        (["", DELIVERIES], delivery_count.to_string().into()),
    ];
    let message = user_properties(message).map(|(name, value)| match name {
        ["@", own] if own.eq_ignore_ascii_case(FeedbackWanted::PROPERTY) => {
            (["@", FeedbackWanted::PROPERTY], Cow::Owned(value.to_ascii_lowercase()))
        }
        _ => (name, value),
    });
    stamps.into_iter().chain(message)
}

/// What a PUBLISH on [`COMMANDS`](super::COMMANDS) carried.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceivedCommand {
    /// Number in the device's queue, where the hub told it.
    pub sequence: Option<u64>,
    /// When the hub took it in, to the millisecond, where the hub told it.
    pub enqueued_at: Option<SystemTime>,
    /// How many deliveries counted before this one, where the hub told it.
    pub delivery_count: Option<u32>,
    /// The command, in the lane of telemetry.
    pub message: Message,
}

/// The command of a PUBLISH with these properties. Of a repeated name the last one counts. Unknown names are passed over:
/// to refuse a command because the hub said more than it has to would help nobody.
///
/// # Errors
/// `InvalidArgument` for a time or number that cannot be read; names the property, never the value.
pub fn command<'a>(
    content_type: Option<&str>,
    user_properties: impl IntoIterator<Item = (&'a str, &'a str)>,
    body: impl Into<Bytes>,
) -> Result<ReceivedCommand> {
    let (mut sequence, mut enqueued_at, mut delivery_count) = (None, None, None);
    let (properties, system) = read(content_type, user_properties, |name, value| {
        let unreadable = || malformed(name);
        match name {
            SEQUENCE => sequence = Some(decimal(value).ok_or_else(unreadable)?),
            ENQUEUED => enqueued_at = Some(from_millis(value).ok_or_else(unreadable)?),
            DELIVERIES => {
                let count = decimal(value).and_then(|count| u32::try_from(count).ok());
                delivery_count = Some(count.ok_or_else(unreadable)?);
            }
            _ => {}
        }
        Ok(())
    })?;
    let message = Message::from_parts(Lane::Telemetry, body.into(), properties, system);
    Ok(ReceivedCommand { sequence, enqueued_at, delivery_count, message })
}

const SEQUENCE: &str = "sequence-no";
const ENQUEUED: &str = "enqueued-time";
const DELIVERIES: &str = "delivery-count";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ErrorKind;

    fn written(sequence: u64, at: SystemTime, count: u32, message: &Message) -> Vec<(String, String)> {
        command_properties(sequence, at, count, message)
            .map(|(name, value)| (name.concat(), value.into_owned()))
            .collect()
    }

    fn borrowed(properties: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
        properties.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    #[test]
    fn every_property_has_its_name_and_leads_back() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_769_860_800_123);
        let mut sent = Message::telemetry("reboot")
            .message_id("m")
            .content_type("text/plain")
            .creation_time(SystemTime::UNIX_EPOCH)
            .property("IoTHub-Ack", "Full")
            .property("p", "größe\n\u{202e}@=&");
        sent.system_mut().to = Some("/devices/d/messages/deviceBound".into());
        sent.system_mut().expiry_time = Some(SystemTime::UNIX_EPOCH);
        let properties = written(u64::MAX, at, u32::MAX, &sent);
        let expected = [
            ("sequence-no", "18446744073709551615"),
            ("enqueued-time", "1769860800123"),
            ("delivery-count", "4294967295"),
            ("message-id", "m"),
            ("creation-time", "0"),
            ("@$.exp", "1970-01-01T00:00:00.0000000Z"),
            ("@$.to", "/devices/d/messages/deviceBound"),
            ("@iothub-ack", "full"),
            ("@p", "größe\n\u{202e}@=&"),
        ];
        assert_eq!(borrowed(&properties).collect::<Vec<_>>(), expected);
        let received = command(Some("text/plain"), borrowed(&properties), "reboot").unwrap();
        let sent =
            sent.with_properties([("iothub-ack", "full"), ("p", "größe\n\u{202e}@=&")].into_iter().collect());
        assert_eq!(
            received,
            ReceivedCommand {
                sequence: Some(u64::MAX),
                enqueued_at: Some(at),
                delivery_count: Some(u32::MAX),
                message: sent,
            }
        );
    }

    #[test]
    fn what_an_application_calls_like_a_stamp_does_not_pass_for_one() {
        let sent = Message::telemetry("").property("sequence-no", "9").property("delivery-count", "x");
        let properties = written(1, SystemTime::UNIX_EPOCH, 0, &sent);
        let received = command(None, borrowed(&properties), "").unwrap();
        assert_eq!((received.sequence, received.delivery_count), (Some(1), Some(0)));
        assert_eq!(received.message, sent);
    }

    #[test]
    fn a_hub_may_say_less_or_more() {
        let received = command(None, [("later", "x"), ("trace-id", "y"), ("@p", "v")], "b").unwrap();
        let message = Message::telemetry("b").property("p", "v");
        assert_eq!(
            received,
            ReceivedCommand { sequence: None, enqueued_at: None, delivery_count: None, message }
        );
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (name, value) in [
            ("sequence-no", "-1"),
            ("sequence-no", "18446744073709551616"),
            ("enqueued-time", "today"),
            ("delivery-count", "4294967296"),
            ("delivery-count", ""),
            ("creation-time", "secret"),
        ] {
            let error = command(None, [(name, value)], "").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert_eq!(error.details(), [("name", name.to_owned())]);
        }
    }
}
