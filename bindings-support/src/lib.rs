//! What the bindings of all languages share, so that each of them holds conversion only: the runtime, started calls and the
//! port through which their results go back, streams taken by pull, options, documents, error rows, the panic guard, and the
//! log.
//!
//! The shape of every binding, and why: `docs/adr/0012-bindings.md`.
#![forbid(unsafe_code)]

mod call;
pub mod document;
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
pub use error::envelope;
pub use guard::{guard, guarded};
pub use log::{LogRecord, LogRecords, logs, set_log_level};
pub use message::Draft;
pub use options::{
    DeviceSettings, EventsSettings, PositionSetting, SendSettings, ServiceSettings, names, settings,
};
pub use port::Port;
pub use pull::{ConnectionStates, Pull, Source};
pub use runtime::{Bound, Lease, after_fork, running_runtime, runtime};
pub use sends::Sends;
pub use storing::Storing;
