//! Single requests, and what their answers mean: contract `http.md`, `errors.md`.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_MATCH, RETRY_AFTER},
    redirect::Policy,
};

use super::{
    HttpOptions,
    batch::{Form, Load},
    pace::Pace,
};
use crate::{
    Error, ErrorKind, Lane, Message, Result,
    auth::{Token, TokenSource},
    transport::{
        Settlement,
        endpoint::Proxy,
        identity::{AGENT, Identity, chance},
        socket::{Route, Upgrade, unreachable},
        tls::TlsConfig,
    },
    wire::{
        http::{self, HeaderReader},
        percent,
        refusal::Refusal,
        time,
        user_name::API_VERSION,
    },
};

/// A lock that no hub gives.
const NO_LOCK: &str = "00000000-0000-0000-0000-000000000000";
/// Longest answer that is read: more than a command may be.
const ANSWER_LIMIT: usize = 256 * 1_024;
/// What an error says when no answer came.
const LATE: &str = "the hub did not answer in time";
/// Longest text of the hub that is kept.
const SAID_LIMIT: usize = 300;

/// Makes requests of one device.
#[derive(Debug)]
pub(super) struct Requests {
    http: Client,
    /// `https://host:port/devices/{id}`.
    device: String,
    /// The same of a module.
    module: Option<String>,
    /// To see whether the hub can be reached, where no request can tell.
    route: Route,
    source: Option<TokenSource>,
    token: Mutex<Option<Token>>,
    /// Longest wait for an answer.
    patience: Duration,
    pace: Arc<Mutex<Pace>>,
}

/// A command, and the lock it is under.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) lock: String,
    pub(super) sequence: Option<u64>,
    pub(super) enqueued_at: Option<SystemTime>,
    pub(super) delivery_count: Option<u32>,
    pub(super) message: Message,
}

/// Why messages were not taken.
#[derive(Debug)]
pub(super) enum Refused {
    /// Something is wrong with one of them.
    Content(String),
    /// Everything else.
    Lost(Error),
}

impl Requests {
    /// With connections of its own: those of a client that failed may be as dead as the one that showed it.
    pub(super) fn new(options: &HttpOptions, identity: &Identity, pace: Arc<Mutex<Pace>>) -> Result<Self> {
        // Also where nothing is encrypted: reqwest would look for a crypto provider of the process, and there is none.
        let tls = match &options.tls {
            Some(tls) => tls.clone(),
            None => TlsConfig::trusting_nobody()?,
        };
        let mut builder = Client::builder()
            .user_agent(AGENT)
            .connect_timeout(options.connect_timeout)
            // A token is for the hub, and for nobody it points to.
            .redirect(Policy::none())
            .no_proxy()
            .tls_backend_preconfigured(tls.client_config());
        let broken = |error: reqwest::Error| {
            Error::new(ErrorKind::InvalidArgument, "device.options", "the HTTP client cannot be set up")
                .caused_by(error.without_url())
        };
        if let Some(proxy) = &options.proxy {
            builder = builder.proxy(through(proxy).map_err(broken)?);
        }
        let device = format!("{}/devices/{}", options.endpoint, percent::encoded(&identity.device_id));
        let module =
            identity.module_id().map(|module| format!("{device}/modules/{}", percent::encoded(module)));
        let route = Route {
            endpoint: options.endpoint.clone(),
            proxy: options.proxy.clone(),
            tls: options.tls.clone(),
            upgrade: Upgrade::NONE,
        };
        Ok(Self {
            http: builder.build().map_err(broken)?,
            device,
            module,
            route,
            source: identity.token_source(),
            token: Mutex::new(None),
            patience: options.keep_alive,
            pace,
        })
    }

