//! The way to a hub: where it is, how to be let in, and requests to its `/v1`.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use clap::Args;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::Value;
use whimbrel::auth::{ConnectionString, Credential, Key, SasToken};
use whimbrel_hub::ServiceFile;

use crate::failure::{Failure, Result};

/// The variable for the data folder, shared with `whimbrel hub`.
pub(crate) const DATA_VARIABLE: &str = "WHIMBREL_DATA";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Tokens are made for one request each; this allows for clocks that differ.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// Which hub. Without any of these: the one of this machine that keeps its data in `./whimbrel-data`.
#[derive(Args, Clone)]
#[command(next_help_heading = "Which hub")]
pub(crate) struct Target {
    /// Data folder of a hub on this machine
    #[arg(long, env = DATA_VARIABLE, value_name = "DIR", default_value = "./whimbrel-data")]
    pub(crate) data: PathBuf,
    #[allow(rustdoc::bare_urls, reason = "this is the text of --help")]
    /// Address of a hub elsewhere, such as https://hub.example:8443
    #[arg(long, env = "WHIMBREL_SERVER", value_name = "URL")]
    pub(crate) server: Option<String>,
    /// Connection string: HostName=…;SharedAccessKeyName=…;SharedAccessKey=…
    #[arg(long, env = "WHIMBREL_CONNECTION_STRING", value_name = "TEXT", hide_env_values = true)]
    pub(crate) connection_string: Option<String>,
    /// Certificates to trust (PEM) instead of those of the system
    #[arg(long, env = "WHIMBREL_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
}

impl Target {
    /// The connection string that was given, read.
    pub(crate) fn given(&self) -> Result<Option<ConnectionString>> {
        Ok(self.connection_string.as_deref().map(str::parse).transpose()?)
    }

    /// The service file of the hub on this machine.
    pub(crate) fn local(&self) -> Result<ServiceFile> {
        ServiceFile::read(&self.data).map_err(|error| {
            let advice = "start one with: whimbrel hub    or name one: --data DIR, or --server URL --connection-string …";
            Failure::unreachable(format!("no hub is known in {}", self.data.display()))
                .caused_by(error.message())
                .advice(advice)
        })
    }
}

/// A client of a hub's `/v1`.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    http: reqwest::Client,
    base: Url,
    host_name: String,
    policy: String,
    key: Key,
    /// How the hub is found, when it is on this machine.
    pub(crate) local: Option<ServiceFile>,
}

impl Service {
    /// Finds the hub; does not connect yet.
    pub(crate) fn find(target: &Target) -> Result<Self> {
        let local = if target.server.is_none() { Some(target.local()?) } else { None };
        let given = match (&local, target.given()?) {
            (_, Some(given)) => given,
            (Some(file), None) => file.connection_string.parse()?,
            (None, None) => {
                return Err(Failure::usage("--server needs the connection string of a policy, too")
                    .advice("give --connection-string or WHIMBREL_CONNECTION_STRING; on the hub's machine it is in service.json"));
            }
        };
        let (Credential::Key { policy: Some(policy), key }, None) = (given.credential, given.device_id)
        else {
            return Err(Failure::usage(
                "this takes the connection string of a service policy, not of a device",
            )
            .advice("it looks like HostName=…;SharedAccessKeyName=…;SharedAccessKey=…"));
        };
        let address = match &local {
            Some(file) => file.http.as_ref().or(file.https.as_ref()).ok_or_else(|| {
                Failure::unreachable("the hub on this machine has its HTTP listeners off")
                    .advice("start it with --http or --https")
            })?,
            None => target.server.as_ref().ok_or_else(|| Failure::usage("which hub?"))?,
        };
        let base = base(address)?;
        let ca = target.ca.clone().or_else(|| local.as_ref().and_then(|file| file.ca.clone()));
        // Also without TLS: reqwest would look for a crypto provider of the process, and there is none.
        let roots = if base.scheme() == "https" { roots(ca.as_deref())? } else { RootCertStore::empty() };
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .tls_backend_preconfigured(trusting(roots)?);
        if local.is_some() {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| Failure::new("no HTTP client").caused_by(error))?;
        Ok(Self { http, base, host_name: given.host_name, policy, key, local })
    }

    /// Host of the hub's address, for its other listeners.
    pub(crate) fn host(&self) -> &str {
        self.base.host_str().unwrap_or_default()
    }

    /// A request to a path below `/v1`, given in parts, which are escaped.
    pub(crate) fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path);
        }
        let expires_at = SystemTime::now() + TOKEN_LIFE;
        let token = SasToken::issue(&self.host_name, &self.key, Some(&self.policy), expires_at);
        self.http.request(method, url).header(reqwest::header::AUTHORIZATION, token)
    }

    /// Sends a request; an answer that says no becomes a failure.
    pub(crate) async fn answer(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|error| self.lost(error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let said: Value = response.json().await.unwrap_or_default();
        let message = said.get("message").and_then(Value::as_str);
        let text = message.map_or_else(|| format!("the hub answered {status}"), str::to_owned);
        Err(match status {
            StatusCode::UNAUTHORIZED => Failure::refused(text),
            StatusCode::BAD_REQUEST => Failure::usage(text),
            StatusCode::SERVICE_UNAVAILABLE => Failure::unreachable(text),
            _ => Failure::new(text),
        })
    }

    /// As [`Service::answer`], with the body as JSON; `Null` when there is none.
    pub(crate) async fn json(&self, request: RequestBuilder) -> Result<Value> {
        let response = self.answer(request.timeout(REQUEST_TIMEOUT)).await?;
        let bytes = response.bytes().await.map_err(|error| self.lost(error))?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes)
            .map_err(|error| Failure::new("what answers there is not a hub").caused_by(error))
    }

    fn lost(&self, error: reqwest::Error) -> Failure {
        // The deepest cause is the one that says something: "connection refused".
        let mut cause: &dyn std::error::Error = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        let failure =
            Failure::unreachable(format!("no answer from the hub at {}", self.base)).caused_by(cause);
        match &self.local {
            Some(_) => failure.advice("is it running? start it with: whimbrel hub"),
            None => failure,
        }
    }
}

fn base(address: &str) -> Result<Url> {
    let url: Url = address.parse().map_err(|error| {
        Failure::usage(format!("\"{address}\" is not a URL"))
            .caused_by(error)
            .advice("write it like https://hub.example:8443")
    })?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match url.scheme() {
        "https" => Ok(url),
        "http" if loopback => Ok(url),
        "http" => {
            Err(Failure::usage("http:// to another machine would show the token to everybody on the way")
                .advice("use https://; with the hub's own certificate, copy its tls/ca.pem and give --ca"))
        }
        _ => Err(Failure::usage(format!("\"{address}\" is not the address of a hub's HTTP listener"))
            .advice("write it like https://hub.example:8443")),
    }
}

/// The certificates in a file, or else those of the system.
fn roots(ca: Option<&Path>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let unusable = |error: &dyn std::fmt::Display| {
        Failure::usage(format!("{} cannot be used", path.display())).caused_by(error)
    };
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(&error))? {
        let certificate = certificate.map_err(|error| unusable(&error))?;
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    Ok(roots)
}

fn trusting(roots: RootCertStore) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::new("TLS is not available").caused_by(error))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
