//! `whimbrel device …`.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Value, json};

use super::receive;
use crate::{
    failure::Result,
    output,
    service::{Service, Target},
};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Create a device and print its connection string
    Add(Add),
    /// List devices
    List(List),
    /// Show a device
    Show(Show),
    /// Let a device connect again
    Enable(One),
    /// Do not let a device connect; it is dropped if it is connected
    Disable(One),
    /// Delete a device; its events stay
    Delete(One),
    /// Replace a key and print the new connection string
    Rotate(Rotate),
    /// Receive commands as a device, and settle them
    Receive(receive::Arguments),
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  whimbrel device add thermostat-1
  export WHIMBREL_DEVICE=\"$(whimbrel device add thermostat-2)\"
  whimbrel device add thermostat-3 --thumbprint \"$(openssl x509 -in d.pem -noout -fingerprint -sha256 | cut -d= -f2 | tr -d :)\"")]
pub(crate) struct Add {
    #[command(flatten)]
    one: One,
    /// Let it prove itself by a certificate with this SHA-1 or SHA-256 thumbprint (hexadecimal), instead of keys
    #[arg(long, value_name = "HEX", conflicts_with = "ca_signed")]
    thumbprint: Option<String>,
    /// A second thumbprint, for renewal
    #[arg(long, value_name = "HEX", requires = "thumbprint")]
    second_thumbprint: Option<String>,
    /// Let it prove itself by a certificate of an authority the hub trusts (setting device-ca), named as the device
    #[arg(long)]
    ca_signed: bool,
}

#[derive(Args)]
pub(crate) struct List {
    /// Lines of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Args)]
pub(crate) struct Show {
    #[command(flatten)]
    one: One,
    /// With its connection string
    #[arg(long)]
    secret: bool,
}

#[derive(Args)]
pub(crate) struct Rotate {
    #[command(flatten)]
    one: One,
    /// Which key
    #[arg(value_enum, default_value = "primary")]
    key: KeyName,
}

#[derive(Args)]
pub(crate) struct One {
    /// Id of the device
    device: String,
    /// JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Clone, Copy, ValueEnum)]
enum KeyName {
    /// The first key, which is in the connection string
    Primary,
    /// The second key
    Secondary,
}

pub(crate) async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Receive(arguments) => return receive::run(arguments).await,
        Command::Add(add) => create(&add).await?,
        Command::List(list) => show_all(&list).await?,
        Command::Show(show) => {
            let path: &[&str] = if show.secret { &["connection-string"] } else { &[] };
            let (_, device) = ask(&show.one, Method::GET, path, None).await?;
            print(&show.one, &device)?;
        }
        Command::Enable(one) => switch(&one, true).await?,
        Command::Disable(one) => switch(&one, false).await?,
        Command::Delete(one) => {
            ask(&one, Method::DELETE, &[], None).await?;
            if !one.json {
                output::line(&format!("{} is deleted", one.device))?;
            }
        }
        Command::Rotate(rotate) => {
            let slot = match rotate.key {
                KeyName::Primary => "primary",
                KeyName::Secondary => "secondary",
            };
            let (service, device) = ask(&rotate.one, Method::POST, &["keys", slot, "rotate"], None).await?;
            print_secret(&rotate.one, &service, &device)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A request about one device, and the answer.
async fn ask(one: &One, method: Method, path: &[&str], body: Option<Value>) -> Result<(Service, Value)> {
    let service = Service::find(&one.target)?;
    let mut request = service.request(method, &[&["devices", &one.device], path].concat());
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = service.json(request).await?;
    Ok((service, answer))
}

async fn create(add: &Add) -> Result<()> {
    let authentication = match &add.thumbprint {
        Some(first) => json!({
            "type": "selfSigned",
            "primary_thumbprint": first,
            "secondary_thumbprint": add.second_thumbprint,
        }),
        None if add.ca_signed => json!({ "type": "certificateAuthority" }),
        None => json!({ "type": "sas" }),
    };
    let body = json!({ "authentication": authentication });
    let (service, device) = ask(&add.one, Method::PUT, &[], Some(body)).await?;
    print_secret(&add.one, &service, &device)
}

async fn switch(one: &One, enabled: bool) -> Result<()> {
    let (_, device) = ask(one, Method::PATCH, &[], Some(json!({ "enabled": enabled }))).await?;
    if one.json {
        output::json(&device)?;
    } else {
        output::line(&format!("{} is {}", one.device, if enabled { "enabled" } else { "disabled" }))?;
    }
    Ok(())
}

async fn show_all(list: &List) -> Result<()> {
    let service = Service::find(&list.target)?;
    let mut after: Option<String> = None;
    let mut rows = Vec::new();
    loop {
        let mut request = service.request(Method::GET, &["devices"]).query(&[("limit", "1000")]);
        if let Some(after) = &after {
            request = request.query(&[("after", after)]);
        }
        let page = service.json(request).await?;
        for device in page.get("devices").and_then(Value::as_array).into_iter().flatten() {
            if list.json {
                output::json(device)?;
            } else {
                rows.push(row(device));
            }
        }
        match page.get("next").and_then(Value::as_str) {
            Some(next) => after = Some(next.to_owned()),
            None => break,
        }
    }
    if !list.json {
        output::table(["DEVICE", "STATUS", "PROVES ITSELF BY", "CREATED"], &rows)?;
    }
    Ok(())
}

fn row(device: &Value) -> [String; 4] {
    let text = |pointer| device.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let enabled = device.get("enabled") == Some(&Value::Bool(true));
    let proof = match text("/authentication/type") {
        "sas" => "key",
        "selfSigned" => "certificate (thumbprint)",
        "certificateAuthority" => "certificate (authority)",
        other => other,
    };
    [
        output::harmless(text("/id")),
        if enabled { "enabled" } else { "disabled" }.to_owned(),
        proof.to_owned(),
        // To the second.
        text("/created_at").get(..19).unwrap_or_default().replace('T', " "),
    ]
}

fn print(one: &One, device: &Value) -> Result<()> {
    if one.json {
        return Ok(output::json(device)?);
    }
    let [id, status, proof, created] = row(device);
    output::line(&format!("{id}\n  {status}\n  proves itself by {proof}\n  created {created} UTC"))?;
    if let Some(secret) = device.get("connection_string").and_then(Value::as_str) {
        output::line(&format!("  {secret}"))?;
    }
    Ok(())
}

/// The connection string alone on stdout, for scripts; the rest on stderr, for people.
fn print_secret(one: &One, service: &Service, device: &Value) -> Result<()> {
    if one.json {
        return Ok(output::json(device)?);
    }
    output::line(device.get("connection_string").and_then(Value::as_str).unwrap_or_default())?;
    if let Some(file) = &service.local {
        if let Some(address) = file.mqtts {
            let ca =
                file.ca.as_ref().map(|path| format!(", trusting {}", path.display())).unwrap_or_default();
            eprintln!("on this machine: mqtts://{address}{ca}");
        }
        if let Some(address) = file.mqtt {
            eprintln!("on this machine, without TLS: mqtt://{address}");
        }
    }
    Ok(())
}
