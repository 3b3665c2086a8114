//! The identity registry over the contract's HTTP. Contract `http.md`, "Identity registry".

use std::{fmt, sync::Arc};

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::web::{Call, Web, json};
use crate::{
    Error, ErrorKind, Result,
    auth::{ConnectionString, Credential, Key},
    wire::percent,
};

/// Creates, reads, changes and deletes identities; made by [`ServiceClient::registry`](super::ServiceClient::registry).
/// Cheap to clone.
///
/// Every change is conditional: an identity that was read carries its etag, and changing it fails with `Conflict` when
/// somebody else did meanwhile.
#[derive(Clone, Debug)]
pub struct Registry {
    web: Arc<Web>,
    host: Arc<str>,
}

/// A device as the registry has it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DeviceIdentity {
    /// Its id, case-sensitive.
    pub id: String,
    /// Of this creation; empty before it was created.
    pub generation: String,
    /// Of this state; `None` overwrites whatever there is.
    pub etag: Option<String>,
    /// Whether it may connect.
    pub status: DeviceStatus,
    /// Why, up to 128 characters.
    pub status_reason: Option<String>,
    /// How it proves itself.
    pub authentication: Authentication,
    /// Whether it is connected by MQTT or AMQP, as far as the hub knows; may lag minutes on Azure.
    pub connected: bool,
    /// Commands in its queue.
    pub pending_commands: u64,
    /// What else the hub says of it; sent back unchanged.
    rest: Map<String, Value>,
}

/// A module of a device.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ModuleIdentity {
    /// Id of its device.
    pub device: String,
    /// Its id among the modules of the device.
    pub id: String,
    /// Of this creation.
    pub generation: String,
    /// As [`DeviceIdentity::etag`].
    pub etag: Option<String>,
    /// Who manages it.
    pub managed_by: Option<String>,
    /// How it proves itself.
    pub authentication: Authentication,
    rest: Map<String, Value>,
}

/// Whether a device may connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeviceStatus {
    /// It may.
    #[default]
    Enabled,
    /// It may not, and is disconnected.
    Disabled,
}

/// How a device or module proves itself. `Debug` shows no keys.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Authentication {
    /// By tokens of either key; the hub makes the keys.
    #[default]
    GeneratedKeys,
    /// By tokens of either of these keys.
    Keys {
        /// First key.
        primary: Key,
        /// Second key.
        secondary: Key,
    },
    /// By a certificate with one of these thumbprints, 40 or 64 hexadecimal digits.
    Thumbprints {
        /// First thumbprint.
        primary: String,
        /// Second thumbprint.
        secondary: Option<String>,
    },
    /// By a certificate of an authority the hub trusts, with the id as its common name.
    CertificateAuthority,
    /// Not at all.
    None,
}

/// A page of a query's answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Page {
    /// One JSON document for each device that was found.
    pub items: Vec<Value>,
    /// To be given for the next page; none on the last one.
    pub continuation: Option<String>,
}

impl Registry {
    pub(super) fn new(web: Arc<Web>, host: Arc<str>) -> Self {
        Self { web, host }
    }

    /// Creates a device: by its id, with keys the hub makes, or as the identity says.
    ///
    /// # Errors
    /// `Conflict` when it exists; `InvalidArgument`, `Unauthorized`, `Throttled`, `Unreachable`.
    pub async fn create(&self, device: impl Into<DeviceIdentity>) -> Result<DeviceIdentity> {
        let device = device.into();
        let path = device_path(&device.id);
        self.web
            .read(Call::new(CREATE, Method::PUT, &path).body(device.to_json()))
            .await
            .and_then(from_json(CREATE))
    }

    /// A device.
    ///
    /// # Errors
    /// `NotFound`; as [`Registry::create`].
    pub async fn get(&self, id: &str) -> Result<DeviceIdentity> {
        self.web.read(Call::new(GET, Method::GET, &device_path(id))).await.and_then(from_json(GET))
    }

    /// Changes a device to what the identity says, if its etag is still the current one.
    ///
    /// # Errors
    /// `Conflict` when it is not, `NotFound`; as [`Registry::create`].
    pub async fn update(&self, device: &DeviceIdentity) -> Result<DeviceIdentity> {
        let condition = quoted(device.etag.as_deref());
        let path = device_path(&device.id);
        let call = Call::new(UPDATE, Method::PUT, &path).body(device.to_json()).condition(Some(&condition));
        self.web.read(call).await.and_then(from_json(UPDATE))
    }

