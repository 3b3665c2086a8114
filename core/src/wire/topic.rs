//! MQTT 3.1.1: topics and the property bag in them. Contract `mqtt.md`, part 1.
//!
//! ```
//! use whimbrel::{Lane, Message, wire::topic};
//!
//! let message = Message::telemetry("21.5").message_id("m-1").property("room", "a b");
//! let written = topic::d2c("d1", None, &message);
//! assert_eq!(written, "devices/d1/messages/events/%24.mid=m-1&room=a%20b");
//!
//! let bag = topic::parse_d2c(&written, "d1", None)?;
//! assert_eq!(bag.into_message(Lane::Telemetry, "21.5"), message);
//! # Ok::<(), whimbrel::Error>(())
//! ```

use std::borrow::Cow;

use bytes::Bytes;

use super::{feedback::FeedbackWanted, names, percent};
use crate::{Error, ErrorKind, Lane, Message, Properties, Result, SystemProperties, message::SystemName};

/// The topic a device, or a module of it, publishes `message` to.
pub fn d2c(device: &str, module: Option<&str>, message: &Message) -> String {
    let mut topic = String::with_capacity(96 + device.len() + message.size() - message.body().len());
    push_all(&mut topic, ["devices/", device]);
    if let Some(module) = module {
        push_all(&mut topic, ["/modules/", module]);
    }
    topic.push_str("/messages/events/");
    let mut bag = BagWriter { start: topic.len(), topic: &mut topic };
    bag.system(message.system(), |_| true);
    for (name, value) in message.properties().iter() {
        bag.pair("", name, value);
    }
    topic
}

/// The property bag of a topic that the device (or its module) with these ids published to. Borrows from the topic.
///
/// # Errors
/// `Unauthorized` when it is the events topic of another device or module; `Protocol` when it is no events topic.
pub fn parse_d2c<'t>(topic: &'t str, device: &str, module: Option<&str>) -> Result<Bag<'t>> {
    let own = topic.strip_prefix("devices/").and_then(|rest| rest.strip_prefix(device)).and_then(|rest| {
        let rest = match module {
            Some(module) => rest.strip_prefix("/modules/")?.strip_prefix(module)?,
            None => rest,
        };
        rest.strip_prefix("/messages/events")
    });
    match own {
        Some("") => Ok(Bag("")),
        Some(rest) if rest.starts_with('/') => {
            // C# puts a slash after the bag, the hub's own documents a question mark before it.
            let bag = rest.strip_prefix('/').unwrap_or(rest);
            let bag = bag.strip_suffix('/').unwrap_or(bag);
            Ok(Bag(bag.strip_prefix('?').unwrap_or(bag)))
        }
        _ if topic.starts_with("devices/")
            && (topic.contains("/messages/events/") || topic.ends_with("/messages/events")) =>
        {
            Err(Error::new(ErrorKind::Unauthorized, D2C, "the topic belongs to another device or module"))
        }
        _ => Err(Error::new(ErrorKind::Protocol, D2C, "the topic is not devices/{id}/messages/events/")),
    }
}

/// The filter a device subscribes to for commands.
pub fn c2d_filter(device: &str) -> String {
    format!("devices/{device}/messages/devicebound/#")
}

/// Whether `filter` is [`c2d_filter`] of `device`.
pub fn is_c2d_filter(filter: &str, device: &str) -> bool {
    c2d_bag(filter, device) == Some("#")
}

/// The topic a hub publishes a command to.
///
/// The destination is always in it, as clients need it and whatever the service wrote there; `iothub-ack` is written in
/// lower case, name and value, as some clients fail on any other.
pub fn c2d(device: &str, message: &Message) -> String {
    let mut topic = String::with_capacity(160 + 2 * device.len() + message.size() - message.body().len());
    push_all(&mut topic, ["devices/", device, "/messages/devicebound/"]);
    let mut bag = BagWriter { start: topic.len(), topic: &mut topic };
    bag.system(message.system(), |name| name != SystemName::To);
    let to = format!("/devices/{device}/messages/deviceBound");
    bag.pair(names::PREFIX, names::key(SystemName::To), &to);
    for (name, value) in message.properties().iter() {
        if name.eq_ignore_ascii_case(ACK) {
            bag.pair("", ACK, &value.to_ascii_lowercase());
        } else {
            bag.pair("", name, value);
        }
    }
    topic
}

/// The property bag of a topic a command came with. Borrows from the topic.
///
/// # Errors
/// `Protocol` when it is not the commands topic of `device`.
pub fn parse_c2d<'t>(topic: &'t str, device: &str) -> Result<Bag<'t>> {
    let bag = c2d_bag(topic, device).ok_or_else(|| {
        Error::new(ErrorKind::Protocol, C2D, "the topic is not this device's commands topic")
    })?;
    let bag = bag.strip_suffix('/').unwrap_or(bag);
    Ok(Bag(bag.strip_prefix('?').unwrap_or(bag)))
}

