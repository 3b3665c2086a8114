//! `/v1/devices/{id}/commands`, `/v1/dead-letters`, `/v1/feedback`: commands for people and their tools.
//!
//! A command is sent with what is at hand: `curl -d reboot`, the headers of the contract, or one JSON document. Its outcome
//! is asked for by message id, or waited for, without taking feedback from anybody.

use std::time::{Duration, SystemTime};

use axum::{
    Json,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until, timeout_at};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use whimbrel::{
    Error, ErrorKind, Lane, Message, Properties, SystemProperties,
    message::C2D_LIMIT,
    transport::Settlement,
    wire::{
        feedback::{Feedback, FeedbackWanted},
        http::HeaderReader,
        percent, time,
    },
};

use super::{
    Hub,
    failure::{Failure, FailureBody, Params, Place, Unread},
    line::{BodyForm, MessageView},
    messages::read_headers,
    refused::guid,
    service::FEEDBACK,
};
use crate::{
    access::Right,
    commands::{CommandState, CommandStatus, DeadLetter, LockToken, Patience},
    config,
};

/// Content type of a command that is one JSON document.
const ENVELOPE: &str = "application/vnd.whimbrel.command+json";
/// What `curl -d` says of every body, and so says nothing.
const FORM: &str = "application/x-www-form-urlencoded";
/// Largest body: a full command, each byte as six characters of JSON, and properties.
const BODY_BYTES: usize = 6 * C2D_LIMIT + 64 * 1024;
/// Longest wait for an outcome or for feedback.
const WAIT_LIMIT: Duration = Duration::from_secs(60);
/// How often feedback that came back is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Dead letters of a page, unless asked for otherwise, and at most.
const PAGE: usize = 100;
const PAGE_LIMIT: usize = 1_000;

/// Routes that answer at once.
pub(super) fn routes() -> OpenApiRouter<Hub> {
    OpenApiRouter::new()
        .routes(routes!(send, purge))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .routes(routes!(list_dead_letters))
        .routes(routes!(show_dead_letter))
        .routes(routes!(resend))
        .routes(routes!(complete_feedback))
        .routes(routes!(abandon_feedback))
}

/// Routes that may wait, each with a bound of its own.
pub(super) fn waiting_routes() -> OpenApiRouter<Hub> {
    OpenApiRouter::new().routes(routes!(status)).routes(routes!(take_feedback))
}

fn resource(id: &str) -> String {
    format!("devices/{id}/commands")
}

/// How to send a command, beside its body and the headers of the contract.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SendParams {
    message_id: Option<String>,
    correlation_id: Option<String>,
    user_id: Option<String>,
    content_type: Option<String>,
    content_encoding: Option<String>,
    /// `none`, `positive`, `negative` or `full`.
    ack: Option<String>,
    /// `30s`, `1h30m`.
    ttl: Option<String>,
    /// `2026-01-31T12:00:00Z`, instead of `ttl`.
    expires_at: Option<String>,
    /// What some clients of the contract add to every request.
    #[serde(rename = "api-version")]
    _api_version: Option<String>,
}

/// A command in one document.
#[derive(Deserialize, ToSchema)]
#[schema(as = Command)]
#[serde(deny_unknown_fields)]
struct Envelope {
    /// Finds the outcome; made when it is left out.
    message_id: Option<String>,
    correlation_id: Option<String>,
    user_id: Option<String>,
    content_type: Option<String>,
    content_encoding: Option<String>,
    /// Which feedback is wanted: `none` (default), `positive`, `negative`, `full`.
    ack: Option<String>,
    /// Time to live, such as `30s` or `1h30m`.
    ttl: Option<String>,
    /// End of its life, such as `2026-01-31T12:00:00Z`, instead of `ttl`.
    expires_at: Option<String>,
    /// Names and values of ASCII letters, digits and ``!#$%&'*+-.^_`|~``.
    #[serde(default)]
    properties: std::collections::BTreeMap<String, String>,
    body: Option<EnvelopeBody>,
}

/// One of the three.
#[derive(Deserialize, ToSchema)]
#[schema(as = CommandBody)]
#[serde(rename_all = "lowercase")]
enum EnvelopeBody {
    /// Sent as it stands; content type `application/json` unless another one is given.
    #[schema(value_type = serde_json::Value)]
    Json(Box<RawValue>),
    /// UTF-8.
    Text(String),
    /// Any bytes.
    Base64(String),
}

