//! Connection strings, SAS tokens, X.509 options, renewal. No network. Facts: contract `security.md`.

mod connection_string;
mod sas;

pub use connection_string::{ConnectionString, Credential};
pub use sas::{Key, SasToken};
