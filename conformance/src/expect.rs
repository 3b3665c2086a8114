//! Comparing what was seen with what was expected.
//!
//! A table in an expectation has what it names; the answer may have more. A table with one of these keys alone looks at a value
//! instead: `any` (it is there), `absent` (it is not), `one_of`, `at_least`, `contains`. Bodies are base64 on both sides.

use serde_json::Value;
use whimbrel::ErrorKind;

use crate::scenario::step::{ExpectedError, kind};

/// How a call was answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Well.
    Ok(Value),
    /// With an error.
    Error(Value),
    /// It was cancelled.
    Cancelled,
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ok(value) => write!(f, "ok {}", shortened(value)),
            Self::Error(value) => write!(f, "error {}", shortened(value)),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

/// A value for people: at most so long that it can be read.
pub fn shortened(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
    text
}

/// What differs between `seen` and `expected`, or nothing. `path` says where, for people.
pub fn difference(path: &str, expected: &Value, seen: &Value) -> Option<String> {
    let differs = || Some(format!("{path}: expected {}, seen {}", shortened(expected), shortened(seen)));
    if let Value::Object(fields) = expected {
        if let Some((name, wanted)) = fields.iter().next().filter(|_| fields.len() == 1) {
            let holds = match name.as_str() {
                "any" => Some(!seen.is_null()),
                "absent" => Some(seen.is_null()),
                "one_of" => {
                    let words = wanted.as_array().into_iter().flatten();
                    Some(words.into_iter().any(|word| difference(path, word, seen).is_none()))
                }
                "at_least" => Some(seen.as_f64() >= wanted.as_f64() && seen.is_number()),
                "contains" => Some(
                    seen.as_str().zip(wanted.as_str()).is_some_and(|(seen, wanted)| seen.contains(wanted)),
                ),
                _ => None,
            };
            match holds {
                Some(true) => return None,
                Some(false) => return differs(),
                None => {}
            }
        }
        let nothing = Value::Null;
        return fields.iter().find_map(|(name, wanted)| {
            difference(&format!("{path}.{name}"), wanted, seen.get(name).unwrap_or(&nothing))
        });
    }
    if let (Value::Array(wanted), Value::Array(all)) = (expected, seen) {
        if wanted.len() != all.len() {
            return differs();
        }
        return wanted
            .iter()
            .zip(all)
            .enumerate()
            .find_map(|(at, (wanted, seen))| difference(&format!("{path}.{at}"), wanted, seen));
    }
    if expected == seen { None } else { differs() }
}

/// What is wrong with an error: its kind, and whether it has what every error of its kind has in every language.
pub fn error_difference(expected: &ExpectedError, seen: &Value) -> Option<String> {
    let text = |name: &str| seen.get(name).and_then(Value::as_str).unwrap_or_default();
    let named = text("kind");
    if named != expected.kind {
        return Some(format!("expected the error {}, seen {}", expected.kind, shortened(seen)));
    }
    let kind: ErrorKind = match kind(named) {
        Ok(kind) => kind,
        Err(why) => return Some(why),
    };
    let retry = text("retry");
    let details = seen.get("details").and_then(Value::as_object);
    let (message, operation) = (text("message"), text("operation"));
    let faults = [
        (
            seen.get("code").and_then(Value::as_u64) != Some(kind.code().into()),
            format!("the code is not {}", kind.code()),
        ),
        (retry != kind.retry().name(), format!("retry is not \"{}\"", kind.retry().name())),
        (message.trim().is_empty(), "there is no message".to_owned()),
        (operation.is_empty(), "there is no operation".to_owned()),
        (details.is_none(), "there are no details, not even empty ones".to_owned()),
        (
            expected.operation.as_deref().is_some_and(|wanted| wanted != operation),
            format!("the operation is not {:?}", expected.operation),
        ),
        (
            expected.says.as_deref().is_some_and(|wanted| !message.contains(wanted)),
            format!("the message does not say {:?}", expected.says),
        ),
    ];
    if let Some((_, fault)) = faults.into_iter().find(|(fault, _)| *fault) {
        return Some(format!("{named}: {fault}: {}", shortened(seen)));
    }
    let missing = expected
        .details
        .iter()
        .find(|name| !details.and_then(|all| all.get(*name)).is_some_and(|value| value.is_string()));
    missing.map(|name| format!("{named}: the detail {name:?} is missing: {}", shortened(seen)))
}

/// The longest value that is shown whole.
const LONGEST: usize = 1_500;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_named_has_to_be_there_and_more_may_be() {
        let seen = json!({"a": 1, "b": null, "c": ["x", {"d": 2, "e": 3}], "body": "aGk="});
        for good in [
            json!({}),
            json!({"a": 1}),
            json!({"c": ["x", {"d": 2}]}),
            json!({"b": {"absent": true}}),
            json!({"z": {"absent": true}}),
            json!({"a": {"any": true}}),
            json!({"a": {"at_least": 1}}),
            json!({"c": ["x", {"d": {"one_of": [1, 2]}}]}),
        ] {
            assert_eq!(difference("ok", &good, &seen), None, "{good}");
        }
        for bad in [
            json!({"a": 2}),
            json!({"a": "1"}),
            json!({"b": {"any": true}}),
            json!({"c": ["x"]}),
            json!({"c": ["x", {"f": 1}]}),
            json!({"a": {"absent": true}}),
            json!({"a": {"at_least": 2}}),
            json!({"z": 1}),
            json!({"a": {"one_of": [2]}}),
        ] {
            assert!(difference("ok", &bad, &seen).is_some(), "{bad}");
        }
    }

    #[test]
    fn an_error_has_everything_that_an_error_has() {
        let expected = ExpectedError {
            kind: "OUTBOX_FULL".into(),
            details: vec!["limit".into()],
            says: Some("full".into()),
            operation: None,
        };
        let good = json!({"kind": "OUTBOX_FULL", "code": 301, "retry": "later", "operation": "device.send",
            "message": "it is full", "details": {"limit": "3"}});
        assert_eq!(error_difference(&expected, &good), None);
        for (name, value) in [
            ("kind", json!("CLOSED")),
            ("code", json!(302)),
            ("code", json!("301")),
            ("retry", json!("never")),
            ("operation", json!(null)),
            ("message", json!(" ")),
            ("message", json!("no room")),
            ("details", json!(null)),
            ("details", json!({})),
            ("details", json!({"limit": 3})),
        ] {
            let mut bad = good.clone();
            bad[name] = value;
            assert!(error_difference(&expected, &bad).is_some(), "{bad}");
        }
    }
}
