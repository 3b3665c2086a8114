//! Options as other languages say them: by name, in one JSON object, for a client is opened seldom. What is not said is
//! `None`, and has its default in the core.

use std::{path::PathBuf, time::Duration};
#[cfg(feature = "service")]
use std::{sync::Arc, time::UNIX_EPOCH};

#[cfg(feature = "json")]
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
#[cfg(feature = "json")]
use serde_json::Value;
#[cfg(feature = "service")]
use whimbrel::service::{
    CheckpointStore, EventsBuilder, FeedbackWanted, Position, SendOptions, ServiceOptions,
};
use whimbrel::{DeviceOptions, Error, ErrorKind, Overflow, Result, device::Protocol};

use crate::message::durability;

#[cfg(feature = "json")]
/// Reads settings from a JSON object; `operation` is the call that got them.
///
/// # Errors
/// `InvalidArgument` naming the option and what is wrong with it; unknown names are wrong, too.
pub fn settings<S: DeserializeOwned>(operation: &'static str, json: &str) -> Result<S> {
    let wrong = |why: String| Error::new(ErrorKind::InvalidArgument, operation, why);
    // In two steps: the second one does not speak of lines and columns, which mean nothing to the caller.
    let value: Value =
        serde_json::from_str(json).map_err(|error| wrong(format!("the options are no JSON: {error}")))?;
    if !value.is_object() {
        return Err(wrong("the options are not an object".to_owned()));
    }
    serde_path_to_error::deserialize(value).map_err(|error| match error.path().to_string().as_str() {
        "." => wrong(error.inner().to_string()),
        path => wrong(format!("option {path}: {}", error.inner())),
    })
}

#[cfg(feature = "json")]
/// The names of all options of `S`, so that a binding can test that it has each of them.
pub fn names<'de, S: Deserialize<'de>>() -> &'static [&'static str] {
    struct Names<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Names<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_struct<V: serde::de::Visitor<'de>>(
            self,
            _name: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            self.deserialize_any(visitor)
        }

        fn deserialize_any<V: serde::de::Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(serde::de::Error::custom("only the names are wanted"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut names: &'static [&'static str] = &[];
    let _ = S::deserialize(Names(&mut names));
    names
}

/// Options of [`whimbrel::DeviceClient::open`]; see [`DeviceOptions`]. Times in milliseconds; numbers may be texts.
#[derive(Clone, Default)]
#[cfg_attr(feature = "json", derive(Deserialize), serde(default, deny_unknown_fields))]
#[allow(missing_docs, reason = "they are those of DeviceOptions")]
pub struct DeviceSettings {
    pub outbox: Option<PathBuf>,
    pub outbox_in_memory: bool,
    pub overflow: Option<String>,
    pub durability: Option<String>,
    #[cfg_attr(feature = "json", serde(deserialize_with = "number"))]
    pub outbox_max_bytes: Option<u64>,
    #[cfg_attr(feature = "json", serde(deserialize_with = "number"))]
    pub outbox_max_messages: Option<u64>,
    #[cfg_attr(feature = "json", serde(deserialize_with = "number"))]
    pub outbox_max_age_ms: Option<u64>,
    #[cfg_attr(feature = "json", serde(deserialize_with = "number"))]
    pub sync_interval_ms: Option<u64>,
    #[cfg_attr(feature = "json", serde(deserialize_with = "number"))]
    pub kept_outcomes: Option<u64>,
    pub server: Option<String>,
    pub websocket: bool,
    pub proxy: Option<String>,
    pub ca_file: Option<PathBuf>,
    pub ca_pem: Option<String>,
    /// File of the certificate chain; with `client_key`.
    pub client_certificate: Option<PathBuf>,
    pub client_key: Option<PathBuf>,
    /// Text of the certificate chain; with `client_key_pem`.
    pub client_certificate_pem: Option<String>,
    pub client_key_pem: Option<String>,
    pub allow_unencrypted: bool,
    pub protocol: Option<String>,
    #[cfg_attr(feature = "json", serde(deserialize_with = "number"))]
    pub keep_alive_ms: Option<u64>,
    #[cfg_attr(feature = "json", serde(deserialize_with = "number"))]
    pub connect_timeout_ms: Option<u64>,
    #[cfg_attr(feature = "json", serde(deserialize_with = "number"))]
    pub poll_interval_ms: Option<u64>,
    pub window: Option<u16>,
    pub inbox_window: Option<u16>,
    #[cfg_attr(feature = "json", serde(deserialize_with = "number"))]
    pub backoff_min_ms: Option<u64>,
    #[cfg_attr(feature = "json", serde(deserialize_with = "number"))]
    pub backoff_max_ms: Option<u64>,
    #[cfg_attr(feature = "json", serde(deserialize_with = "number"))]
    pub close_deadline_ms: Option<u64>,
    #[cfg_attr(feature = "json", serde(deserialize_with = "number"))]
    pub token_lifetime_ms: Option<u64>,
}

