//! The driver of the conformance suite: scenarios as data, played against a real hub behind links that fail on demand, by an
//! actor in each language. See `conformance/README.md`.
#![forbid(unsafe_code)]

pub mod actor;
pub mod expect;
pub mod play;
pub mod report;
pub mod scenario;
pub mod skips;
pub mod stage;
