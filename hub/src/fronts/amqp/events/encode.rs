//! An event as the sections of an AMQP message, written straight into bytes: this is what reading at full speed spends
//! its time on.

use std::time::{SystemTime, UNIX_EPOCH};

use whimbrel::{
    Message, Result, SystemProperties,
    wire::{
        amqp::{CREATION_TIME, OUTPUT, SCHEMA, annotation},
        time,
    },
};

use super::management::last_offset;
use crate::events::{Event, PartitionState};

/// What a reader is told about its partition beside each event, when it asked for that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Metric {
    /// The partition, looked at lately.
    pub(super) state: PartitionState,
    /// When it was looked at.
    pub(super) at: SystemTime,
}

/// Appends the message that `event` is.
///
/// # Errors
/// As [`Event::message`]: nothing was appended.
pub(super) fn encode(event: &Event, metric: Option<&Metric>, out: &mut Vec<u8>) -> Result<()> {
    let message = event.message()?;
    if let Some(metric) = metric {
        delivery_annotations(metric, out);
    }
    annotations(event, message.system(), out);
    properties(message.system(), out);
    application_properties(&message, out);
    section(DATA, out);
    binary(message.body(), out);
    Ok(())
}

fn delivery_annotations(Metric { state, at }: &Metric, out: &mut Vec<u8>) {
    section(DELIVERY_ANNOTATIONS, out);
    let mut map = Compound::map(out);
    map.long("last_enqueued_sequence_number", last_sequence(state));
    map.text("last_enqueued_offset", &last_offset(state));
    map.time("last_enqueued_time_utc", millis(state.last_enqueued_at.unwrap_or(UNIX_EPOCH)));
    map.time("runtime_info_retrieval_time_utc", millis(*at));
    map.end();
}

fn annotations(event: &Event, system: &SystemProperties, out: &mut Vec<u8>) {
    section(MESSAGE_ANNOTATIONS, out);
    let enqueued_at = millis(event.enqueued_at);
    let mut digits = [0; 20];
    let mut map = Compound::map(out);
    // The log numbers from 0 up; it does not reach what a long cannot hold.
    map.long(annotation::SEQUENCE, event.sequence as i64);
    map.text(annotation::OFFSET, decimal(event.offset, &mut digits));
    map.time(annotation::LOGGED_AT, enqueued_at);
    map.time(annotation::ENQUEUED_AT, enqueued_at);
    map.text(annotation::DEVICE, &event.device);
    if let Some(module) = &event.module {
        map.text(annotation::MODULE, module);
    }
    map.text(annotation::GENERATION, &event.generation);
    map.text(annotation::AUTH_METHOD, &event.auth_method);
    map.text(annotation::SOURCE, "Telemetry");
    for (name, value) in [
        (annotation::INTERFACE, &system.interface_id),
        (annotation::COMPONENT, &system.component),
        (annotation::DIAGNOSTIC_ID, &system.diagnostic_id),
        (annotation::DIAGNOSTIC_CONTEXT, &system.diagnostic_context),
    ] {
        if let Some(value) = value {
            map.text(name, value);
        }
    }
    map.end();
}

/// All of the list, for clients that count on it; or no section at all.
fn properties(system: &SystemProperties, out: &mut Vec<u8>) {
    let SystemProperties { message_id, correlation_id, user_id, content_type, content_encoding, .. } = system;
    let texts = [message_id, correlation_id, user_id, content_type, content_encoding, &system.to];
    if texts.iter().all(|text| text.is_none()) && system.expiry_time.is_none() {
        return;
    }
    section(PROPERTIES, out);
    let mut list = Compound::list(out);
    list.element(message_id.as_deref(), string);
    list.element(user_id.as_deref(), |text, out| binary(text.as_bytes(), out));
    list.element(system.to.as_deref(), string);
    list.nulls(2); // subject, reply-to
    list.element(correlation_id.as_deref(), string);
    list.element(content_type.as_deref(), symbol);
    list.element(content_encoding.as_deref(), symbol);
    list.element(system.expiry_time, |at, out| timestamp(millis(at), out));
    list.nulls(4); // creation-time, group-id, group-sequence, reply-to-group-id
    list.end();
}

