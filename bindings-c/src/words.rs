//! Numbers of C for the words of the core. A parameter takes any `int32_t`, for C has nothing that keeps other numbers out.

/// cbindgen:ignore
///
/// Given for "nothing is said about this". Not -1, which a mistake in the arithmetic of a program would be. The header has it from
/// cbindgen.toml, for `INT32_MIN` is nothing that cbindgen can spell.
pub const WHIMBREL_NOT_GIVEN: i32 = i32::MIN;

/// Which queue of the outbox a message waits in.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum whimbrel_lane {
    /// Ordinary measurements. The default.
    WHIMBREL_LANE_TELEMETRY = 0,
    /// Overtakes all waiting telemetry, and is never dropped to make room for it.
    WHIMBREL_LANE_ALERT = 1,
}

/// What sending waits for.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum whimbrel_durability {
    /// The message is on stable storage. The default.
    WHIMBREL_DURABILITY_ON_DISK = 0,
    /// Nothing: it is written at the sync interval, so a power cut can lose what one interval took in.
    WHIMBREL_DURABILITY_INTERVAL = 1,
    /// Nothing: it reaches the disk by chance only, and a power cut loses it.
    WHIMBREL_DURABILITY_MEMORY = 2,
}

/// What happens to a message that finds the outbox at its bounds. Alerts never make room for telemetry.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum whimbrel_overflow {
    /// Sending fails with WHIMBREL_STATUS_OUTBOX_FULL. The default.
    WHIMBREL_OVERFLOW_REJECT = 0,
    /// The oldest waiting telemetry makes room, and ends as dropped.
    WHIMBREL_OVERFLOW_DROP_OLDEST = 1,
    /// The new message is taken in, and ends as dropped at once.
    WHIMBREL_OVERFLOW_DROP_NEWEST = 2,
}

/// What is spoken with the hub.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum whimbrel_protocol {
    /// That of the server's address; of MQTT the newest version the hub has. The default.
    WHIMBREL_PROTOCOL_AUTO = 0,
    /// MQTT 3.1.1.
    WHIMBREL_PROTOCOL_MQTT3 = 1,
    /// MQTT 5.
    WHIMBREL_PROTOCOL_MQTT5 = 2,
    /// AMQP 1.0; needs the feature amqp.
    WHIMBREL_PROTOCOL_AMQP = 3,
    /// HTTPS; needs the feature http.
    WHIMBREL_PROTOCOL_HTTP = 4,
}

/// The word for a number, as the core's settings have it. A number that is none becomes itself as text, which those refuse with
/// the words there are.
pub(crate) fn word(number: i32, words: &[&str]) -> Option<String> {
    if number == WHIMBREL_NOT_GIVEN {
        return None;
    }
    let known = usize::try_from(number).ok().and_then(|index| words.get(index));
    Some(known.map_or_else(|| number.to_string(), |word| (*word).to_owned()))
}

pub(crate) const LANES: &[&str] = &["telemetry", "alert"];
pub(crate) const DURABILITIES: &[&str] = &["on-disk", "interval", "memory"];
pub(crate) const OVERFLOWS: &[&str] = &["reject", "drop-oldest", "drop-newest"];
pub(crate) const PROTOCOLS: &[&str] = &["auto", "mqtt3", "mqtt5", "amqp", "http"];
