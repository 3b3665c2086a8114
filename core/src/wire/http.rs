//! Messages as headers of HTTP requests and answers, and as members of a batch. Contract `http.md`, `messages.md`.
//!
//! ```
//! use whimbrel::{Lane, Message, wire::http::{self, HeaderReader}};
//!
//! let message = Message::telemetry("21.5").message_id("m-1").property("room", "attic");
//! let headers: Vec<_> = http::headers(&message).collect();
//! assert_eq!(headers[0], ("iothub-messageid".into(), "m-1".into()));
//! assert_eq!(headers[1], ("iothub-app-room".into(), "attic".into()));
//!
//! let mut reader = HeaderReader::default();
//! for (name, value) in &headers {
//!     reader.put(name, value)?;
//! }
//! assert_eq!(reader.into_message(Lane::Telemetry, "21.5"), message);
//! # Ok::<(), whimbrel::Error>(())
//! ```
//!
//! Header names have no case on the way: the name of an application property may arrive in lower case. Those of a batch
//! arrive as they were.

use std::borrow::Cow;

use bytes::Bytes;

use super::{feedback::FeedbackWanted, time};
use crate::{
    Error, ErrorKind, Lane, Message, Properties, Result, SystemProperties,
    message::{SystemName, SystemSlot, SystemValue},
};

/// What the headers of application properties start with.
pub const APPLICATION: &str = "iothub-app-";
/// Content type of a batch of events.
pub const BATCH_TYPE: &str = "application/vnd.microsoft.iothub.json";
/// Answer to a poll: number in the device's queue.
pub const SEQUENCE_NUMBER: &str = "iothub-sequencenumber";
/// Answer to a poll: when the command was taken in.
pub const ENQUEUED_TIME: &str = "iothub-enqueuedtime";
/// Answer to a poll: deliveries that counted before this one.
pub const DELIVERY_COUNT: &str = "iothub-deliverycount";
/// Every refusal: the name of its number.
pub const ERROR_CODE: &str = "iothub-errorcode";

/// The headers of a message, body aside. Tracing ids and the output of a module have none and stay behind. A character
/// that no header can carry (line breaks and the like) is percent-encoded.
pub fn headers(message: &Message) -> impl Iterator<Item = (Cow<'static, str>, Cow<'_, str>)> {
    let system = message.system().iter().filter_map(|(name, value)| {
        let value = match value {
            SystemValue::Text(text) => printable(text),
            SystemValue::Time(at) => Cow::Owned(time::format(at)),
        };
        Some((Cow::Borrowed(header(name)?), value))
    });
    let application = message.properties().iter().map(|(name, value)| {
        let name = match name.eq_ignore_ascii_case(FeedbackWanted::PROPERTY) {
            true => Cow::Borrowed(FeedbackWanted::PROPERTY),
            false => Cow::Owned(format!("{APPLICATION}{name}")),
        };
        (name, printable(value))
    });
    system.chain(application)
}

/// Puts a message together from its headers, or from the properties of a member of a batch.
#[derive(Debug, Default)]
pub struct HeaderReader {
    properties: Vec<(String, String)>,
    system: SystemProperties,
}

impl HeaderReader {
    /// Takes one header. Gives `false` when it says nothing about the message. Names have no case.
    ///
    /// # Errors
    /// `InvalidArgument` for a time that cannot be read, and a property without a name.
    pub fn put(&mut self, name: &str, value: &str) -> Result<bool> {
        if let Some(name) = strip_prefix(name, APPLICATION) {
            if name.is_empty() {
                return Err(invalid("an application property has no name"));
            }
            // Also how the documents write it in batches.
            if name.eq_ignore_ascii_case(CREATION_TIME_PROPERTY)
                && let Some(at) = time::parse(value)
            {
                self.system.creation_time = Some(at);
                return Ok(true);
            }
            self.properties.push((name.to_owned(), value.to_owned()));
            return Ok(true);
        }
        if name.eq_ignore_ascii_case(FeedbackWanted::PROPERTY) {
            self.properties.push((FeedbackWanted::PROPERTY.to_owned(), value.to_owned()));
            return Ok(true);
        }
        let known = SystemName::ALL
            .into_iter()
            .find(|known| header(*known).is_some_and(|header| header.eq_ignore_ascii_case(name)));
        let Some(known) = known else { return Ok(false) };
        match self.system.slot(known) {
            SystemSlot::Text(slot) => *slot = Some(value.to_owned()),
            SystemSlot::Time(slot) => {
                let at = time::parse(value).ok_or_else(|| {
                    invalid("a header is not a time such as 2026-01-31T12:00:00Z")
                        .with("header", known.name())
                })?;
                *slot = Some(at);
            }
        }
        Ok(true)
    }

