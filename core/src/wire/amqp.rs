//! AMQP 1.0: messages as sections, addresses, and names of annotations. Contract `amqp.md`, `messages.md`.
//!
//! ```
//! use whimbrel::{Lane, Message, wire::amqp};
//!
//! let message = Message::telemetry("21.5").message_id("m-1").property("room", "attic");
//! let read = amqp::decode(amqp::encode(&message), Lane::Telemetry)?;
//! assert_eq!(read.message, message);
//! # Ok::<(), whimbrel::Error>(())
//! ```

use std::time::{Duration, SystemTime};

use bytes::{BufMut, Bytes, BytesMut};
use fe2o3_amqp_types::{
    messaging::{
        self, ApplicationProperties, Batch, Body, Data, MessageAnnotations, MessageId,
        Properties as AmqpProperties,
        annotations::{Annotations, OwnedKey},
    },
    primitives::{Binary, OrderedMap, SimpleValue, Symbol, Timestamp, Value},
};

use serde::Serialize;
use serde_amqp::ser::Serializer;

use super::{percent, time};
use crate::{Error, ErrorKind, Lane, Message, Properties, Result, SystemProperties};

/// A message as the AMQP crate has it.
pub type AmqpMessage = messaging::Message<Body<Value>>;

/// Sub-protocol of AMQP over WebSocket.
pub const SUBPROTOCOL: &str = "AMQPWSB10";
/// Message format of a batch: each data section is a whole encoded message.
pub const BATCH_FORMAT: u32 = 0x8001_3700;
/// Name of the node for tokens.
pub const CBS: &str = "$cbs";
/// Name of the node that describes the event log.
pub const MANAGEMENT: &str = "$management";
/// Type of a SAS token in `put-token`.
pub const SAS_TOKEN: &str = "servicebus.windows.net:sastoken";
/// Address that commands are sent to.
pub const COMMANDS: &str = "/messages/devicebound";
/// Address that feedback is received from.
pub const FEEDBACK: &str = "/messages/serviceBound/feedback";
/// Address below which events are read.
pub const EVENTS: &str = "/messages/events";
/// Ours: address that outcomes of commands are received from, as they happen, without taking them from anybody. Body: a
/// JSON array of [feedback records](super::feedback::Feedback).
pub const OUTCOMES: &str = "/messages/whimbrel/outcomes";
/// Ours: a capability a client desires on the feedback link to get feedback at once, without waiting for a full batch.
pub const AT_ONCE: &str = "whimbrel:at-once";

/// Ours: in the info of an error, how many milliseconds to wait before trying again (uint or ulong).
pub const RETRY_AFTER: &str = "whimbrel:retry-after";

/// Names of annotations.
pub mod annotation {
    /// Sequence number: of a command ulong, of an event long.
    pub const SEQUENCE: &str = "x-opt-sequence-number";
    /// Offset of an event, string.
    pub const OFFSET: &str = "x-opt-offset";
    /// When an event was written to the log, timestamp.
    pub const LOGGED_AT: &str = "x-opt-enqueued-time";
    /// Lock token of a command.
    pub const LOCK: &str = "x-opt-lock-token";
    /// When the hub took the message in, timestamp.
    pub const ENQUEUED_AT: &str = "iothub-enqueuedtime";
    /// Deliveries of a command that counted, ubyte.
    pub const DELIVERY_COUNT: &str = "iothub-deliverycount";
    /// Device that sent an event.
    pub const DEVICE: &str = "iothub-connection-device-id";
    /// Module that sent an event.
    pub const MODULE: &str = "iothub-connection-module-id";
    /// Generation of the device that sent an event.
    pub const GENERATION: &str = "iothub-connection-auth-generation-id";
    /// How the sender of an event proved itself, JSON.
    pub const AUTH_METHOD: &str = "iothub-connection-auth-method";
    /// What kind of event it is.
    pub const SOURCE: &str = "iothub-message-source";
    /// Interface id of a security message.
    pub const INTERFACE: &str = "iothub-interface-id";
    /// Component a message belongs to.
    pub const COMPONENT: &str = "dt-subject";
    /// Trace id.
    pub const DIAGNOSTIC_ID: &str = "Diagnostic-Id";
    /// Trace context.
    pub const DIAGNOSTIC_CONTEXT: &str = "Correlation-Context";
}

/// Application property that the creation time travels as.
pub const CREATION_TIME: &str = "iothub-creation-time-utc";
/// Application property that the schema of the content travels as.
pub const SCHEMA: &str = "iothub-message-schema";
/// Application property that the output of a module travels as.
pub const OUTPUT: &str = "iothub-outputname";

