//! `$management`: what the event log and its partitions look like, as answers to requests.

use std::time::{SystemTime, UNIX_EPOCH};

use fe2o3_amqp_types::{
    messaging::ApplicationProperties,
    primitives::{Array, OrderedMap, SimpleValue, Value},
};
use whimbrel::wire::amqp::{self, AmqpMessage};

use super::{NO_EVENT_HUB, Reading, address, encode::last_sequence};
use crate::{events::PartitionState, fronts::amqp::request::Answer};

/// A request, as far as it could be read.
struct Request<'a>(Option<&'a ApplicationProperties>);

impl<'a> Request<'a> {
    fn text(&self, name: &str) -> Option<&'a str> {
        match self.0?.0.get(name)? {
            SimpleValue::String(text) => Some(text),
            SimpleValue::Symbol(symbol) => Some(&symbol.0),
            _ => None,
        }
    }

    /// The partition: a text, or a number.
    fn partition(&self) -> Option<u32> {
        match self.0?.0.get("partition")? {
            SimpleValue::String(text) => address::partition(text),
            SimpleValue::Int(number) => (*number).try_into().ok(),
            SimpleValue::Uint(number) => Some(*number),
            SimpleValue::Long(number) => (*number).try_into().ok(),
            SimpleValue::Ulong(number) => (*number).try_into().ok(),
            _ => None,
        }
    }
}

/// The answer to a request: one that brings a token has to bring a good one, whatever its connection may do.
pub(super) fn answer(reading: &Reading, request: &AmqpMessage, now: SystemTime) -> Answer {
    match describe(reading, &Request(request.application_properties.as_ref()), now) {
        Ok(map) => Answer { status: 200, description: "OK".to_owned(), body: Value::Map(map) },
        Err((status, text)) => Answer { status, description: text.to_owned(), body: Value::Null },
    }
}

fn describe(
    reading: &Reading,
    asked: &Request<'_>,
    now: SystemTime,
) -> Result<OrderedMap<Value, Value>, (i32, &'static str)> {
    if asked.text("security_token").is_some_and(|token| !reading.allows(token, amqp::MANAGEMENT, now)) {
        return Err((401, "the token does not allow to read events"));
    }
    if !asked.text("operation").is_some_and(|operation| operation.eq_ignore_ascii_case("READ")) {
        return Err((400, "the only operation is READ"));
    }
    let names = &reading.names;
    let is_known = asked.text("name").is_some_and(|name| names.is_entity(name));
    match asked.text("type") {
        Some(EVENT_HUB) if is_known => Ok(event_hub(reading)),
        Some(PARTITION) if is_known => {
            let partition = asked.partition();
            let states = reading.events.partitions();
            let state = states.iter().find(|state| Some(state.partition) == partition);
            state
                .map(|state| describe_partition(names.entity(), state))
                .ok_or((404, "there is no such partition"))
        }
        Some(EVENT_HUB | PARTITION) => Err((404, NO_EVENT_HUB)),
        _ => Err((400, "the type is com.microsoft:eventhub or com.microsoft:partition")),
    }
}

fn event_hub(reading: &Reading) -> OrderedMap<Value, Value> {
    let partitions = reading.events.partitions();
    let ids: Vec<_> = partitions.iter().map(|state| Value::String(state.partition.to_string())).collect();
    map([
        ("name", Value::String(reading.names.entity().to_owned())),
        ("type", Value::String(EVENT_HUB.to_owned())),
        ("created_at", Value::Timestamp(amqp::timestamp(reading.created_at))),
        ("partition_count", Value::Int(ids.len().try_into().unwrap_or(i32::MAX))),
        ("partition_ids", Value::Array(Array(ids))),
    ])
}

fn describe_partition(entity: &str, state: &PartitionState) -> OrderedMap<Value, Value> {
    let last = state.last_enqueued_at.unwrap_or(UNIX_EPOCH);
    map([
        ("name", Value::String(entity.to_owned())),
        ("type", Value::String(PARTITION.to_owned())),
        ("partition", Value::String(state.partition.to_string())),
        ("begin_sequence_number", Value::Long(state.first.try_into().unwrap_or(i64::MAX))),
        ("last_enqueued_sequence_number", Value::Long(last_sequence(state))),
        ("last_enqueued_offset", Value::String(last_offset(state))),
        ("last_enqueued_time_utc", Value::Timestamp(amqp::timestamp(last))),
        ("is_partition_empty", Value::Bool(state.first == state.next)),
    ])
}

/// Offset of the newest event; `-1` when there was none yet.
pub(super) fn last_offset(state: &PartitionState) -> String {
    state.last_offset.map_or_else(|| "-1".to_owned(), |offset| offset.to_string())
}

fn map<const N: usize>(entries: [(&str, Value); N]) -> OrderedMap<Value, Value> {
    let mut map = OrderedMap::new();
    for (name, value) in entries {
        map.insert(Value::String(name.to_owned()), value);
    }
    map
}

const EVENT_HUB: &str = "com.microsoft:eventhub";
const PARTITION: &str = "com.microsoft:partition";
