//! Fixtures for the tests of this and other crates.
