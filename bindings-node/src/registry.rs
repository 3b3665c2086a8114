//! Identities.

use serde::Deserialize;
use serde_json::{Value, json};
use whimbrel::{
    Error, ErrorKind, Result,
    service::{DeviceIdentity, ModuleIdentity, Registry},
};
use whimbrel_bindings_support::settings;

/// What can be asked. Identities are the contract's JSON documents.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", rename_all_fields = "camelCase", deny_unknown_fields)]
pub(crate) enum Request {
    Create { device: Value },
    Get { device: String },
    Update { device: Value },
    Delete { device: String, etag: Option<String> },
    List { limit: Option<usize> },
    Query { query: String, page_size: Option<usize>, continuation: Option<String> },
    CreateModule { module: Value },
    GetModule { device: String, module: String },
    UpdateModule { module: Value },
    DeleteModule { device: String, module: String, etag: Option<String> },
    Modules { device: String },
    PurgeCommands { device: String },
}

pub(crate) fn request(json: &str) -> Result<Request> {
    settings("service.registry", json)
}

pub(crate) async fn answer(registry: &Registry, request: Request) -> Result<Value> {
    Ok(match request {
        Request::Create { device } => registry.create(device_of(device)?).await?.to_document(),
        Request::Get { device } => registry.get(&device).await?.to_document(),
        Request::Update { device } => registry.update(&device_of(device)?).await?.to_document(),
        Request::Delete { device, etag } => {
            registry.delete(&device, etag.as_deref()).await?;
            Value::Null
        }
        Request::List { limit } => {
            registry.list(limit).await?.iter().map(DeviceIdentity::to_document).collect()
        }
        Request::Query { query, page_size, continuation } => {
            let page = registry.query(&query, page_size, continuation.as_deref()).await?;
            json!({"items": page.items, "continuation": page.continuation})
        }
        Request::CreateModule { module } => {
            registry.create_module(&ModuleIdentity::from_document(module)?).await?.to_document()
        }
        Request::GetModule { device, module } => registry.get_module(&device, &module).await?.to_document(),
        Request::UpdateModule { module } => {
            registry.update_module(&ModuleIdentity::from_document(module)?).await?.to_document()
        }
        Request::DeleteModule { device, module, etag } => {
            registry.delete_module(&device, &module, etag.as_deref()).await?;
            Value::Null
        }
        Request::Modules { device } => {
            registry.modules(&device).await?.iter().map(ModuleIdentity::to_document).collect()
        }
        Request::PurgeCommands { device } => registry.purge_commands(&device).await?.into(),
    })
}

pub(crate) fn connection_string(registry: &Registry, identity: &str) -> Result<Option<String>> {
    let identity: Value = serde_json::from_str(identity).map_err(|error| {
        let text = "the identity is no JSON";
        Error::new(ErrorKind::InvalidArgument, "registry.connection_string", text).caused_by(error)
    })?;
    Ok(match identity.get("moduleId") {
        Some(_) => registry.module_connection_string(&ModuleIdentity::from_document(identity)?),
        None => registry.connection_string(&device_of(identity)?),
    })
}

/// A device by its document, or by its id alone.
fn device_of(device: Value) -> Result<DeviceIdentity> {
    match device {
        Value::String(id) => Ok(DeviceIdentity::new(id)),
        document => DeviceIdentity::from_document(document),
    }
}
