//! What devices do over HTTP: send events, one or many, and fetch and settle commands. Contract `http.md`, `d2c.md`.
//!
//! Where the contract leaves a choice:
//!
//! - A module sends to `/devices/{id}/modules/{mid}/messages/events`.
//! - The plain `Content-Type` of an event says nothing about it, apart from selecting a batch.
//! - The bound of a batch counts its messages as they are stored, not the JSON around them.
//! - A property of a batch that is neither a system property nor has the prefix becomes an application property.
//! - A command comes with its content type both as `Content-Type` and as `iothub-contenttype`.
//! - Names of application properties in headers arrive in lower case, in both directions; those in batches as they are.

use axum::{
    Extension, Router,
    body::Body,
    extract::{DefaultBodyLimit, RawQuery, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{
    Engine,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::Deserialize;
use serde_json::{Map, Value};
use whimbrel::{
    Error, ErrorKind, Lane, Message,
    transport::Settlement,
    wire::{
        feedback::FeedbackWanted,
        http::{self, HeaderReader},
        refusal::Refusal,
        time,
    },
};

use super::{
    Hub,
    failure::Unread,
    refused::{At, Refused},
    server::Peer,
};
use crate::{
    access::Admitted,
    commands::{Delivery, LockToken},
    events::NewEvent,
    limits::Staging,
};

/// Largest body: a full batch in base64, with much JSON around it.
const BODY_BYTES: usize = 1024 * 1024;
/// Messages of one batch.
const BATCH: usize = 500;

pub(super) fn routes() -> Router<Hub> {
    Router::new()
        .route("/devices/{id}/messages/events", post(send))
        .route("/devices/{id}/modules/{module}/messages/events", post(send_as_module))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .route("/devices/{id}/messages/devicebound", get(receive))
        .route("/devices/{id}/messages/devicebound/{lock}", axum::routing::delete(complete_or_reject))
        .route("/devices/{id}/messages/devicebound/{lock}/abandon", post(abandon))
}

async fn send(
    State(hub): State<Hub>,
    Extension(peer): Extension<Peer>,
    At(id): At<String>,
    headers: HeaderMap,
    body: Unread,
) -> Result<StatusCode, Refused> {
    let sender = hub.device(&headers, &peer, &id, None)?;
    store(&hub, &sender, &headers, body).await
}

async fn send_as_module(
    State(hub): State<Hub>,
    Extension(peer): Extension<Peer>,
    At((id, module)): At<(String, String)>,
    headers: HeaderMap,
    body: Unread,
) -> Result<StatusCode, Refused> {
    let sender = hub.device(&headers, &peer, &id, Some(&module))?;
    store(&hub, &sender, &headers, body).await
}

/// Answers when all of it is on stable storage.
async fn store(
    hub: &Hub,
    sender: &Admitted,
    headers: &HeaderMap,
    body: Unread,
) -> Result<StatusCode, Refused> {
    if !hub.staging.has_room() {
        return Err(Refused::new(Refusal::SERVER_BUSY, "too many events wait for the disk"));
    }
    let bytes = body.bytes().await?;
    let messages = if is_batch(headers) { read_batch(&bytes)? } else { vec![read_event(headers, bytes)?] };
    let total = messages.iter().map(Message::size).sum::<usize>();
    if total > hub.message_bytes {
        return Err(too_large(total, hub.message_bytes).into());
    }
    let events: Vec<_> = messages.iter().map(|message| NewEvent { sender, message, origin: None }).collect();
    let _staged = Staged::new(&hub.staging, total);
    let ticket = hub.events.append(&events, &mut Vec::with_capacity(events.len()))?;
    hub.events.durable(ticket).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn too_large(size: usize, limit: usize) -> Error {
    let text = "the message or batch is too large (bodies, property names and values together)";
    Error::new(ErrorKind::PayloadTooLarge, "hub.http", text).with("size", size).with("limit", limit)
}

fn is_batch(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|text| text.split(';').next()).unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(http::BATCH_TYPE)
}

/// Also for headers that only say which feedback somebody wants: an event has none.
fn is_for_commands(name: &str) -> bool {
    name.eq_ignore_ascii_case(FeedbackWanted::PROPERTY)
}

fn read_event(headers: &HeaderMap, body: bytes::Bytes) -> Result<Message, Error> {
    let mut reader = HeaderReader::default();
    read_headers(headers, &mut reader, |name| !is_for_commands(name))?;
    Ok(reader.into_message(Lane::Telemetry, body))
}

/// Takes the headers that say something about a message.
pub(super) fn read_headers(
    headers: &HeaderMap,
    reader: &mut HeaderReader,
    wanted: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    for (name, value) in headers.iter().filter(|(name, _)| wanted(name.as_str())) {
        let ours = name.as_str().starts_with("iothub-") || name.as_str().starts_with("dt-");
        match std::str::from_utf8(value.as_bytes()) {
            Ok(value) => drop(reader.put(name.as_str(), value)?),
            Err(_) if ours => {
                let text = "a header is not UTF-8";
                return Err(Error::new(ErrorKind::InvalidArgument, "hub.http", text).with("header", name));
            }
            Err(_) => {}
        }
    }
    Ok(())
}

/// One message of a batch.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Member {
    #[serde(default)]
    body: String,
    #[serde(default = "yes")]
    base64_encoded: bool,
    #[serde(default)]
    properties: Option<Map<String, Value>>,
}

const fn yes() -> bool {
    true
}

/// All messages, or the reason why there is none.
fn read_batch(bytes: &[u8]) -> Result<Vec<Message>, Refused> {
    let members: Vec<Member> = serde_json::from_slice(bytes).map_err(|problem| {
        Refused::new(Refusal::FORMAT_ERROR, format!("the batch cannot be read: {problem}"))
    })?;
    if members.is_empty() || members.len() > BATCH {
        return Err(Refused::invalid(format!("a batch has 1 to {BATCH} messages")));
    }
    members.into_iter().enumerate().map(|(place, member)| read_member(place, member)).collect()
}

fn read_member(place: usize, member: Member) -> Result<Message, Refused> {
    let mut reader = HeaderReader::default();
    for (name, value) in member.properties.unwrap_or_default() {
        let value = match value {
            Value::String(text) => text,
            Value::Null => String::new(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            Value::Array(_) | Value::Object(_) => {
                return Err(Refused::invalid(format!(
                    "message {place}: the property {name:?} is not a text"
                )));
            }
        };
        if is_for_commands(&name) {
            continue;
        }
        let taken = reader.put(&name, &value).and_then(|known| match known {
            true => Ok(true),
            false => reader.put(&format!("{}{name}", http::APPLICATION), &value),
        });
        taken.map_err(|error| {
            Refused::invalid(format!("message {place}: {}", super::failure::line(&error)))
        })?;
    }
    let body = match member.base64_encoded {
        true => BASE64.decode(member.body).map_err(|_| {
            Refused::invalid(format!(
                "message {place}: the body is not base64; say \"base64Encoded\": false for text"
            ))
        })?,
        false => member.body.into_bytes(),
    };
    Ok(reader.into_message(Lane::Telemetry, body))
}

/// With its padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Bytes that wait for the disk, given back whatever happens.
struct Staged<'a> {
    staging: &'a Staging,
    bytes: usize,
}

impl<'a> Staged<'a> {
    fn new(staging: &'a Staging, bytes: usize) -> Self {
        staging.add(bytes);
        Self { staging, bytes }
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        self.staging.release(self.bytes);
    }
}

async fn receive(
    State(hub): State<Hub>,
    Extension(peer): Extension<Peer>,
    At(id): At<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let device = hub.device(&headers, &peer, &id, None)?;
    Ok(match hub.commands.take(&device).await? {
        Some(delivery) => written(&delivery),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

/// A command with its headers.
fn written(delivery: &Delivery) -> Response {
    let message = &delivery.message;
    let mut response = Response::new(Body::from(message.body().clone()));
    let out = response.headers_mut();
    let mut put = |name: &str, value: &str| {
        // Names of commands are tokens, and no value has a control character.
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes()))
        {
            out.append(name, value);
        }
    };
    for (name, value) in http::headers(message) {
        put(&name, &value);
    }
    put(http::SEQUENCE_NUMBER, &delivery.sequence.to_string());
    put(http::ENQUEUED_TIME, &time::format(delivery.enqueued_at));
    put(http::DELIVERY_COUNT, &delivery.delivery_count.to_string());
    put(header::ETAG.as_str(), &format!("\"{}\"", delivery.lock));
    let content_type = message.system().content_type.as_deref().unwrap_or("application/octet-stream");
    put(header::CONTENT_TYPE.as_str(), content_type);
    response
}

async fn complete_or_reject(
    State(hub): State<Hub>,
    Extension(peer): Extension<Peer>,
    At((id, lock)): At<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<StatusCode, Refused> {
    let device = hub.device(&headers, &peer, &id, None)?;
    let names = query.as_deref().unwrap_or_default().split('&').map(|pair| pair.split('=').next());
    let rejects = names.flatten().any(|name| name.eq_ignore_ascii_case("reject"));
    let settlement = if rejects { Settlement::Reject } else { Settlement::Complete };
    settle(&hub, &device, &lock, settlement).await
}

async fn abandon(
    State(hub): State<Hub>,
    Extension(peer): Extension<Peer>,
    At((id, lock)): At<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, Refused> {
    let device = hub.device(&headers, &peer, &id, None)?;
    settle(&hub, &device, &lock, Settlement::Abandon).await
}

async fn settle(
    hub: &Hub,
    device: &Admitted,
    lock: &str,
    settlement: Settlement,
) -> Result<StatusCode, Refused> {
    hub.commands.settle(device, token(lock)?, settlement).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What is no token is no token of a lock that holds.
pub(super) fn token(text: &str) -> Result<LockToken, Refused> {
    LockToken::parse(text)
        .ok_or_else(|| Refused::new(Refusal::LOCK_LOST, "the lock token is not one of this hub's"))
}
