//! The contract's endpoints over HTTP, and our own routes beside them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

#[path = "../http_support/mod.rs"]
mod http_support;

mod commands;
mod document;
mod identities;
mod matrix;
mod messages;
mod modules;
mod service;
mod throttling;
