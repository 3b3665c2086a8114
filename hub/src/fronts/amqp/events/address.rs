//! Names of the event log, and what clients call its partitions.

use std::net::IpAddr;

/// Names the event log goes by.
#[derive(Clone, Debug)]
pub(super) struct Names {
    host: String,
    entity: String,
}

impl Names {
    /// The names of a hub called `host`. The event log is called like the first label of its name; where that is an
    /// address, which has none, `events`.
    pub(super) fn of(host: &str) -> Self {
        let entity = match host.parse::<IpAddr>() {
            Ok(_) => FALLBACK,
            Err(_) => host.split('.').next().filter(|label| !label.is_empty()).unwrap_or(FALLBACK),
        };
        Self { host: host.to_owned(), entity: entity.to_owned() }
    }

    /// Name of the event log: what clients of Event Hubs call `EntityPath`.
    pub(super) fn entity(&self) -> &str {
        &self.entity
    }

    /// Name of the hub.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Whether `name` is the event log, without regard to case: its name, or `messages/events`.
    pub(super) fn is_entity(&self, name: &str) -> bool {
        name.eq_ignore_ascii_case(&self.entity) || is_hub_side(name)
    }
}

/// Whether this is the event log as programs that know the IoT hub alone call it.
pub(super) fn is_hub_side(name: &str) -> bool {
    name.trim_matches('/').eq_ignore_ascii_case("messages/events")
}

/// A partition as clients write it: digits and nothing else.
pub(super) fn partition(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Name of the event log of a hub whose name has no labels.
const FALLBACK: &str = "events";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_log_is_called_like_the_hub() {
        for (host, entity) in [
            ("Plant7.example.org", "Plant7"),
            ("localhost", "localhost"),
            ("127.0.0.1", "events"),
            ("::1", "events"),
            ("", "events"),
        ] {
            let names = Names::of(host);
            assert_eq!((names.host(), names.entity()), (host, entity));
            for name in [entity, &entity.to_uppercase(), "messages/events", "/Messages/Events/"] {
                assert!(names.is_entity(name), "{name}");
            }
            for name in ["", "other", "messages", "messages/events/more"] {
                assert!(!names.is_entity(name), "{name}");
            }
        }
    }

    #[test]
    fn partitions_are_plain_numbers() {
        assert_eq!((partition("0"), partition("31")), (Some(0), Some(31)));
        for text in ["", "x", "-1", "+1", "1.0", " 1", "99999999999"] {
            assert_eq!(partition(text), None, "{text}");
        }
    }
}
