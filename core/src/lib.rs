//! Whimbrel: durable messages between devices and a back end, at least once, through bad networks and power cuts.
//!
//! Start at [`DeviceClient`]. The modules [`journal`] and [`wire`] are shared with the hub and are not covered by the
//! promise of stable versions.
//!
//! ```
//! # use std::time::Duration;
//! use whimbrel::{DeviceClient, DeviceOptions, Message};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let options = DeviceOptions::from_connection_string("HostName=hub.example;DeviceId=d1;SharedAccessKey=c2VjcmV0")?
//!     .outbox_dir(folder.path());
//! # let options = options.server("mqtt://127.0.0.1:9").close_deadline(Duration::ZERO);
//! let device = DeviceClient::open(options).await?; // needs no network
//!
//! let receipt = device.send(Message::telemetry("21.5").content_type("text/plain")).await?;
//! // Now it is on the disk, and will be delivered, after a restart if need be.
//! assert_eq!(device.account().queued, 1);
//! println!("follow it by its id: {}", receipt.message_id());
//! device.close().await?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod auth;
pub mod delivery;
pub mod device;
mod error;
mod inbox;
pub mod journal;
pub mod message;
pub mod outbox;
#[cfg(feature = "service")]
pub mod service;
#[cfg(feature = "testing")]
pub mod testing;
pub mod transport;
pub mod wire;

pub use device::{ConnectionState, DeviceClient, DeviceOptions};
#[doc(hidden)]
pub use error::error_table_markdown;
pub use error::{Error, ErrorKind, Result, Retry};
pub use inbox::{Command, Inbox};
pub use message::{Lane, Message, Properties, SystemProperties};
pub use outbox::{
    Accepted, Account, Counters, DropReason, Durability, Outcome, Overflow, Receipt, ReceiptKey, ReceiptState,
};