impl DeviceSettings {
    /// The options for the hub and device of `connection_string`.
    ///
    /// # Errors
    /// `InvalidArgument` naming the part of the connection string or the option.
    pub fn options(self, connection_string: &str) -> Result<DeviceOptions> {
        const OPEN: &str = "device.open";
        let mut options = DeviceOptions::from_connection_string(connection_string)?;
        if let Some(folder) = self.outbox {
            if self.outbox_in_memory {
                return Err(invalid(OPEN, "the outbox is either in a folder or in memory"));
            }
            options = options.outbox_dir(folder);
        } else if self.outbox_in_memory {
            options = options.outbox_in_memory();
        }
        if let Some(word) = self.overflow {
            options = options.overflow(overflow(OPEN, &word)?);
        }
        if let Some(word) = self.durability {
            options = options.durability(durability(OPEN, &word)?);
        }
        options = with(options, self.outbox_max_bytes, DeviceOptions::outbox_max_bytes);
        options = with(options, self.outbox_max_messages, DeviceOptions::outbox_max_messages);
        options = with(options, ms(self.outbox_max_age_ms), DeviceOptions::outbox_max_age);
        options = with(options, ms(self.sync_interval_ms), DeviceOptions::sync_interval);
        let outcomes = self.kept_outcomes.map(|outcomes| usize::try_from(outcomes).unwrap_or(usize::MAX));
        options = with(options, outcomes, DeviceOptions::kept_outcomes);
        options = with(options, self.server, DeviceOptions::server);
        options = with(options, self.proxy, DeviceOptions::proxy);
        options = with(options, self.ca_file, DeviceOptions::ca_file);
        options = with(options, self.ca_pem, DeviceOptions::ca_pem);
        let pair = "a client certificate needs its key, and a key its certificate";
        match (self.client_certificate, self.client_key) {
            (None, None) => {}
            (Some(chain), Some(key)) => options = options.client_certificate(chain, key),
            _ => return Err(invalid(OPEN, pair)),
        }
        match (self.client_certificate_pem, self.client_key_pem) {
            (None, None) => {}
            (Some(chain), Some(key)) => options = options.client_certificate_pem(chain, key),
            _ => return Err(invalid(OPEN, pair)),
        }
        if self.websocket {
            options = options.websocket();
        }
        if self.allow_unencrypted {
            options = options.allow_unencrypted();
        }
        if let Some(word) = self.protocol {
            options = options.protocol(protocol(OPEN, &word)?);
        }
        options = with(options, ms(self.keep_alive_ms), DeviceOptions::keep_alive);
        options = with(options, ms(self.connect_timeout_ms), DeviceOptions::connect_timeout);
        options = with(options, ms(self.poll_interval_ms), DeviceOptions::poll_interval);
        options = with(options, self.window, DeviceOptions::window);
        options = with(options, self.inbox_window, DeviceOptions::inbox_window);
        if let Some((min, max)) = backoff(OPEN, self.backoff_min_ms, self.backoff_max_ms)? {
            options = options.backoff(min, max);
        }
        options = with(options, ms(self.close_deadline_ms), DeviceOptions::close_deadline);
        Ok(with(options, ms(self.token_lifetime_ms), DeviceOptions::token_lifetime))
    }
}

