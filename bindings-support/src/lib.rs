//! What the bindings of all languages share, so that each of them holds conversion only: the runtime, started calls and the
//! port through which their results go back, streams taken by pull, options, documents, error rows, the panic guard, and the
//! log.
//!
//! The shape of every binding, and why: `docs/adr/0012-bindings.md`. The features leave out what a language has no use for:
//! without `service` and `json` nothing is linked but the device's client.
#![forbid(unsafe_code)]

mod call;
#[cfg(feature = "service")]
pub mod document;
#[cfg(feature = "json")]
mod error;
mod guard;
mod log;
mod message;
mod options;
mod port;
mod pull;
mod runtime;
mod sends;
mod storing;

pub use call::{Call, Started};
#[cfg(feature = "json")]
pub use error::envelope;
pub use guard::{guard, guarded};
pub use log::{LogRecord, LogRecords, logs, set_log_level};
pub use message::Draft;
pub use options::DeviceSettings;
#[cfg(feature = "service")]
pub use options::{EventsSettings, PositionSetting, SendSettings, ServiceSettings};
#[cfg(feature = "json")]
pub use options::{names, settings};
pub use port::Port;
pub use pull::{ConnectionStates, Pull, Source};
pub use runtime::{Bound, after_fork};
#[cfg(feature = "shared-runtime")]
pub use runtime::{Lease, running_runtime, runtime};
pub use sends::Sends;
pub use storing::Storing;
