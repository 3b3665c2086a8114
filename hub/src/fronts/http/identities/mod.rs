//! The registry as the contract has it: `/devices` and the modules below. Contract `http.md`, "Identity registry".
//!
//! Where the contract leaves a choice:
//!
//! - Who may read identities sees their keys, as every client of this registry expects.
//! - A change leaves alone what the body does not name, see [`json::Wanted`].
//! - Deleting without `If-Match` deletes whatever the etag is.
//! - Times of connection and activity are known since the hub started; before that they are "never".
//! - Queries find devices without twins, in order of id; the part of the language that is known is in [`mod@query`].

mod bulk;
mod json;
mod query;

use std::{future::Future, sync::Arc};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, RawQuery, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use whimbrel::{Error, ErrorKind, wire::refusal::Refusal};

use super::{
    Hub,
    failure::Unread,
    refused::{At, Refused, if_match},
};
use crate::{
    access::Right,
    registry::{Device, Module},
    sessions::{Identity, Presence},
    store::fnv1a,
};
use json::{DeviceJson, FoundJson, ModuleJson, Wanted, connection_state, status};
use query::{Query, Subject};

/// Largest body: a bulk of 100 identities.
const BODY_BYTES: usize = 1024 * 1024;
/// Devices of a list without `top`, and at most.
const LIST_LIMIT: usize = 1_000;
/// Devices of a page of a query, unless asked for otherwise.
const PAGE: usize = 100;
/// Devices one page looks through at most; a page that finds few is short, and goes on with the next one.
const LOOKED_THROUGH: usize = 10_000;
const MAX_ITEMS: &str = "x-ms-max-item-count";
const CONTINUATION: &str = "x-ms-continuation";
const DEVICES: &str = "devices";

pub(super) fn routes() -> Router<Hub> {
    Router::new()
        .route("/devices", get(list).post(bulk::apply))
        // `/devices/query` is the only one that is posted to, and a device may have that name, too.
        .route("/devices/{id}", get(show).put(put).delete(delete).post(query))
        .route("/devices/{id}/modules", get(list_modules))
        .route("/devices/{id}/modules/{module}", get(show_module).put(put_module).delete(delete_module))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
}

fn resource(id: &str) -> String {
    format!("devices/{id}")
}

fn module_resource(id: &str, module: &str) -> String {
    format!("devices/{id}/modules/{module}")
}

impl Hub {
    pub(super) fn presence(&self, device: &Arc<str>, module: Option<&Arc<str>>) -> Presence {
        self.presences.of(&Identity { device: Arc::clone(device), module: module.cloned() })
    }

    async fn device_json(&self, device: &Device) -> Result<DeviceJson, Error> {
        let pending = self.commands.pending(&device.id).await?;
        Ok(DeviceJson::new(device, self.presence(&device.id, None), pending))
    }

    fn module_json(&self, module: &Module) -> ModuleJson {
        ModuleJson::new(module, self.presence(&module.device, Some(&module.id)))
    }
}

fn answer(identity: impl Serialize, etag: &str) -> Response {
    let mut response = Json(identity).into_response();
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{etag}\"")) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

/// Creates without `If-Match`, updates with it.
async fn put(
    State(hub): State<Hub>,
    At(id): At<String>,
    headers: HeaderMap,
    body: Unread,
) -> Result<Response, Refused> {
    hub.service(&headers, Right::RegistryWrite, &resource(&id))?;
    let wanted = read_identity(body).await?;
    let device = match if_match(&headers) {
        None => hub.registry.add(wanted.into_device(&id)?).await?,
        etag => hub.registry.update(&id, wanted.into_device_update(&id)?, etag).await?,
    }
    .device;
    Ok(answer(hub.device_json(&device).await?, &device.etag))
}

