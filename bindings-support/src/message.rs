//! Messages as another language hands them over.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use whimbrel::{Durability, Error, ErrorKind, Lane, Message, Properties, Result, SystemProperties};

/// What a program says about a message besides its body; what it does not say is `None` or empty.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "json", derive(serde::Deserialize), serde(default, deny_unknown_fields))]
pub struct Draft {
    /// `telemetry` (the default) or `alert`.
    pub lane: Option<String>,
    /// Application properties, in order.
    pub properties: Vec<(String, String)>,
    /// Message id.
    pub message_id: Option<String>,
    /// Correlation id.
    pub correlation_id: Option<String>,
    /// User id.
    pub user_id: Option<String>,
    /// Content type.
    pub content_type: Option<String>,
    /// Content encoding.
    pub content_encoding: Option<String>,
    /// Creation time, milliseconds since 1970.
    pub creation_time_ms: Option<i64>,
    /// Schema of the content.
    pub message_schema: Option<String>,
    /// Output of a module.
    pub output_name: Option<String>,
    /// Interface id of a security message.
    pub interface_id: Option<String>,
    /// Component the message belongs to.
    pub component: Option<String>,
    /// Time to live, milliseconds; may be a text.
    #[cfg_attr(feature = "json", serde(deserialize_with = "crate::options::number"))]
    pub expires_in_ms: Option<u64>,
    /// `on-disk`, `interval` or `memory`; else the outbox's own.
    pub durability: Option<String>,
}

impl Draft {
    /// The message with this body. `operation` is the call that got it, for errors.
    ///
    /// # Errors
    /// `InvalidArgument` naming the word or time that cannot be.
    pub fn message(self, operation: &'static str, body: impl Into<Bytes>) -> Result<Message> {
        let lane = match self.lane {
            None => Lane::Telemetry,
            Some(word) => lane(operation, &word)?,
        };
        let mut message = Message::in_lane(lane, body);
        if !self.properties.is_empty() {
            message = message.with_properties(self.properties.into_iter().collect::<Properties>());
        }
        let creation_time = match self.creation_time_ms {
            None => None,
            Some(at) => {
                let since = Duration::from_millis(at.unsigned_abs());
                let time = if at < 0 { UNIX_EPOCH.checked_sub(since) } else { UNIX_EPOCH.checked_add(since) };
                Some(time.ok_or_else(|| invalid(operation, "the creation time cannot be kept", at))?)
            }
        };
        message = message.with_system(SystemProperties {
            message_id: self.message_id,
            correlation_id: self.correlation_id,
            user_id: self.user_id,
            content_type: self.content_type,
            content_encoding: self.content_encoding,
            creation_time,
            message_schema: self.message_schema,
            output_name: self.output_name,
            interface_id: self.interface_id,
            component: self.component,
            ..SystemProperties::default()
        });
        if let Some(time_to_live) = self.expires_in_ms {
            message = message.expires_in(Duration::from_millis(time_to_live));
        }
        if let Some(word) = self.durability {
            message = message.durability(durability(operation, &word)?);
        }
        Ok(message)
    }
}

pub(crate) fn lane(operation: &'static str, word: &str) -> Result<Lane> {
    let found = Lane::ALL.into_iter().find(|lane| lane.name() == word);
    found.ok_or_else(|| invalid(operation, "a lane is telemetry or alert", word))
}

pub(crate) fn durability(operation: &'static str, word: &str) -> Result<Durability> {
    match word {
        "on-disk" => Ok(Durability::OnDisk),
        "interval" => Ok(Durability::Interval),
        "memory" => Ok(Durability::Memory),
        _ => Err(invalid(operation, "a durability is on-disk, interval or memory", word)),
    }
}

fn invalid(operation: &'static str, message: &'static str, given: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidArgument, operation, message).with("given", given)
}

#[cfg(all(test, feature = "service"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_in_the_message_and_the_rest_is_as_usual() {
        let draft: Draft = serde_json::from_str(
            r#"{"lane": "alert", "properties": [["room", "attic"], ["room", "cellar"]], "message_id": "m",
                "creation_time_ms": -1500, "expires_in_ms": 0, "durability": "memory"}"#,
        )
        .unwrap();
        let message = draft.message("device.send", "x").unwrap();
        assert_eq!((message.lane(), message.properties().get("room")), (Lane::Alert, Some("cellar")));
        assert_eq!(message.system().creation_time, UNIX_EPOCH.checked_sub(Duration::from_millis(1500)));
        assert_eq!(message.time_to_live(), Some(Duration::ZERO));
        assert_eq!(message.wanted_durability(), Some(Durability::Memory));
        let beyond: Draft = serde_json::from_str(r#"{"expires_in_ms": "9007199254740993"}"#).unwrap();
        assert_eq!(beyond.expires_in_ms, Some(9_007_199_254_740_993));
        let usual = Draft::default().message("device.send", "x").unwrap();
        assert_eq!(usual, Message::telemetry("x"));
        for wrong in [
            Draft { lane: Some("fast".into()), ..Draft::default() },
            Draft { durability: Some("".into()), ..Draft::default() },
        ] {
            let error = wrong.message("device.send", "x").unwrap_err();
            assert_eq!((error.kind(), error.operation()), (ErrorKind::InvalidArgument, "device.send"));
        }
    }
}