/// A command that was stored in its queue.
#[derive(Serialize, ToSchema)]
#[schema(as = SentCommand)]
struct SentView {
    device: String,
    /// To ask for its outcome by.
    message_id: String,
    /// Number in the device's queue.
    sequence: u64,
}

/// Sends a command to a device.
///
/// The body is the command, whatever its content type, or a document of the type `application/vnd.whimbrel.command+json`.
/// A raw body takes its properties from the parameters and from headers as the contract has them (`iothub-messageid`,
/// `iothub-app-room`, …); parameters win. Stored when this answers.
#[utoipa::path(
    post,
    operation_id = "send_command",
    path = "/devices/{id}/commands",
    tag = "commands",
    params(
        ("id" = String, Path, description = "Device id"),
        ("message_id" = Option<String>, Query, description = "Finds the outcome; made when it is left out"),
        ("correlation_id" = Option<String>, Query),
        ("user_id" = Option<String>, Query),
        ("content_type" = Option<String>, Query, description = "Instead of the header Content-Type"),
        ("content_encoding" = Option<String>, Query),
        ("ack" = Option<String>, Query, description = "Feedback wanted: none (default), positive, negative, full"),
        ("ttl" = Option<String>, Query, description = "Time to live, such as 30s or 1h30m"),
        ("expires_at" = Option<String>, Query, description = "End of its life, instead of ttl"),
        ("api-version" = Option<String>, Query, description = "Passed over"),
    ),
    request_body(
        content(
            (Envelope = "application/vnd.whimbrel.command+json"),
            (Vec<u8> = "application/octet-stream"),
        )
    ),
    responses(
        (status = 201, description = "Stored in the device's queue", body = SentView,
            headers(("Location" = String, description = "Where its outcome is asked for"))),
        (status = 400, description = "Something about it cannot be used", body = FailureBody),
        (status = 401, body = FailureBody),
        (status = 404, description = "The device is unknown or disabled", body = FailureBody),
        (status = 409, description = "The device's queue is full", body = FailureBody),
        (status = 413, description = "Over 64 KiB", body = FailureBody),
        (status = 429, body = FailureBody),
    )
)]
async fn send(
    State(hub): State<Hub>,
    Place(id): Place<String>,
    Params(params): Params<SendParams>,
    headers: HeaderMap,
    body: Unread,
) -> Result<Response, Failure> {
    hub.authorize(&headers, Right::ServiceConnect, &resource(&id))?;
    let essence = essence(&headers);
    let message = if essence.as_deref() == Some(ENVELOPE) {
        enveloped(body.needed().await?)?
    } else {
        raw(&headers, essence.filter(|essence| essence != FORM), body.bytes().await?)?
    };
    let mut message = with_params(message, params, SystemTime::now())?;
    let message_id = match &message.system().message_id {
        Some(id) => id.clone(),
        None => {
            let id = guid();
            message.system_mut().message_id = Some(id.clone());
            id
        }
    };
    let sent = hub.commands.send(&id, message).await?;
    Ok(sent_answer(SentView { device: id, message_id, sequence: sent.sequence }))
}

fn sent_answer(sent: SentView) -> Response {
    let (device, id) = (percent::encoded(&sent.device), percent::encoded(&sent.message_id));
    let location = HeaderValue::try_from(format!("/v1/devices/{device}/commands/{id}"));
    let mut response = (StatusCode::CREATED, Json(sent)).into_response();
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// The content type without its parameters, in lower case.
fn essence(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(text.split(';').next()?.trim().to_ascii_lowercase())
}

fn raw(headers: &HeaderMap, essence: Option<String>, body: bytes::Bytes) -> Result<Message, Error> {
    let mut reader = HeaderReader::default();
    read_headers(headers, &mut reader, |_| true)?;
    let mut message = reader.into_message(Lane::Telemetry, body);
    let system = message.system_mut();
    // Where a command goes is said by the path.
    system.to = None;
    if system.content_type.is_none() && essence.is_some() {
        let whole = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        system.content_type = whole.map(str::to_owned);
    }
    if system.content_encoding.is_none() {
        let encoding = headers.get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok());
        system.content_encoding = encoding.map(str::to_owned);
    }
    Ok(message)
}

