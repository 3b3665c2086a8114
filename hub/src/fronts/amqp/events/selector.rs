//! Where a reader wants to start: the filter on the source of its link.
//!
//! One comparison, `amqp.annotation.NAME > 'VALUE'` or `>=`, of an offset, a sequence number or the time an event was
//! taken in; quotes and blanks may be missing.

use std::time::{Duration, SystemTime};

use fe2o3_amqp_types::{
    messaging::Source,
    primitives::{Symbol, Value},
};
use serde_amqp::{described::Described, descriptor::Descriptor};
use whimbrel::wire::amqp;

use crate::events::Position;

/// What is wrong with a filter, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Malformed(String);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where the filter of a source says to start: at the beginning when it has none. Filters of other kinds are taken out
/// of the source, so that the answer to the client does not claim them.
///
/// # Errors
/// When it is not such a filter.
pub(super) fn position(source: &mut Source) -> Result<Position, Malformed> {
    let Some(mut filters) = source.filter.take() else { return Ok(Position::Beginning) };
    let known: Vec<_> = filters.keys().filter(|name| name.0 == SELECTOR).cloned().collect();
    let chosen =
        known.into_iter().next().and_then(|name| filters.swap_remove(&name).map(|value| (name, value)));
    let Some((name, value)) = chosen else { return Ok(Position::Beginning) };
    let position = match selector(&value) {
        Some(text) => parse(text)?,
        None if value == Value::Null => Position::Beginning,
        None => return Err(Malformed("the selector filter is not a described string".to_owned())),
    };
    source.filter.get_or_insert_default().insert(name, value);
    Ok(position)
}

/// The text of a selector.
fn selector(value: &Value) -> Option<&str> {
    match value {
        Value::Described(described) => {
            let Described { descriptor, value } = &**described;
            let is_selector = match descriptor {
                Descriptor::Name(Symbol(name)) => name == SELECTOR,
                Descriptor::Code(code) => *code == SELECTOR_CODE,
            };
            is_selector.then(|| amqp::text(value))?
        }
        other => amqp::text(other),
    }
}

/// Reads a selector.
///
/// # Errors
/// When it is not one of those above.
pub(super) fn parse(text: &str) -> Result<Position, Malformed> {
    let malformed = |what: &str| {
        Malformed(format!(
            "{what} in the filter; it is amqp.annotation.x-opt-offset, x-opt-sequence-number or x-opt-enqueued-time, \
             then > or >=, then a value: {}",
            text.chars().take(SHOWN).collect::<String>()
        ))
    };
    let (name, value) = text.split_once('>').ok_or_else(|| malformed("there is no comparison"))?;
    let (inclusive, value) = match value.strip_prefix('=') {
        Some(value) => (true, value),
        None => (false, value),
    };
    let value = unquoted(value.trim()).ok_or_else(|| malformed("there is a quote too many or too few"))?;
    let name =
        name.trim().strip_prefix("amqp.annotation.").ok_or_else(|| malformed("there is no annotation"))?;
    let number = || value.parse::<i64>().map_err(|_| malformed("there is no whole number"));
    match name {
        amqp::annotation::OFFSET => match value {
            "@latest" => Ok(Position::End),
            "-1" => Ok(Position::Beginning),
            _ => match number()? {
                offset if offset < 0 => Err(malformed("there is an offset below -1")),
                offset => Ok(Position::Offset(first(offset, inclusive))),
            },
        },
        amqp::annotation::SEQUENCE => match first(number()?, inclusive) {
            0 => Ok(Position::Beginning),
            first => Ok(Position::Sequence(first)),
        },
        amqp::annotation::LOGGED_AT | LOGGED_AT_BEFORE => {
            let millis = first(number()?, inclusive);
            let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis));
            at.map(Position::Time).ok_or_else(|| malformed("there is no such time"))
        }
        _ => Err(malformed("there is another annotation")),
    }
}

/// The first number that is wanted.
fn first(number: i64, inclusive: bool) -> u64 {
    let number = if inclusive { number } else { number.saturating_add(1) };
    number.try_into().unwrap_or(0)
}

fn unquoted(value: &str) -> Option<&str> {
    let inner = match value.strip_prefix('\'') {
        Some(rest) => rest.strip_suffix('\'')?,
        None => value,
    };
    (!inner.contains('\'')).then_some(inner.trim())
}

/// Key and descriptor of the filter.
const SELECTOR: &str = "apache.org:selector-filter:string";
/// The descriptor as a number.
const SELECTOR_CODE: u64 = 0x0000_468C_0000_0004;
/// What old clients call the time.
const LOGGED_AT_BEFORE: &str = "x-opt-enqueuedtimeutc";
/// Characters of a wrong filter that are shown to the client.
const SHOWN: usize = 200;

#[cfg(test)]
mod tests {
    use fe2o3_amqp_types::primitives::OrderedMap;
    use proptest::prelude::*;

    use super::*;

