//! Errors as answers, and extractors that answer with them.

use std::{convert::Infallible, time::Duration};

use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
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

/// What a program reads of an error.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Error)]
pub(super) struct FailureBody {
    /// Number of the kind of error.
    code: u16,
    /// Name of the kind, such as `NOT_FOUND`.
    name: &'static str,
    /// For people.
    message: String,
}

impl From<&Error> for FailureBody {
    fn from(error: &Error) -> Self {
        Self { code: error.kind().code(), name: error.kind().name(), message: line(error) }
    }
}

/// The message of an error with its details, without operation and cause.
pub(super) fn line(error: &Error) -> String {
    let mut line = error.message().to_owned();
    for (index, (name, value)) in error.details().iter().enumerate() {
        line.push_str(if index == 0 { " (" } else { ", " });
        line.push_str(&format!("{name}: {value}"));
    }
    if !error.details().is_empty() {
        line.push(')');
    }
    line
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::InvalidArgument => StatusCode::BAD_REQUEST,
            ErrorKind::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
            ErrorKind::Unauthorized => StatusCode::UNAUTHORIZED,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict | ErrorKind::InUse | ErrorKind::QueueFull => StatusCode::CONFLICT,
            ErrorKind::LockLost => StatusCode::PRECONDITION_FAILED,
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
        add_advice(self.status, self.error.wait_hint(), response.headers_mut());
        response
    }
}

/// What to do about a refusal: which credentials to bring, how long to wait.
pub(super) fn add_advice(status: StatusCode, wait: Option<Duration>, headers: &mut HeaderMap) {
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("SharedAccessSignature, Bearer"));
    }
    let passes = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE
    );
    if let Some(wait) = wait.or(passes.then_some(RETRY_AFTER)) {
        // Whole seconds, rounded up: who comes too early is refused again.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
}

/// How long to wait where nothing closer is known.
const RETRY_AFTER: Duration = Duration::from_secs(1);

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
    /// Reads it.
    ///
    /// # Errors
    /// `PayloadTooLarge` over the bound of the route; `InvalidArgument` when it does not arrive whole.
    pub(super) async fn bytes(self) -> Result<Bytes, Error> {
        Bytes::from_request(self.0, &()).await.map_err(|rejection| match rejection {
            BytesRejection::FailedToBufferBody(problem)
                if problem.status() == StatusCode::PAYLOAD_TOO_LARGE =>
            {
                Error::new(ErrorKind::PayloadTooLarge, "hub.http", "the body is too large")
            }
            other => Error::new(ErrorKind::InvalidArgument, "hub.http", other.body_text()),
        })
    }

    /// Reads it as JSON, whatever its content type; `None` when it is empty.
    pub(super) async fn document<T: DeserializeOwned>(self) -> Result<Option<T>, Error> {
        let bytes = self.bytes().await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        serde_json::from_slice(&bytes).map(Some).map_err(|problem| {
            let text = format!("the body is not the JSON that is expected: {problem}");
            Error::new(ErrorKind::InvalidArgument, "hub.http", text)
        })
    }

    /// As [`Unread::document`], when there has to be one.
    pub(super) async fn needed<T: DeserializeOwned>(self) -> Result<T, Error> {
        self.document()
            .await?
            .ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "hub.http", "a JSON body is needed"))
    }
}
