//! The way of a device to its hub, for the subcommands that act as one.

use std::path::PathBuf;

use clap::Args;
use reqwest::Method;
use serde_json::Value;
use whimbrel::{DeviceOptions, wire::percent};
use whimbrel_hub::ServiceFile;

use crate::{
    failure::{Failure, Result},
    service::{Service, Target},
};

/// Where the outbox is kept.
#[derive(Args)]
pub(crate) struct Place {
    /// Folder of the outbox [default: outbox/DEVICE in the data folder]
    #[arg(long, value_name = "DIR")]
    outbox: Option<PathBuf>,
    /// Keep the outbox in memory only: what is in it when this ends is lost
    #[arg(long, conflicts_with = "outbox")]
    memory: bool,
}

impl Place {
    /// The folder; `None` for memory.
    pub(crate) fn folder(&self, device: &str, target: &Target) -> Option<PathBuf> {
        let usual = || target.data.join("outbox").join(percent::encoded(device));
        (!self.memory).then(|| self.outbox.clone().unwrap_or_else(usual))
    }
}

/// How to connect: by the device's own connection string when it was given, else the hub is asked for it.
pub(crate) async fn options(device: &str, target: &Target) -> Result<DeviceOptions> {
    if let Some(given) = target.given()?.filter(|given| given.device_id.is_some()) {
        if given.device_id.as_deref() != Some(device) {
            return Err(Failure::usage("the connection string is of another device"));
        }
        let options =
            DeviceOptions::from_connection_string(target.connection_string.as_deref().unwrap_or_default())?;
        let here = target.local().ok().filter(|file| {
            let service = file.connection_string.parse::<whimbrel::auth::ConnectionString>();
            service.is_ok_and(|service| service.host_name.eq_ignore_ascii_case(&given.host_name))
        });
        return Ok(match (&target.server, here) {
            (Some(server), _) => trusting(options.server(server), target.ca.clone()),
            (None, Some(file)) => local(options, &file, target)?,
            (None, None) => trusting(options, target.ca.clone()),
        });
    }
    let away = |failure: Failure| {
        if !failure.is_unreachable() {
            return failure;
        }
        failure.advice("start it with: whimbrel hub    or give the device's own --connection-string: no hub is needed then")
    };
    let service = Service::find(target).map_err(away)?;
    let request = service.request(Method::GET, &["devices", device, "connection-string"]);
    let found = service.json(request).await.map_err(away)?;
    let text = found.get("connection_string").and_then(Value::as_str);
    let options = DeviceOptions::from_connection_string(text.unwrap_or_default())?;
    if let Some(file) = &service.local {
        return local(options, file, target);
    }
    let about = service.json(service.request(Method::GET, &["hub"])).await?;
    let port =
        about.pointer("/listeners/mqtts").and_then(Value::as_str).and_then(|text| text.rsplit(':').next());
    let port = port.ok_or_else(|| Failure::new("the hub has its MQTT listener with TLS off"))?;
    Ok(trusting(options.server(format!("mqtts://{}:{port}", service.host())), target.ca.clone()))
}

/// To the hub on this machine, with TLS unless that is off.
fn local(options: DeviceOptions, file: &ServiceFile, target: &Target) -> Result<DeviceOptions> {
    match (file.mqtts, file.mqtt) {
        (Some(address), _) => {
            let ca = target.ca.clone().or_else(|| file.ca.clone());
            Ok(trusting(options.server(format!("mqtts://{address}")), ca))
        }
        (None, Some(address)) => Ok(options.server(format!("mqtt://{address}"))),
        (None, None) => Err(Failure::unreachable("the hub on this machine has its MQTT listeners off")
            .advice("start it with --mqtts or --mqtt")),
    }
}

fn trusting(options: DeviceOptions, ca: Option<PathBuf>) -> DeviceOptions {
    match ca {
        Some(path) => options.ca_file(path),
        None => options,
    }
}
