//! `/v1/devices`: create, list, show, enable, disable, rotate keys, delete.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use whimbrel::wire::time;

use super::{
    Hub,
    failure::{Failure, FailureBody, Params, Place, Unread},
};
use crate::{
    access::Right,
    registry::{Authentication, KeySlot, Registered},
    sessions::Presence,
};

/// Devices of one page of a list.
const PAGE: usize = 100;
const PAGE_LIMIT: usize = 1_000;

pub(super) fn routes() -> OpenApiRouter<Hub> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show, create, change, delete))
        .routes(routes!(connection_string))
        .routes(routes!(rotate))
}

/// A device, without its keys.
#[derive(Serialize, ToSchema)]
#[schema(as = Device)]
struct DeviceView<'a> {
    id: &'a str,
    enabled: bool,
    /// Why it has this status, as the operator put it.
    #[serde(skip_serializing_if = "Option::is_none")]
    status_reason: Option<&'a str>,
    authentication: AuthenticationView<'a>,
    etag: &'a str,
    generation: &'a str,
    created_at: String,
    connection: ConnectionView,
    /// Only in the answer that made the key, and where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_string: Option<String>,
}

/// One device, and what waits for it.
#[derive(Serialize, ToSchema)]
#[schema(as = ShownDevice)]
struct ShownView<'a> {
    #[serde(flatten)]
    device: DeviceView<'a>,
    /// Commands waiting or locked in its queue.
    pending_commands: u64,
}

/// What is known of its connection since the hub started. HTTP has none.
#[derive(Serialize, ToSchema)]
#[schema(as = Connection)]
struct ConnectionView {
    connected: bool,
    /// When that last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    changed_at: Option<String>,
    /// When it last connected, disconnected or made a request over HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    active_at: Option<String>,
}

impl From<Presence> for ConnectionView {
    fn from(presence: Presence) -> Self {
        Self {
            connected: presence.connected,
            changed_at: presence.changed_at.map(time::format),
            active_at: presence.active_at.map(time::format),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = Authentication)]
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
#[derive(Default, Deserialize, ToSchema)]
#[schema(as = NewAuthentication)]
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

/// A device that is to be.
#[derive(Default, Deserialize, ToSchema)]
#[schema(as = NewDevice)]
#[serde(deny_unknown_fields)]
struct Wanted {
    authentication: Option<WantedAuthentication>,
}

/// What is to change.
#[derive(Deserialize, ToSchema)]
#[schema(as = DeviceChanges)]
#[serde(deny_unknown_fields)]
struct Changes {
    /// A disabled device is disconnected and may not connect.
    enabled: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PageParams {
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Clone, Copy, Deserialize, ToSchema)]
#[schema(as = KeySlot)]
#[serde(rename_all = "lowercase")]
enum SlotName {
    Primary,
    Secondary,
}

/// Some devices, in order of id.
#[derive(Serialize, ToSchema)]
#[schema(as = Devices)]
struct PageView<'a> {
    devices: Vec<DeviceView<'a>>,
    /// To be given as `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'a str>,
}

/// Whether an answer carries the connection string.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Secret {
    Shown,
    Hidden,
}

fn view<'a>(hub: &Hub, registered: &'a Registered, secret: Secret) -> DeviceView<'a> {
    let device = &registered.device;
    DeviceView {
        id: &device.id,
        enabled: device.enabled,
        status_reason: device.status_reason.as_deref(),
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
        connection: hub.presence(&device.id, None).into(),
        connection_string: (secret == Secret::Shown).then(|| registered.connection_string()),
    }
}

fn answer(hub: &Hub, status: StatusCode, registered: &Registered, secret: Secret) -> Response {
    let response = (status, Json(view(hub, registered, secret))).into_response();
    with_etag(response, registered)
}

fn with_etag(mut response: Response, registered: &Registered) -> Response {
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

/// Creates a device, with keys unless another proof is chosen.
#[utoipa::path(
    put,
    operation_id = "create_device",
    path = "/devices/{id}",
    tag = "devices",
    params(("id" = String, Path, description = "Device id")),
    request_body(content = Wanted, description = "May be left out"),
    responses(
        (status = 201, body = DeviceView),
        (status = 400, body = FailureBody),
        (status = 401, body = FailureBody),
        (status = 409, description = "It exists already", body = FailureBody),
        (status = 429, body = FailureBody),
    )
)]
async fn create(
    State(hub): State<Hub>,
    Place(id): Place<String>,
    headers: HeaderMap,
    body: Unread,
) -> Result<Response, Failure> {
    hub.authorize(&headers, Right::RegistryWrite, &resource(&id))?;
    let wanted: Wanted = body.document().await?.unwrap_or_default();
    let registered = match wanted.authentication.unwrap_or_default() {
        WantedAuthentication::Sas => hub.registry.create(&id).await?,
        WantedAuthentication::SelfSigned { primary_thumbprint: primary, secondary_thumbprint: secondary } => {
            hub.registry.create_with(&id, Authentication::SelfSigned { primary, secondary }).await?
        }
        WantedAuthentication::CertificateAuthority => {
            hub.registry.create_with(&id, Authentication::CertificateAuthority).await?
        }
    };
    Ok(answer(&hub, StatusCode::CREATED, &registered, Secret::Shown))
}

