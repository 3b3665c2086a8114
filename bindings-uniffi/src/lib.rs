//! The native half of the Kotlin and Swift packages: conversion only. What programs see is written in those languages, in
//! `kotlin/` and `swift/`; what the generator makes of this crate is private to them.
//!
//! Nothing here belongs to an executor: what waits only for news (receipts, commands, states, the disk) is polled by whoever
//! awaits it; what needs timers or the disk runs on the runtime of `bindings-support`, for which each open client has a lease.
//!
//! **Cancelling.** Dropping a future stops the waiting, as Kotlin does when a coroutine is cancelled. Swift does not drop
//! futures, so everything that waits takes a [`CancelToken`], too; its error is `Cancelled` then.
//!
//! "Not given" is `None`, and has its default in the core. Times are milliseconds.
// Errors and taken items are written to a buffer as soon as they are made: to box them first would be one allocation more.
#![allow(clippy::result_large_err, clippy::large_enum_variant)]

mod call;
mod commands;
mod connection;
mod device;
mod error;
mod hooks;
mod hot;
mod log;
mod options;
mod values;

pub use call::CancelToken;
pub use commands::{Command, Inbox, TakenCommand};
pub use connection::{ConnectionChanges, TakenState};
pub use device::Device;
pub use error::{Circumstances, Failure};
pub use hooks::{ErrorKindRow, error_kinds, panic_later, panic_now, version};
pub use hot::whimbrel_uniffi_accept;
pub use log::{LogFailure, LogLevel, LogRecord, LogSink, set_log};
pub use options::{DeviceOptions, Durability, Lane, Overflow, Protocol};
pub use values::{
    Account, ConnectionState, Counters, Draft, Outcome, Outgoing, Property, Receipt, ReceiptState, Received,
    Stored,
};

uniffi::setup_scaffolding!("whimbrel");
