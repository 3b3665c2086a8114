//! The packages of other languages: built as users get them, with the tools they are developed with.

pub(crate) mod c;
pub(crate) mod kotlin;
pub(crate) mod node;
pub(crate) mod python;
pub(crate) mod swift;
pub(crate) mod uniffi;

use std::path::PathBuf;

use crate::workspace;

/// The folder of the binding of a language.
fn folder(name: &str) -> PathBuf {
    workspace::root().join(name)
}