/// Address of a device's queue of commands, its id percent-encoded, as `to` of a command and as source of a link.
pub fn device_commands(device: &str) -> String {
    format!("/devices/{}/messages/devicebound", percent::encoded(device))
}

/// Address a device sends events to.
pub fn device_events(device: &str, module: Option<&str>) -> String {
    let device = percent::encoded(device);
    match module {
        Some(module) => format!("/devices/{device}/modules/{}/messages/events", percent::encoded(module)),
        None => format!("/devices/{device}/messages/events"),
    }
}

/// A message as AMQP sections; the annotations hold only what the sender set.
pub fn encode(message: &Message) -> AmqpMessage {
    let (annotations, properties, application) = head(message);
    AmqpMessage {
        header: None,
        delivery_annotations: None,
        message_annotations: annotations,
        properties: Some(properties),
        application_properties: application,
        body: Body::Data(Batch::new(vec![Data(Binary::from(message.body().to_vec()))])),
        footer: None,
    }
}

/// Appends a message as it travels: what [`encode`] gives, with one copy of the body less.
pub fn encode_into(message: &Message, out: &mut BytesMut) {
    let (annotations, properties, application) = head(message);
    let body = message.body();
    out.reserve(body.len() + 256);
    if let Some(annotations) = &annotations {
        append(annotations, out);
    }
    append(&properties, out);
    if let Some(application) = &application {
        append(application, out);
    }
    out.put_slice(&[0, 0x53, 0x75]);
    match u8::try_from(body.len()) {
        Ok(length) => out.put_slice(&[0xa0, length]),
        Err(_) => {
            out.put_u8(0xb0);
            out.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
        }
    }
    out.put_slice(body);
}

fn append(section: &impl Serialize, out: &mut BytesMut) {
    let written = section.serialize(&mut Serializer::from(out.writer()));
    debug_assert!(written.is_ok(), "memory takes everything, and a section has a form: {written:?}");
}

/// Everything before the body.
fn head(message: &Message) -> (Option<MessageAnnotations>, AmqpProperties, Option<ApplicationProperties>) {
    let system = message.system();
    let mut application = OrderedMap::new();
    let mut put = |name: &str, value: &str| {
        application.insert(name.to_owned(), SimpleValue::String(value.to_owned()));
    };
    for (name, value) in message.properties().iter() {
        put(name, value);
    }
    if let Some(at) = system.creation_time {
        put(CREATION_TIME, &time::format(at));
    }
    for (name, value) in [(SCHEMA, &system.message_schema), (OUTPUT, &system.output_name)] {
        if let Some(value) = value {
            put(name, value);
        }
    }
    let mut annotations = Annotations::new();
    for (name, value) in [
        (annotation::INTERFACE, &system.interface_id),
        (annotation::COMPONENT, &system.component),
        (annotation::DIAGNOSTIC_ID, &system.diagnostic_id),
        (annotation::DIAGNOSTIC_CONTEXT, &system.diagnostic_context),
    ] {
        if let Some(value) = value {
            annotate(&mut annotations, name, Value::String(value.clone()));
        }
    }
    let properties = AmqpProperties {
        message_id: system.message_id.clone().map(MessageId::String),
        correlation_id: system.correlation_id.clone().map(MessageId::String),
        user_id: system.user_id.as_ref().map(|id| Binary::from(id.as_bytes().to_vec())),
        to: system.to.clone(),
        content_type: system.content_type.clone().map(Symbol),
        content_encoding: system.content_encoding.clone().map(Symbol),
        absolute_expiry_time: system.expiry_time.map(timestamp),
        ..AmqpProperties::default()
    };
    (
        (!annotations.is_empty()).then_some(MessageAnnotations(annotations)),
        properties,
        (!application.is_empty()).then_some(ApplicationProperties(application)),
    )
}

/// What an AMQP message was.
#[derive(Debug)]
pub struct Decoded {
    /// The message.
    pub message: Message,
    /// The annotations that are not part of it.
    pub annotations: Annotations,
}