fn enveloped(envelope: Envelope) -> Result<Message, Error> {
    let Envelope { message_id, correlation_id, user_id, content_type, content_encoding, .. } = envelope;
    let mut content_type = content_type;
    let body = match envelope.body {
        None => Vec::new(),
        Some(EnvelopeBody::Text(text)) => text.into_bytes(),
        Some(EnvelopeBody::Base64(text)) => {
            BASE64_STANDARD.decode(text).map_err(|_| invalid("body.base64 is not base64"))?
        }
        Some(EnvelopeBody::Json(json)) => {
            content_type.get_or_insert_with(|| "application/json".to_owned());
            json.get().as_bytes().to_vec()
        }
    };
    let properties: Properties = envelope.properties.into_iter().collect();
    let system = SystemProperties {
        message_id,
        correlation_id,
        user_id,
        content_type,
        content_encoding,
        ..SystemProperties::default()
    };
    let message = Message::telemetry(body).with_properties(properties).with_system(system);
    let rest = SendParams {
        ack: envelope.ack,
        ttl: envelope.ttl,
        expires_at: envelope.expires_at,
        ..SendParams::default()
    };
    with_params(message, rest, SystemTime::now())
}

/// The message with what the parameters say about it.
fn with_params(mut message: Message, params: SendParams, now: SystemTime) -> Result<Message, Error> {
    let system = message.system_mut();
    for (slot, value) in [
        (&mut system.message_id, params.message_id),
        (&mut system.correlation_id, params.correlation_id),
        (&mut system.user_id, params.user_id),
        (&mut system.content_type, params.content_type),
        (&mut system.content_encoding, params.content_encoding),
    ] {
        if value.is_some() {
            *slot = value;
        }
    }
    let expiry = match (params.ttl, params.expires_at) {
        (Some(_), Some(_)) => return Err(invalid("give ttl or expires_at, not both")),
        (Some(ttl), None) => {
            let ttl = config::duration(&ttl).map_err(|problem| invalid(format!("ttl: {problem}")))?;
            if ttl.is_zero() {
                return Err(invalid("a ttl of zero expires at once"));
            }
            Some(now.checked_add(ttl).ok_or_else(|| invalid("ttl is too long"))?)
        }
        (None, Some(at)) => Some(
            time::parse(&at)
                .ok_or_else(|| invalid("expires_at is not a time such as 2026-01-31T12:00:00Z"))?,
        ),
        (None, None) => None,
    };
    if expiry.is_some() {
        system.expiry_time = expiry;
    }
    Ok(match params.ack {
        None => message,
        Some(ack) => message.property(FeedbackWanted::PROPERTY, ack),
    })
}

fn invalid(text: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidArgument, "hub.http", text)
}

/// What is known of a command.
#[derive(Serialize, ToSchema)]
#[schema(as = CommandStatus)]
struct StatusView {
    device: String,
    message_id: String,
    /// Number in the device's queue.
    sequence: u64,
    /// Generation of the device it was sent to.
    generation: String,
    state: StateWord,
    /// `Success`, `Rejected`, `Expired`, `DeliveryCountExceeded` or `Purged`, once it has ended.
    outcome: Option<&'static str>,
    ended_at: Option<String>,
}

#[derive(Clone, Copy, Serialize, ToSchema)]
#[schema(as = CommandState)]
#[serde(rename_all = "lowercase")]
enum StateWord {
    /// In its queue.
    Enqueued,
    /// Delivered and not settled yet.
    Locked,
    /// Over.
    Ended,
}

