//! Device identities: keys, status, generations. Contract `http.md`, "Identity registry".

use std::{sync::Arc, time::SystemTime};

use whimbrel::{Result, auth::Key};

/// A device as the registry knows it.
#[derive(Clone, Debug)]
pub struct Device {
    /// Id, case-sensitive, at most 128 characters.
    pub id: Arc<str>,
    /// Unique for each creation.
    pub generation: Arc<str>,
    /// Changes with every change.
    pub etag: String,
    /// Whether it may connect.
    pub enabled: bool,
    /// How it proves itself.
    pub authentication: Authentication,
    /// When it was created.
    pub created_at: SystemTime,
}

/// How a device proves itself.
#[derive(Clone, Debug)]
pub enum Authentication {
    /// SAS by either key.
    Sas {
        /// First key.
        primary: Key,
        /// Second key.
        secondary: Key,
    },
    /// A certificate with one of these thumbprints (40 or 64 hexadecimal digits).
    SelfSigned {
        /// First thumbprint.
        primary: String,
        /// Second thumbprint.
        secondary: Option<String>,
    },
    /// A certificate signed by a CA the hub was given; its common name is the device id.
    CertificateAuthority,
}

/// Which key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySlot {
    /// First key.
    Primary,
    /// Second key.
    Secondary,
}

/// What happened to a device that sessions have to react to.
#[derive(Clone, Debug)]
pub enum Change {
    /// It may no longer be connected with what it connected with: disabled, deleted or credentials changed.
    Revoked(Arc<str>),
}

/// All device identities. Cheap to clone. Calls block for a moment (embedded database): use `spawn_blocking` for lists.
#[derive(Clone)]
pub struct Registry {}

impl Registry {
    /// Creates a device with new keys.
    ///
    /// # Errors
    /// `Conflict` when it exists; `InvalidArgument` for a bad id.
    pub async fn create(&self, id: &str) -> Result<Registered> {
        let _ = id;
        unimplemented!()
    }

    /// Creates a device that proves itself in the given way.
    ///
    /// # Errors
    /// As [`Registry::create`].
    pub async fn create_with(&self, id: &str, authentication: Authentication) -> Result<Registered> {
        let _ = (id, authentication);
        unimplemented!()
    }

    /// One device.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get(&self, id: &str) -> Result<Registered> {
        let _ = id;
        unimplemented!()
    }

    /// Up to `limit` devices with ids after `after`, in order of id.
    ///
    /// # Errors
    /// `JournalIo` when the database cannot be read.
    pub async fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<Registered>> {
        let _ = (after, limit);
        unimplemented!()
    }

    /// Lets a device connect, or not; connected ones are dropped.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when `etag` is given and no longer current.
    pub async fn set_enabled(&self, id: &str, enabled: bool, etag: Option<&str>) -> Result<Registered> {
        let _ = (id, enabled, etag);
        unimplemented!()
    }

    /// Replaces one key by a new one; connected devices that used it are dropped.
    ///
    /// # Errors
    /// As [`Registry::set_enabled`]; `InvalidArgument` when the device has no keys.
    pub async fn rotate_key(&self, id: &str, slot: KeySlot, etag: Option<&str>) -> Result<Registered> {
        let _ = (id, slot, etag);
        unimplemented!()
    }

    /// Removes a device.
    ///
    /// # Errors
    /// As [`Registry::set_enabled`].
    pub async fn delete(&self, id: &str, etag: Option<&str>) -> Result<()> {
        let _ = (id, etag);
        unimplemented!()
    }

    /// Changes that sessions have to react to.
    pub fn changes(&self) -> tokio::sync::broadcast::Receiver<Change> {
        unimplemented!()
    }
}

/// A device, and how to connect as it.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The identity.
    pub device: Device,
    pub(crate) host_name: Arc<str>,
}

impl Registered {
    /// What the device program needs: `HostName=…;DeviceId=…;SharedAccessKey=…`.
    pub fn connection_string(&self) -> String {
        let _ = (&self.device, &self.host_name);
        unimplemented!()
    }
}
