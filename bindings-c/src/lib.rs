//! The C library: `include/whimbrel.h` is generated from the documentation here, so it is written for readers of C.
//!
//! Conversion only; what a call means is in the core. All pointers of a program pass [`border`], all its function pointers
//! [`callback`]. Why it looks as it does: `docs/adr/0014-c-border.md`.
#![allow(non_camel_case_types, reason = "the names are those of C")]
#![allow(clippy::missing_safety_doc, reason = "the head of the header says it for all functions")]
#![allow(clippy::upper_case_acronyms, reason = "the names are those of C")]

mod border;
pub mod call;
pub mod callback;
pub mod cancel;
pub mod command;
pub mod connection;
pub mod device;
mod engine;
pub mod error;
pub mod figures;
pub mod inbox;
pub mod lifecycle;
pub mod log;
pub mod message;
pub mod options;
pub mod receipt;
mod stream;
pub mod version;
pub mod words;

#[cfg(feature = "test-hooks")]
pub mod hooks;