impl From<CommandStatus> for StatusView {
    fn from(status: CommandStatus) -> Self {
        let (state, ended) = match status.state {
            CommandState::Enqueued => (StateWord::Enqueued, None),
            CommandState::Locked => (StateWord::Locked, None),
            CommandState::Ended { outcome, at } => (StateWord::Ended, Some((outcome, at))),
        };
        Self {
            device: (*status.device).to_owned(),
            message_id: status.message_id.unwrap_or_default(),
            sequence: status.sequence,
            generation: (*status.generation).to_owned(),
            state,
            outcome: ended.map(|(outcome, _)| outcome.word()),
            ended_at: ended.map(|(_, at)| time::format(at)),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WaitParams {
    wait: Option<String>,
}

impl WaitParams {
    fn until(self) -> Result<Option<Instant>, Error> {
        let Some(text) = self.wait else { return Ok(None) };
        let wait = config::duration(&text).map_err(|problem| invalid(format!("wait: {problem}")))?;
        if wait > WAIT_LIMIT {
            return Err(invalid("wait is at most 60s; ask again after that"));
        }
        Ok(Some(Instant::now() + wait))
    }
}

/// Tells where a command is, and how it ended.
///
/// With `wait` the answer comes when the command has ended, or when the time is over, with the state it is in then. This
/// takes feedback from nobody, and any number may wait.
#[utoipa::path(
    get,
    operation_id = "command_status",
    path = "/devices/{id}/commands/{message_id}",
    tag = "commands",
    params(
        ("id" = String, Path, description = "Device id"),
        ("message_id" = String, Path, description = "Message id of the command; the newest one counts"),
        ("wait" = Option<String>, Query, description = "Wait for its end so long at most, such as 30s; at most 60s"),
    ),
    responses(
        (status = 200, body = StatusView),
        (status = 400, body = FailureBody),
        (status = 401, body = FailureBody),
        (status = 404, description = "No such command is known, or it ended too long ago", body = FailureBody),
        (status = 429, body = FailureBody),
    )
)]
async fn status(
    State(hub): State<Hub>,
    Place((id, message_id)): Place<(String, String)>,
    Params(params): Params<WaitParams>,
    headers: HeaderMap,
) -> Result<Json<StatusView>, Failure> {
    hub.authorize(&headers, Right::ServiceConnect, &resource(&id))?;
    let until = params.until()?;
    loop {
        let waiter = until.map(|_| hub.waiting.of(&id, &message_id));
        let status = hub.commands.status(&id, &message_id).await?.ok_or_else(|| {
            let text = "nothing is known of such a command";
            Error::new(ErrorKind::NotFound, "commands.status", text).with("device", &id)
        })?;
        let (Some(until), Some(waiter)) = (until, waiter) else { return Ok(Json(status.into())) };
        let has_ended = matches!(status.state, CommandState::Ended { .. });
        let is_over = has_ended || Instant::now() >= until || hub.stop.is_cancelled();
        if is_over {
            return Ok(Json(status.into()));
        }
        tokio::select! {
            () = waiter.woken() => {}
            () = sleep_until(until) => {}
            () = hub.stop.cancelled() => {}
        }
    }
}

/// How many commands were ended.
#[derive(Serialize, ToSchema)]
#[schema(as = Purged)]
struct PurgedView {
    purged: u64,
}

/// Empties the queue of a device, commands that are locked included.
#[utoipa::path(
    delete,
    operation_id = "purge_commands",
    path = "/devices/{id}/commands",
    tag = "commands",
    params(("id" = String, Path, description = "Device id")),
    responses(
        (status = 200, body = PurgedView),
        (status = 401, body = FailureBody),
        (status = 404, body = FailureBody),
        (status = 429, body = FailureBody),
    )
)]
async fn purge(
    State(hub): State<Hub>,
    Place(id): Place<String>,
    headers: HeaderMap,
) -> Result<Json<PurgedView>, Failure> {
    hub.authorize(&headers, Right::ServiceConnect, &resource(&id))?;
    Ok(Json(PurgedView { purged: hub.commands.purge(&id).await? }))
}

/// Where tokens for dead letters point to.
const DEAD_LETTERS: &str = "messages/deadLetters";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeadLetterParams {
    device: Option<String>,
    after: Option<u64>,
    limit: Option<usize>,
    #[serde(default)]
    body: BodyForm,
}

#[derive(Serialize)]
struct DeadLetterView<'a> {
    id: u64,
    device: &'a str,
    sequence: u64,
    outcome: &'static str,
    enqueued_at: String,
    ended_at: String,
    delivery_count: u32,
    #[serde(flatten)]
    message: MessageView<'a>,
}

impl<'a> DeadLetterView<'a> {
    fn new(letter: &'a DeadLetter, form: BodyForm) -> Self {
        Self {
            id: letter.id,
            device: &letter.device,
            sequence: letter.sequence,
            outcome: letter.outcome.word(),
            enqueued_at: time::format(letter.enqueued_at),
            ended_at: time::format(letter.ended_at),
            delivery_count: letter.delivery_count,
            message: MessageView::new(&letter.message, form),
        }
    }
}

/// A command that did not get to its end, for the documents.
#[derive(ToSchema)]
#[schema(as = DeadLetter)]
#[allow(dead_code, reason = "what is written is DeadLetterView, which borrows")]
pub(super) struct DeadLetterSchema {
    /// Names it among the dead letters of the hub; rises with time.
    id: u64,
    device: String,
    sequence: u64,
    /// `Rejected`, `Expired` or `DeliveryCountExceeded`.
    outcome: String,
    enqueued_at: String,
    ended_at: String,
    delivery_count: u32,
    properties: std::collections::BTreeMap<String, String>,
    /// `message_id`, `content_type`, `expiry_time` and the like, those that are set.
    system: std::collections::BTreeMap<String, String>,
    body: super::line::BodySchema,
}

