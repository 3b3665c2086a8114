//! What a program hands over: a body, application properties, system properties, a lane.
//!
//! Rules and limits: contract `messages.md`. Encodings live in [`crate::wire`].

mod limits;
mod properties;
mod system;

use std::time::{Duration, SystemTime};

use bytes::Bytes;

pub(crate) use limits::is_id_character;
pub use limits::{C2D_LIMIT, D2C_LIMIT, MESSAGE_ID_LIMIT};
pub use properties::Properties;
pub use system::SystemProperties;
pub(crate) use system::{SystemName, SystemSlot, SystemValue};

use crate::outbox::Durability;

/// The queue of the outbox a message waits in. Alerts overtake all waiting telemetry; order is kept within a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Ordinary measurements.
    Telemetry,
    /// Overtakes telemetry, and is never dropped to make room for it.
    Alert,
}

impl Lane {
    /// Both lanes, the more urgent first.
    pub const ALL: [Self; 2] = [Self::Alert, Self::Telemetry];

    /// The name used in documents, metrics and every language.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Telemetry => "telemetry",
            Self::Alert => "alert",
        }
    }
}

/// A message on its way, in either direction.
///
/// ```
/// use std::time::Duration;
/// use whimbrel::{Lane, Message};
///
/// let reading = Message::telemetry(r#"{"t":21.5}"#)
///     .content_type("application/json")
///     .content_encoding("utf-8")
///     .property("room", "attic")
///     .expires_in(Duration::from_secs(3600));
/// reading.validate()?;
/// assert_eq!(reading.size(), 10 + 16 + 5 + 4 + 5); // body, two system values, one name and its value
///
/// let alarm = Message::alert("overheat").message_id("alarm-7");
/// assert_eq!(alarm.lane(), Lane::Alert); // overtakes all telemetry that waits
/// # Ok::<(), whimbrel::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    lane: Lane,
    body: Bytes,
    properties: Properties,
    system: SystemProperties,
    expires_in: Option<Duration>,
    durability: Option<Durability>,
}

impl Message {
    /// An ordinary measurement.
    pub fn telemetry(body: impl Into<Bytes>) -> Self {
        Self::in_lane(Lane::Telemetry, body)
    }

    /// A message that overtakes all waiting telemetry.
    pub fn alert(body: impl Into<Bytes>) -> Self {
        Self::in_lane(Lane::Alert, body)
    }

    /// A command to a device. Lanes are of the outbox, and mean nothing to it.
    pub fn command(body: impl Into<Bytes>) -> Self {
        Self::telemetry(body)
    }

    /// A message in the given lane.
    pub fn in_lane(lane: Lane, body: impl Into<Bytes>) -> Self {
        Self::from_parts(lane, body.into(), Properties::default(), SystemProperties::default())
    }

    pub(crate) fn from_parts(
        lane: Lane,
        body: Bytes,
        properties: Properties,
        system: SystemProperties,
    ) -> Self {
        Self { lane, body, properties, system, expires_in: None, durability: None }
    }

    /// Sets one application property; a later value of the same name wins.
    #[must_use]
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.set(name, value);
        self
    }

    /// Replaces all application properties.
    #[must_use]
    pub fn with_properties(mut self, properties: Properties) -> Self {
        self.properties = properties;
        self
    }

    /// Replaces all system properties.
    #[must_use]
    pub fn with_system(mut self, system: SystemProperties) -> Self {
        self.system = system;
        self
    }

    /// The id that outcomes and receipts are found by. Without one the outbox makes one.
    #[must_use]
    pub fn message_id(mut self, id: impl Into<String>) -> Self {
        self.system.message_id = Some(id.into());
        self
    }

    /// Joins this message to another one.
    #[must_use]
    pub fn correlation_id(mut self, id: impl Into<String>) -> Self {
        self.system.correlation_id = Some(id.into());
        self
    }

    /// The content type of the body, such as `application/json`.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.system.content_type = Some(content_type.into());
        self
    }

    /// The character set of the body, such as `utf-8`.
    #[must_use]
    pub fn content_encoding(mut self, content_encoding: impl Into<String>) -> Self {
        self.system.content_encoding = Some(content_encoding.into());
        self
    }

    /// When the measurement was made, by the device's clock.
    #[must_use]
    pub fn creation_time(mut self, time: SystemTime) -> Self {
        self.system.creation_time = Some(time);
        self
    }

    /// Time to live, counted from `send`, also while offline. Zero is refused by `send`.
    #[must_use]
    pub fn expires_in(mut self, time_to_live: Duration) -> Self {
        self.expires_in = Some(time_to_live);
        self
    }

    /// What `send` waits for, instead of the outbox's own setting.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// The lane.
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The application properties.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// The system properties.
    pub fn system(&self) -> &SystemProperties {
        &self.system
    }

    /// The system properties, to change.
    pub fn system_mut(&mut self) -> &mut SystemProperties {
        &mut self.system
    }

    /// The time to live.
    pub fn time_to_live(&self) -> Option<Duration> {
        self.expires_in
    }

    /// The durability asked for by this message.
    pub fn wanted_durability(&self) -> Option<Durability> {
        self.durability
    }
}
