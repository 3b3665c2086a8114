//! HTTP: the routes below `/v1` for people and their tools, health, metrics, and MQTT and AMQP over WebSocket.
//!
//! Everything the command line does, it does through these routes; so can `curl`.

mod devices;
mod events;
mod failure;
mod feed;
mod groups;
mod health;
mod line;
mod metrics;
mod patient;
mod server;
mod websocket;

use std::{sync::Arc, time::Duration, time::SystemTime};

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
use whimbrel::ErrorKind;

use crate::{
    access::{Access, Right},
    commands::Commands,
    events::Events,
    fronts::{amqp, mqtt},
    registry::Registry,
};
use failure::Failure;

pub(crate) use metrics::Requests;
pub(crate) use server::serve;

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
    #[allow(dead_code, reason = "read by the routes of commands")]
    pub(crate) commands: Commands,
    pub(crate) mqtt: Arc<mqtt::Front>,
    pub(crate) amqp: Arc<amqp::Front>,
    pub(crate) about: Arc<About>,
    pub(crate) open_metrics: bool,
    /// Cancelled when the hub begins to stop.
    pub(crate) stop: CancellationToken,
    pub(crate) metrics: Requests,
}

/// `GET /v1/hub`: what a client has to know to reach this hub.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct About {
    pub(crate) version: &'static str,
    pub(crate) host_name: String,
    pub(crate) partitions: usize,
    pub(crate) listeners: Listeners,
}

/// Addresses that are listened on; `null` is off.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Listeners {
    pub(crate) mqtt: Option<std::net::SocketAddr>,
    pub(crate) mqtts: Option<std::net::SocketAddr>,
    pub(crate) amqp: Option<std::net::SocketAddr>,
    pub(crate) amqps: Option<std::net::SocketAddr>,
    pub(crate) http: Option<std::net::SocketAddr>,
    pub(crate) https: Option<std::net::SocketAddr>,
}

impl Hub {
    /// Whether the caller may do this to `resource` (path below the host).
    ///
    /// # Errors
    /// 401, without details.
    fn authorize(&self, headers: &HeaderMap, right: Right, resource: &str) -> Result<(), Failure> {
        let Some(authorization) = headers.get(header::AUTHORIZATION) else {
            return Err(unauthorized(
                "send an Authorization header: a SharedAccessSignature, or Bearer POLICY:KEY, of a service policy",
            ));
        };
        let authorization =
            authorization.to_str().map_err(|_| unauthorized("the Authorization header is not text"))?;
        match self.access.service(authorization, right, resource, SystemTime::now()) {
            Ok(_) => Ok(()),
            // What exactly was wrong is for the operator; a stranger only learns that it was.
            Err(error) if error.kind() == ErrorKind::Unauthorized => {
                tracing::info!(%error, ?right, resource, "a request was refused");
                Err(unauthorized(
                    "the credentials are wrong, have expired, or do not allow this; the hub's log says which",
                ))
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn unauthorized(message: &'static str) -> Failure {
    Failure::new(StatusCode::UNAUTHORIZED, ErrorKind::Unauthorized, message)
}

/// All routes.
pub(crate) fn router(hub: Hub) -> Router {
    let v1 = Router::new()
        .route("/hub", get(about))
        .merge(devices::routes())
        .merge(events::routes())
        .merge(groups::routes())
        .merge(health::routes());
    Router::new()
        .nest("/v1", v1)
        .route("/metrics", get(metrics::show))
        .route(websocket::PATH, get(websocket::upgrade))
        .route(websocket::EVENTS_PATH, get(websocket::upgrade_amqp))
        .route(websocket::EVENTS_PATH_SLASH, get(websocket::upgrade_amqp))
        .fallback(failure::no_such_path)
        .method_not_allowed_fallback(failure::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(middleware::from_fn(in_time))
        .layer(middleware::from_fn_with_state(hub.metrics.clone(), metrics::count))
        .with_state(hub)
}

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
