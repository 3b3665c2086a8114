//! Shared access signatures.

use std::{fmt, time::SystemTime};

use crate::Result;

/// A symmetric key, decoded. Wiped from memory when dropped; `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(zeroize::Zeroizing<Vec<u8>>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// From the base64 text in a connection string.
    ///
    /// # Errors
    /// `InvalidArgument` when the text is not base64 or empty.
    pub fn from_base64(text: &str) -> Result<Self> {
        let _ = text;
        unimplemented!()
    }

    /// From raw bytes (the UTF-8 text of the key, for the Event Hubs form).
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(zeroize::Zeroizing::new(bytes.to_vec()))
    }

    /// A new random key of 32 bytes.
    ///
    /// # Errors
    /// `Internal` when the system has no randomness to give.
    pub fn generate() -> Result<Self> {
        unimplemented!()
    }

    /// The base64 text, for a connection string.
    pub fn to_base64(&self) -> String {
        unimplemented!()
    }

    /// HMAC-SHA256 over `data`.
    pub fn sign(&self, data: &[u8]) -> [u8; 32] {
        let _ = data;
        unimplemented!()
    }
}

/// A token as it travels: `SharedAccessSignature sr=…&sig=…&se=…[&skn=…]`.
#[derive(Clone, PartialEq, Eq)]
pub struct SasToken {
    /// The resource as it stands encoded in the token; the signature is over these bytes.
    pub resource: String,
    /// Decoded signature.
    pub signature: Vec<u8>,
    /// Seconds since 1970-01-01Z.
    pub expiry: u64,
    /// The policy; an empty one counts as absent.
    pub policy: Option<String>,
}

impl SasToken {
    /// Makes the text of a token for `resource` (not encoded, such as `hub/devices/d1`).
    pub fn issue(resource: &str, key: &Key, policy: Option<&str>, expires_at: SystemTime) -> String {
        let _ = (resource, key, policy, expires_at);
        unimplemented!()
    }

    /// Reads a token: fields in any order, names in any case, escapes in any case.
    ///
    /// # Errors
    /// `Unauthorized` naming the part that is missing or malformed; never prints the signature.
    pub fn parse(text: &str) -> Result<Self> {
        let _ = text;
        unimplemented!()
    }

    /// Whether `key` made the signature, in constant time.
    pub fn is_signed_by(&self, key: &Key) -> bool {
        let _ = key;
        unimplemented!()
    }

    /// Whether the scope covers `resource` (not encoded) by whole path segments: host compared without case, the
    /// rest with case, the token's resource decoded once or twice.
    pub fn covers(&self, resource: &str) -> bool {
        let _ = resource;
        unimplemented!()
    }
}