fn c2d_bag<'t>(topic: &'t str, device: &str) -> Option<&'t str> {
    let rest = topic.strip_prefix("devices/")?.strip_prefix(device)?.strip_prefix("/messages/")?;
    // Recorded hubs write both.
    let rest = rest.strip_prefix("devicebound").or_else(|| rest.strip_prefix("deviceBound"))?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

/// Properties in a topic, as they stand there. Nothing is decoded before it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bag<'t>(&'t str);

impl<'t> Bag<'t> {
    /// A bag out of a topic.
    pub fn new(text: &'t str) -> Self {
        Self(text)
    }

    /// Whether there are no properties.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Decoded names and values, in order and with repetitions; no value where there was no `=`.
    pub fn pairs(&self) -> impl Iterator<Item = (Cow<'t, str>, Option<Cow<'t, str>>)> {
        self.0.split('&').filter(|pair| !pair.is_empty()).map(|pair| match pair.split_once('=') {
            Some((name, value)) => (percent::decode(name), Some(percent::decode(value))),
            None => (percent::decode(pair), None),
        })
    }

    /// The message these properties came with.
    ///
    /// Of a repeated name the last one counts. A system property without a value is not set. What looks like a system
    /// property and is unknown, or is a time that cannot be read, becomes an application property under its name.
    pub fn into_message(self, lane: Lane, body: impl Into<Bytes>) -> Message {
        if self.is_empty() {
            return Message::in_lane(lane, body);
        }
        let mut system = SystemProperties::default();
        let mut application = Vec::new();
        for (name, value) in self.pairs() {
            let unset = value.is_none() && name.starts_with(names::PREFIX);
            let value = value.unwrap_or_default();
            if !unset && !name.is_empty() && !names::set(&mut system, &name, &value) {
                application.push((name.into_owned(), value.into_owned()));
            }
        }
        Message::from_parts(lane, body.into(), Properties::from_pairs(application), system)
    }
}

/// Appends `name=value` pairs to a topic.
struct BagWriter<'a> {
    topic: &'a mut String,
    /// Where the bag starts.
    start: usize,
}

impl BagWriter<'_> {
    fn system(&mut self, system: &SystemProperties, wanted: impl Fn(SystemName) -> bool) {
        let mut buffer = String::new();
        for (name, value) in system.iter().filter(|(name, _)| wanted(*name)) {
            self.pair(names::PREFIX, names::key(name), names::text(value, &mut buffer));
        }
    }

    fn pair(&mut self, prefix: &str, name: &str, value: &str) {
        if self.topic.len() > self.start {
            self.topic.push('&');
        }
        percent::encode(prefix, self.topic);
        percent::encode(name, self.topic);
        self.topic.push('=');
        percent::encode(value, self.topic);
    }
}

fn push_all<'a>(out: &mut String, parts: impl IntoIterator<Item = &'a str>) {
    out.extend(parts);
}

