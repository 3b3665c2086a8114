//! Who may connect and do what: SAS by device keys and policies, X.509 by thumbprint and CA. Contract `security.md`.
//!
//! Identity comes from the connection, never from what a device wrote.

mod certificates;
mod policies;

use std::{sync::Arc, time::SystemTime};

use rustls_pki_types::CertificateDer;
use whimbrel::{
    Error, ErrorKind, Result,
    auth::{CLOCK_SKEW, Key, SasToken},
};

use crate::registry::{Authentication, Registry};
use certificates::Authorities;

pub use policies::{Policies, Policy, Rights};

/// A device (or module) that was let in.
#[derive(Clone, Debug, PartialEq)]
pub struct Admitted {
    /// Device id.
    pub device: Arc<str>,
    /// Module id.
    pub module: Option<Arc<str>>,
    /// Generation of the identity: stamped on its events.
    pub generation: Arc<str>,
    /// JSON text for `iothub-connection-auth-method`.
    pub auth_method: Arc<str>,
    /// When its token ends; none for certificates.
    pub expires_at: Option<SystemTime>,
}

/// What a service policy allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Read identities.
    RegistryRead,
    /// Create, change, delete identities.
    RegistryWrite,
    /// Read events, send commands.
    ServiceConnect,
    /// Act as a device.
    DeviceConnect,
}

impl Right {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::RegistryRead, Self::RegistryWrite, Self::ServiceConnect, Self::DeviceConnect];

    const fn bit(self) -> u32 {
        match self {
            Self::RegistryRead => 1,
            Self::RegistryWrite => 2,
            Self::ServiceConnect => 4,
            Self::DeviceConnect => 8,
        }
    }
}

/// Texts of `iothub-connection-auth-method`. The event log has short forms for them.
const DEVICE_SAS: &str = r#"{"scope":"device","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}"#;
const HUB_SAS: &str = r#"{"scope":"hub","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}"#;
const DEVICE_X509: &str =
    r#"{"scope":"device","type":"x509","issuer":"iothub","acceptingIpFilterRule":null}"#;

const MODULE_SAS: &str = r#"{"scope":"module","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}"#;
const MODULE_X509: &str =
    r#"{"scope":"module","type":"x509","issuer":"iothub","acceptingIpFilterRule":null}"#;

struct AuthMethods {
    device_sas: Arc<str>,
    hub_sas: Arc<str>,
    device_x509: Arc<str>,
    module_sas: Arc<str>,
    module_x509: Arc<str>,
}

impl AuthMethods {
    /// By a key of its own.
    fn sas(&self, identity: &Identity) -> &Arc<str> {
        if identity.module.is_none() { &self.device_sas } else { &self.module_sas }
    }

    fn x509(&self, identity: &Identity) -> &Arc<str> {
        if identity.module.is_none() { &self.device_x509 } else { &self.module_x509 }
    }
}

/// A device or module that may connect, if it can prove that it is the one.
struct Identity {
    device: Arc<str>,
    module: Option<Arc<str>>,
    generation: Arc<str>,
    authentication: Authentication,
}

/// The door. Cheap to clone.
///
/// Refusals are `Unauthorized` and say for the log what was wrong; they never carry a key, a signature or a token. Who
/// was refused should hear no more than that.
#[derive(Clone)]
pub struct Access {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    policies: Policies,
    authorities: Authorities,
    host_name: Arc<str>,
    auth_methods: AuthMethods,
}

