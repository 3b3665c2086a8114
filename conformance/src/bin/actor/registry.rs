//! The calls of the registry.

use serde_json::{Value, json};
use whimbrel::service::{DeviceIdentity, ModuleIdentity, ServiceClient};

use crate::arguments::{Answer, Args, Failure};

pub(crate) async fn registry(service: &ServiceClient, call: &str, args: &Args) -> Answer {
    let registry = service.registry();
    let device = || args.is::<Value>("identity").and_then(|json| Ok(DeviceIdentity::from_document(json)?));
    let module = || args.is::<Value>("identity").and_then(|json| Ok(ModuleIdentity::from_document(json)?));
    let (id, part) = (args.text("device").unwrap_or_default(), args.text("module").unwrap_or_default());
    let etag = args.text("etag").ok();
    Ok(match call {
        "registry.create" => json!({"identity": registry.create(device()?).await?.to_document()}),
        "registry.update" => json!({"identity": registry.update(&device()?).await?.to_document()}),
        "registry.get" => json!({"identity": registry.get(&id).await?.to_document()}),
        "registry.delete" => registry.delete(&id, etag.as_deref()).await.map(|()| json!({}))?,
        "registry.list" => {
            let found = registry.list(args.is("limit").ok()).await?;
            json!({"identities": found.iter().map(DeviceIdentity::to_document).collect::<Vec<_>>()})
        }
        "registry.query" => {
            let (query, size) = (args.text("query")?, args.is("page_size").ok());
            let (mut items, mut next) = (Vec::new(), None);
            loop {
                let page = registry.query(&query, size, next.as_deref()).await?;
                items.extend(page.items);
                next = page.continuation;
                if next.is_none() {
                    break json!({"items": items});
                }
            }
        }
        "registry.create_module" => {
            json!({"identity": registry.create_module(&module()?).await?.to_document()})
        }
        "registry.update_module" => {
            json!({"identity": registry.update_module(&module()?).await?.to_document()})
        }
        "registry.get_module" => json!({"identity": registry.get_module(&id, &part).await?.to_document()}),
        "registry.delete_module" => {
            registry.delete_module(&id, &part, etag.as_deref()).await.map(|()| json!({}))?
        }
        "registry.modules" => {
            let found = registry.modules(&id).await?;
            json!({"identities": found.iter().map(ModuleIdentity::to_document).collect::<Vec<_>>()})
        }
        "registry.purge_commands" => json!({"count": registry.purge_commands(&id).await?}),
        "registry.connection_string" => json!({"connection_string": registry.connection_string(&device()?)}),
        _ => return Err(Failure::Actor(format!("there is no call {call} on a service client"))),
    })
}
