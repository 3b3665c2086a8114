//! `/v1/devices`: create, list, show, enable, disable, rotate keys, delete.

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use whimbrel::wire::time;

use super::{
    Hub,
    failure::{Failure, Params, Place, Unread},
};
use crate::{
    access::Right,
    registry::{Authentication, KeySlot, Registered},
};

/// Devices of one page of a list.
const PAGE: usize = 100;
const PAGE_LIMIT: usize = 1_000;

pub(super) fn routes() -> Router<Hub> {
    Router::new()
        .route("/devices", get(list))
        .route("/devices/{id}", get(show).put(create).patch(change).delete(delete))
        .route("/devices/{id}/connection-string", get(connection_string))
        .route("/devices/{id}/keys/{slot}/rotate", post(rotate))
}

/// A device, without its keys.
#[derive(Serialize)]
struct DeviceView<'a> {
    id: &'a str,
    enabled: bool,
    authentication: AuthenticationView<'a>,
    etag: &'a str,
    generation: &'a str,
    created_at: String,
    /// Only in the answer that made the key, and where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_string: Option<String>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "camelCase")]
enum AuthenticationView<'a> {
    Sas,
    SelfSigned {
        primary_thumbprint: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        secondary_thumbprint: Option<&'a str>,
    },
    CertificateAuthority,
    None,
}

/// How a new device will prove itself.
#[derive(Default, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
enum WantedAuthentication {
    #[default]
    Sas,
    SelfSigned {
        primary_thumbprint: String,
        secondary_thumbprint: Option<String>,
    },
    CertificateAuthority,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wanted {
    authentication: WantedAuthentication,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Changes {
    enabled: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PageParams {
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SlotName {
    Primary,
    Secondary,
}

/// Whether an answer carries the connection string.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Secret {
    Shown,
    Hidden,
}

fn view(registered: &Registered, secret: Secret) -> DeviceView<'_> {
    let device = &registered.device;
    DeviceView {
        id: &device.id,
        enabled: device.enabled,
        authentication: match &device.authentication {
            Authentication::Sas { .. } => AuthenticationView::Sas,
            Authentication::SelfSigned { primary, secondary } => AuthenticationView::SelfSigned {
                primary_thumbprint: primary,
                secondary_thumbprint: secondary.as_deref(),
            },
            Authentication::CertificateAuthority => AuthenticationView::CertificateAuthority,
            Authentication::None => AuthenticationView::None,
        },
        etag: &device.etag,
        generation: &device.generation,
        created_at: time::format(device.created_at),
        connection_string: (secret == Secret::Shown).then(|| registered.connection_string()),
    }
}

fn answer(status: StatusCode, registered: &Registered, secret: Secret) -> Response {
    let mut response = (status, Json(view(registered, secret))).into_response();
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{}\"", registered.device.etag)) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

/// The etag a change is conditional on: quoted or not; `*` and none mean any.
fn condition(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::IF_MATCH)?.to_str().ok()?.trim();
    let etag = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    (etag != "*").then_some(etag)
}

fn resource(id: &str) -> String {
    format!("devices/{id}")
}

async fn create(
    State(hub): State<Hub>,
    Place(id): Place<String>,
    headers: HeaderMap,
    body: Unread,
) -> Result<Response, Failure> {
    hub.authorize(&headers, Right::RegistryWrite, &resource(&id))?;
    let wanted: Wanted = body.document().await?.unwrap_or_default();
    let registered = match wanted.authentication {
        WantedAuthentication::Sas => hub.registry.create(&id).await?,
        WantedAuthentication::SelfSigned { primary_thumbprint: primary, secondary_thumbprint: secondary } => {
            hub.registry.create_with(&id, Authentication::SelfSigned { primary, secondary }).await?
        }
        WantedAuthentication::CertificateAuthority => {
            hub.registry.create_with(&id, Authentication::CertificateAuthority).await?
        }
    };
    Ok(answer(StatusCode::CREATED, &registered, Secret::Shown))
}

async fn list(
    State(hub): State<Hub>,
    headers: HeaderMap,
    Params(page): Params<PageParams>,
) -> Result<Response, Failure> {
    hub.authorize(&headers, Right::RegistryRead, "devices")?;
    let limit = page.limit.unwrap_or(PAGE);
    if !(1..=PAGE_LIMIT).contains(&limit) {
        return Err(Failure::invalid(format!("limit is 1 to {PAGE_LIMIT}")));
    }
    let found = hub.registry.list(page.after.as_deref(), limit).await?;
    #[derive(Serialize)]
    struct PageView<'a> {
        devices: Vec<DeviceView<'a>>,
        /// To be given as `after` for the next page; absent on the last one.
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<&'a str>,
    }
    let next = found.last().filter(|_| found.len() == limit).map(|last| &*last.device.id);
    let devices = found.iter().map(|registered| view(registered, Secret::Hidden)).collect();
    Ok(Json(PageView { devices, next }).into_response())
}

async fn show(
    State(hub): State<Hub>,
    Place(id): Place<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    hub.authorize(&headers, Right::RegistryRead, &resource(&id))?;
    Ok(answer(StatusCode::OK, &hub.registry.get(&id).await?, Secret::Hidden))
}

/// Who may make new keys may also see the present ones.
async fn connection_string(
    State(hub): State<Hub>,
    Place(id): Place<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    hub.authorize(&headers, Right::RegistryWrite, &resource(&id))?;
    Ok(answer(StatusCode::OK, &hub.registry.get(&id).await?, Secret::Shown))
}

async fn change(
    State(hub): State<Hub>,
    Place(id): Place<String>,
    headers: HeaderMap,
    body: Unread,
) -> Result<Response, Failure> {
    hub.authorize(&headers, Right::RegistryWrite, &resource(&id))?;
    let Changes { enabled } = body.needed().await?;
    let changed = hub.registry.set_enabled(&id, enabled, condition(&headers)).await;
    Ok(answer(StatusCode::OK, &changed.map_err(|error| Failure::from(error).precondition())?, Secret::Hidden))
}

async fn rotate(
    State(hub): State<Hub>,
    Place((id, slot)): Place<(String, SlotName)>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    hub.authorize(&headers, Right::RegistryWrite, &resource(&id))?;
    let slot = match slot {
        SlotName::Primary => KeySlot::Primary,
        SlotName::Secondary => KeySlot::Secondary,
    };
    let rotated = hub.registry.rotate_key(&id, slot, condition(&headers)).await;
    Ok(answer(StatusCode::OK, &rotated.map_err(|error| Failure::from(error).precondition())?, Secret::Shown))
}

async fn delete(
    State(hub): State<Hub>,
    Place(id): Place<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Failure> {
    hub.authorize(&headers, Right::RegistryWrite, &resource(&id))?;
    let deleted = hub.registry.delete(&id, condition(&headers)).await;
    deleted.map_err(|error| Failure::from(error).precondition())?;
    Ok(StatusCode::NO_CONTENT)
}
