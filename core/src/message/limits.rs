//! Sizes and characters: contract `messages.md`, "Size" and "Ids and times".

use super::{Message, system::SystemValue};
use crate::{Error, ErrorKind, Result, wire::time};

/// Largest device-to-cloud message, in bytes as [`Message::size`] counts.
pub const D2C_LIMIT: usize = 262_144;
/// Largest cloud-to-device message, in bytes as [`Message::size`] counts.
pub const C2D_LIMIT: usize = 65_536;
/// Longest message id, in characters.
pub const MESSAGE_ID_LIMIT: usize = 128;

impl Message {
    /// Size as the hub counts it: body, values of system properties, names and values of application properties. A time
    /// counts as its text of 28 bytes.
    pub fn size(&self) -> usize {
        self.body.len() + self.properties_size()
    }

    /// Checks everything that would make a device-to-cloud message fail later. `send` does so before it stores anything.
    ///
    /// ```
    /// use whimbrel::{ErrorKind, Message};
    ///
    /// let error = Message::telemetry("").property("$.mid", "1").validate().unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    /// assert!(error.to_string().ends_with("(property: 0)"));
    /// ```
    ///
    /// # Errors
    /// `PayloadTooLarge` over [`D2C_LIMIT`]. `InvalidArgument` for a message id that is empty, too long or has characters
    /// outside the allowed set; an empty property name or one starting with `$.`; a U+0000 anywhere; a time outside the
    /// years 1 to 9999; properties that would not fit into an MQTT topic; a time to live of zero.
    pub fn validate(&self) -> Result<()> {
        self.check_size(D2C_LIMIT)?;
        self.check_system()?;
        for (index, (name, value)) in self.properties.iter().enumerate() {
            if let Some(fault) = name_fault(name) {
                return Err(invalid(fault).with("property", index));
            }
            if name.contains('\0') || value.contains('\0') {
                return Err(invalid("an application property holds U+0000, which MQTT cannot carry")
                    .with("property", index));
            }
        }
        self.check_bag()
    }

    /// Checks everything that would make a cloud-to-device message fail later.
    ///
    /// # Errors
    /// As [`Message::validate`], with [`C2D_LIMIT`], and `InvalidArgument` for names and values of application properties
    /// with characters outside the HTTP token set.
    pub fn validate_command(&self) -> Result<()> {
        self.check_size(C2D_LIMIT)?;
        self.check_system()?;
        for (index, (name, value)) in self.properties.iter().enumerate() {
            if let Some(fault) = name_fault(name) {
                return Err(invalid(fault).with("property", index));
            }
            for (part, text) in [("name", name), ("value", value)] {
                if !text.bytes().all(is_token) {
                    return Err(invalid(
                        "an application property of a command may hold ASCII letters, digits and !#$%&'*+-.^_`|~ only",
                    )
                    .with("property", index)
                    .with("part", part));
                }
            }
        }
        self.check_bag()
    }

    fn check_size(&self, limit: usize) -> Result<()> {
        let size = self.size();
        if size > limit {
            let error = Error::new(
                ErrorKind::PayloadTooLarge,
                OPERATION,
                "the message is too large (body, property names and values together)",
            );
            return Err(error.with("size", size).with("limit", limit));
        }
        Ok(())
    }

    fn check_system(&self) -> Result<()> {
        if self.expires_in.is_some_and(|time_to_live| time_to_live.is_zero()) {
            return Err(invalid("the time to live is zero; leave it out for a message that never expires"));
        }
        if let Some(id) = &self.system.message_id {
            check_message_id(id)?;
        }
        for (name, value) in self.system.iter() {
            let fault = match value {
                SystemValue::Text(text) if text.contains('\0') => "holds U+0000, which MQTT cannot carry",
                SystemValue::Time(at) if !time::can_write(at) => "is outside the years 1 to 9999",
                SystemValue::Text(_) | SystemValue::Time(_) => continue,
            };
            return Err(invalid(format!("the {} {fault}", name.name())));
        }
        Ok(())
    }

    /// Whether the properties fit into a topic, for the longest device and module ids there can be.
    fn check_bag(&self) -> Result<()> {
        let pairs = self.properties.len() + self.system.iter().count();
        if 3 * self.properties_size() + pairs * KEY_OVERHEAD <= BAG_LIMIT {
            return Ok(());
        }
        let application: usize =
            self.properties.iter().map(|(name, value)| encoded_len(name) + encoded_len(value) + 2).sum();
        let system: usize = self
            .system
            .iter()
            .map(|(_, value)| match value {
                SystemValue::Text(text) => encoded_len(text) + KEY_OVERHEAD,
                SystemValue::Time(_) => 3 * time::LENGTH + KEY_OVERHEAD,
            })
            .sum();
        if application + system > BAG_LIMIT {
            let error = invalid("the properties do not fit into an MQTT topic once they are percent-encoded");
            return Err(error.with("size", application + system).with("limit", BAG_LIMIT));
        }
        Ok(())
    }

    fn properties_size(&self) -> usize {
        let system: usize = self
            .system
            .iter()
            .map(|(_, value)| match value {
                SystemValue::Text(text) => text.len(),
                SystemValue::Time(_) => time::LENGTH,
            })
            .sum();
        self.properties.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() + system
    }
}