    /// Deletes a device with its commands and modules; its events stay. With an etag, only while it is the current one.
    ///
    /// # Errors
    /// As [`Registry::update`].
    pub async fn delete(&self, id: &str, etag: Option<&str>) -> Result<()> {
        let condition = quoted(etag);
        let path = device_path(id);
        self.web.send(Call::new(DELETE, Method::DELETE, &path).condition(Some(&condition))).await.map(drop)
    }

    /// Up to `limit` devices (1 to 1000; without one as many as the hub gives, which is 1000), in no particular order. For more,
    /// [`Registry::query`].
    ///
    /// # Errors
    /// As [`Registry::create`].
    pub async fn list(&self, limit: Option<usize>) -> Result<Vec<DeviceIdentity>> {
        let top = limit.map_or_else(String::new, |limit| format!("top={limit}&"));
        let path = format!("/devices?{top}{VERSION}");
        let found: Vec<Value> = self.web.read(Call::new(LIST, Method::GET, &path)).await?;
        found.into_iter().map(from_json(LIST)).collect()
    }

    /// A page of what a query finds, such as `SELECT * FROM devices`, and where the next one begins. A page has up to
    /// `page_size` items (1 to 1000; without one as many as the hub likes).
    ///
    /// # Errors
    /// `InvalidArgument` for a query the hub does not understand; as [`Registry::create`].
    pub async fn query(
        &self,
        query: &str,
        page_size: Option<usize>,
        continuation: Option<&str>,
    ) -> Result<Page> {
        let path = format!("/devices/query?{VERSION}");
        let mut headers = Vec::new();
        headers.extend(page_size.map(|size| ("x-ms-max-item-count", size.to_string())));
        headers.extend(continuation.map(|token| ("x-ms-continuation", token.to_owned())));
        let mut call = Call::new(QUERY, Method::POST, &path).body(json!({"query": query}));
        call.headers = &headers;
        let response = self.web.send(call).await?;
        let continuation = response.headers().get("x-ms-continuation");
        let continuation =
            continuation.and_then(|token| token.to_str().ok()).filter(|token| !token.is_empty());
        let continuation = continuation.map(str::to_owned);
        Ok(Page { items: json(QUERY, response).await?, continuation })
    }

    /// Creates a module of a device, with keys the hub makes unless the identity says otherwise.
    ///
    /// # Errors
    /// As [`Registry::create`]; `NotFound` for the device.
    pub async fn create_module(&self, module: &ModuleIdentity) -> Result<ModuleIdentity> {
        let path = module_path(&module.device, &module.id);
        let call = Call::new(CREATE, Method::PUT, &path).body(module.to_json());
        self.web.read(call).await.and_then(module_from_json(CREATE))
    }

    /// A module of a device.
    ///
    /// # Errors
    /// As [`Registry::get`].
    pub async fn get_module(&self, device: &str, id: &str) -> Result<ModuleIdentity> {
        let path = module_path(device, id);
        self.web.read(Call::new(GET, Method::GET, &path)).await.and_then(module_from_json(GET))
    }

    /// Changes a module, if its etag is still the current one.
    ///
    /// # Errors
    /// As [`Registry::update`].
    pub async fn update_module(&self, module: &ModuleIdentity) -> Result<ModuleIdentity> {
        let condition = quoted(module.etag.as_deref());
        let path = module_path(&module.device, &module.id);
        let call = Call::new(UPDATE, Method::PUT, &path).body(module.to_json()).condition(Some(&condition));
        self.web.read(call).await.and_then(module_from_json(UPDATE))
    }

    /// Deletes a module. With an etag, only while it is the current one.
    ///
    /// # Errors
    /// As [`Registry::update`].
    pub async fn delete_module(&self, device: &str, id: &str, etag: Option<&str>) -> Result<()> {
        let condition = quoted(etag);
        let path = module_path(device, id);
        self.web.send(Call::new(DELETE, Method::DELETE, &path).condition(Some(&condition))).await.map(drop)
    }

    /// The modules of a device.
    ///
    /// # Errors
    /// As [`Registry::get`].
    pub async fn modules(&self, device: &str) -> Result<Vec<ModuleIdentity>> {
        let path = format!("/devices/{}/modules?{VERSION}", percent::encoded(device));
        let found: Vec<Value> = self.web.read(Call::new(LIST, Method::GET, &path)).await?;
        found.into_iter().map(module_from_json(LIST)).collect()
    }

