//! Errors as answers, and extractors that answer with them.

use std::convert::Infallible;

use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::BytesRejection},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use whimbrel::{Error, ErrorKind};

/// An error on its way out: a status, and `{"code": 306, "name": "NOT_FOUND", "message": "…"}`.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    error: Error,
}

impl Failure {
    pub(super) fn new(status: StatusCode, kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { status, error: Error::new(kind, "hub.http", message.into()) }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorKind::InvalidArgument, message)
    }

    /// The status that says a condition in the request did not hold.
    pub(super) fn precondition(self) -> Self {
        match self.status {
            StatusCode::CONFLICT => Self { status: StatusCode::PRECONDITION_FAILED, ..self },
            _ => self,
        }
    }

    pub(super) fn body(&self) -> FailureBody {
        FailureBody::from(&self.error)
    }
}

/// What a program reads.
#[derive(Debug, Serialize)]
pub(super) struct FailureBody {
    code: u16,
    name: &'static str,
    message: String,
}

impl From<&Error> for FailureBody {
    fn from(error: &Error) -> Self {
        let mut message = error.message().to_owned();
        for (index, (name, value)) in error.details().iter().enumerate() {
            message.push_str(if index == 0 { " (" } else { ", " });
            message.push_str(&format!("{name}: {value}"));
        }
        if !error.details().is_empty() {
            message.push(')');
        }
        Self { code: error.kind().code(), name: error.kind().name(), message }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::InvalidArgument => StatusCode::BAD_REQUEST,
            ErrorKind::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
            ErrorKind::Unauthorized => StatusCode::UNAUTHORIZED,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict | ErrorKind::InUse => StatusCode::CONFLICT,
            ErrorKind::Throttled | ErrorKind::OutboxFull => StatusCode::TOO_MANY_REQUESTS,
            ErrorKind::Closed | ErrorKind::Unreachable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
            ErrorKind::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, error }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::warn!(error = %self.error, "a request failed");
        }
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("SharedAccessSignature, Bearer"));
        }
        if let Some(wait) = self.error.wait_hint() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        response
    }
}

/// The last word on a path there is none for.
pub(super) async fn no_such_path() -> Failure {
    Failure::new(StatusCode::NOT_FOUND, ErrorKind::NotFound, "there is nothing at this path")
}

/// The last word on a method a path does not have.
pub(super) async fn no_such_method() -> Failure {
    Failure::new(
        StatusCode::METHOD_NOT_ALLOWED,
        ErrorKind::InvalidArgument,
        "this path does not have this method",
    )
}

/// Query parameters; an unknown or malformed one is named.
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(params)| Self(params))
            .map_err(|rejection| Failure::invalid(rejection.body_text()))
    }
}

/// Parts of the path, decoded.
pub(super) struct Place<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Place<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(place)) => Ok(Self(place)),
            Err(rejection) => Err(Failure::invalid(rejection.body_text())),
        }
    }
}

/// A body that is read only after the caller has been let in.
pub(super) struct Unread(Request);

impl<S: Send + Sync> FromRequest<S> for Unread {
    type Rejection = Infallible;

    async fn from_request(request: Request, _: &S) -> Result<Self, Infallible> {
        Ok(Self(request))
    }
}

impl Unread {
    /// Reads it as JSON, whatever its content type; `None` when it is empty.
    pub(super) async fn document<T: DeserializeOwned>(self) -> Result<Option<T>, Failure> {
        let bytes = Bytes::from_request(self.0, &()).await.map_err(|rejection| match rejection {
            BytesRejection::FailedToBufferBody(problem)
                if problem.status() == StatusCode::PAYLOAD_TOO_LARGE =>
            {
                Failure::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    ErrorKind::PayloadTooLarge,
                    "the body is too large",
                )
            }
            other => Failure::invalid(other.body_text()),
        })?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        serde_json::from_slice(&bytes).map(Some).map_err(|problem| {
            Failure::invalid(format!("the body is not the JSON that is expected: {problem}"))
        })
    }

    /// As [`Unread::document`], when there has to be one.
    pub(super) async fn needed<T: DeserializeOwned>(self) -> Result<T, Failure> {
        self.document().await?.ok_or_else(|| Failure::invalid("a JSON body is needed"))
    }
}
