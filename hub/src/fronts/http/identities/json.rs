//! Identities as the contract writes them, and as clients ask for them.

use serde::{Deserialize, Deserializer, Serialize};
use whimbrel::{Error, ErrorKind, Result, auth::Key, wire::time};

use crate::{
    registry::{Authentication, Device, DeviceUpdate, Module, ModuleUpdate, NewAuthentication, NewDevice},
    sessions::Presence,
};

/// A time that never came: year 1.
const NEVER: &str = "0001-01-01T00:00:00";

/// A device, with its keys.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceJson {
    device_id: String,
    generation_id: String,
    etag: String,
    connection_state: &'static str,
    status: &'static str,
    status_reason: Option<String>,
    connection_state_updated_time: String,
    status_updated_time: String,
    last_activity_time: String,
    cloud_to_device_message_count: u64,
    authentication: AuthenticationJson,
    capabilities: Capabilities,
    device_scope: Option<String>,
    parent_scopes: [String; 0],
}

impl DeviceJson {
    pub(super) fn new(device: &Device, presence: Presence, pending: u64) -> Self {
        Self {
            device_id: (*device.id).to_owned(),
            generation_id: (*device.generation).to_owned(),
            etag: device.etag.clone(),
            connection_state: connection_state(presence),
            status: status(device.enabled),
            status_reason: device.status_reason.clone(),
            connection_state_updated_time: when(presence.changed_at),
            status_updated_time: when(device.status_changed_at),
            last_activity_time: when(presence.active_at),
            cloud_to_device_message_count: pending,
            authentication: (&device.authentication).into(),
            capabilities: Capabilities { iot_edge: false },
            device_scope: None,
            parent_scopes: [],
        }
    }
}

/// A module, with its keys.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ModuleJson {
    module_id: String,
    managed_by: Option<String>,
    device_id: String,
    generation_id: String,
    etag: String,
    connection_state: &'static str,
    connection_state_updated_time: String,
    last_activity_time: String,
    /// Modules have no queue.
    cloud_to_device_message_count: u64,
    authentication: AuthenticationJson,
}

impl ModuleJson {
    pub(super) fn new(module: &Module, presence: Presence) -> Self {
        Self {
            module_id: (*module.id).to_owned(),
            managed_by: module.managed_by.clone(),
            device_id: (*module.device).to_owned(),
            generation_id: (*module.generation).to_owned(),
            etag: module.etag.clone(),
            connection_state: connection_state(presence),
            connection_state_updated_time: when(presence.changed_at),
            last_activity_time: when(presence.active_at),
            cloud_to_device_message_count: 0,
            authentication: (&module.authentication).into(),
        }
    }
}

/// A device as queries find it: without its keys.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FoundJson {
    device_id: String,
    etag: String,
    device_etag: String,
    status: &'static str,
    status_reason: Option<String>,
    status_update_time: String,
    connection_state: &'static str,
    last_activity_time: String,
    cloud_to_device_message_count: u64,
    authentication_type: &'static str,
    x509_thumbprint: Thumbprints,
    capabilities: Capabilities,
}

