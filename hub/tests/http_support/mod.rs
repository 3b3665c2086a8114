//! A hub in this process, and requests to it.
#![allow(dead_code, unreachable_pub)]

use std::time::{Duration, SystemTime};

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::Value;
use whimbrel::{
    Message,
    auth::{ConnectionString, Credential, Key, SasToken},
    wire::refusal::Refusal,
};
use whimbrel_hub::{
    Hub,
    access::Admitted,
    events::{NewEvent, Place},
    registry::Authentication,
};

/// A running hub and a client that holds the key of its owner.
pub struct Fixture {
    pub hub: Hub,
    pub http: reqwest::Client,
    pub base: String,
}

impl Fixture {
    pub async fn in_memory() -> Self {
        Self::over(Hub::builder().in_memory().start().await.unwrap())
    }

    /// With settings by name and value.
    pub async fn with(settings: &[(&str, &str)]) -> Self {
        let mut builder = Hub::builder().in_memory();
        for (name, value) in settings {
            builder = builder.set(name, value).unwrap();
        }
        Self::over(builder.start().await.unwrap())
    }

    pub fn over(hub: Hub) -> Self {
        let base = format!("http://{}", hub.http_addr().unwrap());
        Self { http: client(&hub), hub, base }
    }

    /// With the owner's token.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.bare(method, path).header("authorization", token(self.hub.service_connection_string()))
    }

    /// With a token of the device's own key.
    pub async fn as_device(&self, device: &str, method: Method, path: &str) -> RequestBuilder {
        self.bare(method, path).header("authorization", self.device_token(device).await)
    }

    /// A token of the device's own key.
    pub async fn device_token(&self, device: &str) -> String {
        let key = key_of(&self.hub.registry().get(device).await.unwrap().device.authentication);
        SasToken::issue(&format!("localhost/devices/{device}"), &key, None, soon())
    }

    /// Without any credentials.
    pub fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    pub async fn get(&self, path: &str) -> Value {
        let response = self.request(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.unwrap()
    }

    /// Stores events of `device` as if it had sent them; returns their places.
    pub async fn store(&self, device: &str, messages: &[Message]) -> Vec<Place> {
        let sender = Admitted {
            device: device.into(),
            module: None,
            generation: "1".into(),
            auth_method: "{}".into(),
            expires_at: None,
        };
        let events: Vec<_> =
            messages.iter().map(|message| NewEvent { sender: &sender, message, origin: None }).collect();
        let mut places = Vec::new();
        let ticket = self.hub.events().append(&events, &mut places).unwrap();
        self.hub.events().durable(ticket).await.unwrap();
        places
    }
}

/// A client that trusts the hub's own authority.
fn client(hub: &Hub) -> reqwest::Client {
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(hub.ca_certificate().unwrap().pem.as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls).build().unwrap()
}

/// A token of the policy in a connection string, for everything.
pub fn token(connection_string: &str) -> String {
    let (host, policy, key) = parts(connection_string);
    SasToken::issue(&host, &key, Some(&policy), SystemTime::now() + Duration::from_secs(60))
}

/// When the tokens of tests end.
pub fn soon() -> SystemTime {
    SystemTime::now() + Duration::from_secs(60)
}

/// The first key.
pub fn key_of(authentication: &Authentication) -> Key {
    let Authentication::Sas { primary, .. } = authentication else { panic!("it has no key") };
    primary.clone()
}

/// The number of a request that the contract's endpoints refused, after a look at the form of the answer.
pub async fn number(response: Response) -> u32 {
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let name = headers["iothub-errorcode"].to_str().unwrap();
    let id = headers["x-ms-request-id"].to_str().unwrap();
    let body: Value = response.json().await.unwrap();
    let text = body["Message"].as_str().unwrap().strip_prefix(&format!("ErrorCode:{name};")).unwrap();
    assert!(!text.is_empty());
    let tracking = body["ExceptionMessage"].as_str().unwrap();
    assert!(tracking.starts_with(&format!("Tracking ID:{id}-TimeStamp:2")), "{tracking}");
    let row = Refusal::by_name(name).unwrap();
    assert_eq!(row.status(), status, "{name}");
    row.number
}

/// Host, policy and key of a service connection string.
pub fn parts(connection_string: &str) -> (String, String, Key) {
    let parsed: ConnectionString = connection_string.parse().unwrap();
    let Credential::Key { policy: Some(policy), key } = parsed.credential else { panic!("not a service's") };
    (parsed.host_name, policy, key)
}

/// Status, name and code of a refused request.
pub async fn refusal(response: Response) -> (StatusCode, String, u64) {
    let status = response.status();
    let body: Value = response.json().await.unwrap();
    assert!(!body["message"].as_str().unwrap().is_empty(), "{body}");
    (status, body["name"].as_str().unwrap().to_owned(), body["code"].as_u64().unwrap())
}

/// The lines of a stream that ends.
pub async fn lines(response: Response) -> Vec<Value> {
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let text = response.text().await.unwrap();
    text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Lines of a stream that goes on.
pub struct Following {
    response: Response,
    pending: String,
}

impl Following {
    pub fn new(response: Response) -> Self {
        assert_eq!(response.status(), StatusCode::OK);
        Self { response, pending: String::new() }
    }

    /// The next line, empty ones included; `None` at the end.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            if let Some((line, rest)) = self.pending.split_once('\n') {
                let line = line.to_owned();
                self.pending = rest.to_owned();
                return Some(line);
            }
            let chunk = self.response.chunk().await.unwrap()?;
            self.pending.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    pub async fn event(&mut self) -> Value {
        serde_json::from_str(&self.next().await.unwrap()).unwrap()
    }

    pub fn positions(&self) -> String {
        self.response.headers()["whimbrel-positions"].to_str().unwrap().to_owned()
    }
}