impl Access {
    /// The door to a hub. `authorities` are the CA certificates that may sign for devices; `host_name` is the name that
    /// tokens are made for.
    ///
    /// # Errors
    /// `InvalidArgument` when a CA certificate cannot be read.
    pub fn new(
        registry: Registry,
        policies: Policies,
        authorities: &[CertificateDer<'_>],
        host_name: impl Into<Arc<str>>,
    ) -> Result<Self> {
        let inner = Inner {
            registry,
            policies,
            authorities: Authorities::new(authorities)?,
            host_name: host_name.into(),
            auth_methods: AuthMethods {
                device_sas: DEVICE_SAS.into(),
                hub_sas: HUB_SAS.into(),
                device_x509: DEVICE_X509.into(),
                module_sas: MODULE_SAS.into(),
                module_x509: MODULE_X509.into(),
            },
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Lets a device in by a SAS token (of its own key, or of a policy with `DeviceConnect`). Blocks for a moment when
    /// the device did not connect lately, as do the other ways in.
    ///
    /// # Errors
    /// `Unauthorized`, saying for the log what was wrong: unknown or disabled device, expired, wrong scope, wrong key.
    /// `JournalIo` when the registry cannot be read.
    pub fn device_by_token(
        &self,
        device: &str,
        module: Option<&str>,
        token: &str,
        now: SystemTime,
    ) -> Result<Admitted> {
        let inner = &*self.inner;
        let token = SasToken::parse(token)?;
        let expires_at = token.expires_at();
        check_time(expires_at, now)?;
        let identity = inner.identity(device, module)?;
        let host = &inner.host_name;
        // What a key of its own may sign for at most, and what would be more than that.
        let (resource, wider) = match module {
            None => (format!("{host}/devices/{device}"), format!("{host}/devices")),
            Some(module) => {
                let device = format!("{host}/devices/{device}");
                (format!("{device}/modules/{module}"), format!("{device}/modules"))
            }
        };
        if !token.covers(&resource) {
            return Err(refused("the token is for another device or hub"));
        }
        let auth_method = match named(token.policy.as_deref()) {
            Some(policy) => {
                let policy = inner.policy(policy, Right::DeviceConnect)?;
                if !any_key(&policy.primary, &policy.secondary, |key| token.is_signed_by(key)) {
                    return Err(wrong_key(Some(&policy.name)));
                }
                &inner.auth_methods.hub_sas
            }
            None => {
                // A key speaks for its device (or module) alone, so its token may name nothing wider.
                if token.covers(&wider) {
                    return Err(refused("the token of a device's key is for more than that device"));
                }
                let (primary, secondary) = keys_of(&identity)?;
                if !any_key(primary, secondary, |key| token.is_signed_by(key)) {
                    return Err(wrong_key(None));
                }
                inner.auth_methods.sas(&identity)
            }
        };
        Ok(admitted(&identity, auth_method, Some(expires_at)))
    }

    /// MQTT 5 preview form: a raw HMAC over the string to sign of contract `mqtt.md`, part 2.
    ///
    /// # Errors
    /// As [`Access::device_by_token`].
    #[allow(clippy::too_many_arguments)] // The parts of one CONNECT.
    pub fn device_by_signature(
        &self,
        device: &str,
        module: Option<&str>,
        policy: Option<&str>,
        signed: &[u8],
        signature: &[u8],
        expires_at: SystemTime,
        now: SystemTime,
    ) -> Result<Admitted> {
        let inner = &*self.inner;
        check_time(expires_at, now)?;
        let identity = inner.identity(device, module)?;
        let made_by = |key: &Key| key.verifies(&[signed], signature);
        let auth_method = match named(policy) {
            Some(policy) => {
                let policy = inner.policy(policy, Right::DeviceConnect)?;
                if !any_key(&policy.primary, &policy.secondary, made_by) {
                    return Err(wrong_key(Some(&policy.name)));
                }
                &inner.auth_methods.hub_sas
            }
            None => {
                let (primary, secondary) = keys_of(&identity)?;
                if !any_key(primary, secondary, made_by) {
                    return Err(wrong_key(None));
                }
                inner.auth_methods.sas(&identity)
            }
        };
        Ok(admitted(&identity, auth_method, Some(expires_at)))
    }

    /// Lets a device in by the certificate chain it presented in the TLS handshake (leaf first).
    ///
    /// # Errors
    /// As [`Access::device_by_token`].
    pub fn device_by_certificate(
        &self,
        device: &str,
        module: Option<&str>,
        chain: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<Admitted> {
        let inner = &*self.inner;
        let identity = inner.identity(device, module)?;
        match &identity.authentication {
            Authentication::Sas { .. } => {
                return Err(refused("the device proves itself by a key, not by a certificate"));
            }
            Authentication::SelfSigned { primary, secondary } => {
                let wanted: &[&str] = match secondary {
                    Some(secondary) => &[primary, secondary],
                    None => &[primary],
                };
                certificates::check_thumbprint(chain, wanted, now)?;
            }
            Authentication::CertificateAuthority => {
                inner.authorities.check(chain, now)?;
                let name = certificates::common_name(chain)?;
                let is_its_own = match module {
                    None => name == device,
                    Some(module) => name.split_once('/') == Some((device, module)),
                };
                if !is_its_own {
                    return Err(refused(
                        "the common name of the certificate is not the device id (deviceId/moduleId of a module)",
                    ));
                }
            }
            Authentication::None => return Err(refused("the device has no way to prove itself")),
        }
        Ok(admitted(&identity, inner.auth_methods.x509(&identity), None))
    }

    /// Checks a service's token, or the bare key of a policy as bearer (`policy:key`, after `Bearer ` or without it),
    /// for a right on a resource (path below the host, such as `devices` or `messages/events`). Returns the policy's
    /// name.
    ///
    /// # Errors
    /// `Unauthorized`; with the detail `right` when the credentials are good and all that is missing is the right.
    pub fn service(
        &self,
        authorization: &str,
        right: Right,
        resource: &str,
        now: SystemTime,
    ) -> Result<Arc<str>> {
        let inner = &*self.inner;
        let credential = strip_prefix_ignoring_case(authorization.trim(), "bearer ")
            .map_or(authorization.trim(), str::trim_start);
        if strip_prefix_ignoring_case(credential, "sharedaccesssignature").is_none() {
            return inner.service_by_key(credential, right);
        }
        let token = SasToken::parse(credential)?;
        check_time(token.expires_at(), now)?;
        let Some(policy) = named(token.policy.as_deref()) else {
            return Err(refused("the token names no policy (skn); a device's key is not for services"));
        };
        let policy = inner.known_policy(policy)?;
        if !token.covers(&format!("{}/{}", inner.host_name, resource.trim_matches('/'))) {
            return Err(refused("the token is for another resource").with("resource", resource));
        }
        // Event Hubs programs sign with the text of the key.
        let made_by = |key: &Key| {
            token.is_signed_by(key) || token.is_signed_by(&Key::from_bytes(key.to_base64().as_bytes()))
        };
        if !any_key(&policy.primary, &policy.secondary, made_by) {
            return Err(wrong_key(Some(&policy.name)));
        }
        allows(policy, right)?;
        Ok(Arc::clone(&policy.name))
    }

    /// Host name that tokens are made for.
    pub fn host_name(&self) -> &str {
        &self.inner.host_name
    }

    /// The policies, with their keys.
    pub fn policies(&self) -> &Policies {
        &self.inner.policies
    }
}

impl Inner {
    /// The identity, when it exists and may connect: a module only while its device may.
    fn identity(&self, device: &str, module: Option<&str>) -> Result<Identity> {
        let known = self.registry.known(device)?.ok_or_else(|| refused("there is no such device"))?;
        if !known.enabled {
            return Err(refused("the device is disabled"));
        }
        let Some(module) = module else {
            return Ok(Identity {
                device: Arc::clone(&known.id),
                module: None,
                generation: Arc::clone(&known.generation),
                authentication: known.authentication.clone(),
            });
        };
        let module =
            self.registry.known_module(device, module)?.ok_or_else(|| refused("there is no such module"))?;
        Ok(Identity {
            device: Arc::clone(&known.id),
            module: Some(module.id),
            generation: module.generation,
            authentication: module.authentication,
        })
    }

    fn policy(&self, name: &str, right: Right) -> Result<&Policy> {
        let policy = self.known_policy(name)?;
        allows(policy, right)?;
        Ok(policy)
    }

    fn known_policy(&self, name: &str) -> Result<&Policy> {
        self.policies.get(name).map_err(|_| refused("there is no such policy").with("policy", name))
    }

    fn service_by_key(&self, credential: &str, right: Right) -> Result<Arc<str>> {
        let Some((name, text)) = credential.split_once(':') else {
            return Err(refused("neither a SAS token nor a policy's name and key (policy:key)"));
        };
        let key = Key::from_base64(text).map_err(|_| refused("the key is not base64"))?;
        let policy = self.known_policy(name)?;
        // Compared as signatures, which takes the same time wherever they differ.
        let label: &[u8] = b"whimbrel bearer";
        let given = key.sign(label);
        if !any_key(&policy.primary, &policy.secondary, |known| known.verifies(&[label], &given)) {
            return Err(wrong_key(Some(name)));
        }
        allows(policy, right)?;
        Ok(Arc::clone(&policy.name))
    }
}

/// Asked after the key was shown to be right: what a policy may do is nobody else's business.
fn allows(policy: &Policy, right: Right) -> Result<()> {
    if policy.rights.contain(right) {
        return Ok(());
    }
    Err(refused("the policy does not allow this")
        .with("policy", &policy.name)
        .with("right", format_args!("{right:?}")))
}

fn keys_of(identity: &Identity) -> Result<(&Key, &Key)> {
    match &identity.authentication {
        Authentication::Sas { primary, secondary } => Ok((primary, secondary)),
        Authentication::None => Err(refused("the device has no way to prove itself")),
        _ => Err(refused("the device proves itself by a certificate, not by a key")),
    }
}

/// Tries both keys always, so that the time taken does not tell which one it was.
fn any_key(primary: &Key, secondary: &Key, is_right: impl Fn(&Key) -> bool) -> bool {
    let (first, second) = (is_right(primary), is_right(secondary));
    first | second
}

fn check_time(expires_at: SystemTime, now: SystemTime) -> Result<()> {
    match expires_at.checked_add(CLOCK_SKEW) {
        Some(end) if end <= now => Err(refused("the token has expired")),
        _ => Ok(()),
    }
}

fn admitted(identity: &Identity, auth_method: &Arc<str>, expires_at: Option<SystemTime>) -> Admitted {
    Admitted {
        device: Arc::clone(&identity.device),
        module: identity.module.clone(),
        generation: Arc::clone(&identity.generation),
        auth_method: Arc::clone(auth_method),
        expires_at,
    }
}

/// An empty name counts as none.
fn named(policy: Option<&str>) -> Option<&str> {
    policy.filter(|name| !name.is_empty())
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn refused(text: &'static str) -> Error {
    Error::new(ErrorKind::Unauthorized, "access", text)
}

fn wrong_key(policy: Option<&str>) -> Error {
    let error = refused("the signature was made with another key, or over other text");
    match policy {
        Some(policy) => error.with("policy", policy),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_log_has_short_forms_of_what_is_stamped() {
        for text in [DEVICE_SAS, HUB_SAS, DEVICE_X509, MODULE_SAS, MODULE_X509] {
            assert!(crate::store::AUTH_METHODS.contains(&text), "{text}");
        }
    }
}