    /// Ends all commands in the queue of a device as purged; how many.
    ///
    /// # Errors
    /// As [`Registry::get`].
    pub async fn purge_commands(&self, device: &str) -> Result<u64> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Purged {
            total_messages_purged: u64,
        }
        let path = format!("/devices/{}/commands?{VERSION}", percent::encoded(device));
        let purged: Purged = self.web.read(Call::new(PURGE, Method::DELETE, &path)).await?;
        Ok(purged.total_messages_purged)
    }

    /// The connection string of a device: with its first key, or `x509=true`. `None` when it has no way to prove itself,
    /// or the hub has not said its keys.
    pub fn connection_string(&self, device: &DeviceIdentity) -> Option<String> {
        self.connection_string_of(&device.id, None, &device.authentication)
    }

    /// As [`Registry::connection_string`], of a module.
    pub fn module_connection_string(&self, module: &ModuleIdentity) -> Option<String> {
        self.connection_string_of(&module.device, Some(&module.id), &module.authentication)
    }

    fn connection_string_of(
        &self,
        device: &str,
        module: Option<&str>,
        authentication: &Authentication,
    ) -> Option<String> {
        let credential = match authentication {
            Authentication::Keys { primary, .. } => Credential::Key { policy: None, key: primary.clone() },
            Authentication::Thumbprints { .. } | Authentication::CertificateAuthority => Credential::X509,
            Authentication::GeneratedKeys | Authentication::None => return None,
        };
        let connection_string = ConnectionString {
            host_name: self.host.to_string(),
            gateway_host_name: None,
            port: None,
            device_id: Some(device.to_owned()),
            module_id: module.map(str::to_owned),
            credential,
            event_hub: None,
        };
        Some(connection_string.reveal())
    }
}

impl DeviceIdentity {
    /// A device to be created, enabled, with keys the hub makes.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            generation: String::new(),
            etag: None,
            status: DeviceStatus::Enabled,
            status_reason: None,
            authentication: Authentication::GeneratedKeys,
            connected: false,
            pending_commands: 0,
            rest: Map::new(),
        }
    }

    /// Sets how it proves itself.
    #[must_use]
    pub fn with_authentication(mut self, authentication: Authentication) -> Self {
        self.authentication = authentication;
        self
    }

    /// The identity as the contract's JSON document, with what only the hub sets.
    pub fn to_document(&self) -> Value {
        let mut document = self.to_json();
        if let Some(all) = document.as_object_mut() {
            all.insert("generationId".into(), self.generation.as_str().into());
            let state = if self.connected { CONNECTED } else { "Disconnected" };
            all.insert("connectionState".into(), state.into());
            all.insert("cloudToDeviceMessageCount".into(), self.pending_commands.into());
        }
        document
    }

    /// From the contract's JSON document; what it does not hold is as in a new identity.
    ///
    /// # Errors
    /// `InvalidArgument` when it is not one.
    pub fn from_document(document: Value) -> Result<Self> {
        from_json(DOCUMENT)(document).map_err(not_an_identity)
    }

    fn to_json(&self) -> Value {
        let mut all = self.rest.clone();
        all.insert("deviceId".into(), self.id.as_str().into());
        all.insert("status".into(), json!(self.status));
        all.insert("statusReason".into(), json!(self.status_reason));
        all.insert("authentication".into(), self.authentication.to_json());
        if let Some(etag) = &self.etag {
            all.insert("etag".into(), etag.as_str().into());
        }
        Value::Object(all)
    }
}

impl From<&str> for DeviceIdentity {
    fn from(id: &str) -> Self {
        Self::new(id)
    }
}

impl From<String> for DeviceIdentity {
    fn from(id: String) -> Self {
        Self::new(id)
    }
}

impl ModuleIdentity {
    /// A module to be created, with keys the hub makes.
    pub fn new(device: impl Into<String>, id: impl Into<String>) -> Self {
        Self {
            device: device.into(),
            id: id.into(),
            generation: String::new(),
            etag: None,
            managed_by: None,
            authentication: Authentication::GeneratedKeys,
            rest: Map::new(),
        }
    }

    /// Sets how it proves itself.
    #[must_use]
    pub fn with_authentication(mut self, authentication: Authentication) -> Self {
        self.authentication = authentication;
        self
    }

    /// The identity as the contract's JSON document, with what only the hub sets.
    pub fn to_document(&self) -> Value {
        let mut document = self.to_json();
        if let Some(all) = document.as_object_mut() {
            all.insert("generationId".into(), self.generation.as_str().into());
        }
        document
    }

    /// From the contract's JSON document; what it does not hold is as in a new identity.
    ///
    /// # Errors
    /// `InvalidArgument` when it is not one.
    pub fn from_document(document: Value) -> Result<Self> {
        module_from_json(DOCUMENT)(document).map_err(not_an_identity)
    }

