//! Requests to the hub over HTTP, with a token of the policy. Contract `http.md`, `errors.md`.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use reqwest::{Method, Response, StatusCode, header};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    Error, ErrorKind, Result,
    auth::{Token, TokenSource},
    transport::{endpoint::Endpoint, tls::TlsConfig},
    wire::refusal::Refusal,
};

/// The hub's HTTP side.
pub(super) struct Web {
    client: reqwest::Client,
    base: String,
    tokens: TokenSource,
    token: Mutex<Option<Token>>,
}

/// A request, without what all have in common.
pub(super) struct Call<'a> {
    pub(super) operation: &'static str,
    pub(super) method: Method,
    /// With its query, without the host.
    pub(super) path: &'a str,
    /// Value of `If-Match`.
    pub(super) condition: Option<&'a str>,
    /// JSON.
    pub(super) body: Option<serde_json::Value>,
    /// Further headers.
    pub(super) headers: &'a [(&'static str, String)],
}

impl<'a> Call<'a> {
    pub(super) fn new(operation: &'static str, method: Method, path: &'a str) -> Self {
        Self { operation, method, path, condition: None, body: None, headers: &[] }
    }

    pub(super) fn body(self, body: serde_json::Value) -> Self {
        Self { body: Some(body), ..self }
    }

    pub(super) fn condition(self, condition: Option<&'a str>) -> Self {
        Self { condition, ..self }
    }
}

impl Web {
    pub(super) fn new(
        endpoint: &Endpoint,
        tls: &TlsConfig,
        proxy: Option<&str>,
        tokens: TokenSource,
        timeout: Duration,
    ) -> Result<Self> {
        let failed = |error: reqwest::Error| {
            Error::new(ErrorKind::InvalidArgument, "service.connect", "the HTTP client cannot be set up")
                .caused_by(error.without_url())
        };
        let mut client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(timeout)
            .timeout(REQUEST_TIMEOUT)
            .user_agent(USER_AGENT)
            .tls_backend_preconfigured(tls.client_config());
        if let Some(proxy) = proxy {
            client = client.proxy(reqwest::Proxy::all(proxy).map_err(failed)?);
        }
        let client = client.build().map_err(failed)?;
        Ok(Self { client, base: endpoint.to_string(), tokens, token: Mutex::default() })
    }

    /// Sends a request; an answer that is not a success is an error.
    pub(super) async fn send(&self, call: Call<'_>) -> Result<Response> {
        let Call { operation, method, path, condition, body, headers } = call;
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.base))
            .header(header::AUTHORIZATION, self.authorization());
        if let Some(condition) = condition {
            request = request.header(header::IF_MATCH, condition);
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.map_err(|error| failed(operation, error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refused(operation, response).await)
    }

    /// Sends a request and reads the JSON in its answer.
    pub(super) async fn read<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T> {
        let operation = call.operation;
        json(operation, self.send(call).await?).await
    }

    fn authorization(&self) -> String {
        let now = SystemTime::now();
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        match &*token {
            Some(token) if token.renewal.is_none_or(|renewal| !renewal.is_due(now)) => token.text.clone(),
            _ => token.insert(self.tokens.token(now, 0.0)).text.clone(),
        }
    }
}

impl fmt::Debug for Web {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Web").field("base", &self.base).finish_non_exhaustive()
    }
}

/// The JSON in an answer.
pub(super) async fn json<T: DeserializeOwned>(operation: &'static str, response: Response) -> Result<T> {
    let bytes = response.bytes().await.map_err(|error| failed(operation, error))?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Error::new(ErrorKind::Protocol, operation, "the hub's answer is not the JSON that is expected")
            .caused_by(error)
    })
}

/// The form of our own routes.
#[derive(Deserialize)]
struct Named {
    name: String,
    message: String,
}

/// The form of the contract's routes.
#[derive(Deserialize)]
struct Numbered {
    #[serde(rename = "Message", alias = "message")]
    message: String,
}

async fn refused(operation: &'static str, response: Response) -> Error {
    let status = response.status();
    let number = response.headers().get("iothub-errorcode").and_then(|name| name.to_str().ok());
    let row = number.and_then(Refusal::by_name);
    let wait = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|seconds| seconds.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let body = response.text().await.unwrap_or_default();
    let (kind, message) =
        match (serde_json::from_str::<Named>(&body), serde_json::from_str::<Numbered>(&body)) {
            (Ok(Named { name, message }), _) => {
                let kind = ErrorKind::ALL.iter().copied().find(|kind| kind.name() == name);
                (kind.unwrap_or_else(|| by_status(status)), message)
            }
            (_, Ok(Numbered { message })) => {
                // `ErrorCode:{Name};{text}`
                let named = message.strip_prefix("ErrorCode:").and_then(|rest| rest.split_once(';'));
                let row = row.or_else(|| named.and_then(|(name, _)| Refusal::by_name(name)));
                let text = named.map_or(message.as_str(), |(_, text)| text).to_owned();
                (row.map_or_else(|| by_status(status), |row| row.kind), text)
            }
            _ => (
                row.map_or_else(|| by_status(status), |row| row.kind),
                "the hub refused the request".to_owned(),
            ),
        };
    // What the other side has wrong inside is not a defect here.
    let kind = if kind == ErrorKind::Internal { ErrorKind::Unreachable } else { kind };
    let error = Error::new(kind, operation, message).with("status", status.as_u16());
    match wait {
        Some(wait) => error.retry_after(wait),
        None => error,
    }
}

fn by_status(status: StatusCode) -> ErrorKind {
    match status.as_u16() {
        400 | 405 | 415 | 422 => ErrorKind::InvalidArgument,
        401 | 403 | 407 => ErrorKind::Unauthorized,
        404 | 410 => ErrorKind::NotFound,
        409 | 412 => ErrorKind::Conflict,
        413 => ErrorKind::PayloadTooLarge,
        429 => ErrorKind::Throttled,
        501 => ErrorKind::Unsupported,
        408 | 500.. => ErrorKind::Unreachable,
        _ => ErrorKind::Protocol,
    }
}

fn failed(operation: &'static str, error: reqwest::Error) -> Error {
    Error::new(ErrorKind::Unreachable, operation, "the hub could not be reached over HTTP")
        .caused_by(error.without_url())
}

/// For a whole request; nothing the service asks for takes long.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const USER_AGENT: &str = concat!("whimbrel/", env!("CARGO_PKG_VERSION"));
