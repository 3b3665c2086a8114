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

/// A change of one device.
#[derive(Clone, Debug)]
pub enum DeviceChange {
    /// May connect, or not.
    Enabled(bool),
    /// A new key in one slot; the device has to have keys.
    Key(KeySlot, Key),
    /// Another way to prove itself.
    Authentication(Authentication),
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