#[cfg(feature = "service")]
/// Options of [`whimbrel::service::ServiceClient::connect`]; see [`ServiceOptions`]. As [`DeviceSettings`].
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "they are those of ServiceOptions")]
pub struct ServiceSettings {
    pub events_connection_string: Option<String>,
    pub server: Option<String>,
    pub http_server: Option<String>,
    pub websocket: bool,
    pub proxy: Option<String>,
    pub ca_file: Option<PathBuf>,
    pub ca_pem: Option<String>,
    pub allow_unencrypted: bool,
    #[serde(deserialize_with = "number")]
    pub connect_timeout_ms: Option<u64>,
    #[serde(deserialize_with = "number")]
    pub send_timeout_ms: Option<u64>,
    #[serde(deserialize_with = "number")]
    pub backoff_min_ms: Option<u64>,
    #[serde(deserialize_with = "number")]
    pub backoff_max_ms: Option<u64>,
    #[serde(deserialize_with = "number")]
    pub token_lifetime_ms: Option<u64>,
    #[serde(deserialize_with = "number")]
    pub recent_outcomes: Option<u64>,
}

#[cfg(feature = "service")]
impl ServiceSettings {
    /// The options for the hub and policy of `connection_string`.
    ///
    /// # Errors
    /// `InvalidArgument` naming the part of the connection string or the option.
    pub fn options(self, connection_string: &str) -> Result<ServiceOptions> {
        let mut options = ServiceOptions::from_connection_string(connection_string)?;
        options = with(options, self.events_connection_string, ServiceOptions::events_connection_string);
        options = with(options, self.server, ServiceOptions::server);
        options = with(options, self.http_server, ServiceOptions::http_server);
        options = with(options, self.proxy, ServiceOptions::proxy);
        options = with(options, self.ca_file, ServiceOptions::ca_file);
        options = with(options, self.ca_pem, ServiceOptions::ca_pem);
        if self.websocket {
            options = options.websocket();
        }
        if self.allow_unencrypted {
            options = options.allow_unencrypted();
        }
        options = with(options, ms(self.connect_timeout_ms), ServiceOptions::connect_timeout);
        options = with(options, ms(self.send_timeout_ms), ServiceOptions::send_timeout);
        if let Some((min, max)) = backoff("service.connect", self.backoff_min_ms, self.backoff_max_ms)? {
            options = options.backoff(min, max);
        }
        options = with(options, ms(self.token_lifetime_ms), ServiceOptions::token_lifetime);
        let outcomes = self.recent_outcomes.map(|outcomes| usize::try_from(outcomes).unwrap_or(usize::MAX));
        Ok(with(options, outcomes, ServiceOptions::recent_outcomes))
    }
}

#[cfg(feature = "service")]
/// How to send a command; see [`SendOptions`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SendSettings {
    /// Time to live, milliseconds.
    #[serde(deserialize_with = "number")]
    pub expires_in_ms: Option<u64>,
    /// `none`, `positive`, `negative` or `full`.
    pub feedback: Option<String>,
}

#[cfg(feature = "service")]
impl SendSettings {
    /// The options.
    ///
    /// # Errors
    /// `InvalidArgument` for another word.
    pub fn options(self) -> Result<SendOptions> {
        let mut options = SendOptions::default();
        if let Some(time_to_live) = ms(self.expires_in_ms) {
            options = options.expires_in(time_to_live);
        }
        if let Some(word) = self.feedback {
            let text = "feedback is none, positive, negative or full";
            let wanted = FeedbackWanted::from_word(&word).ok_or_else(|| invalid("service.send", text))?;
            options = options.feedback(wanted);
        }
        Ok(options)
    }
}

