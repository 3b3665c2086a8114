//! One event as one line of JSON.
//!
//! The body is `{"json": …}` when the content type says JSON and it is; else `{"text": "…"}` when it is UTF-8; else
//! `{"base64": "…"}`. JSON is passed through as it came (numbers keep every digit), without its line breaks.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use whimbrel::{Message, Result, wire::time};

use crate::events::Event;

/// How bodies are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum BodyForm {
    /// JSON, text or base64, as the body is.
    #[default]
    Auto,
    /// Always base64.
    Base64,
}

/// A message in JSON, as everything below `/v1` shows it.
#[derive(Serialize)]
pub(super) struct MessageView<'a> {
    properties: BTreeMap<&'a str, &'a str>,
    system: SystemTexts<'a>,
    body: Body<'a>,
}

impl<'a> MessageView<'a> {
    pub(super) fn new(message: &'a Message, form: BodyForm) -> Self {
        Self {
            properties: message.properties().iter().collect(),
            system: SystemTexts::new(message),
            body: body(message, form),
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    partition: u32,
    sequence: u64,
    offset: String,
    enqueued_at: String,
    device: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<&'a str>,
    lane: &'static str,
    properties: BTreeMap<&'a str, &'a str>,
    system: SystemView<'a>,
    body: Body<'a>,
}

#[derive(Serialize)]
struct SystemView<'a> {
    #[serde(flatten)]
    texts: SystemTexts<'a>,
    generation: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_method: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct SystemTexts<'a> {
    #[serde(flatten)]
    texts: BTreeMap<&'static str, &'a str>,
    #[serde(flatten)]
    times: BTreeMap<&'static str, String>,
}

impl<'a> SystemTexts<'a> {
    fn new(message: &'a Message) -> Self {
        let system = message.system();
        let texts = [
            ("message_id", &system.message_id),
            ("correlation_id", &system.correlation_id),
            ("user_id", &system.user_id),
            ("content_type", &system.content_type),
            ("content_encoding", &system.content_encoding),
            ("to", &system.to),
            ("message_schema", &system.message_schema),
            ("output_name", &system.output_name),
            ("interface_id", &system.interface_id),
            ("component", &system.component),
            ("diagnostic_id", &system.diagnostic_id),
            ("diagnostic_context", &system.diagnostic_context),
        ];
        let times = [("creation_time", system.creation_time), ("expiry_time", system.expiry_time)];
        Self {
            texts: texts.into_iter().filter_map(|(name, text)| Some((name, text.as_deref()?))).collect(),
            times: times.into_iter().filter_map(|(name, at)| Some((name, time::format(at?)))).collect(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Body<'a> {
    Json(std::borrow::Cow<'a, RawValue>),
    Text(&'a str),
    Base64(String),
}

/// An event as one line, for the documents.
#[derive(ToSchema)]
#[schema(as = Event)]
#[allow(dead_code, reason = "what is written is Line, which borrows")]
pub(super) struct LineSchema {
    partition: u32,
    sequence: u64,
    /// Position in the log, as a text.
    offset: String,
    enqueued_at: String,
    device: String,
    /// Only for events of a module.
    module: Option<String>,
    /// `telemetry` or `alert`.
    lane: String,
    properties: BTreeMap<String, String>,
    /// `generation`, `auth_method`, and of `message_id`, `content_type`, `creation_time` and the like those that are set.
    system: BTreeMap<String, serde_json::Value>,
    body: BodySchema,
}

/// A body, for the documents: one of the three.
#[derive(ToSchema)]
#[schema(as = Body)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code, reason = "what is written is Body, which borrows")]
pub(super) enum BodySchema {
    /// When the content type says JSON and it is.
    Json(serde_json::Value),
    /// When it is UTF-8.
    Text(String),
    /// Any other.
    Base64(String),
}

/// Appends the line, its end included.
///
/// # Errors
/// `JournalCorrupt` when the stored message cannot be read.
pub(super) fn write(event: &Event, form: BodyForm, out: &mut Vec<u8>) -> Result<()> {
    let message = event.message()?;
    let line = Line {
        partition: event.partition,
        sequence: event.sequence,
        offset: event.offset.to_string(),
        enqueued_at: time::format(event.enqueued_at),
        device: &event.device,
        module: event.module.as_deref(),
        lane: message.lane().name(),
        properties: message.properties().iter().collect(),
        system: SystemView {
            texts: SystemTexts::new(&message),
            generation: &event.generation,
            auth_method: serde_json::from_str(&event.auth_method).ok(),
        },
        body: body(&message, form),
    };
    let start = out.len();
    if serde_json::to_writer(&mut *out, &line).is_err() {
        // Maps with text keys into memory: there is nothing in this that can fail.
        out.truncate(start);
        return Err(whimbrel::Error::new(
            whimbrel::ErrorKind::Internal,
            "hub.events",
            "an event is not JSON",
        ));
    }
    out.push(b'\n');
    Ok(())
}

fn body(message: &Message, form: BodyForm) -> Body<'_> {
    let bytes: &Bytes = message.body();
    let text = match std::str::from_utf8(bytes) {
        Ok(text) if form == BodyForm::Auto => text,
        _ => return Body::Base64(BASE64_STANDARD.encode(bytes)),
    };
    let says_json = message.system().content_type.as_deref().is_some_and(is_json);
    match says_json.then(|| one_line(text)).flatten() {
        Some(json) => Body::Json(json),
        None => Body::Text(text),
    }
}

/// `application/json`, or anything with the suffix `+json`, parameters aside.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

/// The JSON text, byte for byte but for line breaks; `None` when it is no JSON.
fn one_line(text: &str) -> Option<std::borrow::Cow<'_, RawValue>> {
    let value: &RawValue = serde_json::from_str(text).ok()?;
    // Inside of strings JSON has no raw line breaks, so these all stand between tokens.
    if value.get().contains(['\n', '\r']) {
        RawValue::from_string(value.get().replace(['\n', '\r'], " ")).ok().map(std::borrow::Cow::Owned)
    } else {
        Some(std::borrow::Cow::Borrowed(value))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use serde_json::{Value, json};
    use whimbrel::wire::record;

    use super::*;

    fn line(message: &Message, form: BodyForm) -> (String, Value) {
        let mut bytes = Vec::new();
        record::encode(message, &mut bytes);
        let event = Event {
            partition: 3,
            sequence: u64::MAX,
            offset: 9_007_199_254_740_993,
            enqueued_at: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            device: "d".into(),
            module: None,
            generation: "g".into(),
            auth_method: r#"{"scope":"device"}"#.into(),
            record: bytes.into(),
        };
        let mut out = Vec::new();
        write(&event, form, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let value = serde_json::from_str(&text).unwrap();
        (text, value)
    }

    fn body_of(message: &Message) -> Value {
        line(message, BodyForm::Auto).1["body"].clone()
    }

    #[test]
    fn everything_an_event_has_is_there() {
        let message = Message::alert("x").property("b", "2").property("a", "1 \"\n").message_id("m1");
        let (text, value) = line(&message, BodyForm::Auto);
        assert_eq!(
            value,
            json!({
                "partition": 3,
                "sequence": u64::MAX,
                "offset": "9007199254740993",
                "enqueued_at": "2023-11-14T22:13:20.1230000Z",
                "device": "d",
                "lane": "alert",
                "properties": {"a": "1 \"\n", "b": "2"},
                "system": {"message_id": "m1", "generation": "g", "auth_method": {"scope": "device"}},
                "body": {"text": "x"},
            }),
            "{text}"
        );
    }

    #[test]
    fn bodies_are_json_text_or_base64() {
        let json_body =
            |body: &'static str| Message::telemetry(body).content_type("application/json; charset=utf-8");
        assert_eq!(body_of(&json_body(r#"{"t":21.5}"#)), json!({"json": {"t": 21.5}}));
        assert_eq!(body_of(&json_body("{\r\n \"t\": [1,\n2]}\n")), json!({"json": {"t": [1, 2]}}));
        assert_eq!(body_of(&json_body("{\"t\":")), json!({"text": "{\"t\":"}), "says JSON and is not");
        assert_eq!(
            body_of(&Message::telemetry(r#"{"t":1}"#)),
            json!({"text": "{\"t\":1}"}),
            "does not say JSON"
        );
        assert_eq!(
            body_of(&Message::telemetry("1").content_type("application/vnd.x+JSON")),
            json!({"json": 1})
        );
        assert_eq!(body_of(&Message::telemetry(&b"\xff\x00"[..])), json!({"base64": "/wA="}));
        assert_eq!(body_of(&Message::telemetry("")), json!({"text": ""}));
        assert_eq!(body_of(&json_body("")), json!({"text": ""}));
        assert_eq!(line(&json_body("1"), BodyForm::Base64).1["body"], json!({"base64": "MQ=="}));
    }

    #[test]
    fn numbers_keep_every_digit() {
        let message =
            Message::telemetry("[123456789012345678901234567890,1.10]").content_type("application/json");
        let (text, _) = line(&message, BodyForm::Auto);
        assert!(text.contains("{\"json\":[123456789012345678901234567890,1.10]}"), "{text}");
    }
}