fn check_message_id(id: &str) -> Result<()> {
    if id.is_empty() {
        return Err(invalid("the message id is empty; leave it out to have one made"));
    }
    if let Some((place, _)) = id.char_indices().find(|(_, c)| !is_id_character(*c)) {
        return Err(invalid("the message id may hold ASCII letters, digits and -:.+%_#*?!(),=@;$' only")
            .with("at", place));
    }
    if id.len() > MESSAGE_ID_LIMIT {
        return Err(invalid("the message id is too long")
            .with("length", id.len())
            .with("limit", MESSAGE_ID_LIMIT));
    }
    Ok(())
}

/// Whether `c` may stand in the id of a message, a device or a module.
pub(crate) fn is_id_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-:.+%_#*?!(),=@;$'".contains(c)
}

fn name_fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("an application property has an empty name")
    } else if name.starts_with("$.") {
        Some("names of application properties may not start with \"$.\": system properties do")
    } else {
        None
    }
}

/// A character of an HTTP token.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Length of `text` once it is percent-encoded.
fn encoded_len(text: &str) -> usize {
    text.bytes().map(|byte| if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) { 1 } else { 3 }).sum()
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidArgument, OPERATION, message)
}

const OPERATION: &str = "message.validate";
/// What is left of a topic beside `devices/{128}/modules/{128}/messages/events/`.
const BAG_LIMIT: usize = 65_535 - (8 + 128 + 9 + 128 + 17);
/// `&%24.diagctx=`: the longest key of a system property with what stands around it.
const KEY_OVERHEAD: usize = 13;

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::{Properties, SystemProperties};

    fn refusal(message: &Message) -> (ErrorKind, String) {
        let error = message.validate().unwrap_err();
        (error.kind(), error.to_string())
    }

    #[test]
    fn size_counts_body_values_and_application_names() {
        let message = Message::telemetry("12345")
            .property("room", "attic")
            .content_type("text/plain")
            .creation_time(SystemTime::UNIX_EPOCH);
        assert_eq!(message.size(), 5 + (4 + 5) + 10 + 28);
    }

    #[test]
    fn the_limit_itself_is_allowed() {
        Message::telemetry(vec![0; D2C_LIMIT]).validate().unwrap();
        Message::telemetry(vec![0; C2D_LIMIT]).validate_command().unwrap();
        let over = Message::telemetry(vec![0; D2C_LIMIT - 1]).property("a", "b");
        assert_eq!(refusal(&over).0, ErrorKind::PayloadTooLarge);
        let over = Message::telemetry(vec![0; C2D_LIMIT + 1]).validate_command().unwrap_err();
        assert_eq!(over.details(), [("size", "65537".to_owned()), ("limit", "65536".to_owned())]);
    }

    #[test]
    fn what_is_refused() {
        let system = |set: fn(&mut SystemProperties)| {
            let mut message = Message::telemetry("");
            set(message.system_mut());
            message
        };
        let rows = [
            (Message::telemetry("").message_id(""), "empty"),
            (Message::telemetry("").message_id("a b"), "at: 1"),
            (Message::telemetry("").message_id("é"), "at: 0"),
            (Message::telemetry("").message_id("m".repeat(129)), "limit: 128"),
            (Message::telemetry("").property("a", "").property("", "x"), "property: 1"),
            (Message::telemetry("").property("$.mid", "x"), "may not start"),
            (Message::telemetry("").property("a", "x\0"), "U+0000"),
            (Message::telemetry("").property("a\0", ""), "U+0000"),
            (system(|set| set.user_id = Some("\0".into())), "the user id holds"),
            (
                system(|set| {
                    set.expiry_time = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(300_000_000_000))
                }),
                "the expiry time is outside",
            ),
            (Message::telemetry("").expires_in(Duration::ZERO), "time to live is zero"),
            (Message::telemetry("").property("a", "ü".repeat(12_000)), "MQTT topic"),
            (Message::telemetry("").property("a", "x".repeat(65_244)), "MQTT topic"),
        ];
        for (message, expected) in rows {
            let (kind, text) = refusal(&message);
            assert_eq!(kind, ErrorKind::InvalidArgument, "{text}");
            assert!(text.contains(expected), "{text:?} does not say {expected:?}");
        }
    }

    #[test]
    fn what_is_allowed() {
        let odd = "-:.+%_#*?!(),=@;$'".repeat(7);
        Message::telemetry("").message_id(odd).validate().unwrap();
        Message::telemetry("").property("größe", "a b/c&d=e+f").property("$", "").validate().unwrap();
        Message::telemetry("").property("a", "x".repeat(65_242)).validate().unwrap();
        let many: Properties = (0..5_000).map(|n| (format!("name{n}"), "v")).collect();
        Message::alert("").with_properties(many).validate().unwrap();
    }

    #[test]
    fn commands_hold_token_characters_only() {
        Message::telemetry("").property("a!#$%&'*+-.^_`|~", "Z9").validate_command().unwrap();
        let error = Message::telemetry("").property("a", "b c").validate_command().unwrap_err();
        assert_eq!(error.details(), [("property", "0".to_owned()), ("part", "value".to_owned())]);
        let error = Message::telemetry("").property("a/", "b").validate_command().unwrap_err();
        assert_eq!(error.details(), [("property", "0".to_owned()), ("part", "name".to_owned())]);
    }
}
