//! HTTP: the contract's endpoints for devices and services; the routes below `/v1` for people and their tools; health,
//! metrics, and MQTT and AMQP over WebSocket.
//!
//! Everything the command line does, it does through the routes below `/v1`; so can `curl`. The contract's endpoints have
//! the paths, the JSON and the errors that clients of Azure IoT Hub expect; `api-version` is neither asked for nor read.

mod commands;
mod devices;
mod events;
mod failure;
mod feed;
mod groups;
mod health;
mod identities;
mod line;
mod messages;
mod metrics;
mod openapi;
mod paths;
mod patient;
mod refused;
mod server;
mod service;
mod waiting;
mod websocket;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use whimbrel::ErrorKind;

use crate::{
    access::{Access, Admitted, Right},
    commands::Commands,
    events::Events,
    fronts::{amqp, mqtt},
    limits::{Staging, Throttle},
    registry::Registry,
    sessions::{Identity, Presences},
};
use failure::{Failure, FailureBody};
use server::Peer;

pub(crate) use metrics::Requests;
pub(crate) use server::serve;
pub(crate) use waiting::Waiting;

/// Largest body of a request.
const BODY_BYTES: usize = 64 * 1024;
/// From the head of a request to the head of its answer, a slowly arriving body included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What the routes work on. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Hub {
    pub(crate) access: Access,
    pub(crate) registry: Registry,
    pub(crate) events: Events,
    pub(crate) commands: Commands,
    /// Requests that wait for outcomes.
    pub(crate) waiting: Waiting,
    pub(crate) presences: Arc<Presences>,
    /// How often a device, and all programs of a policy, may ask.
    pub(crate) throttles: Arc<Throttles>,
    /// Bytes of events that wait for the disk.
    pub(crate) staging: Arc<Staging>,
    /// Largest event, or batch of them.
    pub(crate) message_bytes: usize,
    pub(crate) mqtt: Arc<mqtt::Front>,
    pub(crate) amqp: Arc<amqp::Front>,
    pub(crate) about: Arc<About>,
    pub(crate) open_metrics: bool,
    /// Cancelled when the hub begins to stop.
    pub(crate) stop: CancellationToken,
    pub(crate) metrics: Requests,
}

/// How often somebody may ask.
#[derive(Debug)]
pub(crate) struct Throttles {
    device: Throttle,
    policy: Throttle,
}

impl Throttles {
    /// Requests a second; 0 is no limit.
    pub(crate) fn new(device: u32, policy: u32) -> Self {
        Self { device: Throttle::new(device), policy: Throttle::new(policy) }
    }
}

/// `GET /v1/hub`: what a client has to know to reach this hub.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct About {
    pub(crate) version: &'static str,
    /// Name that tokens are made for.
    pub(crate) host_name: String,
    pub(crate) partitions: usize,
    pub(crate) listeners: Listeners,
}

/// Addresses that are listened on; `null` is off.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct Listeners {
    #[schema(value_type = Option<String>)]
    pub(crate) mqtt: Option<std::net::SocketAddr>,
    #[schema(value_type = Option<String>)]
    pub(crate) mqtts: Option<std::net::SocketAddr>,
    #[schema(value_type = Option<String>)]
    pub(crate) amqp: Option<std::net::SocketAddr>,
    #[schema(value_type = Option<String>)]
    pub(crate) amqps: Option<std::net::SocketAddr>,
    #[schema(value_type = Option<String>)]
    pub(crate) http: Option<std::net::SocketAddr>,
    #[schema(value_type = Option<String>)]
    pub(crate) https: Option<std::net::SocketAddr>,
}

impl Hub {
    /// Whether the caller may do this to `resource` (path below the host).
    ///
    /// # Errors
    /// `Unauthorized`, without details but `right`, when that is all that is missing; `Throttled`.
    fn service(&self, headers: &HeaderMap, right: Right, resource: &str) -> whimbrel::Result<()> {
        let Some(authorization) = headers.get(header::AUTHORIZATION) else {
            return Err(unauthorized(
                "send an Authorization header: a SharedAccessSignature, or Bearer POLICY:KEY, of a service policy",
            ));
        };
        let authorization =
            authorization.to_str().map_err(|_| unauthorized("the Authorization header is not text"))?;
        match self.access.service(authorization, right, resource, SystemTime::now()) {
            Ok(policy) => throttled(&self.throttles.policy, &policy),
            // What exactly was wrong is for the operator; a stranger only learns that it was.
            Err(error) if error.kind() == ErrorKind::Unauthorized => {
                tracing::info!(%error, ?right, resource, "a request was refused");
                let refused = unauthorized(WRONG_CREDENTIALS);
                let lacks_right = error.details().iter().any(|(name, _)| *name == "right");
                Err(if lacks_right { refused.with("right", format_args!("{right:?}")) } else { refused })
            }
            Err(error) => Err(error),
        }
    }

