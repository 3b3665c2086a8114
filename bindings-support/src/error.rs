//! Errors as every language gets them.

use std::error::Error as StdError;

use serde_json::{Map, Value, json};
use whimbrel::Error;

/// An error as one JSON object, for languages whose errors are made from text: `kind` (such as `OUTBOX_FULL`), `code`,
/// `message` (one line, complete), `operation`, `retry`, `retry_after_ms` (or null), `details` (texts by name), `causes` (the
/// chain, nearest first).
pub fn envelope(error: &Error) -> Value {
    let details = error.details().iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into()));
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(next) = cause {
        causes.push(next.to_string());
        cause = next.source();
    }
    json!({
        "kind": error.kind().name(),
        "code": error.kind().code(),
        "message": error.to_string(),
        "operation": error.operation(),
        "retry": error.kind().retry().name(),
        "retry_after_ms": error.wait_hint().map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        "details": details.collect::<Map<_, _>>(),
        "causes": causes,
    })
}

#[cfg(test)]
mod tests {
    use std::{io, time::Duration};

    use whimbrel::ErrorKind;

    use super::*;

    #[test]
    fn an_envelope_holds_everything_an_error_says() {
        let error = Error::new(ErrorKind::Throttled, "service.send", "too fast")
            .with("device", "d1")
            .retry_after(Duration::from_secs(2))
            .caused_by(io::Error::other("slow down"));
        let expected = json!({
            "kind": "THROTTLED", "code": 404, "message": "service.send: too fast (device: d1): slow down",
            "operation": "service.send", "retry": "later", "retry_after_ms": 2000, "details": {"device": "d1"},
            "causes": ["slow down"],
        });
        assert_eq!(envelope(&error), expected);
    }
}
