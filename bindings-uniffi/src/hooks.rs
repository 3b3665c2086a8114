//! What only the packages' own tests use.

use whimbrel::{ErrorKind, Result};
use whimbrel_bindings_support::guard;

use crate::{
    Failure,
    call::{Cancel, run},
};

/// A row of the table of errors.
#[derive(Clone, Debug, uniffi::Record)]
pub struct ErrorKindRow {
    /// The name.
    pub name: String,
    /// The number.
    pub code: u16,
    /// Whether repeating the call can help.
    pub retry: String,
}

/// Every kind of error.
#[uniffi::export]
pub fn error_kinds() -> Vec<ErrorKindRow> {
    let row = |kind: &ErrorKind| ErrorKindRow {
        name: kind.name().to_owned(),
        code: kind.code(),
        retry: kind.retry().name().to_owned(),
    };
    ErrorKind::ALL.iter().map(row).collect()
}

/// The version of the native half.
#[uniffi::export]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

/// Panics, to test that nothing but an error comes of it.
#[uniffi::export]
pub fn panic_now(text: String) -> Result<(), Failure> {
    Ok(guard("test.panic", || panic!("{text}"))?)
}

/// Panics on a thread of the runtime.
#[uniffi::export]
pub async fn panic_later(text: String, cancel: Cancel) -> Result<(), Failure> {
    run("test.panic", cancel, async move { if text.is_empty() { Ok(()) } else { panic!("{text}") } }).await
}
