//! How messages travel in one request: one as a body with headers, several, or one that no headers can carry, as a JSON
//! batch. Pure.

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{
    Serialize, Serializer,
    ser::{SerializeMap, SerializeStruct},
};

use crate::{Message, wire::http};

/// Most messages in one request: contract `d2c.md`, "Batching".
const MESSAGES: usize = 500;

/// The content of one request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Load {
    /// How many messages are in it.
    pub(super) count: usize,
    pub(super) form: Form,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Form {
    /// One message.
    Plain { headers: Vec<(String, String)>, body: Bytes },
    /// A batch.
    Json(Vec<u8>),
}

impl Load {
    #[cfg(test)]
    fn size(&self) -> usize {
        match &self.form {
            Form::Plain { body, .. } => body.len(),
            Form::Json(text) => text.len(),
        }
    }
}

/// As many of the messages, from the first on, as fit into one request of `bytes`, at most `limit`, and one at least.
/// None of none.
pub(super) fn load<'a>(
    messages: impl IntoIterator<Item = &'a Message>,
    limit: usize,
    bytes: usize,
) -> Option<Load> {
    let mut messages = messages.into_iter().take(limit.min(MESSAGES)).peekable();
    let first = messages.next()?;
    if messages.peek().is_none()
        && let Some(headers) = plain(first)
    {
        return Some(Load { count: 1, form: Form::Plain { headers, body: first.body().clone() } });
    }
    let mut text = Vec::with_capacity(first.body().len() + 256);
    text.push(b'[');
    member(first, &mut text);
    let mut count = 1;
    for message in messages {
        let before = text.len();
        // Anything but the body comes on top.
        if before + message.body().len() > bytes {
            break;
        }
        text.push(b',');
        member(message, &mut text);
        if text.len() >= bytes {
            text.truncate(before);
            break;
        }
        count += 1;
    }
    if count == 1
        && let Some(headers) = plain(first)
    {
        return Some(Load { count: 1, form: Form::Plain { headers, body: first.body().clone() } });
    }
    text.push(b']');
    Some(Load { count, form: Form::Json(text) })
}

/// The headers of a message, if they bring everything as it is: names of headers have no case, so those of properties
/// must have none either, and values are printable ASCII.
fn plain(message: &Message) -> Option<Vec<(String, String)>> {
    let application =
        message.properties().iter().all(|(name, _)| !name.is_empty() && name.bytes().all(is_low_token));
    let headers: Vec<_> =
        http::headers(message).map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    let values = headers.iter().all(|(_, value)| {
        value.bytes().all(|byte| matches!(byte, b' '..=b'~')) && value.trim_matches(' ').len() == value.len()
    });
    // What was escaped would arrive as something else.
    let same = message.properties().iter().all(|(_, value)| !value.contains(|c: char| c.is_ascii_control()));
    (application && values && same).then_some(headers)
}

fn is_low_token(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn member(message: &Message, out: &mut Vec<u8>) {
    let written = serde_json::to_writer(out, &Member(message));
    debug_assert!(written.is_ok(), "memory takes everything, and a message has a form: {written:?}");
}

struct Member<'a>(&'a Message);

impl Serialize for Member<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let body = self.0.body();
        let text = std::str::from_utf8(body).ok();
        let body = text.map_or_else(|| Cow::Owned(BASE64_STANDARD.encode(body)), Cow::Borrowed);
        let mut member = serializer.serialize_struct("Member", 3)?;
        member.serialize_field("body", &body)?;
        member.serialize_field("base64Encoded", &text.is_none())?;
        member.serialize_field("properties", &Properties(self.0))?;
        member.end()
    }
}

/// System properties under the names of their headers, application properties with the prefix.
struct Properties<'a>(&'a Message);

impl Serialize for Properties<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in http::headers(self.0).filter(|(name, _)| !name.starts_with(http::APPLICATION)) {
            map.serialize_entry(&name, &value)?;
        }
        for (name, value) in self.0.properties().iter() {
            map.serialize_entry(&format!("{}{name}", http::APPLICATION), value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const BYTES: usize = 255 * 1_024 - 1;

    fn json_of(load: &Load) -> Value {
        match &load.form {
            Form::Json(text) => serde_json::from_slice(text).unwrap(),
            Form::Plain { .. } => panic!("{load:?}"),
        }
    }

    #[test]
    fn one_message_is_a_body_with_headers() {
        let message = Message::telemetry(vec![0, 0xff]).message_id("m").property("room", "the attic");
        let load = load([&message], 9, BYTES).unwrap();
        assert_eq!((load.count, load.size()), (1, 2));
        let Form::Plain { headers, body } = load.form else { panic!() };
        assert_eq!(body, message.body());
        let expected = [("iothub-messageid", "m"), ("iothub-app-room", "the attic")];
        assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn what_headers_would_change_goes_as_json() {
        for (name, value) in
            [("Room", "x"), ("größe", "x"), ("a b", "x"), ("a", "ö"), ("a", " x"), ("a", "x\ny")]
        {
            let message = Message::telemetry("text").property(name, value).content_type("text/plain");
            let load = load([&message], 9, BYTES).unwrap();
            let expected = json!([{
                "body": "text",
                "base64Encoded": false,
                "properties": { "iothub-contenttype": "text/plain", (format!("iothub-app-{name}")): value },
            }]);
            assert_eq!(json_of(&load), expected);
        }
        assert!(load([], 9, BYTES).is_none());
    }

    #[test]
    fn several_messages_are_one_batch_in_order() {
        let messages =
            [Message::telemetry("a\"b"), Message::telemetry(vec![0xff, 0]), Message::telemetry("")];
        let load = load(&messages, 9, BYTES).unwrap();
        assert_eq!(load.count, 3);
        let bodies = json!([
            { "body": "a\"b", "base64Encoded": false, "properties": {} },
            { "body": "/wA=", "base64Encoded": true, "properties": {} },
            { "body": "", "base64Encoded": false, "properties": {} },
        ]);
        assert_eq!(json_of(&load), bodies);
        assert_eq!(super::load(&messages, 2, BYTES).unwrap().count, 2);
        assert!(matches!(super::load(&messages, 1, BYTES).unwrap().form, Form::Plain { .. }));
    }

    #[test]
    fn a_batch_keeps_to_its_bounds() {
        let many = vec![Message::telemetry("x"); 1_200];
        assert_eq!(load(&many, usize::MAX, BYTES).unwrap().count, 500);
        for body in [vec![b'x'; 60_000], vec![0xff; 60_000], vec![1; 60_000]] {
            let large = vec![Message::telemetry(body); 9];
            let load = load(&large, 9, BYTES).unwrap();
            assert!(load.size() < 255 * 1_024 && (load.count >= 2 || load.size() > 40_000), "{}", load.count);
        }
        // One that is larger goes alone.
        let one = Message::telemetry(vec![b'x'; 262_000]);
        let load = load([&one, &one], 9, BYTES).unwrap();
        assert!(load.count == 1 && matches!(load.form, Form::Plain { .. }));
    }
}