    /// The message.
    pub fn into_message(self, lane: Lane, body: impl Into<Bytes>) -> Message {
        Message::in_lane(lane, body)
            .with_properties(Properties::from_pairs(self.properties))
            .with_system(self.system)
    }
}

const fn header(name: SystemName) -> Option<&'static str> {
    Some(match name {
        SystemName::MessageId => "iothub-messageid",
        SystemName::CorrelationId => "iothub-correlationid",
        SystemName::UserId => "iothub-userid",
        SystemName::ContentType => "iothub-contenttype",
        SystemName::ContentEncoding => "iothub-contentencoding",
        SystemName::CreationTime => "iothub-creationtimeutc",
        SystemName::ExpiryTime => "iothub-expiry",
        SystemName::To => "iothub-to",
        SystemName::MessageSchema => "iothub-messageschema",
        SystemName::InterfaceId => "iothub-interface-id",
        SystemName::Component => "dt-subject",
        SystemName::OutputName | SystemName::DiagnosticId | SystemName::DiagnosticContext => return None,
    })
}

/// Creation time as some senders name it.
const CREATION_TIME_PROPERTY: &str = "iothub-creation-time-utc";

fn strip_prefix<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = name.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn printable(value: &str) -> Cow<'_, str> {
    if !value.contains(|c: char| c.is_ascii_control()) {
        return Cow::Borrowed(value);
    }
    let mut out = String::with_capacity(value.len() + 8);
    for c in value.chars() {
        if c.is_ascii_control() {
            out.push_str(&format!("%{:02X}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

fn invalid(text: &'static str) -> Error {
    Error::new(ErrorKind::InvalidArgument, "http.headers", text)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn read<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Message> {
        let mut reader = HeaderReader::default();
        for (name, value) in headers {
            reader.put(name, value)?;
        }
        Ok(reader.into_message(Lane::Telemetry, "b"))
    }

    #[test]
    fn every_property_with_a_header_comes_back() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let mut message = Message::telemetry("b").property("Room", "a b").property("iothub-ack", "full");
        for name in SystemName::ALL {
            match message.system_mut().slot(name) {
                SystemSlot::Text(slot) if header(name).is_some() => *slot = Some(format!("{name:?}")),
                SystemSlot::Text(_) => {}
                SystemSlot::Time(slot) => *slot = Some(at),
            }
        }
        let written: Vec<_> = headers(&message).collect();
        assert_eq!(written.len(), 13);
        assert!(written.contains(&("iothub-ack".into(), "full".into())));
        let back = read(written.iter().map(|(name, value)| (&**name, &**value))).unwrap();
        assert_eq!(back, message);
    }

    #[test]
    fn names_have_no_case_and_others_say_nothing() {
        let message = read([
            ("IoTHub-MessageId", "m"),
            ("IOTHUB-APP-Room", "attic"),
            ("user-agent", "x"),
            ("iothub-operation", "d2c"),
            ("iothub-app-iothub-creation-time-utc", "2026-01-31T12:00:00Z"),
        ])
        .unwrap();
        assert_eq!(message.system().message_id.as_deref(), Some("m"));
        assert_eq!(message.properties().iter().collect::<Vec<_>>(), [("Room", "attic")]);
        assert!(message.system().creation_time.is_some());
    }

    #[test]
    fn what_is_refused() {
        for header in [("iothub-expiry", "tomorrow"), ("iothub-creationtimeutc", ""), ("iothub-app-", "x")] {
            assert_eq!(read([header]).unwrap_err().kind(), ErrorKind::InvalidArgument, "{header:?}");
        }
    }

    #[test]
    fn nothing_breaks_out_of_a_header() {
        let message = Message::telemetry("").property("a", "x\r\nset-cookie: y");
        assert_eq!(headers(&message).next().unwrap().1, "x%0D%0Aset-cookie: y");
    }
}