impl FoundJson {
    pub(super) fn new(device: &Device, presence: Presence, pending: u64) -> Self {
        let authentication = AuthenticationJson::from(&device.authentication);
        Self {
            device_id: (*device.id).to_owned(),
            etag: device.etag.clone(),
            device_etag: device.etag.clone(),
            status: status(device.enabled),
            status_reason: device.status_reason.clone(),
            status_update_time: when(device.status_changed_at),
            connection_state: connection_state(presence),
            last_activity_time: when(presence.active_at),
            cloud_to_device_message_count: pending,
            authentication_type: authentication.kind,
            x509_thumbprint: authentication.x509_thumbprint,
            capabilities: Capabilities { iot_edge: false },
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AuthenticationJson {
    symmetric_key: SymmetricKey,
    x509_thumbprint: Thumbprints,
    #[serde(rename = "type")]
    kind: &'static str,
}

impl From<&Authentication> for AuthenticationJson {
    fn from(authentication: &Authentication) -> Self {
        let mut json = Self {
            symmetric_key: SymmetricKey::default(),
            x509_thumbprint: Thumbprints::default(),
            kind: match authentication {
                Authentication::Sas { .. } => SAS,
                Authentication::SelfSigned { .. } => SELF_SIGNED,
                Authentication::CertificateAuthority => CERTIFICATE_AUTHORITY,
                Authentication::None => NONE,
            },
        };
        match authentication {
            Authentication::Sas { primary, secondary } => {
                json.symmetric_key = SymmetricKey {
                    primary_key: Some(primary.to_base64()),
                    secondary_key: Some(secondary.to_base64()),
                };
            }
            Authentication::SelfSigned { primary, secondary } => {
                json.x509_thumbprint = Thumbprints {
                    primary_thumbprint: Some(primary.clone()),
                    secondary_thumbprint: secondary.clone(),
                };
            }
            Authentication::CertificateAuthority | Authentication::None => {}
        }
        json
    }
}

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct SymmetricKey {
    primary_key: Option<String>,
    secondary_key: Option<String>,
}

impl std::fmt::Debug for SymmetricKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SymmetricKey(..)")
    }
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Thumbprints {
    primary_thumbprint: Option<String>,
    secondary_thumbprint: Option<String>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Capabilities {
    iot_edge: bool,
}

const SAS: &str = "sas";
const SELF_SIGNED: &str = "selfSigned";
const CERTIFICATE_AUTHORITY: &str = "certificateAuthority";
const NONE: &str = "none";

pub(super) const fn status(enabled: bool) -> &'static str {
    if enabled { "enabled" } else { "disabled" }
}

pub(super) const fn connection_state(presence: Presence) -> &'static str {
    if presence.connected { "Connected" } else { "Disconnected" }
}

fn when(at: Option<std::time::SystemTime>) -> String {
    at.map_or_else(|| NEVER.to_owned(), time::format)
}

/// An identity as a client wants it. What only the hub decides, and what is not known here, is passed over.
///
/// What is left out stays as it is, with two rules: a status that is given without a reason clears the reason, and keys
/// that are asked for without being given are those the identity has, or new ones.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Wanted {
    pub(super) device_id: Option<String>,
    pub(super) module_id: Option<String>,
    status: Option<String>,
    #[serde(deserialize_with = "given")]
    status_reason: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    managed_by: Option<Option<String>>,
    authentication: Option<WantedAuthentication>,
    capabilities: Option<Capabilities>,
    device_scope: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WantedAuthentication {
    #[serde(rename = "type")]
    kind: Option<String>,
    symmetric_key: Option<SymmetricKey>,
    x509_thumbprint: Option<Thumbprints>,
}

/// Tells `null` from nothing.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl Wanted {
    /// A new device: enabled and with keys unless told otherwise.
    ///
    /// # Errors
    /// `InvalidArgument` for what makes no sense or is not offered here.
    pub(super) fn into_device(self, id: &str) -> Result<NewDevice> {
        let DeviceUpdate { enabled, status_reason, authentication } = self.into_device_update(id)?;
        Ok(NewDevice {
            id: id.to_owned(),
            authentication: exactly(authentication)?,
            enabled: enabled.unwrap_or(true),
            status_reason: status_reason.flatten(),
        })
    }

    /// A change of a device.
    ///
    /// # Errors
    /// As [`Wanted::into_device`].
    pub(super) fn into_device_update(self, id: &str) -> Result<DeviceUpdate> {
        same("deviceId", self.device_id.as_deref(), id)?;
        self.check_offered()?;
        let enabled = match self.status.as_deref() {
            None => None,
            Some(text) if text.eq_ignore_ascii_case("enabled") => Some(true),
            Some(text) if text.eq_ignore_ascii_case("disabled") => Some(false),
            Some(_) => return Err(invalid("status is enabled or disabled")),
        };
        let status_reason = self.status_reason.or(enabled.map(|_| None));
        let authentication = self.authentication.map(WantedAuthentication::read).transpose()?;
        Ok(DeviceUpdate { enabled, status_reason, authentication })
    }

