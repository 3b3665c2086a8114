//! The AMQP front over real sockets, spoken to by an AMQP library of others.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod client;
mod commands;
mod events_access;
mod events_client;
mod events_reading;
mod garbage;
mod opening;
mod raw;
mod telemetry;
mod transports;