    fn to_json(&self) -> Value {
        let mut all = self.rest.clone();
        all.insert("deviceId".into(), self.device.as_str().into());
        all.insert("moduleId".into(), self.id.as_str().into());
        all.insert("managedBy".into(), json!(self.managed_by));
        all.insert("authentication".into(), self.authentication.to_json());
        if let Some(etag) = &self.etag {
            all.insert("etag".into(), etag.as_str().into());
        }
        Value::Object(all)
    }
}

impl Authentication {
    fn to_json(&self) -> Value {
        match self {
            Self::GeneratedKeys => json!({"type": "sas"}),
            Self::Keys { primary, secondary } => json!({"type": "sas", "symmetricKey": {
                "primaryKey": primary.to_base64(), "secondaryKey": secondary.to_base64()}}),
            Self::Thumbprints { primary, secondary } => json!({"type": "selfSigned", "x509Thumbprint": {
                "primaryThumbprint": primary, "secondaryThumbprint": secondary}}),
            Self::CertificateAuthority => json!({"type": "certificateAuthority"}),
            Self::None => json!({"type": "none"}),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ProofForm {
    r#type: Option<String>,
    symmetric_key: Option<KeysForm>,
    x509_thumbprint: Option<ThumbprintsForm>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct KeysForm {
    primary_key: Option<String>,
    secondary_key: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ThumbprintsForm {
    primary_thumbprint: Option<String>,
    secondary_thumbprint: Option<String>,
}

impl ProofForm {
    fn read(self, operation: &'static str) -> Result<Authentication> {
        let protocol = |message| Error::new(ErrorKind::Protocol, operation, message);
        Ok(match self.r#type.as_deref().unwrap_or("sas") {
            "sas" => match self.symmetric_key {
                Some(KeysForm { primary_key: Some(primary), secondary_key: Some(secondary) }) => {
                    let key = |text: &str| {
                        Key::from_base64(text).map_err(|_| protocol("a key in the identity is not base64"))
                    };
                    Authentication::Keys { primary: key(&primary)?, secondary: key(&secondary)? }
                }
                // Hubs leave keys out where the caller may not see them.
                _ => Authentication::GeneratedKeys,
            },
            "selfSigned" => {
                let prints = self.x509_thumbprint.unwrap_or_default();
                Authentication::Thumbprints {
                    primary: prints.primary_thumbprint.unwrap_or_default(),
                    secondary: prints.secondary_thumbprint,
                }
            }
            "certificateAuthority" => Authentication::CertificateAuthority,
            "none" => Authentication::None,
            _ => return Err(protocol("the identity proves itself in an unknown way")),
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IdentityForm {
    device_id: String,
    #[serde(default)]
    module_id: Option<String>,
    #[serde(default)]
    generation_id: Option<String>,
    #[serde(default)]
    etag: Option<String>,
    #[serde(default)]
    status: DeviceStatus,
    #[serde(default)]
    status_reason: Option<String>,
    #[serde(default)]
    managed_by: Option<String>,
    #[serde(default)]
    connection_state: Option<String>,
    #[serde(default)]
    cloud_to_device_message_count: Option<u64>,
    #[serde(default)]
    authentication: ProofForm,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

fn read(operation: &'static str, document: Value) -> Result<IdentityForm> {
    serde_json::from_value(document).map_err(|error| {
        Error::new(ErrorKind::Protocol, operation, "the hub's answer is not an identity").caused_by(error)
    })
}

fn from_json(operation: &'static str) -> impl FnMut(Value) -> Result<DeviceIdentity> {
    move |document| {
        let form = read(operation, document)?;
        Ok(DeviceIdentity {
            id: form.device_id,
            generation: form.generation_id.unwrap_or_default(),
            etag: form.etag,
            status: form.status,
            status_reason: form.status_reason,
            authentication: form.authentication.read(operation)?,
            connected: form.connection_state.as_deref() == Some(CONNECTED),
            pending_commands: form.cloud_to_device_message_count.unwrap_or(0),
            rest: form.rest,
        })
    }
}

fn module_from_json(operation: &'static str) -> impl FnMut(Value) -> Result<ModuleIdentity> {
    move |document| {
        let form = read(operation, document)?;
        Ok(ModuleIdentity {
            device: form.device_id,
            id: form.module_id.unwrap_or_default(),
            generation: form.generation_id.unwrap_or_default(),
            etag: form.etag,
            managed_by: form.managed_by,
            authentication: form.authentication.read(operation)?,
            rest: form.rest,
        })
    }
}

impl fmt::Display for DeviceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
        })
    }
}

/// A document that a program gave is no answer of the hub.
fn not_an_identity(error: Error) -> Error {
    Error::new(ErrorKind::InvalidArgument, DOCUMENT, "this is not the document of an identity")
        .caused_by(error.to_string())
}

fn device_path(id: &str) -> String {
    format!("/devices/{}?{VERSION}", percent::encoded(id))
}

fn module_path(device: &str, id: &str) -> String {
    format!("/devices/{}/modules/{}?{VERSION}", percent::encoded(device), percent::encoded(id))
}

/// As `If-Match` wants it.
fn quoted(etag: Option<&str>) -> String {
    match etag {
        None => "*".to_owned(),
        Some(etag) => format!("\"{}\"", etag.trim_matches('"')),
    }
}

const VERSION: &str = "api-version=2021-04-12";
const CONNECTED: &str = "Connected";
const DOCUMENT: &str = "registry.document";
const CREATE: &str = "registry.create";
const GET: &str = "registry.get";
const UPDATE: &str = "registry.update";
const DELETE: &str = "registry.delete";
const LIST: &str = "registry.list";
const QUERY: &str = "registry.query";
const PURGE: &str = "registry.purge_commands";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_comes_back_as_it_was_with_what_nobody_knows() {
        let document = json!({
            "deviceId": "d1", "generationId": "638", "etag": "AAA=", "connectionState": "Connected",
            "status": "disabled", "statusReason": "lost", "cloudToDeviceMessageCount": 3,
            "authentication": {"type": "sas", "symmetricKey": {"primaryKey": "c2VjcmV0", "secondaryKey": "c2VjcmU="},
                "x509Thumbprint": {"primaryThumbprint": null, "secondaryThumbprint": null}},
            "capabilities": {"iotEdge": true}, "deviceScope": "x",
        });
        let device = from_json(GET)(document).unwrap();
        assert_eq!((device.id.as_str(), device.connected, device.pending_commands), ("d1", true, 3));
        assert_eq!(device.status, DeviceStatus::Disabled);
        let sent = device.to_json();
        assert_eq!(sent["capabilities"]["iotEdge"], true);
        assert_eq!(sent["authentication"]["symmetricKey"]["primaryKey"], "c2VjcmV0");
        assert_eq!((&sent["status"], &sent["etag"]), (&json!("disabled"), &json!("AAA=")));
        assert!(!format!("{device:?}").contains("c2VjcmV0"));
        let fresh = DeviceIdentity::new("d").to_json();
        assert_eq!(fresh["authentication"], json!({"type": "sas"}), "the hub makes the keys");
    }

    #[test]
    fn a_document_holds_everything_and_leads_back() {
        let document = json!({
            "deviceId": "d1", "generationId": "638", "etag": "AAA=", "connectionState": "Connected",
            "status": "enabled", "statusReason": null, "cloudToDeviceMessageCount": 3, "deviceScope": "x",
            "authentication": {"type": "sas", "symmetricKey": {"primaryKey": "c2VjcmV0", "secondaryKey": "c2VjcmU="}},
        });
        assert_eq!(DeviceIdentity::from_document(document.clone()).unwrap().to_document(), document);
        let module = json!({"deviceId": "d1", "moduleId": "m", "generationId": "1", "authentication": {"type": "none"}});
        let there = ModuleIdentity::from_document(module).unwrap();
        assert_eq!(ModuleIdentity::from_document(there.to_document()).unwrap(), there);
        for wrong in [json!({}), json!([]), json!({"deviceId": 1})] {
            assert_eq!(DeviceIdentity::from_document(wrong).unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
    }

    #[test]
    fn every_way_to_prove_oneself_is_written_as_it_is_read() {
        let print = "a".repeat(40);
        for authentication in [
            Authentication::GeneratedKeys,
            Authentication::Keys { primary: Key::from_bytes(b"a"), secondary: Key::from_bytes(b"b") },
            Authentication::Thumbprints { primary: print, secondary: None },
            Authentication::CertificateAuthority,
            Authentication::None,
        ] {
            let device = DeviceIdentity::new("d").with_authentication(authentication.clone());
            let read = from_json(GET)(device.to_json()).unwrap();
            assert_eq!(read.authentication, authentication);
        }
        let strange = json!({"deviceId": "d", "authentication": {"type": "magic"}});
        assert_eq!(from_json(GET)(strange).unwrap_err().kind(), ErrorKind::Protocol);
    }

    #[test]
    fn conditions_are_quoted_once() {
        assert_eq!(quoted(None), "*");
        assert_eq!(quoted(Some("a")), "\"a\"");
        assert_eq!(quoted(Some("\"a\"")), "\"a\"");
        assert_eq!(device_path("a/b#"), "/devices/a%2Fb%23?api-version=2021-04-12");
    }
}
