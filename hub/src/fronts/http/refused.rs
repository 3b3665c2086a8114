//! Errors of the contract's endpoints as answers, and extractors that answer with them. Contract `errors.md`.

use std::time::{Duration, SystemTime};

use axum::{
    Json,
    extract::{FromRequestParts, Path, Request},
    http::{HeaderName, HeaderValue, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::{Serialize, de::DeserializeOwned};
use whimbrel::{
    Error, ErrorKind,
    wire::{http, refusal::Refusal, time},
};

use super::failure;

/// On every answer: names the request, in the hub's log as well.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
const ERROR_CODE: HeaderName = HeaderName::from_static(http::ERROR_CODE);

/// An error on its way out, with its number in the contract.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) row: Refusal,
    pub(super) text: String,
    wait: Option<Duration>,
}

impl Refused {
    pub(super) fn new(row: Refusal, text: impl Into<String>) -> Self {
        Self { row, text: text.into(), wait: None }
    }

    pub(super) fn invalid(text: impl Into<String>) -> Self {
        Self::new(Refusal::ARGUMENT_INVALID, text)
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { row: row(&error), text: failure::line(&error), wait: error.wait_hint() }
    }
}

/// The number that says it best: the kind, and what the error is about.
fn row(error: &Error) -> Refusal {
    let about = |wanted: &str| error.details().iter().any(|(name, _)| *name == wanted);
    match (error.kind(), error.operation()) {
        (ErrorKind::Unauthorized, _) if about("right") => Refusal::UNAUTHORIZED_ACCESS,
        (ErrorKind::NotFound, _) if about("module") => Refusal::MODULE_NOT_FOUND,
        (ErrorKind::Conflict, "registry.create") => Refusal::DEVICE_EXISTS,
        (ErrorKind::Conflict, "registry.create_module") => Refusal::MODULE_EXISTS,
        (ErrorKind::InvalidArgument, "registry.create_module") if about("limit") => Refusal::TOO_MANY_MODULES,
        (ErrorKind::InvalidArgument, _)
            if error.details().iter().any(|(name, value)| *name == "part" && value == "expiry") =>
        {
            Refusal::INVALID_EXPIRY
        }
        (kind, _) => Refusal::of(kind),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RefusedBody {
    message: String,
    exception_message: String,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self { row, text, wait } = self;
        let id = guid();
        let status = StatusCode::from_u16(row.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::warn!(error = text, number = row.number, request = id, "a request failed");
        }
        let body = RefusedBody {
            message: format!("ErrorCode:{};{text}", row.name),
            exception_message: format!("Tracking ID:{id}-TimeStamp:{}", time::format(SystemTime::now())),
        };
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(ERROR_CODE, HeaderValue::from_static(row.name));
        if let Ok(id) = HeaderValue::from_str(&id) {
            headers.insert(REQUEST_ID, id);
        }
        failure::add_advice(status, wait, headers);
        response
    }
}

/// Gives every answer its id, where it has none yet.
pub(super) async fn identify(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if !response.headers().contains_key(REQUEST_ID)
        && let Ok(id) = HeaderValue::from_str(&guid())
    {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Parts of the path, decoded.
pub(super) struct At<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for At<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(place)) => Ok(Self(place)),
            Err(rejection) => Err(Refused::invalid(rejection.body_text())),
        }
    }
}

/// The etag a change is conditional on, as it was given; none without the header.
pub(super) fn if_match(headers: &axum::http::HeaderMap) -> Option<&str> {
    headers.get(header::IF_MATCH)?.to_str().ok()
}

/// A new random GUID (version 4).
pub(super) fn guid() -> String {
    let mut bytes = [0_u8; 16];
    // Without randomness ids repeat, which harms nobody but the reader of a log.
    let _ = getrandom::fill(&mut bytes);
    let number = u128::from_be_bytes(bytes) & !(0xf << 76) & !(0b11 << 62) | 4 << 76 | 0b10 << 62;
    let digits = format!("{number:032x}");
    let mut out = String::with_capacity(36);
    for (place, digit) in digits.chars().enumerate() {
        if matches!(place, 8 | 12 | 16 | 20) {
            out.push('-');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_find_their_numbers() {
        let error = |kind, operation| Error::new(kind, operation, "x");
        for (error, number) in [
            (error(ErrorKind::Unauthorized, "access"), 401_003),
            (error(ErrorKind::Unauthorized, "access").with("right", "x"), 401_002),
            (error(ErrorKind::NotFound, "registry.get").with("device", "d"), 404_001),
            (error(ErrorKind::NotFound, "registry.module").with("module", "m"), 404_010),
            (error(ErrorKind::Conflict, "registry.create"), 409_001),
            (error(ErrorKind::Conflict, "registry.create_module"), 409_301),
            (error(ErrorKind::Conflict, "registry.change"), 412_001),
            (error(ErrorKind::InvalidArgument, "registry.create_module").with("limit", 50), 413_003),
            (error(ErrorKind::InvalidArgument, "commands.send").with("part", "expiry"), 403_009),
            (error(ErrorKind::InvalidArgument, "commands.send").with("part", "value"), 400_004),
            (error(ErrorKind::LockLost, "commands.settle"), 412_002),
            (error(ErrorKind::DiskFull, "events.append"), 503_005),
        ] {
            assert_eq!(row(&error).number, number, "{error}");
        }
    }

    #[test]
    fn guids_look_like_guids() {
        let (one, other) = (guid(), guid());
        assert_ne!(one, other);
        assert_eq!(one.len(), 36);
        assert_eq!((&one[14..15], one[8..9].contains('-')), ("4", true), "{one}");
        assert!("89ab".contains(&one[19..20]), "{one}");
    }
}