#[cfg(feature = "service")]
/// How to read events; see [`EventsBuilder`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventsSettings {
    /// The consumer group.
    pub group: Option<String>,
    /// Where to begin without a checkpoint.
    pub from: Option<PositionSetting>,
    /// These partitions only.
    pub partitions: Option<Vec<u32>>,
    /// Events fetched ahead, for each partition.
    pub prefetch: Option<u32>,
    /// How often ownership is renewed, milliseconds; with `ownership_lasts_ms`.
    #[serde(deserialize_with = "number")]
    pub ownership_renew_ms: Option<u64>,
    /// How long ownership lasts, milliseconds.
    #[serde(deserialize_with = "number")]
    pub ownership_lasts_ms: Option<u64>,
}

#[cfg(feature = "service")]
/// A [`Position`]: `"beginning"`, `"end"`, or an object with `sequence`, `offset` or `time_ms`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PositionSetting {
    /// The oldest event that is kept.
    Beginning,
    /// The next event to be stored.
    End,
    /// The event of this number.
    Sequence(#[serde(deserialize_with = "some_number")] u64),
    /// The event at this offset.
    Offset(String),
    /// The first event stored at this time or later, milliseconds since 1970.
    TimeMs(#[serde(deserialize_with = "some_number")] u64),
}

#[cfg(feature = "service")]
impl EventsSettings {
    /// `builder` with these settings and this store.
    ///
    /// # Errors
    /// `InvalidArgument` for settings that need each other.
    pub fn apply(
        self,
        mut builder: EventsBuilder,
        checkpoints: Option<Arc<dyn CheckpointStore>>,
    ) -> Result<EventsBuilder> {
        const OPEN: &str = "service.events";
        builder = with(builder, self.group, EventsBuilder::group);
        builder = match self.from {
            None => builder,
            Some(from) => builder.from(match from {
                PositionSetting::Beginning => Position::Beginning,
                PositionSetting::End => Position::End,
                PositionSetting::Sequence(sequence) => Position::Sequence(sequence),
                PositionSetting::Offset(offset) => Position::Offset(offset),
                PositionSetting::TimeMs(at) => {
                    let time = UNIX_EPOCH.checked_add(Duration::from_millis(at));
                    Position::Time(time.ok_or_else(|| invalid(OPEN, "the time cannot be kept"))?)
                }
            }),
        };
        builder = with(builder, self.partitions, EventsBuilder::partitions);
        builder = with(builder, self.prefetch, EventsBuilder::prefetch);
        match (ms(self.ownership_renew_ms), ms(self.ownership_lasts_ms)) {
            (None, None) => {}
            (Some(renew), Some(lasts)) => builder = builder.ownership(renew, lasts),
            _ => {
                return Err(invalid(
                    OPEN,
                    "how often ownership is renewed and how long it lasts go together",
                ));
            }
        }
        Ok(with(builder, checkpoints, EventsBuilder::checkpoints))
    }
}

/// `options` with `value` set by `set`, where there is one.
fn with<O, V>(options: O, value: Option<V>, set: impl FnOnce(O, V) -> O) -> O {
    match value {
        Some(value) => set(options, value),
        None => options,
    }
}

fn ms(time: Option<u64>) -> Option<Duration> {
    time.map(Duration::from_millis)
}

fn backoff(
    operation: &'static str,
    min: Option<u64>,
    max: Option<u64>,
) -> Result<Option<(Duration, Duration)>> {
    match (ms(min), ms(max)) {
        (None, None) => Ok(None),
        (Some(min), Some(max)) => Ok(Some((min, max))),
        _ => Err(invalid(operation, "the shortest and the longest backoff go together")),
    }
}

fn overflow(operation: &'static str, word: &str) -> Result<Overflow> {
    match word {
        "reject" => Ok(Overflow::Reject),
        "drop-oldest" => Ok(Overflow::DropOldest),
        "drop-newest" => Ok(Overflow::DropNewest),
        _ => Err(invalid(operation, "an overflow policy is reject, drop-oldest or drop-newest")),
    }
}

fn protocol(operation: &'static str, word: &str) -> Result<Protocol> {
    match word {
        "auto" => Ok(Protocol::Auto),
        "mqtt3" => Ok(Protocol::Mqtt3),
        "mqtt5" => Ok(Protocol::Mqtt5),
        "amqp" => Ok(Protocol::Amqp),
        "http" => Ok(Protocol::Http),
        _ => Err(invalid(operation, "a protocol is auto, mqtt3, mqtt5, amqp or http")),
    }
}

fn invalid(operation: &'static str, message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidArgument, operation, message)
}

#[cfg(feature = "json")]
/// A whole number, or one as text: not every language has numbers beyond 2^53.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a whole number that is not negative")]
enum Number {
    Number(u64),
    Text(String),
}

#[cfg(feature = "json")]
pub(crate) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Option::<Number>::deserialize(deserializer)?.map(|number| number.value()).transpose()
}

