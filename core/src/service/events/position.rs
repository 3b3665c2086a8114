//! Where reading begins, and how that is said. Contract `d2c.md`, "Receiver link".

use std::time::SystemTime;

use fe2o3_amqp_types::{
    messaging::FilterSet,
    primitives::{Symbol, Value},
};
use serde_amqp::described::Described;

use crate::wire::amqp;

/// Where a reader begins in partitions it has no checkpoint for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Position {
    /// With the oldest event that is kept.
    #[default]
    Beginning,
    /// With the first event stored after the reader was opened.
    End,
    /// With the event of this sequence number, or the first one after it.
    Sequence(u64),
    /// With the event at this offset, as [`Event::offset`](super::Event::offset) gave it.
    Offset(String),
    /// With the first event stored at this time or later, by the hub's clock.
    Time(SystemTime),
}

/// Where a link begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Start {
    At(Position),
    /// Behind this event.
    After(u64),
}

impl Start {
    /// The condition as text, or none for everything.
    pub(super) fn selector(&self) -> String {
        let (annotation, comparison, value) = match self {
            Self::After(sequence) => (amqp::annotation::SEQUENCE, ">", sequence.to_string()),
            Self::At(Position::Beginning) => (amqp::annotation::OFFSET, ">", "-1".to_owned()),
            Self::At(Position::End) => (amqp::annotation::OFFSET, ">", "@latest".to_owned()),
            Self::At(Position::Sequence(sequence)) => {
                (amqp::annotation::SEQUENCE, ">=", sequence.to_string())
            }
            // A quote in an offset would end the text; offsets hold none.
            Self::At(Position::Offset(offset)) => {
                (amqp::annotation::OFFSET, ">=", offset.replace('\'', "''"))
            }
            Self::At(Position::Time(at)) => {
                (amqp::annotation::LOGGED_AT, ">=", amqp::timestamp(*at).milliseconds().to_string())
            }
        };
        format!("amqp.annotation.{annotation} {comparison} '{value}'")
    }

    pub(super) fn filter(&self) -> FilterSet {
        let described = Described {
            descriptor: serde_amqp::descriptor::Descriptor::Name(Symbol::from(SELECTOR)),
            value: Value::String(self.selector()),
        };
        let mut filter = FilterSet::new();
        filter.insert(Symbol::from(SELECTOR), Value::Described(Box::new(described)));
        filter
    }

    /// Whether an event is one that was asked for: a hub that does not understand the condition sends everything.
    pub(super) fn wants(&self, sequence: u64) -> bool {
        match self {
            Self::After(last) => sequence > *last,
            Self::At(Position::Sequence(first)) => sequence >= *first,
            Self::At(_) => true,
        }
    }
}

const SELECTOR: &str = "apache.org:selector-filter:string";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_position_is_one_comparison() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_769_860_800_123);
        for (start, text) in [
            (Start::At(Position::Beginning), "amqp.annotation.x-opt-offset > '-1'"),
            (Start::At(Position::End), "amqp.annotation.x-opt-offset > '@latest'"),
            (Start::At(Position::Sequence(0)), "amqp.annotation.x-opt-sequence-number >= '0'"),
            (Start::At(Position::Offset("4711".into())), "amqp.annotation.x-opt-offset >= '4711'"),
            (Start::At(Position::Time(time)), "amqp.annotation.x-opt-enqueued-time >= '1769860800123'"),
            (Start::After(7), "amqp.annotation.x-opt-sequence-number > '7'"),
        ] {
            assert_eq!(start.selector(), text);
        }
        assert!(Start::After(7).wants(8) && !Start::After(7).wants(7));
        assert!(Start::At(Position::Sequence(7)).wants(7) && !Start::At(Position::Sequence(7)).wants(6));
    }
}