/// A page of dead letters.
#[derive(ToSchema)]
#[schema(as = DeadLetters)]
#[allow(dead_code, reason = "what is written borrows")]
struct DeadLettersSchema {
    dead_letters: Vec<DeadLetterSchema>,
    /// To be given as `after` for the next page; absent on the last one.
    next: Option<u64>,
}

/// Lists commands that were rejected, expired or abandoned too often, oldest first.
#[utoipa::path(
    get,
    operation_id = "list_dead_letters",
    path = "/dead-letters",
    tag = "commands",
    params(
        ("device" = Option<String>, Query, description = "Only those of this device"),
        ("after" = Option<u64>, Query, description = "Only those with larger ids"),
        ("limit" = Option<usize>, Query, description = "1 to 1000, default 100"),
        ("body" = inline(Option<BodyForm>), Query, description = "How bodies are shown: auto (default) or base64"),
    ),
    responses(
        (status = 200, body = DeadLettersSchema),
        (status = 400, body = FailureBody),
        (status = 401, body = FailureBody),
        (status = 429, body = FailureBody),
    )
)]
async fn list_dead_letters(
    State(hub): State<Hub>,
    Params(params): Params<DeadLetterParams>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let resource = params.device.as_deref().map_or_else(|| DEAD_LETTERS.to_owned(), resource);
    hub.authorize(&headers, Right::ServiceConnect, &resource)?;
    let limit = params.limit.unwrap_or(PAGE);
    if !(1..=PAGE_LIMIT).contains(&limit) {
        return Err(Failure::invalid(format!("limit is 1 to {PAGE_LIMIT}")));
    }
    let found = hub.commands.dead_letters(params.device.as_deref(), params.after, limit).await?;
    #[derive(Serialize)]
    struct DeadLettersView<'a> {
        dead_letters: Vec<DeadLetterView<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<u64>,
    }
    let next = found.last().filter(|_| found.len() == limit).map(|last| last.id);
    let dead_letters = found.iter().map(|letter| DeadLetterView::new(letter, params.body)).collect();
    Ok(Json(DeadLettersView { dead_letters, next }).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BodyParams {
    #[serde(default)]
    body: BodyForm,
}

/// Shows one command that did not get to its end.
#[utoipa::path(
    get,
    operation_id = "show_dead_letter",
    path = "/dead-letters/{id}",
    tag = "commands",
    params(
        ("id" = u64, Path, description = "Id of the dead letter"),
        ("body" = inline(Option<BodyForm>), Query, description = "How the body is shown: auto (default) or base64"),
    ),
    responses(
        (status = 200, body = DeadLetterSchema),
        (status = 401, body = FailureBody),
        (status = 404, body = FailureBody),
        (status = 429, body = FailureBody),
    )
)]
async fn show_dead_letter(
    State(hub): State<Hub>,
    Place(id): Place<u64>,
    Params(params): Params<BodyParams>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    hub.authorize(&headers, Right::ServiceConnect, DEAD_LETTERS)?;
    let letter = hub.commands.dead_letter(id).await?;
    Ok(Json(DeadLetterView::new(&letter, params.body)).into_response())
}

/// Sends a dead letter again: into the queue of its device, with the default time to live.
#[utoipa::path(
    post,
    operation_id = "resend_dead_letter",
    path = "/dead-letters/{id}/resend",
    tag = "commands",
    params(("id" = u64, Path, description = "Id of the dead letter, which is no more after this")),
    responses(
        (status = 201, description = "Stored in the device's queue", body = SentView,
            headers(("Location" = String, description = "Where its outcome is asked for"))),
        (status = 401, body = FailureBody),
        (status = 404, description = "There is no such dead letter, or its device is gone", body = FailureBody),
        (status = 409, description = "The device's queue is full", body = FailureBody),
        (status = 429, body = FailureBody),
    )
)]
async fn resend(
    State(hub): State<Hub>,
    Place(id): Place<u64>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    hub.authorize(&headers, Right::ServiceConnect, DEAD_LETTERS)?;
    let letter = hub.commands.dead_letter(id).await?;
    let sent = hub.commands.resend(id).await?;
    Ok(sent_answer(SentView {
        device: (*letter.device).to_owned(),
        message_id: letter.message.system().message_id.clone().unwrap_or_default(),
        sequence: sent.sequence,
    }))
}

