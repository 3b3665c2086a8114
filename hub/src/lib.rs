//! The Whimbrel hub as a library: stores what devices send, durably, before it acknowledges, and lets a back end read
//! it. `Hub::builder()…start()` runs one in this process.
#![forbid(unsafe_code)]

pub mod access;
mod builder;
pub mod commands;
pub mod config;
pub mod events;
mod files;
mod fronts;
pub mod limits;
pub mod registry;
mod service_file;
mod sessions;
pub mod store;
mod tls;

pub use builder::{CaCertificate, Hub, HubBuilder};
pub use config::{Config, Listen, Size};
pub use service_file::ServiceFile;

/// The quick start is a test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
