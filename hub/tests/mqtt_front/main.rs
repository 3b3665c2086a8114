//! The MQTT front over real sockets: what clients of both versions see, and what is stored.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod client;
mod commands;
mod connecting;
mod garbage;
mod lasting;
mod publishing;