/// A body that is not JSON has a number of its own.
async fn read<T: serde::de::DeserializeOwned>(body: Unread) -> Result<T, Refused> {
    body.needed().await.map_err(|error| match error.kind() {
        ErrorKind::InvalidArgument => Refused::new(Refusal::FORMAT_ERROR, error.message()),
        _ => error.into(),
    })
}

/// An object: a list would be taken for one that says nothing.
async fn read_identity(body: Unread) -> Result<Wanted, Refused> {
    let members: serde_json::Map<String, serde_json::Value> = read(body).await?;
    serde_json::from_value(members.into()).map_err(|problem| {
        Refused::new(Refusal::FORMAT_ERROR, format!("the identity cannot be read: {problem}"))
    })
}

async fn show(State(hub): State<Hub>, At(id): At<String>, headers: HeaderMap) -> Result<Response, Refused> {
    hub.service(&headers, Right::RegistryRead, &resource(&id))?;
    let device = hub.registry.get(&id).await?.device;
    Ok(answer(hub.device_json(&device).await?, &device.etag))
}

async fn delete(
    State(hub): State<Hub>,
    At(id): At<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Refused> {
    hub.service(&headers, Right::RegistryWrite, &resource(&id))?;
    hub.registry.delete(&id, if_match(&headers)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn list(
    State(hub): State<Hub>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    hub.service(&headers, Right::RegistryRead, DEVICES)?;
    let pairs = query.as_deref().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let top = pairs.filter(|(name, _)| name.eq_ignore_ascii_case("top")).map(|(_, value)| value).next_back();
    let top =
        top.map_or(Some(LIST_LIMIT), |text| text.parse().ok()).filter(|top| (1..=LIST_LIMIT).contains(top));
    let top = top.ok_or_else(|| Refused::invalid(format!("top is 1 to {LIST_LIMIT}")))?;
    let mut identities = Vec::new();
    for registered in hub.registry.list(None, top).await? {
        identities.push(hub.device_json(&registered.device).await?);
    }
    Ok(Json(identities).into_response())
}

#[derive(Deserialize)]
struct QueryBody {
    query: String,
}

async fn query(
    State(hub): State<Hub>,
    At(word): At<String>,
    headers: HeaderMap,
    body: Unread,
) -> Result<Response, super::failure::Failure> {
    if !word.eq_ignore_ascii_case("query") {
        return Err(super::failure::no_such_method().await);
    }
    Ok(find(hub, headers, body).await.into_response())
}

async fn find(hub: Hub, headers: HeaderMap, body: Unread) -> Result<Response, Refused> {
    hub.service(&headers, Right::RegistryRead, DEVICES)?;
    let text = read::<QueryBody>(body).await?.query;
    let query = Query::parse(&text).map_err(Refused::invalid)?;
    let header =
        |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty());
    let limit = header(MAX_ITEMS).map_or(Some(PAGE), |text| text.parse().ok());
    let limit = limit
        .filter(|limit| (1..=LIST_LIMIT).contains(limit))
        .ok_or_else(|| Refused::invalid(format!("{MAX_ITEMS} is 1 to {LIST_LIMIT}")))?;
    let after = header(CONTINUATION).map(|token| read_continuation(token, &text)).transpose()?;
    let page = page(&hub, &query, after, limit).await?;
    let mut found = Vec::new();
    for device in &page.devices {
        let pending = hub.commands.pending(&device.id).await?;
        found.push(FoundJson::new(device, hub.presence(&device.id, None), pending));
    }
    let mut response = Json(found).into_response();
    let out = response.headers_mut();
    out.insert(HeaderName::from_static("x-ms-item-type"), HeaderValue::from_static("twin"));
    if let Some(token) = page.next.map(|last| continuation(&last, &text))
        && let Ok(token) = HeaderValue::from_str(&token)
    {
        out.insert(HeaderName::from_static(CONTINUATION), token);
    }
    Ok(response)
}

/// Some of what a query finds.
struct Page {
    devices: Vec<Device>,
    /// Last id that was looked at; none at the end.
    next: Option<String>,
}

async fn page(hub: &Hub, query: &Query, after: Option<String>, limit: usize) -> Result<Page, Error> {
    let finds = |device: &Device| {
        query.finds(Subject {
            device_id: &device.id,
            status: status(device.enabled),
            connection_state: connection_state(hub.presence(&device.id, None)),
        })
    };
    if let Some(id) = query.only() {
        let known = hub.registry.get(id).await.map(|registered| registered.device);
        let device = match known {
            Ok(device) => Some(device).filter(finds),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let devices = device.into_iter().filter(|_| after.is_none()).collect();
        return Ok(Page { devices, next: None });
    }
    let (mut devices, mut last, mut looked_at) = (Vec::new(), after, 0);
    loop {
        let some = hub.registry.list(last.as_deref(), LIST_LIMIT).await?;
        let is_end = some.len() < LIST_LIMIT;
        for (place, registered) in some.iter().enumerate() {
            last = Some((*registered.device.id).to_owned());
            looked_at += 1;
            if finds(&registered.device) {
                devices.push(registered.device.clone());
            }
            if devices.len() == limit && !(is_end && place + 1 == some.len()) {
                return Ok(Page { devices, next: last });
            }
        }
        if is_end {
            return Ok(Page { devices, next: None });
        }
        if looked_at >= LOOKED_THROUGH {
            return Ok(Page { devices, next: last });
        }
    }
}

/// Goes with one query alone: on with another one, it would skip devices that nobody has seen.
fn continuation(last: &str, query: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("{:016x}{last}", fnv1a(query.as_bytes())))
}

fn read_continuation(token: &str, query: &str) -> Result<String, Refused> {
    let text = BASE64_URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let last = text.and_then(|text| {
        let (hash, last) = text.split_at_checked(16)?;
        (hash == format!("{:016x}", fnv1a(query.as_bytes()))).then(|| last.to_owned())
    });
    last.ok_or_else(|| Refused::invalid(format!("{CONTINUATION} is not one of this query")))
}

async fn list_modules(
    State(hub): State<Hub>,
    At(id): At<String>,
    headers: HeaderMap,
) -> Result<Json<Vec<ModuleJson>>, Refused> {
    hub.service(&headers, Right::RegistryRead, &format!("devices/{id}/modules"))?;
    let modules = hub.registry.modules(&id).await?;
    Ok(Json(modules.iter().map(|module| hub.module_json(module)).collect()))
}

async fn put_module(
    State(hub): State<Hub>,
    At((id, module)): At<(String, String)>,
    headers: HeaderMap,
    body: Unread,
) -> Result<Response, Refused> {
    hub.service(&headers, Right::RegistryWrite, &module_resource(&id, &module))?;
    let wanted = read_identity(body).await?;
    let module = match if_match(&headers) {
        None => {
            let (authentication, managed_by) = wanted.into_module(&id, &module)?;
            hub.registry.create_module(&id, &module, authentication, managed_by.as_deref()).await?
        }
        etag => {
            let update = wanted.into_module_update(&id, &module)?;
            hub.registry.update_module(&id, &module, update, etag).await?
        }
    };
    Ok(answer(hub.module_json(&module), &module.etag))
}

async fn show_module(
    State(hub): State<Hub>,
    At((id, module)): At<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    hub.service(&headers, Right::RegistryRead, &module_resource(&id, &module))?;
    let module = hub.registry.module(&id, &module).await?;
    Ok(answer(hub.module_json(&module), &module.etag))
}

async fn delete_module(
    State(hub): State<Hub>,
    At((id, module)): At<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, Refused> {
    hub.service(&headers, Right::RegistryWrite, &module_resource(&id, &module))?;
    hub.registry.delete_module(&id, &module, if_match(&headers)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether there is something; other errors stay errors.
async fn exists<T>(lookup: impl Future<Output = Result<T, Error>>) -> Result<bool, Error> {
    match lookup.await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