    /// How much goes into one request.
    pub(super) fn pace(&self) -> Pace {
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is a module, which has no commands.
    pub(super) fn is_module(&self) -> bool {
        self.module.is_some()
    }

    /// Finds out whether the hub can be reached and knows us. Of a module only the first: there is no request of a module
    /// that changes nothing.
    pub(super) async fn introduce(&self) -> Result<()> {
        if self.is_module() {
            return self.route.open().await.map(drop);
        }
        let request = self.request(Method::POST, &format!("/messages/devicebound/{NO_LOCK}/abandon"), "")?;
        let response = self.send(request, self.patience).await?;
        match response.status() {
            // Other hubs may find the lock itself at fault.
            StatusCode::PRECONDITION_FAILED | StatusCode::BAD_REQUEST | StatusCode::NO_CONTENT => Ok(()),
            _ => match self.refused(response).await {
                error if error.kind() == ErrorKind::LockLost => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Sends messages; returns when the hub has stored them.
    pub(super) async fn post(&self, load: Load) -> std::result::Result<(), Refused> {
        let (count, patience) = (load.count, self.patience * self.pace().patience());
        let base = self.module.as_ref().unwrap_or(&self.device);
        let mut request = self
            .authorised(Method::POST, &format!("{base}/messages/events?api-version={API_VERSION}"))
            .map_err(Refused::Lost)?;
        request = match load.form {
            Form::Plain { headers, body } => headers
                .into_iter()
                .fold(request, |request, (name, value)| request.header(name, value))
                .body(body),
            Form::Json(text) => request.header(CONTENT_TYPE, http::BATCH_TYPE).body(text),
        };
        let response = self.send(request, patience).await;
        {
            let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            match &response {
                Ok(_) => pace.answered(),
                Err(error) if error.message() == LATE => pace.late(count),
                Err(_) => {}
            }
        }
        let response = response.map_err(Refused::Lost)?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(());
        }
        let error = self.refused(response).await;
        Err(match error.kind() {
            ErrorKind::InvalidArgument | ErrorKind::PayloadTooLarge => {
                Refused::Content(said(&error).unwrap_or(error.message()).to_owned())
            }
            _ => Refused::Lost(error),
        })
    }

    /// Fetches one command, if there is any.
    pub(super) async fn fetch(&self) -> Result<Option<Fetched>> {
        let response =
            self.send(self.request(Method::GET, "/messages/devicebound", "")?, self.patience).await?;
        match response.status() {
            StatusCode::NO_CONTENT => Ok(None),
            StatusCode::OK => {
                let headers = response.headers().clone();
                let body = self.body(response).await?;
                read_command(&headers, body).map(Some)
            }
            _ => Err(self.refused(response).await),
        }
    }

    /// Settles a command. The inner result is the hub's answer about the lock; the outer one, why there is none.
    pub(super) async fn settle(&self, lock: &str, settlement: Settlement) -> Result<Result<()>> {
        let path = format!("/messages/devicebound/{}", percent::encoded(lock));
        let request = match settlement {
            Settlement::Complete => self.request(Method::DELETE, &path, "")?,
            Settlement::Reject => self.request(Method::DELETE, &path, "&reject")?,
            Settlement::Abandon => self.request(Method::POST, &format!("{path}/abandon"), "")?,
        };
        let response = self.send(request.header(IF_MATCH, format!("\"{lock}\"")), self.patience).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(Ok(()));
        }
        let error = self.refused(response).await;
        match error.kind() {
            ErrorKind::LockLost => Ok(Err(error)),
            _ => Err(error),
        }
    }

    /// A request to a path of the device.
    fn request(&self, method: Method, path: &str, query: &str) -> Result<RequestBuilder> {
        self.authorised(method, &format!("{}{path}?api-version={API_VERSION}{query}", self.device))
    }

    fn authorised(&self, method: Method, url: &str) -> Result<RequestBuilder> {
        let request = self.http.request(method, url);
        let Some(source) = &self.source else { return Ok(request) };
        let now = SystemTime::now();
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        let due = |token: &Token| token.renewal.is_some_and(|renewal| renewal.is_due(now));
        if token.as_ref().is_none_or(due) {
            *token = Some(source.token(now, chance()?));
        }
        let text = token.as_ref().map(|token| token.text.as_str()).unwrap_or_default();
        let mut value = HeaderValue::from_str(text).map_err(|error| {
            Error::new(ErrorKind::InvalidArgument, "device.connect", "the token is no text for a header")
                .caused_by(error)
        })?;
        value.set_sensitive(true);
        Ok(request.header(AUTHORIZATION, value))
    }

    /// Sends a request, and waits so long for the answer.
    async fn send(&self, request: RequestBuilder, patience: Duration) -> Result<Response> {
        request.timeout(patience).send().await.map_err(|error| {
            let what = if error.is_timeout() { LATE } else { "the request failed" };
            unreachable(what).caused_by(cause(error))
        })
    }

    async fn body(&self, mut response: Response) -> Result<Bytes> {
        let mut whole = Vec::new();
        loop {
            let chunk = response
                .chunk()
                .await
                .map_err(|error| unreachable("the answer was cut off").caused_by(cause(error)))?;
            let Some(chunk) = chunk else { return Ok(whole.into()) };
            if whole.len() + chunk.len() > ANSWER_LIMIT {
                return Err(strange("the hub's answer is longer than any it may give"));
            }
            whole.extend_from_slice(&chunk);
        }
    }

    /// What an answer means that is not the one hoped for.
    async fn refused(&self, response: Response) -> Error {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = self.body(response).await.unwrap_or_default();
        refusal(status, &headers, &body)
    }
}

/// What a status other than the one hoped for means; `iothub-errorcode` says it better where it is there.
fn refusal(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
    let name = headers.get(http::ERROR_CODE).and_then(|name| name.to_str().ok());
    let row = name.and_then(Refusal::by_name);
    let (kind, message) = match (status.as_u16(), row.map(|row| row.kind)) {
        (429, _) | (_, Some(ErrorKind::Throttled)) => (ErrorKind::Throttled, "the hub asks to slow down"),
        (412, _) | (_, Some(ErrorKind::LockLost)) => {
            (ErrorKind::LockLost, "the hub does not hold the command for us any more")
        }
        (413, _) => (ErrorKind::PayloadTooLarge, "the hub takes no message of this size"),
        (400 | 415, _) => (ErrorKind::InvalidArgument, "the hub does not take the request"),
        // A device that is unknown or disabled, too: nothing it sends will be taken until somebody does something.
        (401 | 403 | 404, _) => (
            ErrorKind::Unauthorized,
            "the hub refused the credentials: check the key, the clock, and that the device exists and is enabled",
        ),
        (500..=599, _) => (ErrorKind::Unreachable, "the hub is not available"),
        _ => (ErrorKind::Protocol, "what answers there is not a hub"),
    };
    let mut error = Error::new(kind, "device.request", message).with("status", status.as_u16());
    if let Some(name) = name {
        error = error.with("code", name);
    }
    if let Some(text) = text(body) {
        error = error.with("said", text);
    }
    match headers.get(RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.trim().parse().ok()) {
        Some(seconds) => error.retry_after(Duration::from_secs(seconds)),
        None => error,
    }
}

/// The text in the body of a refusal, on one line: contract `errors.md`, "How an error travels".
fn text(body: &[u8]) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(body).ok()?;
    let message = ["Message", "message"].into_iter().find_map(|name| json.get(name)?.as_str())?;
    let text = message.rsplit_once(';').map_or(message, |(_, text)| text);
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SAID_LIMIT).collect();
    Some(line.trim().to_owned())
}