/// Some feedback, locked until it is settled or the time of the lock is over.
#[derive(Serialize, ToSchema)]
#[schema(as = FeedbackBatch)]
struct FeedbackView {
    /// To settle it by.
    lock: String,
    /// When the newest record was made.
    enqueued_at: String,
    /// How many deliveries counted before this one.
    delivery_count: u32,
    /// As the contract has them: `originalMessageId`, `enqueuedTimeUtc`, `statusCode`, `description`, `deviceId`,
    /// `deviceGenerationId`.
    #[schema(value_type = Vec<Object>)]
    records: Vec<Feedback>,
}

/// Takes feedback that is ready, at once, without waiting for a full batch as the contract's endpoint does.
///
/// Readers compete: a record goes to one of them. What is not completed comes again when its lock ends.
#[utoipa::path(
    get,
    operation_id = "take_feedback",
    path = "/feedback",
    tag = "commands",
    params(("wait" = Option<String>, Query, description = "Wait for some so long at most, such as 30s; at most 60s")),
    responses(
        (status = 200, body = FeedbackView),
        (status = 204, description = "There is none"),
        (status = 400, body = FailureBody),
        (status = 401, body = FailureBody),
        (status = 429, body = FailureBody),
    )
)]
async fn take_feedback(
    State(hub): State<Hub>,
    Params(params): Params<WaitParams>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    hub.authorize(&headers, Right::ServiceConnect, FEEDBACK)?;
    let until = params.until()?;
    let mut ended = hub.waiting.any();
    loop {
        ended.mark_unchanged();
        if let Some(batch) = hub.commands.take_feedback(Patience::None).await? {
            let view = FeedbackView {
                lock: batch.lock.to_string(),
                enqueued_at: time::format(batch.enqueued_at),
                delivery_count: batch.delivery_count,
                records: batch.records,
            };
            return Ok(Json(view).into_response());
        }
        let now = Instant::now();
        let Some(until) = until.filter(|until| *until > now && !hub.stop.is_cancelled()) else {
            return Ok(StatusCode::NO_CONTENT.into_response());
        };
        tokio::select! {
            // Over when feedback may be there, or when the next look is due.
            _ = timeout_at(until.min(now + LOOK_EVERY), ended.changed()) => {}
            () = hub.stop.cancelled() => {}
        }
    }
}

async fn settle_feedback(
    hub: &Hub,
    headers: &HeaderMap,
    lock: &str,
    settlement: Settlement,
) -> Result<StatusCode, Failure> {
    hub.authorize(headers, Right::ServiceConnect, FEEDBACK)?;
    let lock = LockToken::parse(lock).ok_or_else(|| {
        Error::new(ErrorKind::LockLost, "feedback.settle", "the lock is not one of this hub's")
    })?;
    hub.commands.settle_feedback(lock, settlement).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Completes feedback: it is dealt with and does not come again.
#[utoipa::path(
    delete,
    operation_id = "complete_feedback",
    path = "/feedback/{lock}",
    tag = "commands",
    params(("lock" = String, Path, description = "The lock it came with")),
    responses(
        (status = 204, description = "Done, and stored"),
        (status = 401, body = FailureBody),
        (status = 412, description = "The lock has ended", body = FailureBody),
        (status = 429, body = FailureBody),
    )
)]
async fn complete_feedback(
    State(hub): State<Hub>,
    Place(lock): Place<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Failure> {
    settle_feedback(&hub, &headers, &lock, Settlement::Complete).await
}

/// Gives feedback back: it comes again.
#[utoipa::path(
    post,
    operation_id = "abandon_feedback",
    path = "/feedback/{lock}/abandon",
    tag = "commands",
    params(("lock" = String, Path, description = "The lock it came with")),
    responses(
        (status = 204, description = "Done, and stored"),
        (status = 401, body = FailureBody),
        (status = 412, description = "The lock has ended", body = FailureBody),
        (status = 429, body = FailureBody),
    )
)]
async fn abandon_feedback(
    State(hub): State<Hub>,
    Place(lock): Place<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Failure> {
    settle_feedback(&hub, &headers, &lock, Settlement::Abandon).await
}