fn application_properties(message: &Message, out: &mut Vec<u8>) {
    let system = message.system();
    let texts = [(SCHEMA, &system.message_schema), (OUTPUT, &system.output_name)];
    let is_empty = message.properties().is_empty()
        && system.creation_time.is_none()
        && texts.iter().all(|(_, text)| text.is_none());
    if is_empty {
        return;
    }
    section(APPLICATION_PROPERTIES, out);
    let mut map = Compound::map(out);
    for (name, value) in message.properties().iter() {
        map.entry(|out| string(name, out), |out| string(value, out));
    }
    if let Some(at) = system.creation_time {
        let at = time::format(at);
        map.entry(|out| string(CREATION_TIME, out), |out| string(&at, out));
    }
    for (name, value) in texts {
        if let Some(value) = value {
            map.entry(|out| string(name, out), |out| string(value, out));
        }
    }
    map.end();
}

/// Sequence number of the newest event; -1 when there was none yet.
pub(super) fn last_sequence(state: &PartitionState) -> i64 {
    i64::try_from(state.next).map_or(i64::MAX, |next| next - 1)
}

/// Milliseconds since 1970.
fn millis(at: SystemTime) -> i64 {
    let (seconds, nanos) = match at.duration_since(UNIX_EPOCH) {
        Ok(after) => (i64::try_from(after.as_secs()).unwrap_or(i64::MAX), after.subsec_millis()),
        Err(before) => {
            let before = i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX);
            return before.saturating_neg();
        }
    };
    seconds.saturating_mul(1_000).saturating_add(nanos.into())
}

/// A list or map being written: size and count are filled in at the end.
struct Compound<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    count: u32,
}

impl<'a> Compound<'a> {
    fn map(out: &'a mut Vec<u8>) -> Self {
        Self::begin(0xd1, out)
    }

    fn list(out: &'a mut Vec<u8>) -> Self {
        Self::begin(0xd0, out)
    }

    fn begin(code: u8, out: &'a mut Vec<u8>) -> Self {
        out.push(code);
        let start = out.len();
        out.extend_from_slice(&[0; 8]);
        Self { out, start, count: 0 }
    }

    fn entry(&mut self, key: impl FnOnce(&mut Vec<u8>), value: impl FnOnce(&mut Vec<u8>)) {
        key(self.out);
        value(self.out);
        self.count += 2;
    }

    fn long(&mut self, name: &str, value: i64) {
        self.entry(|out| symbol(name, out), |out| long(value, out));
    }

    fn text(&mut self, name: &str, value: &str) {
        self.entry(|out| symbol(name, out), |out| string(value, out));
    }

    fn time(&mut self, name: &str, millis: i64) {
        self.entry(|out| symbol(name, out), |out| timestamp(millis, out));
    }

    fn element<T>(&mut self, value: Option<T>, put: impl FnOnce(T, &mut Vec<u8>)) {
        match value {
            Some(value) => put(value, self.out),
            None => self.out.push(NULL),
        }
        self.count += 1;
    }

    fn nulls(&mut self, count: u32) {
        (0..count).for_each(|_| self.element(None::<()>, |(), _| ()));
    }

    fn end(self) {
        let Self { out, start, count } = self;
        // The size does not count itself. Events are far below what four bytes can say.
        let size = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
        if let Some([size_slot, count_slot]) =
            out.get_mut(start..start + 8).map(|slot| slot.as_chunks_mut::<4>().0)
        {
            *size_slot = size.to_be_bytes();
            *count_slot = count.to_be_bytes();
        }
    }
}

fn section(code: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x00, 0x53, code]);
}