fn said(error: &Error) -> Option<&str> {
    error.details().iter().find(|(name, _)| *name == "said").map(|(_, text)| text.as_str())
}

/// A command as it comes: contract `http.md`, "Response headers, receive C2D".
fn read_command(headers: &HeaderMap, body: Bytes) -> Result<Fetched> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let lock = text(ETAG.as_str()).map(|lock| lock.trim().trim_matches('"')).filter(|lock| !lock.is_empty());
    let lock = lock.ok_or_else(|| strange("the hub sent a command without its lock (ETag)"))?.to_owned();
    let mut reader = HeaderReader::default();
    for (name, value) in headers {
        let Ok(value) = std::str::from_utf8(value.as_bytes()) else { continue };
        // A time that cannot be read is no reason to do without the command.
        if let Err(error) = reader.put(name.as_str(), value) {
            tracing::debug!(%error, "a header of a command was left out");
        }
    }
    Ok(Fetched {
        lock,
        sequence: text(http::SEQUENCE_NUMBER).and_then(|number| number.parse().ok()),
        enqueued_at: text(http::ENQUEUED_TIME).and_then(time::parse),
        delivery_count: text(http::DELIVERY_COUNT).and_then(|count| count.parse().ok()),
        // The lane is the outbox's idea; a command has none.
        message: reader.into_message(Lane::Telemetry, body),
    })
}

