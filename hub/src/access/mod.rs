//! Who may connect and do what: SAS by device keys and policies, X.509 by thumbprint and CA. Contract `security.md`.
//!
//! Identity comes from the connection, never from what a device wrote.

use std::{sync::Arc, time::SystemTime};

use rustls_pki_types::CertificateDer;
use whimbrel::Result;

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

/// The door.
#[derive(Clone)]
pub struct Access {}

impl Access {
    /// Lets a device in by a SAS token (of its own key, or of a policy with `DeviceConnect`).
    ///
    /// # Errors
    /// `Unauthorized`, saying for the log what was wrong: unknown or disabled device, expired, wrong scope, wrong key.
    pub fn device_by_token(
        &self,
        device: &str,
        module: Option<&str>,
        token: &str,
        now: SystemTime,
    ) -> Result<Admitted> {
        let _ = (device, module, token, now);
        unimplemented!()
    }

    /// MQTT 5 preview form: a raw HMAC over the string to sign of contract `mqtt.md`, part 2.
    ///
    /// # Errors
    /// As [`Access::device_by_token`].
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
        let _ = (device, module, policy, signed, signature, expires_at, now);
        unimplemented!()
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
        let _ = (device, module, chain, now);
        unimplemented!()
    }

    /// Checks a service's token, or the bare key of a policy as bearer (`policy:key`), for a right on a resource (path
    /// below the host, such as `devices` or `messages/events`). Returns the policy's name.
    ///
    /// # Errors
    /// `Unauthorized`.
    pub fn service(
        &self,
        authorization: &str,
        right: Right,
        resource: &str,
        now: SystemTime,
    ) -> Result<Arc<str>> {
        let _ = (authorization, right, resource, now);
        unimplemented!()
    }

    /// Host name that tokens are made for.
    pub fn host_name(&self) -> &str {
        unimplemented!()
    }
}
