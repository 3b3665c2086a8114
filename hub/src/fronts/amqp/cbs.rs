//! `$cbs`: tokens for what links are about to be attached to. Contract `amqp.md`, `d2c.md`.

use std::{sync::Arc, time::SystemTime};

use fe2o3_amqp_types::{
    messaging::Body,
    primitives::{SimpleValue, Value},
};
use whimbrel::{
    ErrorKind,
    wire::amqp::{AmqpMessage, SAS_TOKEN},
};

use super::{grants::Grants, request::Answer};

/// Deals with one request.
pub(super) fn put(grants: &Arc<Grants>, request: AmqpMessage, now: SystemTime) -> Answer {
    let properties = request.application_properties.map(|properties| properties.0).unwrap_or_default();
    let text = |name: &str| match properties.get(name) {
        Some(SimpleValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    if text("operation") != Some("put-token") {
        return answer(400, "the operation here is put-token");
    }
    match text("type") {
        Some(SAS_TOKEN) => {}
        Some("jwt") => return answer(401, "this hub takes no Azure AD tokens"),
        _ => return answer(400, "the type of a token is servicebus.windows.net:sastoken"),
    }
    let token = match request.body {
        Body::Value(value) => match value.0 {
            Value::String(text) => Some(text),
            _ => None,
        },
        _ => None,
    };
    let (Some(audience), Some(token)) = (text("name"), token) else {
        return answer(400, "a token is a text, and its name says what it is for");
    };
    match grants.put(audience, &token, now) {
        Ok(()) => answer(200, "OK"),
        Err(error) => {
            tracing::info!(%error, audience, "a token was refused");
            match error.kind() {
                ErrorKind::Throttled => {
                    answer(403, "IotHubMaxCbsTokenExceeded: the connection has too many tokens")
                }
                ErrorKind::Unauthorized => {
                    answer(401, "the token is not good for this; the hub's log says why")
                }
                _ => answer(500, "the hub cannot look the device up now"),
            }
        }
    }
}

fn answer(status: i32, description: &str) -> Answer {
    Answer { status, description: description.to_owned(), body: Value::Null }
}