    /// Authentication of a new module, and who looks after it.
    ///
    /// # Errors
    /// As [`Wanted::into_device`].
    pub(super) fn into_module(self, device: &str, id: &str) -> Result<(Authentication, Option<String>)> {
        let ModuleUpdate { managed_by, authentication } = self.into_module_update(device, id)?;
        Ok((exactly(authentication)?, managed_by.flatten()))
    }

    /// A change of a module.
    ///
    /// # Errors
    /// As [`Wanted::into_device`].
    pub(super) fn into_module_update(self, device: &str, id: &str) -> Result<ModuleUpdate> {
        same("deviceId", self.device_id.as_deref(), device)?;
        same("moduleId", self.module_id.as_deref(), id)?;
        self.check_offered()?;
        let authentication = self.authentication.map(WantedAuthentication::read).transpose()?;
        Ok(ModuleUpdate { managed_by: self.managed_by, authentication })
    }

    fn check_offered(&self) -> Result<()> {
        let scope = self.device_scope.as_deref().unwrap_or_default();
        if self.capabilities.as_ref().is_some_and(|wanted| wanted.iot_edge) || !scope.is_empty() {
            return Err(invalid("this hub has no edge devices: no capabilities.iotEdge, no deviceScope"));
        }
        Ok(())
    }
}

impl WantedAuthentication {
    fn read(self) -> Result<NewAuthentication> {
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        let keys = self.symmetric_key.unwrap_or_default();
        let keys = (filled(keys.primary_key), filled(keys.secondary_key));
        let prints = self.x509_thumbprint.unwrap_or_default();
        let prints = (filled(prints.primary_thumbprint), filled(prints.secondary_thumbprint));
        let is = |kind: &str| self.kind.as_deref().is_some_and(|wanted| wanted.eq_ignore_ascii_case(kind));
        let no_kind = self.kind.is_none();
        if is(SELF_SIGNED) || (no_kind && prints.0.is_some()) {
            let (Some(primary), secondary) = prints else {
                return Err(invalid("type selfSigned needs x509Thumbprint.primaryThumbprint"));
            };
            return Ok(NewAuthentication::Exactly(Authentication::SelfSigned { primary, secondary }));
        }
        if is(SAS) || no_kind {
            return match keys {
                (Some(primary), Some(secondary)) => Ok(NewAuthentication::Exactly(Authentication::Sas {
                    primary: Key::from_base64(&primary)?,
                    secondary: Key::from_base64(&secondary)?,
                })),
                (None, None) => Ok(NewAuthentication::KeysOr(new_keys()?)),
                _ => Err(invalid("give both keys, or none to have them made")),
            };
        }
        if is(CERTIFICATE_AUTHORITY) {
            return Ok(NewAuthentication::Exactly(Authentication::CertificateAuthority));
        }
        if is(NONE) {
            return Ok(NewAuthentication::Exactly(Authentication::None));
        }
        Err(invalid("authentication.type is sas, selfSigned, certificateAuthority or none"))
    }
}

fn exactly(authentication: Option<NewAuthentication>) -> Result<Authentication> {
    match authentication {
        Some(NewAuthentication::Exactly(wanted) | NewAuthentication::KeysOr(wanted)) => Ok(wanted),
        None => new_keys(),
    }
}

fn new_keys() -> Result<Authentication> {
    Ok(Authentication::Sas { primary: Key::generate()?, secondary: Key::generate()? })
}

fn same(name: &str, given: Option<&str>, id: &str) -> Result<()> {
    match given {
        Some(given) if given != id => Err(invalid(format!("{name} in the body is not the one in the path"))),
        _ => Ok(()),
    }
}

