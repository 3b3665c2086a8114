//! Whimbrel: durable messages between devices and a back end, at least once, through bad networks and power cuts.
//!
//! Start at [`DeviceClient`]. The modules [`journal`] and [`wire`] are shared with the hub and are not covered by the
//! promise of stable versions.
#![forbid(unsafe_code)]

pub mod auth;
pub mod delivery;
pub mod device;
mod error;
pub mod journal;
pub mod message;
pub mod outbox;
#[cfg(feature = "testing")]
pub mod testing;
pub mod transport;
pub mod wire;

pub use device::{ConnectionState, DeviceClient, DeviceOptions};
#[doc(hidden)]
pub use error::error_table_markdown;
pub use error::{Error, ErrorKind, Result, Retry};
pub use message::{Lane, Message, Properties, SystemProperties};
pub use outbox::{Account, Counters, DropReason, Durability, Outcome, Overflow, Receipt, ReceiptState};