/// Reads AMQP sections. Values of application properties that are not text become text. An AMQP value as body has to be
/// text or binary.
///
/// # Errors
/// `InvalidArgument` for a body of sequences, or a value that is neither text nor binary.
pub fn decode(amqp: AmqpMessage, lane: Lane) -> Result<Decoded> {
    let body = body(amqp.body)?;
    let mut system = SystemProperties::default();
    if let Some(properties) = amqp.properties {
        system.message_id = properties.message_id.map(id_text);
        system.correlation_id = properties.correlation_id.map(id_text);
        system.user_id = properties.user_id.map(|id| String::from_utf8_lossy(&id).into_owned());
        system.to = properties.to;
        system.content_type = properties.content_type.map(|Symbol(text)| text);
        system.content_encoding = properties.content_encoding.map(|Symbol(text)| text);
        system.expiry_time = properties.absolute_expiry_time.and_then(|at| from_timestamp(&at));
    }
    let mut pairs = Vec::new();
    for (name, value) in amqp.application_properties.into_iter().flat_map(|properties| properties.0) {
        let value = simple_text(value);
        match name.as_str() {
            CREATION_TIME => match time::parse(&value) {
                Some(at) => system.creation_time = Some(at),
                None => pairs.push((name, value)),
            },
            SCHEMA => system.message_schema = Some(value),
            OUTPUT => system.output_name = Some(value),
            _ => pairs.push((name, value)),
        }
    }
    let mut annotations = amqp.message_annotations.map(|known| known.0).unwrap_or_default();
    for (name, slot) in [
        (annotation::INTERFACE, &mut system.interface_id),
        (annotation::COMPONENT, &mut system.component),
        (annotation::DIAGNOSTIC_ID, &mut system.diagnostic_id),
        (annotation::DIAGNOSTIC_CONTEXT, &mut system.diagnostic_context),
    ] {
        if let Some(value) = annotations.swap_remove(&OwnedKey::from(name)) {
            *slot = text(&value).map(str::to_owned);
        }
    }
    let message = Message::from_parts(lane, body, Properties::from_pairs(pairs), system);
    Ok(Decoded { message, annotations })
}

/// Sets an annotation.
pub fn annotate(annotations: &mut Annotations, name: &str, value: impl Into<Value>) {
    annotations.insert(OwnedKey::from(name), value.into());
}

/// The text in a value, if it is one.
pub fn text(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) | Value::Symbol(Symbol(text)) => Some(text),
        _ => None,
    }
}

/// The whole number in a value, of any integer type; `None` below zero.
pub fn number(value: &Value) -> Option<u64> {
    match *value {
        Value::Ubyte(number) => Some(number.into()),
        Value::Ushort(number) => Some(number.into()),
        Value::Uint(number) => Some(number.into()),
        Value::Ulong(number) => Some(number),
        Value::Byte(number) => number.try_into().ok(),
        Value::Short(number) => number.try_into().ok(),
        Value::Int(number) => number.try_into().ok(),
        Value::Long(number) => number.try_into().ok(),
        _ => None,
    }
}

/// The time in a value, if it is a timestamp.
pub fn time(value: &Value) -> Option<SystemTime> {
    match value {
        Value::Timestamp(at) => from_timestamp(at),
        _ => None,
    }
}

/// An annotation by its name.
pub fn annotation<'a>(annotations: &'a Annotations, name: &str) -> Option<&'a Value> {
    annotations.get(&OwnedKey::from(name))
}

/// A time as AMQP has it: milliseconds since 1970.
pub fn timestamp(at: SystemTime) -> Timestamp {
    let (seconds, nanos) = time::since_epoch(at);
    Timestamp::from_milliseconds(seconds.saturating_mul(1_000).saturating_add(i64::from(nanos / 1_000_000)))
}

/// The time of a timestamp, where a `SystemTime` can hold it.
pub fn from_timestamp(at: &Timestamp) -> Option<SystemTime> {
    let millis = at.milliseconds();
    let distance = Duration::from_millis(millis.unsigned_abs());
    match millis < 0 {
        true => SystemTime::UNIX_EPOCH.checked_sub(distance),
        false => SystemTime::UNIX_EPOCH.checked_add(distance),
    }
}

fn body(body: Body<Value>) -> Result<Bytes> {
    let unusable = || {
        Error::new(
            ErrorKind::InvalidArgument,
            OPERATION,
            "the body is neither data sections nor a text or binary value",
        )
    };
    match body {
        Body::Data(sections) => {
            let mut sections = sections.into_iter();
            let Some(first) = sections.next() else { return Ok(Bytes::new()) };
            let first = Bytes::from(first.0.into_vec());
            let Some(second) = sections.next() else { return Ok(first) };
            let mut whole = BytesMut::from(&first[..]);
            whole.extend_from_slice(&second.0);
            sections.for_each(|section| whole.extend_from_slice(&section.0));
            Ok(whole.freeze())
        }
        Body::Value(value) => match value.0 {
            Value::String(text) => Ok(text.into()),
            Value::Binary(bytes) => Ok(bytes.into_vec().into()),
            Value::Null => Ok(Bytes::new()),
            _ => Err(unusable()),
        },
        Body::Empty => Ok(Bytes::new()),
        Body::Sequence(_) => Err(unusable()),
    }
}

