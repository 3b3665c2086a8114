//! Connection strings, SAS tokens, X.509 options, renewal. No network. Facts: contract `security.md`.

mod connection_string;
mod renewal;
mod sas;

pub use connection_string::{ConnectionString, Credential, EventHub};
pub use renewal::{DEFAULT_TOKEN_LIFETIME, Renewal, Token, TokenSource};
pub use sas::{CLOCK_SKEW, Key, SasToken};
