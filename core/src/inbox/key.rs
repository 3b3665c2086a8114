//! What a redelivery of a command is known by.

use std::{fmt, time::UNIX_EPOCH};

use sha2::{Digest, Sha256};

use crate::{Message, message::SystemValue, transport::Arrived, wire::time::since_epoch};

/// Names a command on all connections and after restarts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key(pub(super) [u8; Key::LENGTH]);

/// The key of a command that arrived, and how much it is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) key: Key,
    /// No other command has this key. Otherwise a service that sends the same thing twice under one message id makes
    /// two commands that look alike.
    pub(super) sure: bool,
}

impl Key {
    pub(super) const LENGTH: usize = 16;

    fn of(hash: Sha256) -> Self {
        let mut key = [0; Self::LENGTH];
        key.iter_mut().zip(hash.finalize()).for_each(|(byte, hashed)| *byte = hashed);
        Self(key)
    }
}

impl Name {
    /// The name of a command, if it has one: its number in the device's queue with the time it was taken in, to the
    /// millisecond, as that is what every protocol that tells it can say. On MQTT 3.1.1 its message id with everything
    /// else in it: hubs put an expiry time into each command, and two commands with one id that end in the same instant
    /// are one. Where there is no expiry time the name is not sure, where there is no message id there is none.
    pub(super) fn of(arrived: &Arrived) -> Option<Self> {
        if let (Some(sequence), Some(enqueued_at)) = (arrived.sequence, arrived.enqueued_at) {
            let millis = enqueued_at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
            let mut hash = Sha256::new_with_prefix(b"place");
            hash.update(sequence.to_le_bytes());
            hash.update(millis.to_le_bytes());
            return Some(Self { key: Key::of(hash), sure: true });
        }
        arrived.message.system().message_id.as_ref()?;
        let sure = arrived.message.system().expiry_time.is_some();
        Some(Self { key: Key::of(content(&arrived.message)), sure })
    }
}

/// Everything in a message. Each part comes with its length, so that no two messages read alike.
fn content(message: &Message) -> Sha256 {
    let mut hash = Sha256::new_with_prefix(b"content");
    let mut put = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for (name, value) in message.system().iter() {
        put(&[name as u8]);
        match value {
            SystemValue::Text(text) => put(text.as_bytes()),
            SystemValue::Time(at) => {
                let (seconds, nanos) = since_epoch(at);
                put(&seconds.to_le_bytes());
                put(&nanos.to_le_bytes());
            }
        }
    }
    put(b"");
    for (name, value) in message.properties().iter() {
        put(name.as_bytes());
        put(value.as_bytes());
    }
    put(b"");
    put(message.body());
    hash
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, ..] = self.0;
        write!(f, "Key({first:02x}{second:02x}..)")
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn arrived(sequence: Option<u64>, at: Option<Duration>, message: Message) -> Arrived {
        let enqueued_at = at.map(|at| UNIX_EPOCH + at);
        Arrived { handle: 1, sequence, enqueued_at, delivery_count: None, message }
    }

    fn expiring(message: Message) -> Message {
        let mut message = message;
        message.system_mut().expiry_time = Some(SystemTime::UNIX_EPOCH);
        message
    }

    #[test]
    fn a_place_in_the_queue_is_the_name_whatever_the_content() {
        let at = Some(Duration::from_millis(1_769_860_800_123));
        let name = |sequence, at, text: &'static str| {
            Name::of(&arrived(sequence, at, Message::telemetry(text))).map(|name| (name.key, name.sure))
        };
        let first = name(Some(1), at, "a");
        assert!(first.is_some_and(|(_, sure)| sure));
        assert_eq!(first, name(Some(1), at, "b"));
        // MQTT 5 and AMQP tell milliseconds, HTTP more.
        assert_eq!(first, name(Some(1), at.map(|at| at + Duration::from_micros(999)), "a"));
        assert_ne!(first, name(Some(2), at, "a"));
        assert_ne!(first, name(Some(1), at.map(|at| at + Duration::from_millis(1)), "a"));
    }

    #[test]
    fn without_a_place_everything_counts() {
        let name = |message| Name::of(&arrived(None, None, message));
        let command = || Message::telemetry("reboot").message_id("m").property("a", "b");
        assert_eq!(name(Message::telemetry("reboot")), None);
        let plain = name(command()).unwrap();
        assert!(!plain.sure && name(expiring(command())).unwrap().sure);
        assert_eq!(name(command()), Some(plain));
        for other in [
            command().message_id("n"),
            command().property("a", "c"),
            command().property("b", ""),
            command().content_type("b"),
            Message::telemetry("reboo").message_id("m").property("a", "b").property("t", ""),
            expiring(command()),
        ] {
            assert_ne!(name(other.clone()).unwrap().key, plain.key, "{other:?}");
        }
        // The one half of a place is no name.
        assert_eq!(Name::of(&arrived(Some(1), None, Message::telemetry(""))), None);
    }
}
