//! MQTT 5: names of properties and topics, and the status codes of answers. Contract `mqtt.md`, part 2.
//!
//! The properties with the prefix `whimbrel-` are ours; a client uses them on messages only after the hub announced
//! them in CONNACK.

/// CONNECT user property: the id of the device's outbox. Offers de-duplication and asks for places in acknowledgements.
pub const OUTBOX: &str = "whimbrel-outbox";
/// CONNACK user property: the hub understands the properties named here; the value is the version, `1`.
pub const ANNOUNCE: &str = "whimbrel-version";
/// PUBLISH user property: lane (`t` or `a`) and number of a message, such as `t42`.
pub const NUMBER: &str = "whimbrel-n";
/// PUBACK user property: `partition:sequence` of the stored event; of a resend that was stored before, `partition:`.
pub const PLACE: &str = "whimbrel-at";
