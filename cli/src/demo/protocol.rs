//! What the processes of the demo say to each other: one JSON text per line, on the child's standard output.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use whimbrel::{Account, Counters, Lane};

/// A line from a device process.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Said {
    /// `send` has returned for these messages: from here on they must not be lost.
    Accepted(Vec<Id>),
    /// How things are.
    Standing(Standing),
    /// The same for the last time: the outbox is closed.
    Ended(Standing),
}

/// The state of a device process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Standing {
    /// `connected`, or what it is instead.
    pub(super) link: String,
    pub(super) accepted: u64,
    pub(super) delivered: u64,
    pub(super) expired: u64,
    pub(super) dropped: u64,
    pub(super) rejected: u64,
    pub(super) queued: u64,
    pub(super) queued_alerts: u64,
    /// Publishes since this process began.
    pub(super) sent: u64,
}

impl Standing {
    pub(super) fn new(link: String, counters: &Counters) -> Self {
        let Account { accepted, delivered, expired, dropped, rejected, queued } = counters.account;
        let (queued_alerts, sent) = (counters.queued_alerts, counters.sent);
        Self { link, accepted, delivered, expired, dropped, rejected, queued, queued_alerts, sent }
    }

    /// Whether every accepted message is in exactly one place.
    pub(super) fn balances(&self) -> bool {
        self.accepted == self.delivered + self.given_up() + self.queued
    }

    /// Messages that ended without being delivered.
    pub(super) fn given_up(&self) -> u64 {
        self.expired + self.dropped + self.rejected
    }
}

/// The message id of every message of the demo: which life of the device process sent it, in which lane, as the how-manieth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) lane: Lane,
    pub(super) life: u32,
    pub(super) number: u64,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.lane.name(), self.life, self.number)
    }
}

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let mut parts = text.split('-');
            let name = parts.next()?;
            let lane = Lane::ALL.into_iter().find(|lane| lane.name() == name)?;
            let id = Self { lane, life: parts.next()?.parse().ok()?, number: parts.next()?.parse().ok()? };
            parts.next().is_none().then_some(id)
        };
        parse().ok_or_else(|| format!("{text} is no id of this demo"))
    }
}

impl Serialize for Id {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_survive_the_pipe_and_half_a_line_is_none() {
        let said = Said::Accepted(vec![
            Id { lane: Lane::Alert, life: 2, number: 7 },
            Id { lane: Lane::Telemetry, life: 1, number: 42 },
        ]);
        let line = serde_json::to_string(&said).unwrap();
        assert_eq!(line, r#"{"accepted":["alert-2-7","telemetry-1-42"]}"#);
        assert_eq!(serde_json::from_str::<Said>(&line).unwrap(), said);
        assert!(serde_json::from_str::<Said>(&line[..line.len() - 1]).is_err());
    }

    #[test]
    fn a_strange_id_is_refused() {
        for text in ["", "alert", "alert-1", "alert-1-2-3", "alarm-1-2", "alert-x-2"] {
            assert!(text.parse::<Id>().is_err(), "{text}");
        }
    }
}