const D2C: &str = "topic.parse_d2c";
const C2D: &str = "topic.parse_c2d";
/// The one system property of a command without `$.`.
const ACK: &str = FeedbackWanted::PROPERTY;

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn read(bag: &str) -> Message {
        Bag::new(bag).into_message(Lane::Telemetry, "")
    }

    #[test]
    fn the_topic_of_a_device_and_of_a_module() {
        let message = Message::telemetry("")
            .message_id("m-1")
            .content_type("application/json")
            .content_encoding("utf-8")
            .creation_time(SystemTime::UNIX_EPOCH + Duration::from_secs(1_769_860_800))
            .property("room", "a b")
            .property("größe", "");
        let bag = "%24.mid=m-1&%24.ct=application%2Fjson&%24.ce=utf-8&%24.ctime=2026-01-31T12%3A00%3A00.0000000Z&\
                   room=a%20b&gr%C3%B6%C3%9Fe=";
        assert_eq!(d2c("d1", None, &message), format!("devices/d1/messages/events/{bag}"));
        assert_eq!(d2c("d1", Some("m1"), &message), format!("devices/d1/modules/m1/messages/events/{bag}"));
        assert_eq!(d2c("d#$", None, &Message::alert("x")), "devices/d#$/messages/events/");
        assert_eq!(read(bag), message);
    }

    #[test]
    fn oddities_around_the_bag() {
        for (rest, bag) in [
            ("/messages/events", ""),
            ("/messages/events/", ""),
            ("/messages/events//", ""),
            ("/messages/events/?", ""),
            ("/messages/events/a=b", "a=b"),
            ("/messages/events/a=b/", "a=b"),
            ("/messages/events/?a=b", "a=b"),
            ("/messages/events/?a=b/", "a=b"),
            ("/messages/events/a=b/c", "a=b/c"),
            ("/messages/events/a=b?", "a=b?"),
        ] {
            let device = format!("devices/d1{rest}");
            assert_eq!(parse_d2c(&device, "d1", None).unwrap(), Bag(bag), "{rest}");
            let module = format!("devices/d1/modules/m1{rest}");
            assert_eq!(parse_d2c(&module, "d1", Some("m1")).unwrap(), Bag(bag), "{rest}");
        }
    }

    #[test]
    fn oddities_in_the_bag() {
        let id = |id: &str| Message::telemetry("").message_id(id);
        let property = |name: &str, value: &str| Message::telemetry("").property(name, value);
        for (bag, message) in [
            ("$.mid=m", id("m")),
            ("%24.mid=m", id("m")),
            ("%24%2Emid=m", id("m")),
            ("$.mid=", id("")),
            ("$.mid", Message::telemetry("")),
            ("%24.cid&%24.uid", Message::telemetry("")),
            ("a", property("a", "")),
            ("a=", property("a", "")),
            ("a=b=c", property("a", "b=c")),
            ("a=1+1", property("a", "1+1")),
            ("a=1%2b1", property("a", "1+1")),
            ("a=100%", property("a", "100%")),
            ("a=%zz b", property("a", "%zz b")),
            ("a=%c3%bc", property("a", "ü")),
            ("a=%ff", property("a", "\u{fffd}")),
            ("a=1&a=2", property("a", "2")),
            ("$.mid=1&%24.mid=2", id("2")),
            ("&&a=1&", property("a", "1")),
            ("=1", Message::telemetry("")),
            ("$.xyz=1", property("$.xyz", "1")),
            ("$.MID=1", property("$.MID", "1")),
            ("$.cdid=other", property("$.cdid", "other")),
            ("$.ctime=yesterday", property("$.ctime", "yesterday")),
            ("iothub-ack=Full", property("iothub-ack", "Full")),
            (
                "$.ctime=2026-01-31T12:00:00Z",
                Message::telemetry("")
                    .creation_time(SystemTime::UNIX_EPOCH + Duration::from_secs(1_769_860_800)),
            ),
        ] {
            assert_eq!(read(bag), message, "{bag}");
        }
    }

    #[test]
    fn other_topics_are_refused() {
        for (topic, module, kind) in [
            ("devices/d2/messages/events/", None, ErrorKind::Unauthorized),
            ("devices/d11/messages/events/", None, ErrorKind::Unauthorized),
            ("devices/D1/messages/events/", None, ErrorKind::Unauthorized),
            ("devices/d1/modules/m1/messages/events/", None, ErrorKind::Unauthorized),
            ("devices/d1/messages/events/", Some("m1"), ErrorKind::Unauthorized),
            ("devices/d1/modules/m2/messages/events/", Some("m1"), ErrorKind::Unauthorized),
            ("devices/d1/messages/eventsx", None, ErrorKind::Protocol),
            ("devices/d1/messages/devicebound/", None, ErrorKind::Protocol),
            ("Devices/d1/messages/events/", None, ErrorKind::Protocol),
            ("sensors/temperature", None, ErrorKind::Protocol),
            ("", None, ErrorKind::Protocol),
        ] {
            assert_eq!(parse_d2c(topic, "d1", module).unwrap_err().kind(), kind, "{topic}");
        }
    }

    #[test]
    fn the_topic_of_a_command() {
        let mut message =
            Message::telemetry("").message_id("m").property("IotHub-Ack", "Full").property("p", "a/b");
        message.system_mut().to = Some("/devices/other/messages/devicebound".into());
        assert_eq!(
            c2d("d#1", &message),
            "devices/d#1/messages/devicebound/%24.mid=m&\
             %24.to=%2Fdevices%2Fd%231%2Fmessages%2FdeviceBound&iothub-ack=full&p=a%2Fb"
        );
        let bare = c2d("d", &Message::telemetry(""));
        assert_eq!(bare, "devices/d/messages/devicebound/%24.to=%2Fdevices%2Fd%2Fmessages%2FdeviceBound");
        let read = parse_c2d(&bare, "d").unwrap().into_message(Lane::Telemetry, "");
        assert_eq!(read.system().to.as_deref(), Some("/devices/d/messages/deviceBound"));
    }

    #[test]
    fn command_topics_and_filters() {
        for (topic, bag) in [
            ("devices/d/messages/devicebound/", Some("")),
            ("devices/d/messages/devicebound", Some("")),
            (
                "devices/d/messages/deviceBound/?prop1&prop2=&prop3=a%20string",
                Some("prop1&prop2=&prop3=a%20string"),
            ),
            ("devices/d/messages/devicebound/a=b/", Some("a=b")),
            ("devices/d2/messages/devicebound/a=b", None),
            ("devices/d/messages/deviceboundx", None),
            ("devices/d/messages/events/", None),
        ] {
            assert_eq!(parse_c2d(topic, "d").ok(), bag.map(Bag), "{topic}");
        }
        assert!(is_c2d_filter(&c2d_filter("d"), "d"));
        for other in [
            "devices/d/messages/devicebound/+",
            "devices/d/messages/devicebound/",
            "devices/+/messages/devicebound/#",
            "#",
        ] {
            assert!(!is_c2d_filter(other, "d"), "{other}");
        }
    }
}
