//! Fixtures for the tests of this and other crates.

mod disk;
mod link;

pub use disk::{CrashDisk, Deeds, Dice, Survivors};
pub use link::{Fault, Link, LinkCounts};
