//! MQTT 5: names of topics and properties, messages as user properties, the string a device signs, and the status of
//! answers. Contract `mqtt.md`, part 2.
//!
//! The properties with the prefix `whimbrel-` are ours; a client uses them on messages only after the hub announced
//! them in CONNACK.
//!
//! ```
//! use whimbrel::{Message, wire::v5};
//!
//! let message = Message::telemetry("21.5").message_id("m-1").property("room", "attic");
//! let properties: Vec<_> = v5::user_properties(&message).collect();
//! assert_eq!(properties, [(["", "message-id"], "m-1".into()), (["@", "room"], "attic".into())]);
//!
//! let received = v5::message(None, [("message-id", "m-1"), ("@room", "attic")], "21.5")?;
//! assert_eq!(received.message, message);
//! # Ok::<(), whimbrel::Error>(())
//! ```

mod command;
mod mark;
mod message;
mod status;

pub use command::{ReceivedCommand, command, command_properties};
pub use mark::{Number, Place};
pub use message::{Received, message, user_properties};
pub use status::Status;

/// Topic of events.
pub const TELEMETRY: &str = "$iothub/telemetry";
/// Topic of commands.
pub const COMMANDS: &str = "$iothub/commands";

/// Authentication method of CONNECT: a signature over [`string_to_sign`].
pub const METHOD_SAS: &str = "SAS";
/// Authentication method of CONNECT: the certificate of the TLS handshake.
pub const METHOD_X509: &str = "X509";

/// CONNECT user property: [`API_VERSION`].
pub const API_VERSION_NAME: &str = "api-version";
/// The only version of the MQTT 5 contract there is.
pub const API_VERSION: &str = "2020-10-01-preview";
/// CONNECT user property: name of the hub; needed where TLS did not carry it.
pub const HOST: &str = "host";
/// CONNECT user property: when the signature was made, in milliseconds since 1970.
pub const SAS_AT: &str = "sas-at";
/// CONNECT user property: when the signature ends, in milliseconds since 1970.
pub const SAS_EXPIRY: &str = "sas-expiry";
/// CONNECT user property: the policy whose key signed; none for the device's own key.
pub const SAS_POLICY: &str = "sas-policy";
/// CONNECT user property: what program connects.
pub const CLIENT_AGENT: &str = "client-agent";

/// User property of answers: the [`Status`].
pub const STATUS: &str = "status";
/// User property of answers: text for people.
pub const REASON: &str = "reason";
/// User property of answers: finds the case in the hub's log.
pub const TRACE_ID: &str = "trace-id";

/// CONNECT user property: the id of the device's outbox. Offers de-duplication and asks for places in acknowledgements.
pub const OUTBOX: &str = "whimbrel-outbox";
/// CONNACK user property: the hub understands the properties named here; the value is the version, `1`.
pub const ANNOUNCE: &str = "whimbrel-version";
/// PUBLISH user property: lane (`t` or `a`) and number of a message, such as `t42`; see [`Number`].
pub const NUMBER: &str = "whimbrel-n";
/// PUBACK user property: `partition:sequence` of the stored event; of a resend that was stored before, `partition:`; see
/// [`Place`].
pub const PLACE: &str = "whimbrel-at";

/// What a device signs for CONNECT: one line each, in the texts the user properties carry; absent ones are empty.
pub fn string_to_sign(
    host: &str,
    client_id: &str,
    policy: Option<&str>,
    at: Option<&str>,
    expiry: &str,
) -> String {
    let (policy, at) = (policy.unwrap_or_default(), at.unwrap_or_default());
    format!("{host}\n{client_id}\n{policy}\n{at}\n{expiry}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_lines_are_empty() {
        assert_eq!(string_to_sign("h", "d", None, None, "17"), "h\nd\n\n\n17\n");
        assert_eq!(string_to_sign("h", "d/m", Some("p"), Some("1"), "17"), "h\nd/m\np\n1\n17\n");
    }
}
