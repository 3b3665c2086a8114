//! System properties.

use std::time::SystemTime;

/// The fixed set of properties the hub knows. Names on each protocol: contract `messages.md`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SystemProperties {
    /// Finds the outcome of this message; at most [`MESSAGE_ID_LIMIT`](super::MESSAGE_ID_LIMIT) characters.
    pub message_id: Option<String>,
    /// Joins this message to another one.
    pub correlation_id: Option<String>,
    /// Who caused the message.
    pub user_id: Option<String>,
    /// Content type of the body.
    pub content_type: Option<String>,
    /// Character set of the body.
    pub content_encoding: Option<String>,
    /// When the content was made, by the sender's clock.
    pub creation_time: Option<SystemTime>,
    /// When the message ends to be of use.
    pub expiry_time: Option<SystemTime>,
    /// Destination, as some senders set it.
    pub to: Option<String>,
    /// Schema of the content.
    pub message_schema: Option<String>,
    /// Output of a module.
    pub output_name: Option<String>,
    /// Interface id of a security message.
    pub interface_id: Option<String>,
    /// Component the message belongs to.
    pub component: Option<String>,
    /// Trace id.
    pub diagnostic_id: Option<String>,
    /// Trace context.
    pub diagnostic_context: Option<String>,
}
