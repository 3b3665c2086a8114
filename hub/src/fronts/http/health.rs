//! `/v1/health`: for orchestrators and load balancers. Needs no token and tells nothing but this.

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use serde::Serialize;

use super::Hub;

pub(super) fn routes() -> Router<Hub> {
    Router::new()
        .route("/health", get(ready))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
}

/// The process answers.
async fn live() -> Json<Health> {
    Json(Health { status: "live" })
}

/// The hub takes new work: it is not stopping.
async fn ready(State(hub): State<Hub>) -> (StatusCode, Json<Health>) {
    if hub.stop.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, Json(Health { status: "stopping" }))
    } else {
        (StatusCode::OK, Json(Health { status: "ready" }))
    }
}
