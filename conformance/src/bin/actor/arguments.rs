//! What comes in lines, as the core takes it, and the way back.

use std::{
    collections::HashMap,
    time::{Duration, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use whimbrel::{
    DeviceOptions, Durability, Lane, Message, Overflow,
    device::Protocol,
    service::{Position, ServiceOptions},
};
use whimbrel_bindings_support::document;

#[derive(Clone, Default, Deserialize)]
pub(crate) struct Args(Map<String, Value>);

pub(crate) enum Failure {
    Whimbrel(whimbrel::Error),
    Actor(String),
}

pub(crate) type Answer<T = Value> = Result<T, Failure>;

impl From<whimbrel::Error> for Failure {
    fn from(error: whimbrel::Error) -> Self {
        Self::Whimbrel(error)
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Actor(text)
    }
}

impl Args {
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(crate) fn is<T: DeserializeOwned>(&self, name: &str) -> Answer<T> {
        let value = self.0.get(name).cloned().unwrap_or_default();
        serde_json::from_value(value).map_err(|error| Failure::Actor(format!("{name}: {error}")))
    }

    pub(crate) fn text(&self, name: &str) -> Answer<String> {
        self.is(name)
    }

    pub(crate) fn whole(&self, name: &str) -> Answer<u64> {
        whole(self.0.get(name).unwrap_or(&Value::Null))
    }

    pub(crate) fn duration(&self, name: &str) -> Answer<Duration> {
        self.whole(name).map(Duration::from_millis)
    }
}

fn whole(value: &Value) -> Answer<u64> {
    let number = match value.get("$int").and_then(Value::as_str) {
        Some(text) => text.parse().ok(),
        None => value.as_u64(),
    };
    number.ok_or_else(|| Failure::Actor(format!("{value} is no u64")))
}

fn none<T>(what: &str, word: &str) -> Answer<T> {
    Err(Failure::Actor(format!("there is no {what} {word}")))
}

pub(crate) fn device_options(args: &Args) -> Answer<DeviceOptions> {
    let mut to = DeviceOptions::from_connection_string(&args.text("connection_string")?)?;
    let args: Args = args.is("options")?;
    for name in args.names() {
        to = match name {
            "outbox" => to.outbox_dir(args.text(name)?),
            "outbox_in_memory" => to.outbox_in_memory(),
            "overflow" => to.overflow(match args.text(name)?.as_str() {
                "reject" => Overflow::Reject,
                "drop-oldest" => Overflow::DropOldest,
                "drop-newest" => Overflow::DropNewest,
                word => return none("overflow", word),
            }),
            "durability" => to.durability(durability(&args.text(name)?)?),
            "outbox_max_bytes" => to.outbox_max_bytes(args.whole(name)?),
            "outbox_max_messages" => to.outbox_max_messages(args.whole(name)?),
            "outbox_max_age_ms" => to.outbox_max_age(args.duration(name)?),
            "sync_interval_ms" => to.sync_interval(args.duration(name)?),
            "kept_outcomes" => to.kept_outcomes(args.is(name)?),
            "server" => to.server(args.text(name)?),
            "protocol" => to.protocol(match args.text(name)?.as_str() {
                "auto" => Protocol::Auto,
                "mqtt3" => Protocol::Mqtt3,
                "mqtt5" => Protocol::Mqtt5,
                "amqp" => Protocol::Amqp,
                "http" => Protocol::Http,
                word => return none("protocol", word),
            }),
            "keep_alive_ms" => to.keep_alive(args.duration(name)?),
            "connect_timeout_ms" => to.connect_timeout(args.duration(name)?),
            "poll_interval_ms" => to.poll_interval(args.duration(name)?),
            "window" => to.window(args.is(name)?),
            "inbox_window" => to.inbox_window(args.is(name)?),
            "backoff_min_ms" => to.backoff(args.duration(name)?, args.duration("backoff_max_ms")?),
            "backoff_max_ms" => to,
            "close_deadline_ms" => to.close_deadline(args.duration(name)?),
            "token_lifetime_ms" => to.token_lifetime(args.duration(name)?),
            _ => return none("option", name),
        };
    }
    Ok(to)
}

pub(crate) fn service_options(args: &Args) -> Answer<ServiceOptions> {
    let mut to = ServiceOptions::from_connection_string(&args.text("connection_string")?)?;
    let args: Args = args.is("options")?;
    for name in args.names() {
        to = match name {
            "server" => to.server(args.text(name)?),
            "http_server" => to.http_server(args.text(name)?),
            "ca_pem" => to.ca_pem(args.text(name)?),
            "connect_timeout_ms" => to.connect_timeout(args.duration(name)?),
            "send_timeout_ms" => to.send_timeout(args.duration(name)?),
            "backoff_min_ms" => to.backoff(args.duration(name)?, args.duration("backoff_max_ms")?),
            "backoff_max_ms" => to,
            "token_lifetime_ms" => to.token_lifetime(args.duration(name)?),
            "recent_outcomes" => to.recent_outcomes(args.is(name)?),
            _ => return none("option", name),
        };
    }
    Ok(to)
}

pub(crate) fn message(args: &Args) -> Answer<Message> {
    let body = STANDARD.decode(args.text("body")?).map_err(|error| error.to_string())?;
    let lane = match args.text("lane").as_deref() {
        Ok("alert") => Lane::Alert,
        Ok("telemetry") | Err(_) => Lane::Telemetry,
        Ok(word) => return none("lane", word),
    };
    let mut message = Message::in_lane(lane, body);
    for name in args.names() {
        let text = || args.text(name);
        message = match name {
            "body" | "lane" | "device" | "feedback" => message,
            "properties" => {
                let all: HashMap<String, String> = args.is(name)?;
                message.with_properties(all.into_iter().collect())
            }
            "message_id" => message.message_id(text()?),
            "correlation_id" => message.correlation_id(text()?),
            "content_type" => message.content_type(text()?),
            "content_encoding" => message.content_encoding(text()?),
            "creation_time_ms" => message.creation_time(UNIX_EPOCH + args.duration(name)?),
            "expires_in_ms" => message.expires_in(args.duration(name)?),
            "durability" => message.durability(durability(&text()?)?),
            _ => {
                let system = message.system_mut();
                let place = match name {
                    "user_id" => &mut system.user_id,
                    "message_schema" => &mut system.message_schema,
                    "output_name" => &mut system.output_name,
                    "interface_id" => &mut system.interface_id,
                    "component" => &mut system.component,
                    _ => return none("part of a message called", name),
                };
                *place = Some(text()?);
                message
            }
        };
    }
    Ok(message)
}

fn durability(word: &str) -> Answer<Durability> {
    match word {
        "on-disk" => Ok(Durability::OnDisk),
        "interval" => Ok(Durability::Interval),
        "memory" => Ok(Durability::Memory),
        _ => none("durability", word),
    }
}

pub(crate) fn position(given: &Value) -> Answer<Position> {
    let part = |name| given.get(name).filter(|value: &&Value| !value.is_null());
    Ok(match (given.as_str(), part("sequence"), part("offset"), part("time_ms")) {
        (Some("beginning"), ..) => Position::Beginning,
        (Some("end"), ..) => Position::End,
        (_, Some(number), ..) => Position::Sequence(whole(number)?),
        (_, _, Some(Value::String(offset)), _) => Position::Offset(offset.clone()),
        (.., Some(at)) => Position::Time(UNIX_EPOCH + Duration::from_millis(whole(at)?)),
        _ => return none("position", &given.to_string()),
    })
}

/// What commands and events both have, and `also`.
pub(crate) fn received(message: &Message, also: Value) -> Value {
    let system = message.system();
    let mut all = json!({
        "body": STANDARD.encode(message.body()),
        "properties": message.properties().iter().collect::<HashMap<_, _>>(),
        "message_id": system.message_id, "correlation_id": system.correlation_id, "user_id": system.user_id,
        "content_type": system.content_type, "content_encoding": system.content_encoding,
        "creation_time_ms": system.creation_time.map(document::unix_ms),
    });
    if let (Value::Object(all), Value::Object(also)) = (&mut all, also) {
        all.extend(also);
    }
    all
}