pub(super) fn invalid(text: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidArgument, "registry.read", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(text: &str) -> Wanted {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_is_left_out_stays() {
        let update = wanted("{}").into_device_update("d").unwrap();
        assert!(
            update.enabled.is_none() && update.status_reason.is_none() && update.authentication.is_none()
        );
        let update = wanted(r#"{"status":"Disabled"}"#).into_device_update("d").unwrap();
        assert_eq!((update.enabled, update.status_reason), (Some(false), Some(None)));
        let update = wanted(r#"{"status":"enabled","statusReason":"ok"}"#).into_device_update("d").unwrap();
        assert_eq!(update.status_reason, Some(Some("ok".into())));
        let update = wanted(r#"{"statusReason":null}"#).into_device_update("d").unwrap();
        assert_eq!((update.enabled, update.status_reason), (None, Some(None)));
    }

    #[test]
    fn ways_to_prove_oneself() {
        let read = |text: &str| {
            wanted(&format!(r#"{{"authentication":{text}}}"#)).into_device_update("d").map(|update| {
                match update.authentication.unwrap() {
                    NewAuthentication::KeysOr(_) => "keys it has, or new ones",
                    NewAuthentication::Exactly(Authentication::Sas { .. }) => "these keys",
                    NewAuthentication::Exactly(Authentication::SelfSigned { .. }) => "thumbprint",
                    NewAuthentication::Exactly(Authentication::CertificateAuthority) => "authority",
                    NewAuthentication::Exactly(Authentication::None) => "none",
                }
            })
        };
        let key = Key::generate().unwrap().to_base64();
        let keys = format!(r#"{{"primaryKey":"{key}","secondaryKey":"{key}"}}"#);
        for (text, expected) in [
            (r#"{}"#.to_owned(), "keys it has, or new ones"),
            (r#"{"type":"sas","symmetricKey":{"primaryKey":null}}"#.to_owned(), "keys it has, or new ones"),
            (r#"{"type":"sas","symmetricKey":null}"#.to_owned(), "keys it has, or new ones"),
            (format!(r#"{{"symmetricKey":{keys}}}"#), "these keys"),
            (
                format!(
                    r#"{{"type":"SAS","symmetricKey":{keys},"x509Thumbprint":{{"primaryThumbprint":""}}}}"#
                ),
                "these keys",
            ),
            (r#"{"type":"selfSigned","x509Thumbprint":{"primaryThumbprint":"AB"}}"#.to_owned(), "thumbprint"),
            (r#"{"x509Thumbprint":{"primaryThumbprint":"AB"}}"#.to_owned(), "thumbprint"),
            (r#"{"type":"certificateAuthority"}"#.to_owned(), "authority"),
            (r#"{"type":"none"}"#.to_owned(), "none"),
        ] {
            assert_eq!(read(&text).unwrap(), expected, "{text}");
        }
        for text in [
            format!(r#"{{"symmetricKey":{{"primaryKey":"{key}"}}}}"#),
            r#"{"type":"sas","symmetricKey":{"primaryKey":"!","secondaryKey":"!"}}"#.to_owned(),
            r#"{"type":"selfSigned"}"#.to_owned(),
            r#"{"type":"password"}"#.to_owned(),
        ] {
            assert!(read(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_refused() {
        for text in [
            r#"{"deviceId":"e"}"#,
            r#"{"status":"broken"}"#,
            r#"{"capabilities":{"iotEdge":true}}"#,
            r#"{"deviceScope":"ms-azure-iot-edge://x"}"#,
        ] {
            assert!(wanted(text).into_device("d").is_err(), "{text}");
        }
        wanted(r#"{"deviceId":"d","capabilities":{"iotEdge":false},"deviceScope":"","etag":"x","new":[]}"#)
            .into_device("d")
            .unwrap();
        assert!(wanted(r#"{"moduleId":"n"}"#).into_module("d", "m").is_err());
    }
}