    /// [`Hub::service`] for our own routes.
    fn authorize(&self, headers: &HeaderMap, right: Right, resource: &str) -> Result<(), Failure> {
        Ok(self.service(headers, right, resource)?)
    }

    /// The device, or module of it, that makes a request: by a token, or by the certificate of the connection.
    ///
    /// # Errors
    /// `Unauthorized`, without details; `Throttled`.
    fn device(
        &self,
        headers: &HeaderMap,
        peer: &Peer,
        device: &str,
        module: Option<&str>,
    ) -> whimbrel::Result<Admitted> {
        let now = SystemTime::now();
        let admitted = match headers.get(header::AUTHORIZATION).map(|token| token.to_str()) {
            Some(Ok(token)) => self.access.device_by_token(device, module, token, now),
            Some(Err(_)) => return Err(unauthorized("the Authorization header is not text")),
            None => self.access.device_by_certificate(device, module, &peer.certificates, now),
        };
        let admitted = admitted.map_err(|error| match error.kind() {
            ErrorKind::Unauthorized => {
                tracing::info!(%error, peer = %peer.address, "a request was refused");
                unauthorized(WRONG_CREDENTIALS)
            }
            _ => error,
        })?;
        let name = match &admitted.module {
            None => std::borrow::Cow::Borrowed(&*admitted.device),
            Some(module) => format!("{}/{module}", admitted.device).into(),
        };
        throttled(&self.throttles.device, &name)?;
        let identity = Identity { device: Arc::clone(&admitted.device), module: admitted.module.clone() };
        self.presences.active(identity, now);
        Ok(admitted)
    }
}

const WRONG_CREDENTIALS: &str =
    "the credentials are wrong, have expired, or do not allow this; the hub's log says which";

fn unauthorized(message: &'static str) -> whimbrel::Error {
    whimbrel::Error::new(ErrorKind::Unauthorized, "hub.http", message)
}

/// Asked only of those who have shown who they are: nobody can use up what another one may do.
fn throttled(throttle: &Throttle, name: &str) -> whimbrel::Result<()> {
    throttle.take(name, Instant::now()).map_err(|wait| {
        let text = "too many requests; wait as long as Retry-After says";
        whimbrel::Error::new(ErrorKind::Throttled, "hub.http", text).retry_after(wait)
    })
}

/// All routes.
pub(crate) fn router(hub: Hub) -> Router {
    let (v1, waiting, document) = v1();
    let document = openapi::served(document);
    let routes = Router::new()
        .nest("/v1", v1.route("/openapi.json", get(document)))
        .merge(messages::routes())
        .merge(service::routes())
        .merge(identities::routes())
        .route("/metrics", get(metrics::show))
        .route(websocket::PATH, get(websocket::upgrade))
        .route(websocket::EVENTS_PATH, get(websocket::upgrade_amqp))
        .route(websocket::EVENTS_PATH_SLASH, get(websocket::upgrade_amqp))
        .layer(middleware::from_fn(in_time))
        .nest("/v1", waiting)
        .fallback(failure::no_such_path)
        .method_not_allowed_fallback(failure::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(middleware::from_fn_with_state(hub.metrics.clone(), metrics::count))
        .layer(middleware::from_fn(refused::identify))
        .with_state(hub);
    // Layers of a router see a request when its route was chosen; its path has to be right before.
    Router::new().fallback_service(routes.map_request(paths::canonical))
}

/// Our own routes: those that answer at once, those that may wait, and the document of all.
fn v1() -> (Router<Hub>, Router<Hub>, utoipa::openapi::OpenApi) {
    let quick = OpenApiRouter::with_openapi(openapi::frame())
        .routes(routes!(about))
        .merge(devices::routes())
        .merge(commands::routes())
        .merge(events::routes())
        .merge(groups::routes())
        .merge(health::routes());
    let (quick, mut document) = quick.split_for_parts();
    let (waiting, more) = commands::waiting_routes().split_for_parts();
    document.merge(more);
    openapi::describe_answers(&mut document);
    (quick, waiting, document)
}

/// Tells what a client has to know to reach this hub.
#[utoipa::path(
    get,
    operation_id = "show_hub",
    path = "/hub",
    tag = "hub",
    responses((status = 200, body = About), (status = 401, body = FailureBody), (status = 429, body = FailureBody))
)]
async fn about(State(hub): State<Hub>, headers: HeaderMap) -> Result<Json<About>, Failure> {
    hub.authorize(&headers, Right::ServiceConnect, "")?;
    Ok(Json(About::clone(&hub.about)))
}

/// Gives up on requests whose body does not come; a stream that was begun is not a request any more.
async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            Failure::new(StatusCode::REQUEST_TIMEOUT, ErrorKind::Timeout, "the request did not come in time")
                .into_response()
        }
    }
}
