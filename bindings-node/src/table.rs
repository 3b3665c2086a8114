//! The tables of the core, for the tests that compare the shell with them.

use napi_derive::napi;
use serde_json::{Value, json};
use whimbrel::ErrorKind;

/// Kinds of errors as JSON: name, number, and whether repeating the call can help.
#[napi(catch_unwind)]
pub fn error_kinds() -> String {
    let row = |kind: &ErrorKind| json!([kind.name(), kind.code(), kind.retry().name()]);
    Value::from_iter(ErrorKind::ALL.iter().map(row)).to_string()
}

/// The version of the native half.
#[napi(catch_unwind)]
pub fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
