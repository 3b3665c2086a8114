//! Many changes of identities in one request. Each stands for itself: those that can be made are made.

use std::collections::HashSet;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use serde::{Deserialize, Serialize};
use whimbrel::{Error, ErrorKind, wire::refusal::Refusal};

use super::{
    DEVICES, Hub, exists,
    json::{Wanted, invalid},
    read,
};
use crate::{
    access::Right,
    fronts::http::{failure::Unread, refused::Refused},
};

/// Identities of one request.
const LIMIT: usize = 100;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Import {
    id: String,
    #[serde(default, alias = "etag")]
    e_tag: Option<String>,
    #[serde(default)]
    import_mode: Option<String>,
    /// The rest as it stands in an identity.
    #[serde(flatten)]
    wanted: Wanted,
}

/// What to do about one identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Create,
    Update,
    CreateOrUpdate,
    Delete,
}

impl Mode {
    /// The mode of a word in any case, and whether the etag counts. Creating is the default.
    fn read(word: Option<&str>) -> Result<(Self, bool), Error> {
        let Some(word) = word else { return Ok((Self::Create, false)) };
        [
            ("create", Self::Create, false),
            ("update", Self::Update, false),
            ("updateIfMatchETag", Self::Update, true),
            ("createOrUpdate", Self::CreateOrUpdate, false),
            ("createOrUpdateIfMatchETag", Self::CreateOrUpdate, true),
            ("delete", Self::Delete, false),
            ("deleteIfMatchETag", Self::Delete, true),
        ]
        .into_iter()
        .find(|(known, ..)| known.eq_ignore_ascii_case(word))
        .map(|(_, mode, conditional)| (mode, conditional))
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                "registry.bulk",
                "importMode is create, update, createOrUpdate or delete, the last three also with IfMatchETag; \
                 this hub has no twins",
            )
        })
    }
}

/// What became of all.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Outcome {
    is_successful: bool,
    errors: Vec<Fault>,
    warnings: [String; 0],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Fault {
    device_id: String,
    module_id: Option<String>,
    error_code: &'static str,
    error_status: String,
}

pub(super) async fn apply(
    State(hub): State<Hub>,
    headers: HeaderMap,
    body: Unread,
) -> Result<(StatusCode, Json<Outcome>), Refused> {
    hub.service(&headers, Right::RegistryWrite, DEVICES)?;
    let imports: Vec<Import> = read(body).await?;
    if imports.len() > LIMIT {
        return Err(Refused::new(
            Refusal::TOO_MANY_DEVICES,
            format!("at most {LIMIT} identities in one request"),
        ));
    }
    if imports.is_empty() {
        return Err(Refused::invalid("no identity is in the request"));
    }
    let mut seen = HashSet::new();
    if let Some(twice) = imports.iter().find(|import| !seen.insert((&import.id, &import.wanted.module_id))) {
        return Err(Refused::invalid(format!("{} is in the request twice", twice.id)));
    }
    let mut errors = Vec::new();
    for import in imports {
        let (device_id, module_id) = (import.id.clone(), import.wanted.module_id.clone());
        if let Err(error) = change(&hub, import).await {
            let Refused { row, text, .. } = error.into();
            errors.push(Fault { device_id, module_id, error_code: row.name, error_status: text });
        }
    }
    let is_successful = errors.is_empty();
    let status = if is_successful { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    Ok((status, Json(Outcome { is_successful, errors, warnings: [] })))
}

async fn change(hub: &Hub, import: Import) -> Result<(), Error> {
    let Import { id, e_tag, import_mode, wanted } = import;
    let (mode, conditional) = Mode::read(import_mode.as_deref())?;
    let etag = match (conditional, e_tag.as_deref().filter(|etag| !etag.is_empty())) {
        (true, Some(etag)) => Some(etag),
        (true, None) if mode != Mode::CreateOrUpdate => return Err(invalid("this importMode needs an eTag")),
        _ => None,
    };
    match wanted.module_id.clone() {
        None => change_device(hub, &id, mode, etag, wanted).await,
        Some(module) => change_module(hub, &id, &module, mode, etag, wanted).await,
    }
}

async fn change_device(
    hub: &Hub,
    id: &str,
    mode: Mode,
    etag: Option<&str>,
    wanted: Wanted,
) -> Result<(), Error> {
    let registry = &hub.registry;
    match mode {
        Mode::Delete => registry.delete(id, etag).await,
        Mode::Create => registry.add(wanted.into_device(id)?).await.map(drop),
        Mode::CreateOrUpdate if !exists(registry.get(id)).await? => {
            registry.add(wanted.into_device(id)?).await.map(drop)
        }
        Mode::Update | Mode::CreateOrUpdate => {
            registry.update(id, wanted.into_device_update(id)?, etag).await.map(drop)
        }
    }
}

async fn change_module(
    hub: &Hub,
    device: &str,
    id: &str,
    mode: Mode,
    etag: Option<&str>,
    wanted: Wanted,
) -> Result<(), Error> {
    let registry = &hub.registry;
    let create = async |wanted: Wanted| {
        let (authentication, managed_by) = wanted.into_module(device, id)?;
        registry.create_module(device, id, authentication, managed_by.as_deref()).await.map(drop)
    };
    match mode {
        Mode::Delete => registry.delete_module(device, id, etag).await,
        Mode::Create => create(wanted).await,
        Mode::CreateOrUpdate if !exists(registry.module(device, id)).await? => create(wanted).await,
        Mode::Update | Mode::CreateOrUpdate => {
            registry.update_module(device, id, wanted.into_module_update(device, id)?, etag).await.map(drop)
        }
    }
}