    fn time(millis: u64) -> Position {
        Position::Time(SystemTime::UNIX_EPOCH + Duration::from_millis(millis))
    }

    #[test]
    fn selectors_of_clients_are_read() {
        for (text, expected) in [
            ("amqp.annotation.x-opt-offset > '-1'", Position::Beginning),
            ("amqp.annotation.x-opt-offset >= '-1'", Position::Beginning),
            ("amqp.annotation.x-opt-offset > '@latest'", Position::End),
            ("amqp.annotation.x-opt-offset >= '@latest'", Position::End),
            ("amqp.annotation.x-opt-offset > '7'", Position::Offset(8)),
            ("amqp.annotation.x-opt-offset >= '7'", Position::Offset(7)),
            ("amqp.annotation.x-opt-offset>7", Position::Offset(8)),
            ("amqp.annotation.x-opt-sequence-number > '-1'", Position::Beginning),
            ("amqp.annotation.x-opt-sequence-number >= '-5'", Position::Beginning),
            ("amqp.annotation.x-opt-sequence-number > '0'", Position::Sequence(1)),
            ("  amqp.annotation.x-opt-sequence-number  >=  10  ", Position::Sequence(10)),
            ("amqp.annotation.x-opt-enqueued-time > '1769860800123'", time(1_769_860_800_124)),
            ("amqp.annotation.x-opt-enqueued-time >= '1769860800123'", time(1_769_860_800_123)),
            ("amqp.annotation.x-opt-enqueuedtimeutc > '5'", time(6)),
            ("amqp.annotation.x-opt-enqueued-time > '-9'", time(0)),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in [
            "",
            ">",
            "amqp.annotation.x-opt-offset",
            "amqp.annotation.x-opt-offset > ",
            "amqp.annotation.x-opt-offset > '",
            "amqp.annotation.x-opt-offset > '7",
            "amqp.annotation.x-opt-offset > 7'",
            "amqp.annotation.x-opt-offset > ''7''",
            "amqp.annotation.x-opt-offset > '-2'",
            "amqp.annotation.x-opt-offset > 'later'",
            "amqp.annotation.x-opt-offset = '7'",
            "amqp.annotation.x-opt-offset < '7'",
            "amqp.annotation.x-opt-offset > '1' AND amqp.annotation.x-opt-offset > '2'",
            "amqp.annotation.x-opt-sequence-number > '@latest'",
            "amqp.annotation.x-opt-sequence-number > '9223372036854775808'",
            "amqp.annotation.x-opt-partition-key > '1'",
            "x-opt-offset > '1'",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_source_keeps_only_what_is_done() {
        let described = |descriptor| {
            let value = Value::String("amqp.annotation.x-opt-sequence-number > '4'".to_owned());
            Value::Described(Box::new(Described { descriptor, value }))
        };
        for descriptor in [Descriptor::Name(SELECTOR.into()), Descriptor::Code(SELECTOR_CODE)] {
            let mut filters = OrderedMap::new();
            filters.insert(Symbol::from("other"), Value::Bool(true));
            filters.insert(Symbol::from(SELECTOR), described(descriptor.clone()));
            let mut source = Source { filter: Some(filters), ..Source::default() };
            assert_eq!(position(&mut source), Ok(Position::Sequence(5)));
            let kept = source.filter.unwrap();
            assert_eq!(kept.len(), 1);
            assert_eq!(kept.get(&Symbol::from(SELECTOR)), Some(&described(descriptor)));
        }
        assert_eq!(position(&mut Source::default()), Ok(Position::Beginning));
        for value in
            [Value::Ulong(4), described(Descriptor::Name("other".into())), described(Descriptor::Code(1))]
        {
            let mut filters = OrderedMap::new();
            filters.insert(Symbol::from(SELECTOR), value);
            assert!(position(&mut Source { filter: Some(filters), ..Source::default() }).is_err());
        }
    }

    proptest! {
        #[test]
        fn numbers_start_where_they_say(number in 0..i64::MAX, inclusive: bool, quoted: bool) {
            let operator = if inclusive { ">=" } else { ">" };
            let value = if quoted { format!("'{number}'") } else { number.to_string() };
            let wanted = number as u64 + u64::from(!inclusive);
            let offset = parse(&format!("amqp.annotation.x-opt-offset {operator} {value}"));
            prop_assert_eq!(offset, Ok(Position::Offset(wanted)));
            let sequence = parse(&format!("amqp.annotation.x-opt-sequence-number {operator} {value}"));
            let expected = if wanted == 0 { Position::Beginning } else { Position::Sequence(wanted) };
            prop_assert_eq!(sequence, Ok(expected));
        }

        #[test]
        fn anything_may_be_a_filter(text: String, tail in "[ ><='0-9@a-z-]{0,40}") {
            let _ = parse(&text);
            let _ = parse(&format!("amqp.annotation.x-opt-offset{tail}"));
            let _ = parse(&format!("amqp.annotation.x-opt-enqueued-time >= {tail}"));
        }
    }
}
