//! Fixtures for the tests of this and other crates.

mod link;

pub use link::{Fault, Link, LinkCounts};