#[cfg(feature = "service")]
fn some_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Number::deserialize(deserializer)?.value()
}

#[cfg(feature = "json")]
impl Number {
    fn value<E: serde::de::Error>(self) -> Result<u64, E> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Text(text) => {
                text.parse().map_err(|_| E::custom("expected a whole number that is not negative"))
            }
        }
    }
}

#[cfg(all(test, feature = "service"))]
mod tests {
    use super::*;

    const DEVICE: &str = "HostName=hub;DeviceId=d;SharedAccessKey=c2VjcmV0";

    fn device(json: &str) -> Result<DeviceOptions> {
        settings::<DeviceSettings>("device.open", json)?.options(DEVICE)
    }

    #[test]
    fn options_are_taken_by_name_and_wrong_ones_are_named() {
        let all = r#"{"outbox": "/o", "overflow": "drop-oldest", "durability": "interval", "window": 7,
            "outbox_max_bytes": "9007199254740993", "keep_alive_ms": 1000, "backoff_min_ms": 1, "backoff_max_ms": 2,
            "protocol": "mqtt5", "server": "mqtt://127.0.0.1:1", "proxy": null}"#;
        let text = format!("{:?}", device(all).unwrap());
        for said in ["Directory(\"/o\")", "window: 7", "Mqtt5", "max: 2ms"] {
            assert!(text.contains(said), "{said} is not in {text}");
        }
        for (json, named) in [
            (r#"{"windw": 7}"#, "unknown field `windw`"),
            (r#"{"window": 70000}"#, "70000"),
            (
                r#"{"keep_alive_ms": -1}"#,
                "option keep_alive_ms: expected a whole number that is not negative",
            ),
            (r#"{"keep_alive_ms": 1.5}"#, "whole number"),
            (r#"{"outbox_max_bytes": "many"}"#, "whole number"),
            (r#"{"overflow": "explode"}"#, "drop-oldest"),
            (r#"{"outbox": "/o", "outbox_in_memory": true}"#, "either in a folder or in memory"),
            (r#"{"client_key": "/k"}"#, "needs its key"),
            (r#"{"backoff_min_ms": 1}"#, "go together"),
            ("[]", "not an object"),
            ("{", "no JSON"),
        ] {
            let error = device(json).map(drop).unwrap_err();
            assert_eq!(
                (error.kind(), error.operation()),
                (ErrorKind::InvalidArgument, "device.open"),
                "{json}"
            );
            assert!(error.to_string().contains(named), "{error} does not name {named}");
        }
    }

    #[test]
    fn all_names_are_told() {
        assert_eq!(names::<SendSettings>(), ["expires_in_ms", "feedback"]);
        assert!(names::<DeviceSettings>().contains(&"token_lifetime_ms"));
        assert!(names::<u32>().is_empty());
    }

    #[test]
    fn positions_are_words_or_objects() {
        let from = |json: &str| {
            let settings = settings::<EventsSettings>("service.events", &format!("{{\"from\": {json}}}"));
            settings.map(|settings| settings.from.unwrap())
        };
        assert!(matches!(from("\"end\""), Ok(PositionSetting::End)));
        let beyond = from(r#"{"sequence": "9007199254740993"}"#);
        assert!(matches!(beyond, Ok(PositionSetting::Sequence(9_007_199_254_740_993))));
        assert!(matches!(from(r#"{"time_ms": 5}"#), Ok(PositionSetting::TimeMs(5))));
        assert!(from("\"middle\"").is_err());
    }
}
