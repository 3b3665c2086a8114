//! What services do with the contract's endpoints: feedback, purge, figures. Contract `http.md`, `c2d.md`.

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use serde::Serialize;
use whimbrel::{
    transport::Settlement,
    wire::{feedback, http, time},
};

use super::{
    Hub,
    messages::token,
    refused::{At, Refused},
};
use crate::{access::Right, commands::Patience};

/// Where tokens for feedback point to.
pub(super) const FEEDBACK: &str = "messages/serviceBound/feedback";

pub(super) fn routes() -> Router<Hub> {
    Router::new()
        .route("/messages/serviceBound/feedback", get(receive_feedback))
        .route("/messages/serviceBound/feedback/{lock}", delete(complete_feedback))
        .route("/messages/serviceBound/feedback/{lock}/abandon", post(abandon_feedback))
        .route("/devices/{id}/commands", delete(purge))
        .route("/statistics/service", get(service_statistics))
        .route("/statistics/devices", get(device_statistics))
}

async fn receive_feedback(State(hub): State<Hub>, headers: HeaderMap) -> Result<Response, Refused> {
    hub.service(&headers, Right::ServiceConnect, FEEDBACK)?;
    let Some(batch) = hub.commands.take_feedback(Patience::Contract).await? else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let mut response = Json(&batch.records).into_response();
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(feedback::CONTENT_TYPE));
    for (name, value) in [
        (header::ETAG, format!("\"{}\"", batch.lock)),
        (HeaderName::from_static(http::ENQUEUED_TIME), time::format(batch.enqueued_at)),
        (HeaderName::from_static(http::DELIVERY_COUNT), batch.delivery_count.to_string()),
    ] {
        if let Ok(value) = HeaderValue::try_from(value) {
            out.insert(name, value);
        }
    }
    Ok(response)
}

async fn complete_feedback(
    State(hub): State<Hub>,
    At(lock): At<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Refused> {
    hub.service(&headers, Right::ServiceConnect, FEEDBACK)?;
    hub.commands.settle_feedback(token(&lock)?, Settlement::Complete).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn abandon_feedback(
    State(hub): State<Hub>,
    At(lock): At<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Refused> {
    hub.service(&headers, Right::ServiceConnect, FEEDBACK)?;
    hub.commands.settle_feedback(token(&lock)?, Settlement::Abandon).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Purged {
    total_messages_purged: u64,
    device_id: String,
    /// Modules have no queue.
    module_id: Option<String>,
}

async fn purge(
    State(hub): State<Hub>,
    At(id): At<String>,
    headers: HeaderMap,
) -> Result<Json<Purged>, Refused> {
    hub.service(&headers, Right::ServiceConnect, &format!("devices/{id}/commands"))?;
    let total_messages_purged = hub.commands.purge(&id).await?;
    Ok(Json(Purged { total_messages_purged, device_id: id, module_id: None }))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceStatistics {
    connected_device_count: usize,
}

async fn service_statistics(
    State(hub): State<Hub>,
    headers: HeaderMap,
) -> Result<Json<ServiceStatistics>, Refused> {
    hub.service(&headers, Right::RegistryRead, "statistics/service")?;
    Ok(Json(ServiceStatistics { connected_device_count: hub.presences.devices() }))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeviceStatistics {
    total_device_count: u64,
    enabled_device_count: u64,
    disabled_device_count: u64,
}

async fn device_statistics(
    State(hub): State<Hub>,
    headers: HeaderMap,
) -> Result<Json<DeviceStatistics>, Refused> {
    hub.service(&headers, Right::RegistryRead, "statistics/devices")?;
    let counts = hub.registry.counts().await?;
    Ok(Json(DeviceStatistics {
        total_device_count: counts.total,
        enabled_device_count: counts.enabled,
        disabled_device_count: counts.total - counts.enabled,
    }))
}
