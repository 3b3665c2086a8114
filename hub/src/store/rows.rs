//! What is kept besides events: device identities, sessions, policies, positions of consumer groups.

use std::{sync::Arc, time::SystemTime};

use whimbrel::auth::Key;

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
    /// Why it has this status, as the operator put it.
    pub status_reason: Option<String>,
    /// When the status was last changed; none since it was created.
    pub status_changed_at: Option<SystemTime>,
    /// How it proves itself.
    pub authentication: Authentication,
    /// When it was created.
    pub created_at: SystemTime,
}

/// A module: an identity of its own below a device. It sends events; it has no queue of commands.
#[derive(Clone, Debug)]
pub struct Module {
    /// Id of the device.
    pub device: Arc<str>,
    /// Id within the device, by the rules of device ids.
    pub id: Arc<str>,
    /// Unique for each creation.
    pub generation: Arc<str>,
    /// Changes with every change.
    pub etag: String,
    /// Who looks after it, as the operator put it.
    pub managed_by: Option<String>,
    /// How it proves itself.
    pub authentication: Authentication,
    /// When it was created.
    pub created_at: SystemTime,
}

/// How a device or module proves itself.
#[derive(Clone, Debug, PartialEq)]
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
    /// In no way: it cannot connect by itself.
    None,
}

/// Which key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySlot {
    /// First key.
    Primary,
    /// Second key.
    Secondary,
}

/// A change of one device.
#[derive(Clone, Debug)]
pub enum DeviceChange {
    /// May connect, or not.
    Enabled(bool),
    /// A new key in one slot; the device has to have keys.
    Key(KeySlot, Key),
    /// Another way to prove itself.
    Authentication(Authentication),
    /// Several things at once.
    Update(DeviceUpdate),
}

/// What is to become of a device; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct DeviceUpdate {
    /// May connect, or not.
    pub enabled: Option<bool>,
    /// Why it has its status; an inner `None` clears it.
    pub status_reason: Option<Option<String>>,
    /// How it proves itself.
    pub authentication: Option<NewAuthentication>,
}

/// What is to become of a module; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct ModuleUpdate {
    /// Who looks after it; an inner `None` clears it.
    pub managed_by: Option<Option<String>>,
    /// How it proves itself.
    pub authentication: Option<NewAuthentication>,
}

/// How an identity is to prove itself from now on.
#[derive(Clone, Debug)]
pub enum NewAuthentication {
    /// In exactly this way.
    Exactly(Authentication),
    /// By keys: by those it has, or by these when it has none.
    KeysOr(Authentication),
}

impl NewAuthentication {
    /// What becomes of `old`.
    pub fn after(&self, old: &Authentication) -> Authentication {
        match (self, old) {
            (Self::KeysOr(_), Authentication::Sas { .. }) => old.clone(),
            (Self::Exactly(new) | Self::KeysOr(new), _) => new.clone(),
        }
    }
}

/// A device that is to be.
#[derive(Clone, Debug)]
pub struct NewDevice {
    /// Id.
    pub id: String,
    /// How it will prove itself.
    pub authentication: Authentication,
    /// Whether it may connect.
    pub enabled: bool,
    /// Why.
    pub status_reason: Option<String>,
}

/// An identity after a change.
#[derive(Clone, Debug)]
pub struct Changed<T> {
    /// As it is now.
    pub now: T,
    /// Whether what it was connected with before counts no more.
    pub revoked: bool,
}

/// What is kept of a session while its device, or module, is away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// Generation of the device.
    pub generation: Arc<str>,
    /// What it has subscribed to, as bits that `sessions` gives a meaning.
    pub subscriptions: u32,
}

/// How many devices there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounts {
    /// All of them.
    pub total: u64,
    /// Those that may connect.
    pub enabled: u64,
}

/// A policy of the hub: rights that go with a pair of keys.
#[derive(Clone, Debug)]
pub struct PolicyRow {
    /// Name, such as `iothubowner`.
    pub name: String,
    /// Rights, as bits that `access` gives a meaning.
    pub rights: u32,
    /// First key.
    pub primary: Key,
    /// Second key.
    pub secondary: Key,
}