/// An id as text: a UUID in its usual form, bytes as hexadecimal digits.
fn id_text(id: MessageId) -> String {
    match id {
        MessageId::String(text) => text,
        MessageId::Ulong(number) => number.to_string(),
        MessageId::Uuid(uuid) => uuid_text(&uuid.into_inner()),
        MessageId::Binary(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

fn uuid_text(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

fn simple_text(value: SimpleValue) -> String {
    match value {
        SimpleValue::String(text) | SimpleValue::Symbol(Symbol(text)) => text,
        SimpleValue::Null => String::new(),
        SimpleValue::Bool(value) => value.to_string(),
        SimpleValue::Ubyte(value) => value.to_string(),
        SimpleValue::Ushort(value) => value.to_string(),
        SimpleValue::Uint(value) => value.to_string(),
        SimpleValue::Ulong(value) => value.to_string(),
        SimpleValue::Byte(value) => value.to_string(),
        SimpleValue::Short(value) => value.to_string(),
        SimpleValue::Int(value) => value.to_string(),
        SimpleValue::Long(value) => value.to_string(),
        SimpleValue::Float(value) => value.to_string(),
        SimpleValue::Double(value) => value.to_string(),
        SimpleValue::Char(value) => value.to_string(),
        SimpleValue::Uuid(uuid) => uuid_text(&uuid.into_inner()),
        SimpleValue::Timestamp(at) => match from_timestamp(&at) {
            Some(at) => time::format(at),
            None => at.milliseconds().to_string(),
        },
        SimpleValue::Binary(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        other => format!("{other:?}"),
    }
}

const OPERATION: &str = "amqp.decode";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_system_property_comes_back() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_769_860_800_123);
        let mut message = Message::telemetry("body").property("room", "attic").property("größe", "");
        *message.system_mut() = SystemProperties {
            message_id: Some("m".into()),
            correlation_id: Some("c".into()),
            user_id: Some("u".into()),
            content_type: Some("application/json".into()),
            content_encoding: Some("utf-8".into()),
            creation_time: Some(at),
            expiry_time: Some(at),
            to: Some("/devices/d/messages/devicebound".into()),
            message_schema: Some("s".into()),
            output_name: Some("o".into()),
            interface_id: Some("i".into()),
            component: Some("p".into()),
            diagnostic_id: Some("x".into()),
            diagnostic_context: Some("y".into()),
        };
        let mut amqp = encode(&message);
        annotate(&mut amqp.message_annotations.as_mut().unwrap().0, annotation::SEQUENCE, Value::Long(7));
        let read = decode(amqp, Lane::Telemetry).unwrap();
        assert_eq!(read.message, message);
        assert_eq!(annotation(&read.annotations, annotation::SEQUENCE).and_then(number), Some(7));
        assert_eq!(read.annotations.len(), 1);
    }

    #[test]
    fn bodies_of_every_kind_are_read_or_refused() {
        let with = |body| AmqpMessage { body, ..encode(&Message::telemetry("")) };
        let data = |parts: &[&str]| {
            Body::Data(Batch::new(
                parts.iter().map(|part| Data(Binary::from(part.as_bytes().to_vec()))).collect::<Vec<_>>(),
            ))
        };
        for (body, expected) in [
            (data(&["ab"]), "ab"),
            (data(&["ab", "", "cd"]), "abcd"),
            (Body::Empty, ""),
            (Body::from(Value::String("ab".into())), "ab"),
            (Body::from(Value::Null), ""),
        ] {
            assert_eq!(decode(with(body), Lane::Telemetry).unwrap().message.body(), expected);
        }
        let error = decode(with(Body::from(Value::Int(1))), Lane::Telemetry).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn ids_of_other_types_become_text() {
        let uuid = [0x6f, 0x2c, 0x3b, 0x1a, 0, 1, 0x40, 2, 0x80, 3, 0, 0, 0, 0, 0, 0xff];
        assert_eq!(id_text(MessageId::Uuid(uuid.into())), "6f2c3b1a-0001-4002-8003-0000000000ff");
        assert_eq!(id_text(MessageId::Ulong(7)), "7");
        assert_eq!(id_text(MessageId::Binary(Binary::from(vec![1, 0xfe]))), "01fe");
    }
}