/// Lists devices in order of id.
#[utoipa::path(
    get,
    operation_id = "list_devices",
    path = "/devices",
    tag = "devices",
    params(
        ("after" = Option<String>, Query, description = "Only those with larger ids"),
        ("limit" = Option<usize>, Query, description = "1 to 1000, default 100"),
    ),
    responses(
        (status = 200, body = PageView),
        (status = 400, body = FailureBody),
        (status = 401, body = FailureBody),
        (status = 429, body = FailureBody),
    )
)]
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
    let next = found.last().filter(|_| found.len() == limit).map(|last| &*last.device.id);
    let devices = found.iter().map(|registered| view(&hub, registered, Secret::Hidden)).collect();
    Ok(Json(PageView { devices, next }).into_response())
}

/// Shows a device, whether it is connected and how many commands wait for it.
#[utoipa::path(
    get,
    operation_id = "show_device",
    path = "/devices/{id}",
    tag = "devices",
    params(("id" = String, Path, description = "Device id")),
    responses(
        (status = 200, body = ShownView),
        (status = 401, body = FailureBody),
        (status = 404, body = FailureBody),
        (status = 429, body = FailureBody),
    )
)]
async fn show(
    State(hub): State<Hub>,
    Place(id): Place<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    hub.authorize(&headers, Right::RegistryRead, &resource(&id))?;
    let registered = hub.registry.get(&id).await?;
    let pending_commands = hub.commands.pending(&id).await?;
    let shown = ShownView { device: view(&hub, &registered, Secret::Hidden), pending_commands };
    Ok(with_etag(Json(shown).into_response(), &registered))
}

/// Shows a device with its connection string. Who may make new keys may also see the present ones.
#[utoipa::path(
    get,
    operation_id = "show_connection_string",
    path = "/devices/{id}/connection-string",
    tag = "devices",
    params(("id" = String, Path, description = "Device id")),
    responses(
        (status = 200, body = DeviceView),
        (status = 401, body = FailureBody),
        (status = 404, body = FailureBody),
        (status = 429, body = FailureBody),
    )
)]
async fn connection_string(
    State(hub): State<Hub>,
    Place(id): Place<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    hub.authorize(&headers, Right::RegistryWrite, &resource(&id))?;
    Ok(answer(&hub, StatusCode::OK, &hub.registry.get(&id).await?, Secret::Shown))
}

/// Enables or disables a device.
#[utoipa::path(
    patch,
    operation_id = "change_device",
    path = "/devices/{id}",
    tag = "devices",
    params(("id" = String, Path, description = "Device id"), ("If-Match" = Option<String>, Header, description = "Only if this etag is current, quoted or not")),
    request_body = Changes,
    responses(
        (status = 200, body = DeviceView),
        (status = 400, body = FailureBody),
        (status = 401, body = FailureBody),
        (status = 404, body = FailureBody),
        (status = 412, body = FailureBody),
        (status = 429, body = FailureBody),
    )
)]
async fn change(
    State(hub): State<Hub>,
    Place(id): Place<String>,
    headers: HeaderMap,
    body: Unread,
) -> Result<Response, Failure> {
    hub.authorize(&headers, Right::RegistryWrite, &resource(&id))?;
    let Changes { enabled } = body.needed().await?;
    let changed = hub.registry.set_enabled(&id, enabled, condition(&headers)).await;
    Ok(answer(
        &hub,
        StatusCode::OK,
        &changed.map_err(|error| Failure::from(error).precondition())?,
        Secret::Hidden,
    ))
}

/// Replaces one key of a device by a new one.
#[utoipa::path(
    post,
    operation_id = "rotate_key",
    path = "/devices/{id}/keys/{slot}/rotate",
    tag = "devices",
    params(("id" = String, Path, description = "Device id"), ("slot" = inline(SlotName), Path, description = "Which key"), ("If-Match" = Option<String>, Header, description = "Only if this etag is current, quoted or not")),
    responses(
        (status = 200, body = DeviceView),
        (status = 400, body = FailureBody),
        (status = 401, body = FailureBody),
        (status = 404, body = FailureBody),
        (status = 412, body = FailureBody),
        (status = 429, body = FailureBody),
    )
)]
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
    Ok(answer(
        &hub,
        StatusCode::OK,
        &rotated.map_err(|error| Failure::from(error).precondition())?,
        Secret::Shown,
    ))
}

/// Deletes a device, its modules and its commands. Its events stay.
#[utoipa::path(
    delete,
    operation_id = "delete_device",
    path = "/devices/{id}",
    tag = "devices",
    params(("id" = String, Path, description = "Device id"), ("If-Match" = Option<String>, Header, description = "Only if this etag is current, quoted or not")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 401, body = FailureBody),
        (status = 404, body = FailureBody),
        (status = 412, body = FailureBody),
        (status = 429, body = FailureBody),
    )
)]
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