fn through(proxy: &Proxy) -> reqwest::Result<reqwest::Proxy> {
    let host = if proxy.host.contains(':') { format!("[{}]", proxy.host) } else { proxy.host.clone() };
    let built = reqwest::Proxy::all(format!("http://{host}:{}", proxy.port))?;
    Ok(match proxy.login.as_deref().map(|login| login.split_once(':').unwrap_or((login, ""))) {
        Some((user, password)) => built.basic_auth(user, password),
        None => built,
    })
}

/// The deepest cause is the one that says something: "connection refused".
fn cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn strange(message: &'static str) -> Error {
    Error::new(ErrorKind::Protocol, "device.request", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart() {
        for (status, code, kind) in [
            (400, "ArgumentInvalid", ErrorKind::InvalidArgument),
            (401, "IotHubUnauthorized", ErrorKind::Unauthorized),
            (403, "DeviceDisabled", ErrorKind::Unauthorized),
            (403, "IotHubQuotaExceeded", ErrorKind::Throttled),
            (404, "DeviceNotFound", ErrorKind::Unauthorized),
            (412, "DeviceMessageLockLost", ErrorKind::LockLost),
            (413, "MessageTooLarge", ErrorKind::PayloadTooLarge),
            (415, "GenericUnsupportedMediaType", ErrorKind::InvalidArgument),
            (429, "ThrottlingException", ErrorKind::Throttled),
            (500, "ServerError", ErrorKind::Unreachable),
            (503, "ServiceUnavailable", ErrorKind::Unreachable),
            (200, "", ErrorKind::Protocol),
            (302, "", ErrorKind::Protocol),
            (405, "", ErrorKind::Protocol),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(http::ERROR_CODE, code.parse().unwrap());
            headers.insert(RETRY_AFTER, "7".parse().unwrap());
            let body = br#"{"Message":"ErrorCode:X;no\nway","ExceptionMessage":"id"}"#;
            let error = refusal(StatusCode::from_u16(status).unwrap(), &headers, body);
            assert_eq!(error.kind(), kind, "{status} {code}");
            assert_eq!(error.wait_hint(), Some(Duration::from_secs(7)));
            assert_eq!(said(&error), Some("no way"));
        }
        let bare = refusal(StatusCode::BAD_GATEWAY, &HeaderMap::new(), b"<html>");
        assert_eq!((bare.kind(), bare.wait_hint(), said(&bare)), (ErrorKind::Unreachable, None, None));
    }

    #[test]
    fn a_command_needs_its_lock_and_nothing_else() {
        let mut headers = HeaderMap::new();
        assert_eq!(read_command(&headers, Bytes::new()).unwrap_err().kind(), ErrorKind::Protocol);
        headers.insert(ETAG, "\"\"".parse().unwrap());
        assert_eq!(read_command(&headers, Bytes::new()).unwrap_err().kind(), ErrorKind::Protocol);
        headers.insert(ETAG, "\"lock\"".parse().unwrap());
        headers.insert("iothub-expiry", "nonsense".parse().unwrap());
        headers.insert("iothub-deliverycount", "-1".parse().unwrap());
        headers.insert("iothub-app-room", "attic".parse().unwrap());
        let command = read_command(&headers, "body".into()).unwrap();
        assert_eq!((command.lock.as_str(), command.delivery_count), ("lock", None));
        assert_eq!(command.message, Message::telemetry("body").property("room", "attic"));
    }
}
