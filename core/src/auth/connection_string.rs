//! `key=value` pairs joined by `;`.

use std::str::FromStr;

use super::Key;
use crate::{Error, Result};

/// A parsed connection string of a device, a module, a service or an Event Hubs reader.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionString {
    /// `HostName`: the hub's name in tokens and user names.
    pub host_name: String,
    /// `GatewayHostName`: connect there instead, keep `host_name` everywhere else.
    pub gateway_host_name: Option<String>,
    /// `DeviceId`.
    pub device_id: Option<String>,
    /// `ModuleId`.
    pub module_id: Option<String>,
    /// How to prove who we are.
    pub credential: Credential,
}

/// How to prove who we are.
#[derive(Clone, Debug, PartialEq)]
pub enum Credential {
    /// `SharedAccessKey`, with `SharedAccessKeyName` when it is a policy's.
    Key {
        /// The policy; none for a device's own key.
        policy: Option<String>,
        /// The key; never printed.
        key: Key,
    },
    /// `SharedAccessSignature`: a token made elsewhere, used as it is.
    Token(String),
    /// `x509=true`: a client certificate given with the options.
    X509,
}

impl FromStr for ConnectionString {
    type Err = Error;

    /// # Errors
    /// `InvalidArgument` naming the part that is missing, unknown, doubled or malformed. Never prints a key.
    fn from_str(text: &str) -> Result<Self> {
        let _ = text;
        unimplemented!()
    }
}
