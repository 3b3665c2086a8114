//! `/v1/health`: for orchestrators and load balancers. Needs no token and tells nothing but this.

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::Hub;

pub(super) fn routes() -> OpenApiRouter<Hub> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(live)).routes(routes!(ready))
}

/// How the hub is.
#[derive(Serialize, ToSchema)]
struct Health {
    /// `live`, `ready` or `stopping`.
    status: &'static str,
}

/// The process answers.
#[utoipa::path(
    get,
    operation_id = "health_live",
    path = "/health/live",
    tag = "hub",
    security(()),
    responses((status = 200, body = Health))
)]
async fn live() -> Json<Health> {
    Json(Health { status: "live" })
}

/// The hub takes new work: it is not stopping.
#[utoipa::path(
    get,
    operation_id = "health_ready",
    path = "/health/ready",
    tag = "hub",
    security(()),
    responses((status = 200, body = Health), (status = 503, description = "It is stopping", body = Health))
)]
async fn ready(State(hub): State<Hub>) -> (StatusCode, Json<Health>) {
    if hub.stop.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, Json(Health { status: "stopping" }))
    } else {
        (StatusCode::OK, Json(Health { status: "ready" }))
    }
}

/// The same as `/v1/health/ready`.
#[utoipa::path(
    get,
    operation_id = "health",
    path = "/health",
    tag = "hub",
    security(()),
    responses((status = 200, body = Health), (status = 503, description = "It is stopping", body = Health))
)]
async fn health(hub: State<Hub>) -> (StatusCode, Json<Health>) {
    ready(hub).await
}