fn long(value: i64, out: &mut Vec<u8>) {
    match i8::try_from(value) {
        Ok(small) => out.extend_from_slice(&[0x55, small as u8]),
        Err(_) => {
            out.push(0x81);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

fn timestamp(millis: i64, out: &mut Vec<u8>) {
    out.push(0x83);
    out.extend_from_slice(&millis.to_be_bytes());
}

fn string(text: &str, out: &mut Vec<u8>) {
    variable(0xa1, text.as_bytes(), out);
}

fn symbol(text: &str, out: &mut Vec<u8>) {
    variable(0xa3, text.as_bytes(), out);
}

fn binary(bytes: &[u8], out: &mut Vec<u8>) {
    variable(0xa0, bytes, out);
}

/// `code` is the one for lengths of one byte; the one for four bytes is 16 more.
fn variable(code: u8, bytes: &[u8], out: &mut Vec<u8>) {
    match u8::try_from(bytes.len()) {
        Ok(length) => out.extend_from_slice(&[code, length]),
        Err(_) => {
            out.push(code + 0x10);
            // Events are far below what four bytes can say.
            out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
    out.extend_from_slice(bytes);
}

/// The number as text.
fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &str {
    let mut start = digits.len();
    for (at, slot) in digits.iter_mut().enumerate().rev() {
        *slot = b'0' + (number % 10) as u8;
        start = at;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    digits.get(start..).and_then(|digits| std::str::from_utf8(digits).ok()).unwrap_or_default()
}

const DELIVERY_ANNOTATIONS: u8 = 0x71;
const MESSAGE_ANNOTATIONS: u8 = 0x72;
const PROPERTIES: u8 = 0x73;
const APPLICATION_PROPERTIES: u8 = 0x74;
const DATA: u8 = 0x75;
const NULL: u8 = 0x40;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use fe2o3_amqp_types::{
        messaging::{Body, message::DecodeIntoMessage},
        primitives::Value,
    };
    use proptest::prelude::*;
    use whimbrel::{
        Lane,
        wire::{self, amqp},
    };

    use super::*;

    fn event(message: &Message) -> Event {
        let mut record = Vec::new();
        wire::record::encode(message, &mut record);
        Event {
            partition: 3,
            sequence: 1_000,
            offset: 70_000,
            enqueued_at: UNIX_EPOCH + Duration::from_millis(1_769_860_800_123),
            device: "d-1".into(),
            module: Some("m-1".into()),
            generation: "17".into(),
            auth_method: r#"{"scope":"device"}"#.into(),
            record: record.into(),
        }
    }

    fn decoded(event: &Event, metric: Option<&Metric>) -> amqp::AmqpMessage {
        let mut bytes = Vec::new();
        encode(event, metric, &mut bytes).unwrap();
        Body::<Value>::decode_message_from_reader(serde_amqp::read::SliceReader::new(&bytes)).unwrap()
    }

    #[test]
    fn readers_find_every_stamp() {
        let mut message = Message::telemetry("body").property("mqtt-retain", "true");
        message.system_mut().interface_id = Some("urn:if".into());
        message.system_mut().component = Some("pump".into());
        let read = amqp::decode(decoded(&event(&message), None), Lane::Telemetry).unwrap();
        assert_eq!(read.message, message);
        let found = |name| amqp::annotation(&read.annotations, name);
        let at = Value::Timestamp(1_769_860_800_123_i64.into());
        let expected = [
            (annotation::SEQUENCE, Value::Long(1_000)),
            (annotation::OFFSET, Value::String("70000".into())),
            (annotation::LOGGED_AT, at.clone()),
            (annotation::ENQUEUED_AT, at),
            (annotation::DEVICE, Value::String("d-1".into())),
            (annotation::MODULE, Value::String("m-1".into())),
            (annotation::GENERATION, Value::String("17".into())),
            (annotation::AUTH_METHOD, Value::String(r#"{"scope":"device"}"#.into())),
            (annotation::SOURCE, Value::String("Telemetry".into())),
        ];
        assert_eq!(read.annotations.len(), expected.len());
        for (name, value) in expected {
            assert_eq!(found(name), Some(&value), "{name}");
        }
    }

    #[test]
    fn what_a_device_writes_does_not_become_a_stamp() {
        let message = Message::telemetry("").property(annotation::DEVICE, "somebody else");
        let read = amqp::decode(decoded(&event(&message), None), Lane::Telemetry).unwrap();
        let device = amqp::annotation(&read.annotations, annotation::DEVICE);
        assert_eq!(device.and_then(amqp::text), Some("d-1"));
        assert_eq!(read.message, message);
    }

    #[test]
    fn the_metric_stands_beside_the_event() {
        let state = PartitionState {
            partition: 3,
            first: 5,
            next: 10,
            last_offset: Some(77),
            last_enqueued_at: None,
        };
        let at = UNIX_EPOCH + Duration::from_millis(5);
        let message = decoded(&event(&Message::telemetry("")), Some(&Metric { state, at }));
        let found = message.delivery_annotations.unwrap().0;
        let found = |name| amqp::annotation(&found, name).unwrap();
        assert_eq!(*found("last_enqueued_sequence_number"), Value::Long(9));
        assert_eq!(*found("last_enqueued_offset"), Value::String("77".into()));
        assert_eq!(*found("last_enqueued_time_utc"), Value::Timestamp(0.into()));
        assert_eq!(*found("runtime_info_retrieval_time_utc"), Value::Timestamp(5.into()));
        let empty = PartitionState { first: 0, next: 0, last_offset: None, ..state };
        assert_eq!(last_sequence(&empty), -1);
    }

    #[test]
    fn a_damaged_record_is_an_error_and_leaves_nothing_behind() {
        let mut broken = event(&Message::telemetry(""));
        broken.record = Bytes::from_static(&[9]);
        let mut out = vec![1];
        encode(&broken, None, &mut out).unwrap_err();
        assert_eq!(out, [1]);
    }

    fn time() -> impl Strategy<Value = SystemTime> {
        (0_u64..4_000_000_000_000).prop_map(|millis| UNIX_EPOCH + Duration::from_millis(millis))
    }

    fn message() -> impl Strategy<Value = Message> {
        let texts = proptest::collection::vec(proptest::option::of(".{0,300}"), 12);
        let properties = proptest::collection::btree_map("[a-z]{1,20}", ".{0,300}", 0..6);
        let times = (proptest::option::of(time()), proptest::option::of(time()));
        let body = prop_oneof![proptest::collection::vec(any::<u8>(), 0..600), Just(vec![7; 70_000])];
        (body, properties, texts, times).prop_map(
            |(body, properties, texts, (creation_time, expiry_time))| {
                let mut texts = texts.into_iter();
                let mut text = || texts.next().flatten();
                let system = SystemProperties {
                    message_id: text(),
                    correlation_id: text(),
                    user_id: text(),
                    content_type: text().map(|text| text.replace(|c: char| !c.is_ascii(), "")),
                    content_encoding: text().map(|text| text.replace(|c: char| !c.is_ascii(), "")),
                    creation_time,
                    expiry_time,
                    to: text(),
                    message_schema: text(),
                    output_name: text(),
                    interface_id: text(),
                    component: text(),
                    diagnostic_id: text(),
                    diagnostic_context: text(),
                };
                let message = Message::telemetry(body).with_system(system);
                properties.into_iter().fold(message, |message, (name, value)| message.property(name, value))
            },
        )
    }

    proptest! {
        #[test]
        fn every_message_comes_back(message in message(), sequence in 0..i64::MAX as u64, offset: u64, module: bool) {
            let mut event = Event { sequence, offset, ..event(&message) };
            if !module {
                event.module = None;
            }
            let read = amqp::decode(decoded(&event, None), Lane::Telemetry).unwrap();
            prop_assert_eq!(&read.message, &message);
            let found = |name| amqp::annotation(&read.annotations, name);
            prop_assert_eq!(found(annotation::SEQUENCE).and_then(amqp::number), Some(sequence));
            let offset = offset.to_string();
            prop_assert_eq!(found(annotation::OFFSET).and_then(amqp::text), Some(offset.as_str()));
            prop_assert_eq!(found(annotation::MODULE).is_some(), module);
        }
    }
}
